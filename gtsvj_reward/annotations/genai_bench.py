"""GenAI-Bench, video arena: votes between two generated videos."""

from pathlib import Path

from gtsvj_reward.annotations.layout import ComparisonLayout
from gtsvj_reward.annotations.records import Comparisons
from gtsvj_reward.tables import read_table

_LAYOUT = ComparisonLayout(
    video_a="left_video",
    video_b="right_video",
    labels={"overall": "vote_type"},
    words={"leftvote": 1, "rightvote": -1, "tievote": 0, "bothbad_vote": 0},
    prompt="prompt",
    model_a="left_model",
    model_b="right_model",
)


def read_genai_bench(path: str | Path) -> Comparisons:
    """Read a split of GenAI-Bench's `video_generation`; its one dimension is `overall`.

    The left video is A. A vote that both are bad is a tie, like a vote that both are good. Videos
    are named by URLs.

    Args:
        path: a parquet file of one split, or the same rows as JSON, JSONL or CSV.

    Raises:
        ValueError: for a missing column, or a `vote_type` that is not known; with rows and counts.
    """
    return _LAYOUT.read(read_table(path), "GenAI-Bench video")
