"""Parts of pages: cards, tables, figures, videos, and what sorts cards."""

from base64 import b64encode
from collections.abc import Sequence

from gtsvj_reward.pages.axes import Axis
from gtsvj_reward.pages.charts import strip
from gtsvj_reward.pages.markup import Markup, joined, tag

TableRow = Sequence[str]
"""Cells; text or `Markup`."""


def card(*children: str, title: str = "", note: str = "") -> Markup:
    """A box with a heading and a line that explains it."""
    head = [tag("h2", {}, title)] if title else []
    said = [tag("p", {"class": "note"}, note)] if note else []
    return tag("section", {"class": "card"}, *head, *said, *children)


def figures(*items: tuple[str, str]) -> Markup:
    """Large numbers, each with what it is."""
    cells = [tag("div", {}, tag("dt", {}, name), tag("dd", {}, value)) for name, value in items]
    return tag("dl", {"class": "figures"}, *cells)


def table(rows: Sequence[TableRow], *, numbers: int = 0) -> Markup:
    """A table; the first row is the header.

    Args:
        rows: all of one length.
        numbers: how many columns at the right hold numbers.
    """
    head, *body = rows
    words = len(head) - numbers

    def line(name: str, cells: TableRow) -> Markup:
        made = [
            tag("th" if name == "th" or place == 0 else "td",
                {"class": "number" if place >= words else None,
                 "scope": "col" if name == "th" else ("row" if place == 0 else None)}, cell)
            for place, cell in enumerate(cells)
        ]  # fmt: skip
        return tag("tr", {}, *made)

    inside = tag("thead", {}, line("th", head)), tag("tbody", {}, *(line("td", r) for r in body))
    return tag("div", {"class": "scroll"}, tag("table", {}, joined(inside)))


def score_line(
    name: str,
    value: float,
    axis: Axis,
    *,
    uncertainty: float | None = None,
    band: tuple[float, float] | None = None,
) -> Markup:
    """The heading of a clip: its name and its score, with a line of where that lies.

    Args:
        name: of the clip.
        value: its score.
        axis: from one end of the line to the other.
        uncertainty: standard deviation of the score, where it is known.
        band: a range to shade.
    """
    said, spread = [f"{value:+.3f}"], None
    if uncertainty is not None:
        said.append(tag("small", {}, f" ± {uncertainty:.3f}"))
        spread = (value - uncertainty, value + uncertainty)
    heading = tag(
        "h3",
        {},
        tag("span", {"class": "file"}, name),
        tag("span", {"class": "score"}, *said),
    )
    return joined([heading, strip(axis, value, spread=spread, band=band)])


def video(mp4: bytes | str, *, label: str) -> Markup:
    """A clip that plays while it is in view.

    Args:
        mp4: its bytes, which go into the page; or where it lies beside the page.
        label: description of its content.
    """
    source = mp4 if isinstance(mp4, str) else f"data:video/mp4;base64,{b64encode(mp4).decode()}"
    return tag("video", {"src": source, "loop": True, "muted": True, "playsinline": True,
                         "controls": True, "preload": "auto", "aria-label": label})  # fmt: skip


def gallery(clips: Sequence[bytes], labels: Sequence[str], *, width: int = 130) -> Markup:
    """Clips side by side that play by themselves, for `IPython.display.HTML` in a notebook.

    Args:
        clips: mp4 files, such as `gtsvj_reward.latents.preview` makes; they go into the text.
        labels: caption of each.
        width: of a clip on the page, in pixels.

    Raises:
        ValueError: for another number of labels than of clips, or none.
    """
    if not clips or len(clips) != len(labels):
        raise ValueError(f"expected one label for each clip, got {len(labels)} for {len(clips)}")
    cells = []
    for mp4, label in zip(clips, labels, strict=True):
        source = f"data:video/mp4;base64,{b64encode(mp4).decode()}"
        plays = {"autoplay": True, "loop": True, "muted": True, "playsinline": True}
        playing = tag("video", {"src": source, **plays, "width": width, "aria-label": label})
        said = tag("figcaption", {"style": "font-size:small"}, label)
        cells.append(tag("figure", {"style": f"margin:4px;width:{width}px"}, playing, said))
    return tag("div", {"style": "display:flex;flex-wrap:wrap"}, *cells)


def tools(
    keys: Sequence[str],
    *,
    groups: Sequence[str] = (),
    group: str = "Group",
    curves: Sequence[str] = (),
    only: str = "",
) -> Markup:
    """Search, order and choice of the cards in the element `clips`, for the script of the page.

    Args:
        keys: names of what cards are sorted by, in the order of their `data-values`.
        groups: values of `data-group`; fewer than two are no choice.
        group: what a group is.
        curves: values of `data-curve`, likewise.
        only: what the cards with `data-untrained` are; empty if there are none.
    """
    parts = [
        _labelled("Search", tag("input", {"type": "search", "name": "search"})),
        _labelled("Sort by", _select("key", [(name, name) for name in keys])),
        _box("up", "lowest first"),
    ]
    if len(groups) > 1:
        options = [("", "all"), *((name, name or "(none)") for name in groups)]
        parts.append(_labelled(group, _select("group", options)))
    if len(curves) > 1:
        parts.append(_labelled("Curve", _select("curve", [(name, name) for name in curves])))
    if only:
        parts.append(_box("untrained", f"only {only}"))
    parts.append(tag("output", {"name": "found", "aria-live": "polite"}))
    return tag("form", {"class": "tools", "id": "tools", "aria-label": "Cards"}, *parts)


def _labelled(name: str, control: Markup) -> Markup:
    return tag("label", {}, tag("span", {}, name), control)


def _box(name: str, said: str) -> Markup:
    return tag("label", {"class": "box"}, tag("input", {"type": "checkbox", "name": name}), said)


def _select(name: str, options: Sequence[tuple[str, str]]) -> Markup:
    made = [tag("option", {"value": value}, said) for value, said in options]
    return tag("select", {"name": name}, *made)
