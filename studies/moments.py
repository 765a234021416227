"""What moments are worth: moment judges against hand-made statistics, with seeds and many pairs.

    python -m studies.moments --work runs/moments

Each row and seed is one JSON file in `--results`; what is there is not run again. Then the page is
written, from whatever results there are.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
import yaml
from torch import Tensor

from gtsvj_reward.files import write_text
from gtsvj_reward.judge import Aspect, VideoJudge
from gtsvj_reward.judge.moments import default_taps
from gtsvj_reward.losses import bradley_terry_with_ties_loss
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.raters import ASPECTS, HIGH, LOW
from gtsvj_reward.training.closed_form import stages
from gtsvj_reward.training.closed_form.comparisons import Pairs
from gtsvj_reward.training.closed_form.features import FeatureCache, content_id
from gtsvj_reward.training.closed_form.refit import Contrast, Rated, refit
from gtsvj_reward.training.closed_form.ridge import Fit, Penalties
from studies.data import build, build_generated, test_pairs
from studies.moments_features import Clips, latents_of
from studies.moments_page import BLOCKS, ROWS, Reads, Row, marks, page, read_records

BETA = 0.2
LOSS = partial(bradley_terry_with_ties_loss, gamma=1.0)
TEST_CLIPS = ("same", "cross-seen", "cross-unseen", "short", "long")
"""How the names of test clips start."""


@dataclass(frozen=True)
class Scorer:
    """A score that is linear in standardised features; high is good."""

    columns: Tensor
    """Features that are read."""
    standard: stages.Standard
    fit: Fit
    penalties: dict[str, Penalties]
    """Of each stage."""

    def __call__(self, features: Tensor) -> Tensor:
        """Scores of clips, from all of their features."""
        parts = [self.standard(part[:, self.columns]) for part in features.split(1000)]
        return torch.cat([self.fit(part, part[:, :0])[:, 0] for part in parts])


class Study(Clips):
    """Judges and their results."""

    def __init__(self, settings: dict[str, Any], work: Path) -> None:
        super().__init__(settings, work)
        self.energy = cache(self.fit_energy)

    def fit_energy(
        self, reads: Reads, taps: str, sampler: str, seed: int
    ) -> tuple[stages.Standard, stages.Solved]:
        """Stage 1."""
        columns, widths = self.columns(reads, taps)
        real, negatives = self.drawn("real", seed), self.negatives(sampler, seed)
        made = {name: load for _, name, load in negatives if "/" in name}
        perturbations = self.keep_table(reads, f"{sampler}-{seed}", made)
        generated = self.table(reads, "generated")
        rows: dict[str, float] = {}
        for _, name, _ in negatives:
            rows[name] = rows.get(name, 0.0) + 1.0
        features = torch.cat(
            [self.table(reads, "real")(real)]
            + [(perturbations if "/" in name else generated)([name]) for name in rows]
        )[:, columns]
        standard = stages.Standard.of(features[: len(real)])
        sources = [*real, *(name.split("/")[0] for name in rows)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(sources))}
        solved = stages.solve_energy(
            standard(features),
            widths,
            positive=torch.arange(len(features)) < len(real),
            weights=torch.tensor([1.0] * len(real) + [*rows.values()]).double(),
            groups=torch.tensor([numbers[name] for name in sources]),
            beta=BETA,
        )
        return standard, solved

    def fit(self, row: Row, seed: int) -> Scorer:
        """The judge of a row."""
        columns, widths = self.columns(row.reads, row.taps)
        standard, energy = None, None
        if row.negatives:
            standard, solved = self.energy(row.reads, row.taps, row.negatives, seed)
            energy = solved.fit
            if row.kind == "energy":
                return Scorer(columns, standard, negated(energy), {"energy": solved.penalties})
        labelled = self.table(row.reads, "labelled")
        with (self.data / "compared.csv").open() as file:
            pairs = list(csv.DictReader(file))
        names = sorted({pair[side] for pair in pairs for side in ("video_a", "video_b")})
        number = {name: index for index, name in enumerate(names)}
        compared = Pairs(
            torch.tensor([number[pair["video_a"]] for pair in pairs]),
            torch.tensor([number[pair["video_b"]] for pair in pairs]),
            torch.tensor([int(pair["label"]) for pair in pairs]),
            torch.arange(len(pairs)),
        )
        if row.kind == "comparisons":
            clips = labelled(names)[:, columns]
            standard = standard or stages.Standard.of(clips)
            solved = stages.solve_comparisons(
                standard(clips), widths, compared, LOSS, energy=energy, seed=seed
            )
            chosen = {"comparisons": solved.penalties}
            return Scorer(columns, standard, solved.fit, chosen)
        ratings = self.labels(seed, row.labels)
        clips = labelled([rating["video"] for rating in ratings])[:, columns]
        standard = standard or stages.Standard.of(clips)
        targets = torch.tensor([[float(rating[name]) for name in ASPECTS] for rating in ratings])
        solved = stages.solve_aspects(
            standard(clips),
            widths,
            (targets.double() - LOW) / (HIGH - LOW),
            torch.arange(len(ratings)),
            energy=energy,
            seed=seed,
        )
        seen = standard(labelled(names)[:, columns])
        weights, _, chosen = stages.solve_preference(solved.fit(seen, seen[:, :0]), compared, LOSS)
        score = Fit((weights @ solved.fit.weight)[None], solved.fit.free[:1], weights[:1] * 0)
        penalties = {"aspects": solved.penalties, "preference": chosen}
        return Scorer(columns, standard, score, penalties)

    def test(self, row: Row, seed: int) -> dict[str, Any]:
        """Whether each test pair is put in the right order: 2, 1 for a tie, 0."""
        score = self.fit(row, seed)
        scores: dict[str, float] = {}
        for start in TEST_CLIPS:
            table = self.table(row.reads, "test", start)
            scores.update(zip(table.rows, score(table.features).tolist(), strict=True))
        return {
            "tests": marks(test_pairs(self.data), scores),
            "penalties": {stage: vars(chosen) for stage, chosen in score.penalties.items()},
        }

    def uncertainty(self, seed: int) -> dict[str, Any]:
        """Coverage of held-out ratings, and u of clips that the judge was not made for."""
        columns, _ = self.columns("trained", "three")
        judge = self.judge("trained", *default_taps(len(self.widths("trained")) - 1))
        known = FeatureCache(judge, batch_size=16)
        for folder in ("real", "labelled", "generated"):
            table = self.table("trained", folder)
            for name, row in table.rows.items():
                latents = latents_of(self.data / folder / f"{name}.safetensors")
                known.known[content_id(latents)] = table.features[row, columns]
        fitted = refit(
            judge,
            known,
            contrast=[
                Contrast(
                    partial(latents_of, self.data / "real" / f"{source}.safetensors"),
                    load,
                    (source, source if "/" in name else name),
                )
                for source, name, load in self.negatives("extended", seed)
            ][:: self.draws["negatives"]],
            ratings=[self.rating(row) for row in self.labels(seed, None)],
            aspects=[Aspect(name=name, low=LOW, high=HIGH) for name in ASPECTS],
            seed=seed,
        )
        values = self.coverage(fitted)
        paths = sorted((self.data / "real_held_out").iterdir())
        clean = torch.stack([latents_of(path) for path in paths])
        strange = {
            "optimised": optimised(fitted, clean, self.settings["optimised_steps"]),
            "noise": torch.randn(clean.shape, generator=keyed_generator(seed, 6)),
            "scaled": 1.5 * clean,
        }
        with torch.no_grad():
            usual = fitted(clean).leverage.sqrt()
            for name, changed in strange.items():
                ratio = fitted(changed).leverage.sqrt() / usual
                values |= {f"{name}_larger": (ratio > 1).float(), f"{name}_ratio": ratio}
        return {
            "tests": {
                name: {"values": [round(value, 4) for value in each.tolist()]}
                for name, each in values.items()
            }
        }

    def coverage(self, judge: VideoJudge) -> dict[str, Tensor]:
        """Of held-out clips, the share of ratings that lie in the judge's intervals."""
        columns, _ = self.columns("trained", "three")
        apart = self.rated()[-self.draws["held_out_ratings"] :]
        features = self.table("trained", "labelled")([row["video"] for row in apart])
        with torch.no_grad():
            found = judge.from_moments(features[:, None, columns])
        truth = torch.tensor([[float(row[name]) for name in ASPECTS] for row in apart])
        deviation = (judge.head.noise.diagonal() * (1 + found.leverage[:, None])).sqrt()
        error = ((truth - LOW) / (HIGH - LOW) - found.aspects[:, 0]).abs() / deviation
        return {
            f"coverage_{share}": (error < NormalDist().inv_cdf(0.5 + share / 200)).float().mean(1)
            for share in (50, 80, 95)
        }

    def rating(self, row: Mapping[str, str]) -> Rated:
        """A rated clip."""
        path = self.data / "labelled" / f"{row['video']}.safetensors"
        scores = {name: float(row[name]) for name in ASPECTS}
        return Rated(partial(latents_of, path), scores, row["video"])


