"""The demo's first part: a judge fitted before the visitor's eyes, and what it is good for.

A judge that saw no label ranks clips of the toy generator. Then a simulated person rates clips of
other prompts, and the judge is fitted again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.demo.candidates import Lot, choose_prompts, generate
from gtsvj_reward.judge import Aspect, Geometry, JudgeConfig, VideoJudge, save_judge
from gtsvj_reward.perturbations import GENERATED, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import ClipSpec, encode_frames
from gtsvj_reward.toy.pipeline import UNSTEADY, load_pipeline
from gtsvj_reward.toy.raters import HIGH, LOW, RATING_NOISE
from gtsvj_reward.toy.world import FPS
from gtsvj_reward.training import FeatureCache, refit
from gtsvj_reward.training.closed_form import Contrast, Rated

ASPECT = Aspect(name="steadiness", low=LOW, high=HIGH)
DRAWS = 4
"""Negatives for each real clip."""
REAL_KEY = 42
"""Scenes of the demo's real clips; no other clips of the package show them."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    real: int = 96
    """Real clips of the toy world."""
    rated_prompts: int = 20
    """Prompts whose clips are rated."""
    rated_each: int = 5
    """Rated clips of each."""
    ranked_prompts: int = 8
    """Prompts whose clips are ranked; no clip of theirs is rated."""
    candidates: int = 10
    """Clips of each among which the best is looked for."""

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ValueError(f"ranking needs at least 2 clips, got {self.candidates}")


@dataclass(frozen=True)
class Choice:
    """The clips of one prompt as a judge ranks them."""

    best: int
    """Place of the clip with the highest score among the prompt's."""
    worst: int
    """Index of the clip with the lowest score."""
    gain: float
    """Share of the possible gain that the best one takes: 0 is a clip at random, 1 the steadiest
    of all, measured in the pixels."""


@dataclass(frozen=True)
class Story:
    """Results of the first part."""

    candidates: Lot
    ratings: list[int]
    """By the simulated person."""
    before: list[Choice]
    """Per prompt, of the judge without labels."""
    after: list[Choice]
    """Choices of the judge after the ratings."""
    seconds: dict[str, float]
    """Step -> how long it took."""
    counts: dict[str, int]
    """Clips of each kind."""

    def gains(self) -> tuple[float, float]:
        """Mean share of the possible gain, before and after the ratings."""
        before, after = (
            sum(choice.gain for choice in choices) / len(choices)
            for choices in (self.before, self.after)
        )
        return before, after


