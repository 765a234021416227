"""Fits of the study of moments: a row's judge as a score linear in features."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.losses import bradley_terry_with_ties_loss
from gtsvj_reward.toy.raters import ASPECTS, HIGH, LOW
from gtsvj_reward.training.closed_form import stages
from gtsvj_reward.training.closed_form.comparisons import Pairs
from gtsvj_reward.training.closed_form.ridge import Fit, Penalties
from studies.moments_features import Clips
from studies.moments_rows import TEACHER, Reads, Row

BETA = 0.2
LOSS = partial(bradley_terry_with_ties_loss, gamma=1.0)
STUDIED = ("labelled", "real", "generated")
"""Folders of the clips that students learn from."""


@dataclass(frozen=True)
class Scorer:
    """A score that is linear in standardised features; higher is better."""

    columns: Tensor
    """Names of the features."""
    standard: stages.Standard
    fit: Fit
    penalties: dict[str, Penalties]
    """Penalties of each stage."""

    def __call__(self, features: Tensor) -> Tensor:
        """Scores of clips, from all of their features."""
        parts = [self.standard(part[:, self.columns]) for part in features.split(1000)]
        return torch.cat([self.fit(part, part[:, :0])[:, 0] for part in parts])


class Fits(Clips):
    """The judges of the rows."""

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
        if row.kind == "surprise":
            width = len(columns)
            plain = stages.Standard(torch.zeros(width).double(), torch.ones(width).double())
            weight = torch.full((1, width), -1 / width).double()
            return Scorer(columns, plain, Fit(weight, weight[:, :0], weight[:, 0] * 0), {})
        if row.kind == "energy":
            standard, solved = self.energy(row.reads, row.taps, str(row.negatives), seed)
            return Scorer(columns, standard, negated(solved.fit), {"energy": solved.penalties})
        if row.kind == "student":
            return self.fit_student(row, seed)
        labelled = self.table(row.reads, "labelled")
        pairs = self.compared()
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
            standard, energy = self.start(row, seed, clips)
            solved = stages.solve_comparisons(
                standard(clips), widths, compared, LOSS, energy=energy, seed=seed
            )
            chosen = {"comparisons": solved.penalties}
            return Scorer(columns, standard, solved.fit, chosen)
        ratings = self.labels(seed, row.labels)
        targets = torch.tensor([[float(rating[name]) for name in ASPECTS] for rating in ratings])
        groups = torch.arange(len(ratings))
        clips = labelled([rating["video"] for rating in ratings])
        aspects = self.fit_aspects(row, seed, clips, targets, groups)
        seen = aspects.standard(labelled(names)[:, columns])
        weights, _, chosen = stages.solve_preference(aspects.fit(seen, seen[:, :0]), compared, LOSS)
        score = Fit((weights @ aspects.fit.weight)[None], aspects.fit.free[:1], weights[:1] * 0)
        return Scorer(columns, aspects.standard, score, {**aspects.penalties, "preference": chosen})

    def fit_aspects(
        self, row: Row, seed: int, clips: Tensor, ratings: Tensor, groups: Tensor
    ) -> Scorer:
        """Stage 2, with the energy that the row has.

        Args:
            row: says what is read, and which energy is an input.
            seed: of the energy.
            clips: all features.
            ratings: on their scale (clip, aspect).
            groups: clips that are left out together.
        """
        columns, widths = self.columns(row.reads, row.taps)
        standard, energy = self.start(row, seed, clips[:, columns])
        features = standard(clips[:, columns])
        targets = (ratings.double() - LOW) / (HIGH - LOW)
        if energy is None or row.energy_input == "free":
            solved = stages.solve_aspects(
                features, widths, targets, groups, energy=energy, seed=seed
            )
            return Scorer(columns, standard, solved.fit, {"aspects": solved.penalties})
        values = energy(features, features[:, :0])
        shift, scale = values.mean(), values.std()
        rows = torch.cat([features, (values - shift) / scale], dim=1)
        solved = stages.solve_aspects(rows, (*widths, 1), targets, groups, energy=None, seed=seed)
        weight, share = solved.fit.weight[:, :-1], solved.fit.weight[:, -1:] / scale
        fit = Fit(
            weight + share @ energy.weight,
            solved.fit.free,
            solved.fit.bias + share[:, 0] * (energy.bias - shift),
        )
        return Scorer(columns, standard, fit, {"aspects": solved.penalties})

    def fit_student(self, row: Row, seed: int) -> Scorer:
        """Ridge regression on the scores of the judge `reward` for all clips, without labels."""
        columns, widths = self.columns(row.reads, row.taps)
        teacher = self.fit(TEACHER, seed)
        clips, seen = (
            torch.cat([self.table(reads, name).features for name in STUDIED])
            for reads in (row.reads, TEACHER.reads)
        )
        standard = stages.Standard.of(clips[:, columns])
        solved = stages.solve_aspects(
            standard(clips[:, columns]),
            widths,
            teacher(seen)[:, None],
            torch.arange(len(clips)),
            energy=None,
            seed=seed,
        )
        return Scorer(columns, standard, solved.fit, {"student": solved.penalties})

    def fit_pairs(self, row: Row, seed: int, better: Tensor, worse: Tensor) -> Scorer:
        """A judge of labelled pairs of clips; in every other pair the worse clip comes first."""
        columns, widths = self.columns(row.reads, row.taps)
        clips = torch.cat([better, worse])[:, columns]
        standard, energy = self.start(row, seed, clips)
        number = torch.arange(len(better))
        front = number % 2 == 0
        pairs = Pairs(
            torch.where(front, number, number + len(better)),
            torch.where(front, number + len(better), number),
            torch.where(front, 1, -1),
            number,
        )
        solved = stages.solve_comparisons(
            standard(clips), widths, pairs, LOSS, energy=energy, seed=seed
        )
        return Scorer(columns, standard, solved.fit, {"comparisons": solved.penalties})

    def start(self, row: Row, seed: int, clips: Tensor) -> tuple[stages.Standard, Fit | None]:
        """Scale of features from some clips, and the row's energy, if any."""
        if row.negatives is None:
            return stages.Standard.of(clips), None
        standard, solved = self.energy(row.reads, row.taps, row.negatives, seed)
        return standard, solved.fit


def negated(fit: Fit) -> Fit:
    """Score from an energy: lower energy is better."""
    return Fit(-fit.weight, -fit.free, -fit.bias)
