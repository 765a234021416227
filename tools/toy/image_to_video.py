"""Is a swapped first frame detected? Trains and evaluates an image-to-video toy generator.

    python -m tools.toy.image_to_video --run DIR --steps 2000

The toy world's text-to-video transformer gets channels for the first frame, as CogVideoX's
image-to-video models have them, and learns to use them; nothing of it is bundled. It then makes
clips from first frames that it never saw, and each clip is scored with its own first frame and
with that of another clip. Writes `image_to_video.json` into `--run`.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward import GTSVJReward, ImageCondition, JudgeConfig, ReferenceFidelity, VideoJudge
from gtsvj_reward.files import write_text
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward import Reward, image_of, text_of
from gtsvj_reward.toy.corpus import encode_frames
from gtsvj_reward.toy.pipeline import CALL, frozen, load_pipeline, with_short_texts
from gtsvj_reward.toy.world import FRAMES, SIZE, draw_scene, render
from gtsvj_reward.training import FeatureCache, first_frames_swapped, refit

TRAIN_KEY, ASKED_KEY = 61, 62
NO_IMAGE = 0.1
"""Share of training clips without their image, so that zeros mean none."""


def widened(transformer: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    """A copy with channels for an image, which at first change nothing."""
    channels = transformer.config.in_channels
    wide = CogVideoXTransformer3DModel(**{**transformer.config, "in_channels": 2 * channels})
    state = transformer.state_dict()
    weight = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    wide.load_state_dict(state)
    return wide


def scenes(pipe: CogVideoXImageToVideoPipeline, key: int, count: int) -> tuple[Tensor, list[str]]:
    """Latents of real clips, and their captions."""
    space, rows = LatentSpace.from_vae(pipe.vae), []
    for start in range(0, count, 20):
        some = range(start, min(start + 20, count))
        frames = torch.stack([render(draw_scene(key, index)) for index in some])
        rows.append(encode_frames(frames, pipe.vae, space))
    return torch.cat(rows), [draw_scene(key, index).caption for index in range(count)]


def pictures(key: int, count: int, frame: int = 0) -> list[Image.Image]:
    """A frame of each scene, by default the first."""
    clips = (render(draw_scene(key, index)) for index in range(count))
    return [Image.fromarray(clip[frame].numpy()) for clip in clips]


def images_for(
    pipe: CogVideoXImageToVideoPipeline, key: int, count: int, frame: int = 0
) -> ImageCondition:
    """The pipeline's image inputs for a frame of each scene."""
    size = {"height": SIZE, "width": SIZE, "num_frames": FRAMES}
    return image_of(pipe, pictures(key, count, frame), **size)


def train(pipe: CogVideoXImageToVideoPipeline, args: argparse.Namespace) -> float:
    """Teach the wide transformer to use its image; returns the mean loss of the last 100 steps."""
    latents, captions = scenes(pipe, TRAIN_KEY, args.clips)
    image, words = images_for(pipe, TRAIN_KEY, args.clips), text_of(pipe, captions)
    model = pipe.transformer.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    losses = []
    for step in range(args.steps):
        optimizer.param_groups[0]["lr"] = args.lr * min(
            1, (step + 1) / 100, 2 - 2 * step / args.steps
        )
        generator = keyed_generator(args.seed, step)
        index = torch.randint(len(latents), (args.batch,), generator=generator)
        clean = latents[index]
        fed = F.pad(image.latents[index], (0,) * 7 + (clean.shape[1] - 1,))
        kept = torch.rand(args.batch, generator=generator) >= NO_IMAGE
        noise = torch.randn(clean.shape, generator=generator)
        at = torch.randint(1000, (args.batch,), generator=generator)
        noisy = pipe.scheduler.add_noise(clean, noise, at)
        given = torch.cat([noisy, fed * kept[:, None, None, None, None]], dim=2)
        said = model(given, words.embeds[index], at).sample
        loss = F.mse_loss(said, pipe.scheduler.get_velocity(clean, noise, at))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} loss {sum(losses[-100:]) / 100:.4f}", flush=True)
    frozen(pipe)
    return sum(losses[-100:]) / len(losses[-100:])


