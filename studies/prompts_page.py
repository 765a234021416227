"""The page of the study of prompts: claims, decision rules and results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from gtsvj_reward.files import write_text

ATTRIBUTES = ("count", "colour", "shape", "motion")
KINDS = {"real": "real clips", "generated": "generated clips"}
WAYS = {
    "score": "prompt score",
    "moments": "prompt-aware moments",
    "both": "both",
    "detector": "detector (upper bound)",
}
CHOICES = {
    "quality": "quality",
    "score": "prompt score",
    "moments": "prompt-aware moments",
    "quality + score": "quality + prompt score",
    "quality + both": "quality + both",
}
Seed = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half of its 95% interval by Student's t."""

    value: float
    half: float

    @classmethod
    def of(cls, seeds: Sequence[float | list[float]]) -> "Estimate":
        """From one number per seed, or a list with one per prompt."""
        seeds = [x for seed in seeds for x in (seed if isinstance(seed, list) else [seed])]
        if len(seeds) < 2:
            return cls(mean(seeds), float("inf"))
        half = student.ppf(0.975, len(seeds) - 1) * stdev(seeds) / len(seeds) ** 0.5
        return cls(mean(seeds), float(half))

    def text(self, digits: int = 1) -> str:
        """Text for a table."""
        return f"{self.value:.{digits}f} ± {self.half:.{digits}f}"


def standardised(values: list[float], spread: list[float]) -> list[float]:
    """Values in standard deviations of others."""
    return [value / (stdev(spread) or 1.0) for value in values]


def ways_of(found: Mapping[str, Mapping[str, list[float]]], kind: str) -> dict[str, list[float]]:
    """Scores of clips under captions, and the sum of two ways, each in its own deviations."""
    given = dict(found[kind])
    parts = (standardised(given[way], found["own"][way]) for way in ("score", "moments"))
    given["both"] = [a + b for a, b in zip(*parts, strict=True)]
    return given


def share_right(seed: Seed, clips: str, way: str, kind: str) -> float:
    """Percent of clips that score higher under their own caption; equal scores count half."""
    own, other = (ways_of(seed[clips], k)[way] for k in ("own", kind))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(own, other, strict=True)]
    return 100 * mean(wins)


def over_attributes(seed: Seed, clips: str, way: str) -> float:
    """Mean over captions with one attribute wrong."""
    return mean(share_right(seed, clips, way, kind) for kind in ATTRIBUTES)


def gains(seed: Seed, choice: str, measure: str) -> list[float]:
    """Gain of the best candidate of each prompt over the mean one."""
    wanted = choice.replace("both", "score + moments").split(" + ")
    found = []
    for lot in seed["best_of"]:
        terms = zip(*(z_scores(lot[name]) for name in wanted), strict=True)
        total = [sum(term) for term in terms]
        found.append(lot[measure][total.index(max(total))] - mean(lot[measure]))
    return found


def z_scores(values: list[float]) -> list[float]:
    """z-scores of the candidates of one prompt."""
    spread = stdev(values) or 1.0
    return [(value - mean(values)) / spread for value in values]


@dataclass(frozen=True)
class Claim:
    """A claim to confirm or refute, written down before the runs."""

    says: str
    measure: Callable[[Any], float | list[float]]
    above: float
    """It holds if the whole interval is above this, and is refuted if it is below."""
    digits: int = 1

    def verdict(self, found: Estimate) -> str:
        """Outcome of the claim."""
        if found.value - found.half > self.above:
            return "holds"
        return "refuted" if found.value + found.half < self.above else "open"


CLAIMS = (
    Claim(
        "The prompt score finds one wrong attribute in more than 85% of real clips",
        lambda seed: over_attributes(seed, "real", "score"),
        85,
    ),
    Claim(
        "and in more than 75% of generated clips",
        lambda seed: over_attributes(seed, "generated", "score"),
        75,
    ),
    Claim(
        "Prompt-aware moments of 80 clips find it in more than 75% of real clips",
        lambda seed: over_attributes(seed, "real", "moments"),
        75,
    ),
    Claim(
        "Both find more than the prompt score alone (points, real clips)",
        lambda seed: over_attributes(seed, "real", "both") - over_attributes(seed, "real", "score"),
        0,
    ),
    Claim(
        "The detector finds more than the prompt score (points, real clips)",
        lambda seed: (
            over_attributes(seed, "real", "detector") - over_attributes(seed, "real", "score")
        ),
        0,
    ),
    Claim(
        "The best of 10 by quality + prompt score shows its caption better than the mean candidate "
        "(nats)",
        lambda seed: gains(seed, "quality + score", "caption"),
        0,
        2,
    ),
    Claim(
        "and is steadier than it (log of unrest)",
        lambda seed: gains(seed, "quality + score", "steadiness"),
        0,
        2,
    ),
)


def over_lots(lots: Sequence[Mapping[str, list[float]]], choice: str, measure: str) -> float:
    """Mean over the lots of one prompt."""
    return mean(gains({"best_of": lots}, choice, measure))


AGAIN = (
    Claim(
        "The best of 10 by quality + prompt score shows its caption better than the mean candidate "
        "(nats)",
        lambda lots: over_lots(lots, "quality + score", "caption"),
        0,
        2,
    ),
    Claim(
        "and better than the best by quality alone (nats)",
        lambda lots: (
            over_lots(lots, "quality + score", "caption") - over_lots(lots, "quality", "caption")
        ),
        0,
        2,
    ),
    Claim(
        "and is steadier than the mean candidate (log of unrest)",
        lambda lots: over_lots(lots, "quality + score", "steadiness"),
        0,
        2,
    ),
)
"""Of the repetition with more prompts; what is measured is the lots of one prompt."""

