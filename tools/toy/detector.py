"""Train the toy world's detector on rendered clips.

    python -m tools.toy.detector --out runs/toy/detector

Every batch is drawn afresh; a fifth of the clips is blurred a little, as a codec would do.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.degradations import blur
from gtsvj_reward.toy.detector import CLASSES, Detector, detect
from gtsvj_reward.toy.world import (
    COLOURS,
    COUNTS,
    MOTIONS,
    SHAPES,
    Frames,
    Scene,
    draw_scene,
    render,
)
from tools.toy.measure import agreement

TRAIN_KEY, HELD_OUT_KEY = 201, 202


def example(key: int, *numbers: int) -> tuple[Scene, Frames]:
    """A scene and its clip, now and then a little soft."""
    scene, generator = draw_scene(key, *numbers), keyed_generator(key, 1, *numbers)
    frames = render(scene)
    if torch.rand((), generator=generator) < 0.2:
        frames = blur(frames, 0.4 * torch.rand((), generator=generator).item(), generator)
    return scene, frames


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Class numbers per attribute."""
    rows = [
        (
            list(COUNTS).index(scene.count),
            list(COLOURS).index(scene.colour),
            SHAPES.index(scene.shape),
            MOTIONS.index(scene.motion),
        )
        for scene in scenes
    ]
    columns = torch.tensor(rows).T
    return dict(zip(CLASSES, columns, strict=True))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    detector = Detector()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=args.lr, weight_decay=0.01)
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        scenes, clips = zip(
            *(example(TRAIN_KEY, args.seed, step, i) for i in range(args.batch)), strict=True
        )
        logits, targets = detector(torch.stack(clips)), labels(list(scenes))
        loss = torch.stack([F.cross_entropy(logits[name], targets[name]) for name in CLASSES]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f}", flush=True)
    scenes, clips = zip(*(example(HELD_OUT_KEY, i) for i in range(512)), strict=True)
    found = detect(detector.eval(), torch.stack(clips))
    result = agreement(found, [scene.caption for scene in scenes])
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: t.half() for n, t in detector.state_dict().items()}, args.out / "model.safetensors"
    )
    config = {"_class_name": "Detector", "steps": args.steps, "held_out_accuracy": result}
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
