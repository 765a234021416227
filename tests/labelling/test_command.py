"""What `gtsvj label` makes of its flags."""

import pytest

from gtsvj_reward.cli.label import parser, rated_aspects
from gtsvj_reward.judge import save_judge
from tests.tiny import ASPECTS, tiny_aspect_judge, tiny_judge


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("overall",)),
        (["--task", "rate"], ("overall",)),
        (["--task", "rate", "--judge", "aspects"], tuple(aspect.name for aspect in ASPECTS)),
        (["--task", "rate", "--judge", "aspects", "--aspects", "calm"], ("calm",)),
        (["--task", "rate", "--judge", "energy"], ("overall",)),
        (["--judge", "aspects"], ("overall",)),
    ],
)
def test_the_judge_says_what_is_rated_unless_you_do(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    if "aspects" in words:
        save_judge(tiny_aspect_judge(), tmp_path / "aspects")
    if "energy" in words:
        save_judge(tiny_judge(), tmp_path / "energy")
    args = parser().parse_args(["videos", "--out", "labels", *words])
    assert rated_aspects(args) == expected