def tell(out: Path, prompt: str, sizes: Sizes, seed: int) -> Story:
    """Generate, fit, rate, fit again, and rank; writes both judges below `out`."""
    seconds: dict[str, float] = {}
    ranked, rated = choose_prompts(prompt, sizes.ranked_prompts, sizes.rated_prompts, seed)
    pipe = load_pipeline(UNSTEADY)
    space = LatentSpace.from_pipeline(pipe)
    start = 10_000 * seed
    candidates = timed(
        seconds, "generate the candidates",
        lambda: generate(pipe, ranked, sizes.candidates, start, "clips to rank"),
    )  # fmt: skip
    own = timed(
        seconds, "generate clips of other prompts",
        lambda: generate(pipe, rated, sizes.rated_each, start + 5_000, "clips to rate"),
    )  # fmt: skip
    real = timed(
        seconds, "draw and encode real clips", lambda: real_clips(pipe, space, sizes.real, seed)
    )
    fresh = fresh_judge(pipe, space, real)
    cache = FeatureCache(fresh, batch_size=40)
    pairs = contrast(real, own.latents, seed)
    loads = [load for pair in pairs for load in (pair.positive, pair.negative)]
    timed(seconds, "read them with the generator", lambda: cache.read(loads, "clips"))
    free = timed(
        seconds, "fit a judge without labels",
        lambda: refit(fresh, cache, contrast=pairs, geometry=fresh.config.geometry),
    )  # fmt: skip
    ratings = simulated_ratings(own.steadiness, seed)
    labels = [
        Rated(constant(clip), {ASPECT.name: rating}, own.prompts[index // own.each])
        for index, (clip, rating) in enumerate(zip(own.latents, ratings, strict=True))
    ]
    cache.read([label.clip for label in labels], "rated clips")
    informed = timed(
        seconds, f"fit it again to {len(ratings)} ratings",
        lambda: refit(free, cache, ratings=labels, aspects=[ASPECT]),
    )  # fmt: skip
    save_judge(free, out / "judge-without-labels")
    save_judge(informed, out / "judge")
    choices = [choose(judge, candidates, space) for judge in (free, informed)]
    counts = {"real": len(real), "rated": len(ratings), "candidates": len(candidates.latents)}
    return Story(candidates, ratings, choices[0], choices[1], seconds, counts)


def real_clips(
    pipe: Any, space: LatentSpace, count: int, seed: int
) -> Float[Tensor, "clip step channel row column"]:
    """Clips that were drawn, not generated, as latents."""
    parts = []
    for first in range(0, count, 16):
        numbers = range(first, min(first + 16, count))
        specs = [ClipSpec(f"demo-{number:05d}", (REAL_KEY, seed, number), {}) for number in numbers]
        frames = torch.stack([spec.draw() for spec in specs])
        parts.append(encode_frames(frames, pipe.vae, space, bfloat16=True))
    return torch.cat(parts)


def fresh_judge(
    pipe: Any, space: LatentSpace, clips: Tensor, base_model: str = UNSTEADY
) -> VideoJudge:
    """A judge that reads moments of the generator itself; nothing is copied, nothing is trained."""
    _, steps, _, rows, columns = clips.shape
    config = JudgeConfig(
        base_model=base_model,
        latent_space=space,
        readout="moments",
        lora_rank=0,
        geometry=Geometry(
            latent_frames=(steps, steps), height=(rows, rows), width=(columns, columns),
            fps=(FPS, FPS),
        ),
    )  # fmt: skip
    return VideoJudge.from_transformer(pipe.transformer, config)


def contrast(real: Tensor, generated: Tensor, seed: int) -> list[Contrast]:
    """Each real clip against perturbations of itself and clips of the generator."""
    sampler = PerturbationSampler.extended()
    pairs = []
    for number, clip in enumerate(real):
        for draw in range(DRAWS):
            generator = keyed_generator(seed, 43, number, draw)
            kind = sampler.draw(generator, generated_available=True).kind
            source = f"real {number}"
            if kind == GENERATED:
                index = int(torch.randint(len(generated), (), generator=generator))
                negative, other = generated[index], f"generated {index}"
            else:
                negative, other = sampler.apply(kind, clip[None], generator)[0], source
            pairs.append(Contrast(constant(clip), constant(negative), (source, other)))
    return pairs


def simulated_ratings(steadiness: Float[Tensor, " clip"], seed: int) -> list[int]:
    """Integer ratings from 1 to 5 by a simulated person, with errors.

    Between the tenth and the ninetieth percentile they grow in proportion to the steadiness; the
    error has the deviation of the study's raters.
    """
    low, high = steadiness.quantile(0.1), steadiness.quantile(0.9)
    share = (steadiness - low) / (high - low)
    slips = torch.randn(len(share), generator=keyed_generator(seed, 44))
    felt = LOW + (HIGH - LOW) * share + RATING_NOISE * slips
    return [int(value) for value in felt.round().clamp(LOW, HIGH).tolist()]


def choose(judge: VideoJudge, lot: Lot, space: LatentSpace) -> list[Choice]:
    """A judge's choice for each prompt; it only reads latents."""
    with torch.no_grad():
        scores = GTSVJReward(judge)(lot.latents, space=space, fps=FPS)
    return [
        choice_of(scores[lot.rows(number)], lot.steadiness[lot.rows(number)])
        for number in range(len(lot.prompts))
    ]


def choice_of(scores: Float[Tensor, " clip"], measured: Float[Tensor, " clip"]) -> Choice:
    """The best and the worst by score, and what the best is worth.

    Raises:
        ValueError: if all clips have the same metric, so that there is no gain.
    """
    best, mean = int(scores.argmax()), measured.mean()
    possible = (measured.max() - mean).item()
    if not possible > 0:
        raise ValueError(f"all {len(measured)} clips measure the same: there is nothing to gain")
    gain = (measured[best] - mean).item() / possible
    return Choice(best, int(scores.argmin()), gain)


def constant(clip: Tensor) -> Callable[[], Tensor]:
    """Gives a clip that is in memory."""
    return lambda: clip


T = TypeVar("T")


def timed(seconds: dict[str, float], step: str, work: Callable[[], T]) -> T:
    """Do a step, and keep and print how long it took."""
    began = time.monotonic()
    result = work()
    seconds[step] = time.monotonic() - began
    print(f"{seconds[step]:6.1f} s  {step}", flush=True)
    return result
