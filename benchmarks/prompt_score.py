"""What the prompt score costs at full size, counted on the meta device.

    python -m benchmarks.prompt_score

Per clip and level, for the clip nearest to 49 frames of 480x720 that each model can make:
operations of a score, most memory beside the weights, and the same for a gradient to the latents.
Two levels take the memory of one. `--moments` counts what a moment judge reads of a clip and its
prompt instead.
"""

import argparse
from collections.abc import Sequence

import torch

from benchmarks.counting import GIB, count_gradient, count_scoring
from benchmarks.full_models import FULL_MODELS, FullModel
from gtsvj_reward.backbones import Backbone, NoiseLevel, backbone_for, denoising_errors
from gtsvj_reward.judge.moments import block_moments, default_taps, latent_moments
from gtsvj_reward.judge.prompt_moments import prompt_moments


def levels(count: int) -> list[NoiseLevel]:
    """Levels, which all cost the same."""
    return [NoiseLevel(100.0 + index, 0.8, 0.6, "v_prediction") for index in range(count)]


def gain(backbone: Backbone, latents: torch.Tensor, count: int) -> torch.Tensor:
    """A prompt score's errors, twice under the null condition, which costs as much as a prompt."""
    first, second = (denoising_errors(backbone, latents, levels(count)) for _ in range(2))
    return first - second


def prompt_aware(backbone: Backbone, latents: torch.Tensor) -> torch.Tensor:
    """Features of a moment judge that reads prompts; the null condition stands for a prompt.

    The blocks and the latents once, and the blocks under the prompt and under none.
    """
    taps = default_taps(backbone.depth)
    rows, columns = (size // backbone.patch_size for size in latents.shape[3:])
    blocks = [tap for tap in taps if tap]
    tokens, under, without = (backbone(latents, timestep=t, taps=blocks) for t in (0.0, 1.0, 1.0))
    parts = [block_moments(tokens[tap], rows, columns) for tap in blocks]
    parts.append(latent_moments(latents, backbone.step_of_frame(latents.shape[1])))
    parts += [prompt_moments(under[tap], without[tap]) for tap in blocks]
    return torch.cat(parts, dim=2)


def moments_row(name: str, model: FullModel) -> str:
    """A row of the table of moments."""
    backbone = backbone_for(model.transformer())
    backbone.gradient_checkpointing = True
    score = count_scoring(lambda: prompt_aware(backbone, model.clip()))
    gradient = count_gradient(lambda: prompt_aware(backbone, model.clip(grad=True)), backbone)
    cells = [name]
    for found in (score, gradient):
        cells += [f"{found.operations / 1e12:.1f}", f"{found.peak / GIB:.1f}"]
    return "| " + " | ".join(cells) + " |"


def row(name: str, model: FullModel) -> str:
    """A row of the table."""
    backbone = backbone_for(model.transformer())
    backbone.gradient_checkpointing = True
    scores = [count_scoring(lambda n=n: gain(backbone, model.clip(), n)) for n in (1, 2)]
    gradients = [
        count_gradient(lambda n=n: gain(backbone, model.clip(grad=True), n), backbone)
        for n in (1, 2)
    ]
    cells = [
        name,
        f"{scores[0].operations / 1e12:.1f}",
        f"{scores[0].peak / GIB:.1f}",
        f"{scores[1].peak / GIB:.1f}",
        f"{gradients[0].operations / 1e12:.1f}",
        f"{gradients[0].peak / GIB:.1f}",
        f"{gradients[1].peak / GIB:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # Mochi's rotary module does not run on the meta device.
    known = [name for name in FULL_MODELS if name != "Mochi 1"]
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--moments", action="store_true", help="of a judge that reads prompts")
    args = parser.parse_args(arguments)
    for name in args.models:
        print((moments_row if args.moments else row)(name, FULL_MODELS[name]), flush=True)


if __name__ == "__main__":
    main()
