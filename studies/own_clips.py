"""Clips of two toy generators of different quality, and their steadiness in pixels."""

import json
from pathlib import Path

import torch
from torch import Tensor

from gtsvj_reward.demo.candidates import generate
from gtsvj_reward.demo.story import choice_of, simulated_ratings
from gtsvj_reward.files import write_text
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.toy.corpus import save_latents
from gtsvj_reward.toy.pipeline import PIPELINE, UNSTEADY, load_pipeline
from gtsvj_reward.toy.world import FRAMES, captions

GENERATORS = {"unsteady": UNSTEADY, "steady": PIPELINE}
MEASURED = "own.json"
"""Name of a clip -> its steadiness; beside the folder."""


def prompts_of(part: str, sizes: dict[str, int]) -> list[str]:
    """Prompts of clips that are rated (`pool`), or others that are ranked (`test`)."""
    known = captions()
    order = [known[index] for index in keyed_order(len(known), 53)]
    tests = sizes["test_prompts"]
    return order[:tests] if part == "test" else order[tests : tests + sizes["rated_prompts"]]


def clip_name(part: str, generator: str, prompt: int, number: int) -> str:
    """Name of a clip."""
    return f"{part}-{generator}-{prompt:02d}-{number:02d}"


def build_own(data: Path, sizes: dict[str, int]) -> None:
    """Sample and measure the clips of both generators, unless that was done."""
    if (data / MEASURED).exists():
        return
    measured: dict[str, float] = {}
    for place, (generator, source) in enumerate(GENERATORS.items()):
        pipe = load_pipeline(source)
        space = LatentSpace.from_pipeline(pipe)
        for part, each in (("test", sizes["clips"]), ("pool", sizes["rated_clips"])):
            start = 53_000 + 10_000 * place + 5_000 * (part == "pool")
            lot = generate(pipe, prompts_of(part, sizes), each, start, f"{generator} {part}")
            for index, clip in enumerate(lot.latents):
                prompt, number = divmod(index, each)
                name = clip_name(part, generator, prompt, number)
                settings = {"prompt": lot.prompts[prompt], "generator": source}
                save_latents(data / "own" / f"{name}.safetensors", clip, space, FRAMES, settings)
                measured[name] = lot.steadiness[index].item()
    write_text(data / MEASURED, json.dumps(measured) + "\n")


def rated_clips(data: Path, sizes: dict[str, int], seed: int) -> tuple[list[str], Tensor, Tensor]:
    """Clips of some prompts that a seed draws: names, ratings 1 to 5, numbers of the prompts."""
    measured = json.loads((data / MEASURED).read_text())
    names = [name for name in measured if name.startswith("pool-")]
    steady = torch.tensor([measured[name] for name in names])
    ratings = torch.tensor(simulated_ratings(steady, seed)).double()
    chosen = keyed_order(sizes["rated_prompts"], seed, 8)[: sizes["labelled_prompts"]]
    prompt = torch.tensor([int(name.split("-")[2]) for name in names])
    kept = torch.isin(prompt, torch.tensor(chosen)).nonzero()[:, 0]
    return [names[index] for index in kept.tolist()], ratings[kept], prompt[kept]


def within_prompts(data: Path, sizes: dict[str, int], scores: dict[str, float]) -> dict[str, list]:
    """Per test prompt, whether scores agree with the pixels.

    Returns:
        `within`: correlation with the steadiness over the clips of the unsteady generator; `best`:
        the share of the possible gain that the best of them by score takes; `both`: the
        correlation over the clips of both generators.
    """
    measured = json.loads((data / MEASURED).read_text())
    found: dict[str, list[float]] = {"within": [], "best": [], "both": []}
    for prompt in range(sizes["test_prompts"]):
        names = {
            generator: [
                clip_name("test", generator, prompt, number) for number in range(sizes["clips"])
            ]
            for generator in GENERATORS
        }
        ours, steady = (
            torch.tensor([[table[name] for name in row] for row in names.values()])
            for table in (scores, measured)
        )
        found["within"].append(correlation(ours[0], steady[0]))
        found["best"].append(choice_of(ours[0], steady[0]).gain)
        found["both"].append(correlation(ours.flatten(), steady.flatten()))
    return {name: [round(value, 4) for value in values] for name, values in found.items()}


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation."""
    return torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1].item()
