"""What the prompt score and reference fidelity cost at full size, counted on the meta device.

    python -m benchmarks.prompt_score
    python -m benchmarks.prompt_score --images

Per clip and level, for the clip nearest to 49 frames of 480x720 that each model can make:
operations of a score, most memory beside the weights, and the same for a gradient to the latents.
Two levels take the memory of one. `--moments` counts what a moment judge reads of a clip and its
prompt, or its reference image, instead.
"""

import argparse
from collections.abc import Sequence

import torch

from benchmarks.counting import GIB, count_gradient, count_scoring
from benchmarks.full_models import FULL_MODELS, IMAGE_MODELS, FullModel
from gtsvj_reward.backbones import (
    Backbone,
    ImageCondition,
    NoiseLevel,
    backbone_for,
    denoising_errors,
)
from gtsvj_reward.judge.image_moments import image_distances
from gtsvj_reward.judge.moments import block_moments, default_taps, latent_moments
from gtsvj_reward.judge.prompt_moments import prompt_moments


def levels(count: int) -> list[NoiseLevel]:
    """Levels, which all cost the same."""
    return [NoiseLevel(100.0 + index, 0.8, 0.6, "v_prediction") for index in range(count)]


def gain(
    backbone: Backbone, latents: torch.Tensor, count: int, image: ImageCondition | None = None
) -> torch.Tensor:
    """Errors of a prompt score, or of reference fidelity: with an image, and without.

    A prompt score's are twice under the null condition, which costs as much as a prompt.
    """
    first, second = (
        denoising_errors(backbone, latents, levels(count), image=some) for some in (image, None)
    )
    return first - second


def prompt_aware(
    backbone: Backbone, latents: torch.Tensor, image: ImageCondition | None = None
) -> torch.Tensor:
    """Features of a moment judge that reads prompts, or sees an image.

    The blocks and the latents once, and the blocks under the prompt or image and under none; the
    null condition stands for a prompt.
    """
    taps = default_taps(backbone.depth)
    rows, columns = (size // backbone.patch_size for size in latents.shape[3:])
    blocks = [tap for tap in taps if tap]
    tokens, under, without = (
        backbone(latents, timestep=level, image=some, taps=blocks)
        for level, some in ((0.0, image), (1.0, image), (1.0, None))
    )
    parts = [block_moments(tokens[tap], rows, columns) for tap in blocks]
    steps = backbone.step_of_frame(latents.shape[1])
    parts.append(latent_moments(latents, steps))
    if image is not None:
        parts.append(image_distances(latents, image, steps))
    parts += [prompt_moments(under[tap], without[tap]) for tap in blocks]
    return torch.cat(parts, dim=2)


def moments_row(name: str, model: FullModel) -> str:
    """A row of the table of moments."""
    backbone = backbone_for(model.transformer())
    backbone.gradient_checkpointing = True
    image = model.reference()
    score = count_scoring(lambda: prompt_aware(backbone, model.clip(), image))
    gradient = count_gradient(
        lambda: prompt_aware(backbone, model.clip(grad=True), image), backbone
    )
    cells = [name]
    for found in (score, gradient):
        cells += [f"{found.operations / 1e12:.1f}", f"{found.peak / GIB:.1f}"]
    return "| " + " | ".join(cells) + " |"


def row(name: str, model: FullModel) -> str:
    """A row of the table."""
    backbone = backbone_for(model.transformer())
    backbone.gradient_checkpointing = True
    image = model.reference()
    scores = [count_scoring(lambda n=n: gain(backbone, model.clip(), n, image)) for n in (1, 2)]
    gradients = [
        count_gradient(lambda n=n: gain(backbone, model.clip(grad=True), n, image), backbone)
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
    parser.add_argument("--models", nargs="+", help="some of them")
    parser.add_argument("--moments", action="store_true", help="of a judge that reads prompts")
    parser.add_argument("--images", action="store_true", help="reference images, not prompts")
    args = parser.parse_args(arguments)
    known = IMAGE_MODELS if args.images else FULL_MODELS
    # Mochi's rotary module does not run on the meta device.
    for name in args.models or [name for name in known if name != "Mochi 1"]:
        print((moments_row if args.moments else row)(name, known[name]), flush=True)


if __name__ == "__main__":
    main()
