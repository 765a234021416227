"""Savings of best of n from latents over decoding everything, and of early scoring.

    python -m benchmarks.best_of_n

Two pairs of generator and VAE on this machine: tiny random models, and the bundled demo models,
which are trained but small; the judge is random in both. Ratios are taken within one run, since
machines are noisy. Tiny models and random judges say nothing about quality. Then floating point
operations of the full CogVideoX-2B shape, counted on the meta device, 49 frames of 480x720.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.assets import asset_path
from gtsvj_reward.integrations.diffusers import BestOfN, best_of_n, successive_halving
from gtsvj_reward.metrics import spearman

STEPS = 8
CANDIDATES = 8


class Setting(NamedTuple):
    """A pipeline, a random judge on its architecture, and the arguments of `best_of_n`."""

    name: str
    pipe: Any
    reward: GTSVJReward
    call: dict[str, Any]


def random_models() -> tuple[Any, Any, dict[str, int]]:
    """Transformer, VAE and size of a clip: 32 and 8 channels wide."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=8,
        num_layers=4,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=6,
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4
    )
    return transformer, vae, {"num_frames": 9, "height": 64, "width": 96}


def demo_models() -> tuple[Any, Any, dict[str, int]]:
    """The bundled models."""
    transformer = CogVideoXTransformer3DModel.from_pretrained(asset_path("gtsvj-demo-base"))
    vae = AutoencoderKLCogVideoX.from_pretrained(asset_path("gtsvj-demo-codec"))
    return transformer.float(), vae.float(), {"num_frames": 9, "height": 80, "width": 80}


def setting(name: str, models: Callable[[], tuple[Any, Any, dict[str, int]]]) -> Setting:
    """A pipeline of these models that takes embeddings instead of a prompt."""
    torch.manual_seed(0)
    transformer, vae, size = models()
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=3.0,
        clip_sample=False,
    )
    pipe = CogVideoXPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval().requires_grad_(False),
        transformer=transformer.eval().requires_grad_(False),
        scheduler=scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    config = JudgeConfig(base_model="random", latent_space=LatentSpace.from_pipeline(pipe))
    judge = VideoJudge.from_transformer(transformer, config)
    text = transformer.config
    words = torch.zeros(1, text.max_text_seq_length, text.text_embed_dim)
    call = {
        **size,
        "num_inference_steps": STEPS,
        "guidance_scale": 1.0,
        "normalize": False,
        "batch_size": 4,
        "call_arguments": {"prompt_embeds": words},
    }
    return Setting(name, pipe, GTSVJReward(judge, check_statistics=False), call)


def from_latents(world: Setting, seed: int) -> BestOfN:
    """Score latents, decode the winner."""
    return best_of_n(
        world.pipe, world.reward, None, CANDIDATES, seed=seed, keep_latents="all", **world.call
    )


def round_trip(world: Setting, latents: Tensor) -> Tensor:
    """Scores of clips after decoding and encoding each of them."""
    vae, space = world.pipe.vae, world.reward.space
    with torch.no_grad():
        scores = [
            world.reward.score_frames(space.decode(clip[None], vae), vae=vae, normalize=False)
            for clip in latents
        ]
    return torch.cat(scores)


def from_frames(world: Setting, seed: int) -> BestOfN:
    """Decode all candidates and score their frames."""

    def score(latents: Tensor, **_arguments: object) -> Tensor:
        return round_trip(world, latents)

    return best_of_n(world.pipe, score, None, CANDIDATES, seed=seed, **world.call)


def seconds_and_decodes(world: Setting, run: Callable[[], object]) -> tuple[float, int]:
    """Wall time of one call, and how often it ran the VAE's decoder."""
    vae = world.pipe.vae
    with patch.object(vae, "decode", wraps=vae.decode) as decode:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began, decode.call_count


