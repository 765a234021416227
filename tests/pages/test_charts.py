"""Pages: what is escaped, where ticks and bars are, what is refused."""

import re

import pytest

from gtsvj_reward.pages import (
    Axis,
    Markup,
    gallery,
    histogram,
    joined,
    strip,
    table,
    tag,
    trajectory,
    write_page,
)

EVIL = """"><script>alert('x')</script>"""


def test_text_is_escaped_and_markup_is_not():
    made = tag("p", {"title": EVIL, "hidden": True, "id": None, "lang": False}, EVIL, tag("b"))
    assert made.count("<script>") == 0
    assert made.startswith('<p title="&quot;&gt;&lt;script&gt;')
    assert made.endswith("&lt;/script&gt;<b></b></p>")
    assert " hidden>" in made
    assert joined(["<", Markup("<i>")]) == "&lt;<i>"


def test_a_page_runs_its_own_script_alone(tmp_path):
    page = write_page(
        tmp_path / "x.html", kind=EVIL, title=EVIL, lead=EVIL, body=tag("p", {}, EVIL)
    )
    text = page.read_text()
    assert text.count("<script>") == 1
    assert "default-src &#x27;none&#x27;; script-src &#x27;sha256-" in text
    assert "unsafe-inline" not in re.search("script-src([^;]*)", text.replace("&#x27;", "'"))[1]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.0, 1.0, 5, [0.0, 0.5, 1.0]),
        (0.0, 2.125, 5, [0.0, 0.5, 1.0, 1.5, 2.0]),
        (-0.013, 0.011, 3, [-0.01, 0.0, 0.01]),
        (99.0, 101.0, 4, [99.0, 100.0, 101.0]),
    ],
)
def test_ticks_are_round_and_inside(low, high, most, expected):
    assert Axis(low=low, high=high).ticks(most) == pytest.approx(expected)


def test_an_axis_has_room_even_for_one_value():
    assert Axis.around([2.0]) == Axis(low=1.0, high=3.0)
    assert Axis.around([0.0, 10.0], margin=0.1) == Axis(low=-1.0, high=11.0)
    assert Axis(low=0, high=4).share(9) == 1.0


def test_bars_count_every_value_once():
    drawn = histogram([0.0, 0.1, 0.2, 6.0], what="reward", band=(1.0, 2.0))
    counts = [int(n) for n in re.findall(r"<title>(\d+) from", drawn)]
    assert counts == [3, 1]
    assert drawn.count('class="band"') == 1
    with pytest.raises(ValueError, match="got 3 equal ones"):
        histogram([1.0] * 3, what="reward")


def test_a_trajectory_says_what_each_step_covers():
    drawn = trajectory(
        [1.0, -1.0], [(0.0, 0.5), (0.5, 2.5)], axis=Axis(low=-2, high=2), what="score"
    )
    assert "<title>0.50 to 2.50 s: -1.000</title>" in drawn
    assert 'data-seconds="2.5"' in drawn
    # 340 wide, 38 free at the left and 8 at the right; 132 high, 8 free above and 20 below.
    assert 'points="67.4,34 214.4,86"' in drawn
    with pytest.raises(ValueError, match="got 1 and 0"):
        trajectory([1.0], [], axis=Axis(low=0, high=1), what="score")


def test_a_strip_and_a_table():
    drawn = strip(Axis(low=0, high=10), 5.0, spread=(4.0, 20.0), marks=[(2.5, "chance")])
    assert '<i class="at" style="left:50.00%"></i>' in drawn
    assert "left:40.00%;width:60.00%" in drawn
    assert 'style="left:25.00%" title="chance"' in drawn
    made = table([("name", "n"), (EVIL, "3")], numbers=1)
    assert "<script>" not in made
    assert made.count('class="number"') == 2


def test_a_gallery_holds_its_clips_and_escapes_their_labels():
    made = gallery([b"one", b"two"], ["first", EVIL])
    # "one" and "two" in base64
    assert re.findall(r'src="data:video/mp4;base64,([^"]*)"', made) == ["b25l", "dHdv"]
    assert re.findall("<figcaption[^>]*>([^<]*)</figcaption>", made)[0] == "first"
    assert "<script>" not in made
    assert made.count(" autoplay loop muted playsinline ") == 2
    for clips, labels in (([], []), ([b"one"], ["first", "second"])):
        with pytest.raises(ValueError, match="one label for each clip"):
            gallery(clips, labels)
