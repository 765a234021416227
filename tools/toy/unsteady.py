"""Train a generator of mixed quality: a toy generator, fine-tuned on clips half of which flicker.

    python -m tools.toy.unsteady --run runs/toy/unsteady
    python -m tools.toy.unsteady --run runs/toy/flow-unsteady --pipeline gtsvj-toy-flow-pipeline

People's data is like that, and an aligned generator should keep what is good in it. A LoRA adapter
learns scenes of which a half is clean, a quarter flickers and a quarter drifts in colour. It is
what alignment starts from in the examples: there is something to gain that pixels can prove.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import trange

from gtsvj_reward.alignment import ClipSize, Policy
from gtsvj_reward.losses import denoising_error
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import ClipSpec, encode_frames
from gtsvj_reward.toy.pipeline import PIPELINE, load_pipeline
from gtsvj_reward.toy.world import FRAMES, SIZE, draw_scene

TRAIN_KEY = 401
KINDS = (None, None, "flicker", "colour_drift")


def spec(index: int) -> ClipSpec:
    """A scene, and what is wrong with it: nothing in every second one."""
    kind, generator = KINDS[index % len(KINDS)], keyed_generator(TRAIN_KEY, index, 1)
    severity = 0.6 + 0.4 * torch.rand((), generator=generator).item()
    faults = {} if kind is None else {kind: severity}
    return ClipSpec(f"unsteady-{index:05d}", (TRAIN_KEY, index), faults)


def clips(args: argparse.Namespace, policy: Policy) -> tuple[Tensor, list[str]]:
    """Latents and captions; latents are kept on disk."""
    path = args.run / f"clips-{args.clips}.safetensors"
    if not path.exists():
        rows = []
        for first in trange(0, args.clips, 16, desc="clips"):
            frames = [spec(i).draw() for i in range(first, min(first + 16, args.clips))]
            rows.append(
                encode_frames(torch.stack(frames), policy.pipe.vae, policy.space, bfloat16=True)
            )
        args.run.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(rows)}, path)
    captions = [draw_scene(*spec(index).scene).caption for index in range(args.clips)]
    return load_file(path)["latents"], captions


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pipeline", default=PIPELINE, help="what is fine-tuned")
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe, size = load_pipeline(args.pipeline), ClipSize(FRAMES, SIZE, SIZE)
    policy = Policy(pipe, size, guidance=1.0, rank=args.rank, seed=args.seed)
    latents, captions = clips(args, policy)
    policy.encode(sorted(set(captions)))
    parameters = list(policy.parameters().values())
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    losses = []
    for step in trange(args.steps, desc="steps"):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        generator = keyed_generator(args.seed, step)
        drawn = torch.randint(len(latents), (args.batch,), generator=generator)
        place = torch.rand(args.batch, generator=generator) + torch.arange(args.batch)
        timesteps = (place * 1000 / args.batch).long().clamp(0, 999)
        noise = torch.randn(latents[drawn].shape, generator=generator)
        noisy, target = policy.family.add_noise(latents[drawn], noise, timesteps)
        output = policy.predict(noisy, timesteps, policy.encode([captions[i] for i in drawn]))
        loss = denoising_error(output, target).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1} loss {sum(losses[-100:]) / 100:.4f}", flush=True)
    half = {name: value.half() for name, value in policy.adapter().items()}
    type(policy.pipe).save_lora_weights(args.run / "lora", transformer_lora_layers=half)
    record = {
        "base": args.pipeline,
        "steps": args.steps,
        "batch": args.batch,
        "clips": args.clips,
    }
    (args.run / "lora" / "config.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