def made(pipe: CogVideoXImageToVideoPipeline, count: int, prompts: list[str]) -> Tensor:
    """Clips that the generator makes from the first frames of scenes."""
    rows = []
    for index, picture in enumerate(pictures(ASKED_KEY, count)):
        clip = pipe(
            image=picture, prompt=prompts[index], num_inference_steps=25, guidance_scale=3.0,
            generator=keyed_generator(ASKED_KEY, index), output_type="latent", **CALL,
        )  # fmt: skip
        rows.append(clip.frames)
    return torch.cat(rows)


def share_own_higher(
    reward: Reward, latents: Tensor, own: ImageCondition, wrong: ImageCondition, first: int = 0
) -> float:
    """Share of clips that score higher with their own picture than with a wrong one.

    Args:
        reward: to evaluate.
        latents: of the clips.
        own: their pictures.
        wrong: others.
        first: first step to score.
    """
    with torch.no_grad():
        means = [
            torch.stack(
                [steps[first:].mean() for steps in reward.details(latents, image=shown).trajectory]
            )
            for shown in (own, wrong)
        ]
    return round((means[0] > means[1]).float().mean().item(), 3)


def fitted(
    pipe: CogVideoXImageToVideoPipeline, clips: Tensor, image: ImageCondition
) -> GTSVJReward:
    """A moment judge from clips with their own first frames, and with those of others."""
    config = JudgeConfig(
        base_model="toy image-to-video", latent_space=LatentSpace.from_vae(pipe.vae),
        readout="moments", lora_rank=0, image_input="image",
    )  # fmt: skip
    fresh = VideoJudge.from_transformer(pipe.transformer, config, scheduler=pipe.scheduler)
    pairs = first_frames_swapped(
        [lambda clip=clip: clip for clip in clips], image,
        groups=[str(index) for index in range(len(clips))], draws=2,
    )  # fmt: skip
    return GTSVJReward(refit(fresh, FeatureCache(fresh, batch_size=16), contrast=pairs))


def asked(pipe: CogVideoXImageToVideoPipeline, clips: int) -> dict[str, float]:
    """Shares of clips whose own first frame wins, real ones and the generator's own."""
    real, captions = scenes(pipe, ASKED_KEY, clips)
    image, last = (images_for(pipe, ASKED_KEY, clips, frame) for frame in (0, FRAMES - 1))
    own, half = made(pipe, clips, captions), clips // 2
    later = torch.arange(half, clips)
    shown = image.rows(later)
    wrongs = {"another scene": image.rows(later.roll(1)), "its last frame": last.rows(later)}
    found = {
        "clips": clips - half,
        "first latent from the image, made": (own[:, :1] - image.latents).std().item(),
    }
    for name, latents in (("real", real), ("made", own)):
        judge = fitted(pipe, latents[:half], image.rows(torch.arange(half)))
        fidelity = ReferenceFidelity(pipe)
        for wrong, other in wrongs.items():
            for what, reward, first in (
                ("fidelity", fidelity, 0),
                ("fidelity from step 1 on", fidelity, 1),
                ("moments", judge, 0),
                ("moments from step 1 on", judge, 1),
            ):
                share = share_own_higher(reward, latents[half:], shown, other, first)
                found[f"{name}, {wrong}: {what}"] = share
    return found


def main() -> None:
    """Train, evaluate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for weights and results")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=600, help="that it learns from")
    parser.add_argument("--asked", type=int, default=96, help="clips that are scored, half to fit")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    toy = load_pipeline()
    parts = {**toy.components, "transformer": widened(toy.transformer)}
    pipe = with_short_texts(CogVideoXImageToVideoPipeline(**parts))
    frozen(pipe)
    args.run.mkdir(parents=True, exist_ok=True)
    weights = args.run / "transformer.safetensors"
    result: dict[str, float] = {"steps": args.steps}
    if weights.exists():
        pipe.transformer.load_state_dict(load_file(weights))
    else:
        result["loss"] = train(pipe, args)
        save_file(pipe.transformer.state_dict(), weights)
    result |= asked(pipe, args.asked)
    write_text(args.run / "image_to_video.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
