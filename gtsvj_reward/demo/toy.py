"""The demo's first part: a small pipeline makes clips, a trained judge ranks them as latents."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.plotting import plot_film_strips, plot_trajectory
from gtsvj_reward.toy.pipeline import STEPS, decode, load_pipeline, sample
from gtsvj_reward.toy.world import FPS, captions

JUDGE = "gtsvj-toy"
SHOWN = 3
"""How many of the best, and of the worst, are shown."""
FEWER_STEPS = 5
"""Every second clip is made with so few denoising steps that it is visibly worse."""


@dataclass(frozen=True)
class Candidates:
    """Generated clips and what the judge said of them before any was decoded."""

    prompt: str
    seeds: list[int]
    steps: list[int]
    """Denoising steps of each."""
    rewards: list[float]
    aspects: dict[str, list[float]]
    """On the raters' scale, 1 to 5."""

    def ranking(self) -> list[int]:
        """Indices, best first."""
        return sorted(range(len(self.rewards)), key=lambda index: -self.rewards[index])


def judge_candidates(out: Path, prompt: str, count: int, seed: int) -> Candidates:
    """Generate, score the latents, then decode and draw the best and the worst.

    Args:
        out: folder for `candidates.png`, `best.png` and `worst.png`.
        prompt: one of the world's captions.
        count: how many clips, at least two.
        seed: of the first clip; the others follow.

    Raises:
        ValueError: for a prompt of other words, or fewer than two clips.
    """
    if prompt not in captions():
        raise ValueError(
            f"the toy pipeline knows no {prompt!r}: captions are like {captions()[0]!r} "
            f"or {captions()[-1]!r}"
        )
    if count < 2:
        raise ValueError(f"ranking needs at least 2 clips, got {count}")
    pipe = load_pipeline()
    # The judge runs on the generator's own weights.
    reward = GTSVJReward.from_pretrained(JUDGE, transformer=pipe.transformer)
    seeds = [seed + index for index in range(count)]
    parts = [
        sample(pipe, [prompt] * len(seeds[first::2]), seeds[first::2], steps=steps)
        for first, steps in ((0, STEPS), (1, FEWER_STEPS))
    ]
    latents = torch.empty(count, *parts[0].shape[1:])
    latents[0::2], latents[1::2] = parts
    with torch.no_grad():
        scored = reward.details(latents, space=LatentSpace.from_pipeline(pipe), fps=FPS)
    found = Candidates(
        prompt=prompt,
        seeds=seeds,
        steps=[(STEPS, FEWER_STEPS)[index % 2] for index in range(count)],
        rewards=scored.rewards.tolist(),
        aspects={name: values.tolist() for name, values in scored.aspects.items()},
    )
    ranking = found.ranking()
    shown = ranking[:SHOWN] + [index for index in ranking[-SHOWN:] if index not in ranking[:SHOWN]]
    frames = decode(pipe, latents[shown])
    plot_film_strips(
        frames,
        labels=[f"seed {found.seeds[i]}, {found.steps[i]} steps" for i in shown],
        scores=[found.rewards[i] for i in shown],
        score_name="reward",
        title=f"{prompt!r}: best and worst of {count}",
        path=out / "candidates.png",
    )
    for name, place in (("best", 0), ("worst", -1)):
        index = shown[place]
        plot_trajectory(
            frames[place],
            {"score": scored.trajectory[index]},
            fps=FPS,
            ylabel="score, higher is better",
            title=f"{name}: seed {found.seeds[index]}, {found.steps[index]} denoising steps",
            path=out / f"{name}.png",
        )
    return found
