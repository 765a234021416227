"""The demo's steps, each through the command line or the public API."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from gtsvj_reward import GTSVJReward
from gtsvj_reward.demo.clips import (
    FPS,
    FRAMES,
    SIZE,
    TRAINING,
    UNSEEN,
    cut_training_clips,
    cut_unseen_clips,
    default_videos,
    own_shots,
)
from gtsvj_reward.demo.compare import compare, draw_perturbed
from gtsvj_reward.demo.report import write_report
from gtsvj_reward.demo.toy import judge_candidates
from gtsvj_reward.files import write_text

CODEC = "gtsvj-demo-codec"
BASE = "gtsvj-demo-base"
PROMPT = "two yellow circles falling"
"""What the toy pipeline is asked for unless told otherwise."""
Command = Callable[[Sequence[str]], int]


def run_demo(
    out: Path,
    *,
    videos: Path | None,
    steps: int,
    seed: int,
    run_command: Command,
    prompt: str = PROMPT,
    candidates: int = 16,
) -> Path:
    """Rank generated clips; then cut, encode, train, score real ones; and report.

    Args:
        out: folder for everything; must be new or empty.
        videos: your own videos instead of the default clips.
        steps: training steps.
        seed: of every draw.
        run_command: runs a `gtsvj` command line.
        prompt: caption of the clips that the toy pipeline makes.
        candidates: how many it makes.

    Returns:
        The HTML page.

    Raises:
        ValueError: if `out` holds something already.
        RuntimeError: if a command fails.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give another --out, or remove it")
    folder = videos or default_videos()
    ranked = judge_candidates(out / "toy", prompt, candidates, seed)
    training, unseen = (TRAINING, UNSEEN) if videos is None else own_shots(videos)
    clips = cut_training_clips(folder, training, out / "clips" / "train", seed)
    clean = cut_unseen_clips(folder, unseen, out / "clips" / "unseen", seed)
    for part in ("train", "unseen"):
        encode_flags = f"--vae {CODEC} --fps {FPS:g} --frames_fps {FPS:g} --height {SIZE}"
        encode_flags += f" --width {SIZE} --num_frames {FRAMES}"
        source, target = str(out / "clips" / part), str(out / "latents" / part)
        command(run_command, ["encode", source, target, *encode_flags.split()])
    write_text(out / "train.yaml", yaml.safe_dump(training_config(out, steps, seed)))
    command(run_command, ["train-discriminator", "--config", str(out / "train.yaml")])
    command(run_command, ["inspect", str(out / "judge")])
    command(
        run_command,
        ["score", str(out / "judge"), str(out / "latents" / "unseen"), "--out",
         str(out / "scores.csv"), "--videos", str(out / "clips" / "unseen"), "--plot",
         str(out / "trajectories")],
    )  # fmt: skip
    reward = GTSVJReward.from_pretrained(out / "judge")
    comparisons = compare(reward, out / "latents" / "unseen")
    draw_perturbed(reward, out)
    facts = {"training clips": clips, "unseen clean clips": clean, "training steps": steps}
    record = {
        "candidates": vars(ranked),
        "facts": facts,
        "comparisons": [vars(item) for item in comparisons],
    }
    write_text(out / "results.json", json.dumps(record, indent=2) + "\n")
    return write_report(out, ranked, comparisons, facts, own=videos is not None)


def command(run_command: Command, words: list[str]) -> None:
    """Run and show a command line, as a user would type it.

    Raises:
        RuntimeError: if it fails.
    """
    print(f"\n$ gtsvj {' '.join(words)}", flush=True)
    status = run_command(words)
    if status:
        raise RuntimeError(f"`gtsvj {words[0]}` ended with status {status}; see above")


def training_config(out: Path, steps: int, seed: int) -> dict[str, object]:
    """What `train-discriminator` reads; objective, sampling and truncation are the paper's.

    LoRA has a higher rank and sits on all blocks, since the base is small, and clips of one second
    can only be cut to something shorter than the paper's two.
    """
    return {
        "base_model": BASE,
        "base_dtype": "float32",
        "real": str(out / "latents" / "train"),
        "held_out_real": str(out / "latents" / "unseen" / "clean"),
        "output_dir": str(out / "judge"),
        "lora_rank": 32,
        "lora_alpha": 32,
        "lora_placement": "all",
        "truncation_min_seconds": 0.4,
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-3,
        "warmup_steps": 20,
        "eval_strategy": "steps",
        "eval_steps": max(1, steps // 4),
        "save_strategy": "no",
        "use_cpu": True,
        "seed": seed,
    }