def table(head: list[str], rows: list[list[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def wall_times(worlds: list[Setting], rounds: int) -> None:
    """Both ways, alternating, and the ratio of their medians."""
    rows: list[list[object]] = []
    for world in worlds:
        ours, theirs = [], []
        for seed in range(rounds):
            ours.append(seconds_and_decodes(world, lambda w=world, s=seed: from_latents(w, s)))
            theirs.append(seconds_and_decodes(world, lambda w=world, s=seed: from_frames(w, s)))
        medians = [statistics.median(t for t, _ in runs) for runs in (ours, theirs)]
        rows.append([world.name, ours[0][1], theirs[0][1], f"{medians[0] / medians[1]:.2f}"])
    print(f"Best of {CANDIDATES}, {STEPS} steps, median of {rounds}. The frames' way decodes and")
    print("encodes every candidate, then decodes the winner:\n")
    table(["models", "VAE decodes", "the frames' way", "time / the frames' way"], rows)


def early_looks(worlds: list[Setting], full: dict[str, list[BestOfN]]) -> None:
    """Successive halving against the full runs at equal n."""
    rows: list[list[object]] = []
    finish = CANDIDATES // 2
    for world in worlds:
        runs = full[world.name]
        for look_at in (STEPS // 4, STEPS // 2, 3 * STEPS // 4):
            same, steps = 0, 0
            for run in runs:
                found = successive_halving(
                    world.pipe,
                    world.reward,
                    None,
                    CANDIDATES,
                    look_at=look_at,
                    finish=finish,
                    seed=run.seeds[0],
                    **world.call,
                )
                same += found.winners == run.winners
                steps = found.denoising_steps
            passes = f"{steps} of {CANDIDATES * STEPS}"
            rows.append([world.name, f"{look_at} of {STEPS}", passes, f"{same} of {len(runs)}"])
    print(f"Successive halving, {finish} of {CANDIDATES} finished. Halves drawn by lot would hold")
    print(f"the winner of the full run in {finish / CANDIDATES:.0%} of the runs:\n")
    table(["models", "look at step", "transformer passes", "same winner as in full"], rows)


def agreement(worlds: list[Setting], full: dict[str, list[BestOfN]]) -> None:
    """Scores of latents against scores of the same clips decoded and encoded again."""
    rows: list[list[object]] = []
    for world in worlds:
        pairs = [(run.scores, round_trip(world, run.latents)) for run in full[world.name]]
        correlation = statistics.mean(spearman(first, second) for first, second in pairs)
        top = sum(int(first.argmax()) == int(second.argmax()) for first, second in pairs)
        rows.append([world.name, f"{correlation:.2f}", f"{top} of {len(pairs)}"])
    print(f"Scores of {CANDIDATES} candidates' latents against those after decode and encode:\n")
    table(["models", "mean rank correlation", "same winner"], rows)


def tera(run: Callable[[], object]) -> float:
    """Floating point operations of one call, in units of 10^12."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e12


def operations() -> None:
    """Best of n with the full CogVideoX-2B shape, 50 guided steps."""
    space = LatentSpace(id="cogvideox-2b", channels=16, scaling_factor=1.15258426)
    with torch.device("meta"):
        latents, text = torch.zeros(1, 13, 16, 60, 90), torch.zeros(1, 226, 4096)
        transformer, vae = CogVideoXTransformer3DModel().eval(), AutoencoderKLCogVideoX().eval()
        config = JudgeConfig(base_model="random", latent_space=space)
        judge = VideoJudge.from_transformer(transformer, config).requires_grad_(False)
        step = 2 * tera(lambda: transformer(latents, text, torch.zeros(1)))
        score = tera(lambda: judge(latents))
        decode = tera(lambda: vae.decode(latents.transpose(1, 2)))
        encode = tera(lambda: vae.encode(torch.zeros(1, 3, 49, 480, 720)))
    print("CogVideoX-2B, 49 frames of 480x720, 50 guided steps, counted, without text encoder:")
    print(f"step {step:.0f}, judge {score:.0f}, decode {decode:.0f}, encode {encode:.0f} TFLOP.\n")
    rows: list[list[object]] = []
    for n in (4, 8, 16, 64):
        sample, after, frames = n * 50 * step, n * score + decode, n * (decode + encode + score)
        halved = (n + n // 2) * (25 * step + score) + decode
        rows.append([n, *(f"{value:,.0f}" for value in (sample, after, frames))])
        rows[-1] += [f"{after / frames:.2f}", f"{(sample + after) / (sample + frames):.3f}"]
        rows[-1] += [f"{halved / (sample + after):.2f}"]
    head = ["n", "sampling", "score all, decode 1", "decode, encode, score all", "ratio of these"]
    table([*head, "ratio with sampling", "half finished after 25 steps / best of n"], rows)


def main() -> None:
    """All parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    worlds = [setting("tiny random", random_models), setting("bundled demo", demo_models)]
    wall_times(worlds, args.rounds)
    full = {
        world.name: [from_latents(world, CANDIDATES * run) for run in range(args.runs)]
        for world in worlds
    }
    early_looks(worlds, full)
    agreement(worlds, full)
    print("Tiny models and a random judge say nothing about quality: the figures above are about")
    print("the machinery. How early to look is a question for the judge and generator in use.\n")
    operations()


if __name__ == "__main__":
    main()