HEAD = """# Study: does the clip show its prompt?

Toy world, generator `gtsvj-toy-pipeline`, {seeds} seeds. A seed sets the noise of the prompt score,
{drawn} training clips and the test clips. `python -m studies.prompts` reproduces it.
Intervals are 95%, by Student's t over seeds; for the best of 10, over prompts, which differ
between seeds.

- **Matched against mismatched**: {test} clips per seed, with their own caption and with one
  attribute changed; percent that score higher with their own. The own caption of a generated
  clip is its prompt, which it does not always show. The detector, a network that
  predicts captions from pixels, gives the upper bound.
- **Prompt score**: no training. **Prompt-aware moments**: a judge fitted to {drawn} real clips
  with their captions, against captions with one wrong attribute.
- **A judge that ignores the prompt** gives a clip the same score with every caption, so it has
  50% everywhere by construction.
- **Best of 10**: clips of `gtsvj-toy-unsteady`, {prompts} prompts per seed. Quality is the bundled
  `gtsvj-toy`, which reads no prompt; sums are of z-scores within a prompt. The metrics are
  independent of the judges: the detector's log-probability of the caption, and the steadiness of
  the pixels (minus the log of their unrest).
"""


CLAIMS_HEAD = """
## Claims

The claims were written before the run, their thresholds after the first numbers. The interval of
the best of 10 was first over seeds, and was changed to prompts after results had been seen: over
seeds, steadiness would hold (0.17 ± 0.10). It was therefore repeated with more prompts, below.

| claim | found | |
|---|---|---|
"""


def page(seeds: list[Seed]) -> str:
    """The page."""
    first = seeds[0]
    text = HEAD.format(
        seeds=len(seeds),
        drawn=80,
        test=len(first["real"]["own"]["score"]),
        prompts=len(first["best_of"]),
    )
    text += CLAIMS_HEAD
    for claim in CLAIMS:
        found = Estimate.of([claim.measure(seed) for seed in seeds])
        text += f"| {claim.says} | {found.text(claim.digits)} | {claim.verdict(found)} |\n"
    for clips, title in KINDS.items():
        columns = (*ATTRIBUTES, "other")
        text += f"\n## Matched against mismatched, {title}\n\n| | one attribute | "
        text += " | ".join(columns[:-1]) + " | another caption |\n" + "|---" * 7 + "|\n"
        for way, says in WAYS.items():
            whole = Estimate.of([over_attributes(seed, clips, way) for seed in seeds])
            cells = [
                Estimate.of([share_right(seed, clips, way, kind) for seed in seeds]).text()
                for kind in columns
            ]
            text += f"| {says} | **{whole.text()}** | {' | '.join(cells)} |\n"
        text += "| judge that ignores the prompt | **50** | 50 | 50 | 50 | 50 | 50 |\n"
    text += "\n## Best of 10, above the mean candidate\n\n"
    text += "| chosen by | caption (nats) | steadiness |\n|---|---|---|\n"
    for choice, says in CHOICES.items():
        cells = [
            Estimate.of([gains(seed, choice, measure) for seed in seeds]).text(2)
            for measure in ("caption", "steadiness")
        ]
        text += f"| {says} | {' | '.join(cells)} |\n"
    seconds = mean(seed["cpu_seconds"] for seed in seeds)
    return (
        text + f"\nA seed took {seconds:.0f} seconds of one CPU core, with features read before.\n"
    )


AGAIN_HEAD = """
## Best of 10 again, with more prompts

{prompts} new prompts, {lots} sets of 10 new candidates
each; otherwise as above, by `python -m studies.prompt_choices`. Intervals are over prompts, on the
mean over the sets of each. These claims were written before the run.

| claim | found | |
|---|---|---|
"""


def page_again(parts: Sequence[Mapping[str, Any]]) -> str:
    """The section on the repetition with more prompts; empty without one."""
    prompts = [lots for part in parts for lots in part["prompts"].values()]
    if not prompts:
        return ""
    text = AGAIN_HEAD.format(prompts=len(prompts), lots=len(prompts[0]))
    for claim in AGAIN:
        found = Estimate.of([claim.measure(lots) for lots in prompts])
        text += f"| {claim.says} | {found.text(claim.digits)} | {claim.verdict(found)} |\n"
    text += "\n| chosen by | caption (nats) | steadiness |\n|---|---|---|\n"
    for choice in ("quality", "score", "quality + score"):
        cells = [
            Estimate.of([over_lots(lots, choice, measure) for lots in prompts]).text(2)
            for measure in ("caption", "steadiness")
        ]
        text += f"| {CHOICES[choice]} | {' | '.join(cells)} |\n"
    seconds = sum(part["cpu_seconds"] for part in parts)
    return text + f"\nIt took {seconds / 60:.0f} minutes of one CPU core.\n"


def write_page(results: Path, path: Path) -> None:
    """Write the page from the existing results."""
    seeds, parts = (
        [json.loads(file.read_text()) for file in sorted(results.glob(f"{name}-*.json"))]
        for name in ("seed", "choices")
    )
    write_text(path, page(seeds) + page_again(parts))
