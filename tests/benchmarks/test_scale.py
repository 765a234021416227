"""Times at scale: by hand, and as the page has them."""

from pathlib import Path

from benchmarks.scale import FEATURES, LATENTS, seconds_of, sizes, span, times

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def test_the_page_has_what_is_computed():
    text = PAGE.read_text()
    assert times() in text
    assert sizes() in text


def test_times_and_bytes_by_hand():
    # 0.3316 s a clip: 10^6 clips on 8 GPUs take 41,450 s, 11.5 hours.
    assert seconds_of("CogVideoX-2B", "judge, all blocks") == 0.3316
    assert span(0.3316 * 10**6 / 8) == "11.5 h"
    assert [span(s) for s in (59.0, 60.0, 86400.0 * 120)] == ["59 s", "1 min", "120 d"]
    assert LATENTS == 1_123_200
    assert FEATURES == 40_432