def optimised(judge: VideoJudge, clips: Tensor, steps: int) -> Tensor:
    """Clips after some steps of Adam on their own score."""
    changed = clips.clone().requires_grad_()
    optimizer = torch.optim.Adam([changed], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (-judge(changed).scores.mean(dim=1).sum()).backward()
        optimizer.step()
    return changed.detach()


def negated(fit: Fit) -> Fit:
    """Low energy is good, a high score is."""
    return Fit(-fit.weight, -fit.free, -fit.bias)


def run(study: Study, results: Path) -> None:
    """All rows and seeds that have no result yet, the most important first."""
    only = study.settings.get("only") or [row.name for row in ROWS]
    for block in BLOCKS:
        for seed in range(study.settings["seeds"]):
            for row in block:
                path = results / f"{row.name}-{seed}.json"
                if row.name not in only or path.exists():
                    continue
                began = time.monotonic()
                uncertain = row.kind == "uncertainty"
                record = study.uncertainty(seed) if uncertain else study.test(row, seed)
                known = {"row": row.name, "seed": seed, "seconds": time.monotonic() - began}
                write_text(path, json.dumps(known | record) + "\n")
                print(f"{time.strftime('%H:%M:%S')} {path.stem}", flush=True)


def main() -> int:
    """Read the command line; build what is missing, run, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("studies/moments.yaml"))
    parser.add_argument("--work", type=Path, default=Path("runs/moments"), help="data, features")
    parser.add_argument("--results", type=Path, default=Path("studies/moment_results"))
    parser.add_argument("--page", type=Path, default=Path("docs/study/moments.md"))
    parser.add_argument("--only", nargs="+", help="run these rows alone")
    args = parser.parse_args()
    settings = yaml.safe_load(args.config.read_text())
    settings["only"] = args.only or settings.get("only")
    torch.set_num_threads(settings["threads"])
    build(args.work / "data", settings["sizes"], pipeline=settings["pipeline"])
    build_generated(args.work / "data", settings["sizes"], pipeline=settings["pipeline"])
    run(Study(settings, args.work), args.results)
    write_text(args.page, page(read_records(args.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
