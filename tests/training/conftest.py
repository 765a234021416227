"""Fixtures of these tests."""

import pytest

from gtsvj_reward.judge import save_judge
from tests.tiny import tiny_judge, tiny_transformer
from tests.training.stages import write_csv, write_rated


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny transformer."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def world(tmp_path, base):
    """A discriminator, rated clips, compared clips of other videos, and their label files."""
    judge = tiny_judge(base_model=str(base), head_width=16, training={"steps": 7})
    save_judge(judge, tmp_path / "discriminator")
    rated = write_rated(tmp_path / "rated", 16)
    write_csv(tmp_path / "ratings.csv", ["video", "clear", "focus"], rated)
    compared = write_rated(tmp_path / "compared", 24, seed=1)
    pairs = []
    for (a, clear_a, _), (b, clear_b, _) in zip(compared[::2], compared[1::2], strict=True):
        pairs.append((a, b, (clear_a > clear_b) - (clear_a < clear_b)))
    write_csv(tmp_path / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    return tmp_path
