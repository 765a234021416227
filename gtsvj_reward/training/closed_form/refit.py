"""A moment judge from clips and labels, in one call; seconds once the clips were read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gtsvj_reward.judge import Aspect, Geometry, VideoJudge
from gtsvj_reward.judge.config import Stage
from gtsvj_reward.judge.readout import MomentReadout, tap_widths
from gtsvj_reward.judge.stages import NOT_MEASURED
from gtsvj_reward.metrics import spearman
from gtsvj_reward.training.closed_form.comparisons import PairLoss, Pairs
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from gtsvj_reward.training.closed_form.ridge import Fit, Penalties
from gtsvj_reward.training.closed_form.stages import (
    Solved,
    Standard,
    solve_aspects,
    solve_comparisons,
    solve_energy,
    solve_preference,
)


@dataclass(frozen=True)
class Contrast:
    """A positive clip and a negative one (Eq. 4); no label is needed."""

    positive: Load
    negative: Load
    groups: tuple[str, str]
    """The sources of both: the same for a perturbation of the positive clip."""


@dataclass(frozen=True)
class Rated:
    """A clip and what people said of it."""

    clip: Load
    scores: Mapping[str, float]
    """Aspect -> rating on the aspect's own scale; missing ones are left out."""
    group: str
    """Clips of one group are left out together: the prompt, or the clip itself."""


@dataclass(frozen=True)
class Compared:
    """Two clips and which of them is better."""

    first: Load
    second: Load
    label: int
    """+1: the first is better; -1: the second; 0: the same."""
    groups: tuple[str, str]
    """Of both clips; comparisons that share a group are left out together."""


def refit(
    judge: VideoJudge,
    cache: FeatureCache,
    *,
    contrast: Sequence[Contrast] = (),
    ratings: Sequence[Rated] = (),
    aspects: Sequence[Aspect] = (),
    comparisons: Sequence[Compared] = (),
    loss: PairLoss | None = None,
    beta: float = 0.2,
    geometry: Geometry | None = None,
    seed: int = 0,
) -> VideoJudge:
    """A judge fitted to what is given; `judge` itself stays as it is.

    Clips without labels give the energy, ratings give aspects, comparisons weight the aspects or,
    without ratings, make the score from the moments themselves. Any of the three is enough for a
    judge. What is given takes the place of what the judge has of that kind (to withdraw a label,
    give the others), and a stage builds on those before it: the energy is kept under new ratings,
    energy and aspects under new comparisons.

    Args:
        judge: of readout `moments`; fresh, or fitted before.
        cache: features of clips under it.
        contrast: positives and negatives; none keeps the energy that the judge has, if any.
        ratings: rated clips.
        aspects: what the ratings are of, with scales.
        comparisons: compared clips.
        loss: of comparisons; needed with them.
        beta: of Eq. 4.
        geometry: what clips these are; None keeps the judge's.
        seed: of the projection in which the uncertainty is kept.

    Returns:
        A judge on the same backbone. `config.training` says what it was fitted to, the penalties,
        and its errors on clips left out.

    Raises:
        ValueError: if nothing is given, and for labels from which nothing can be learnt.
    """
    if judge.config.readout != "moments":
        raise ValueError("`refit` is for judges with readout='moments'")
    if not (contrast or ratings or comparisons):
        raise ValueError("nothing to fit: give `contrast`, `ratings` or `comparisons`")
    parts = Parts(judge, cache, seed)
    if not contrast:
        parts.keep(aspects=not ratings)
    if contrast:
        parts.fit_energy(contrast, beta)
    if ratings:
        parts.fit_aspects(ratings, aspects)
    if comparisons:
        if loss is None:
            raise ValueError("comparisons need a `loss`")
        parts.fit_preference(comparisons, loss)
    return parts.judge_of(geometry or judge.config.geometry)


@dataclass
class Parts:
    """What a judge is made of, stage by stage."""

    judge: VideoJudge
    cache: FeatureCache
    seed: int
    standard: Standard | None = None
    energy: Fit | None = None
    stage: Stage = "discriminator"
    solved: Solved | None = None
    """Of the last stage that has outputs of its own."""
    aspects: tuple[Aspect, ...] = ()
    preference: tuple[Float[Tensor, " aspect"], float] | None = None
    """Weights of the aspects in the score, and its constant."""
    scale: dict[str, Any] = field(default_factory=dict)
    """Statistics of the score, for the config."""
    record: dict[str, Any] = field(default_factory=dict)
    """How it was fitted, for people."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each tap."""
        backbone = self.judge.backbone
        taps = self.judge.config.taps or ()
        return tap_widths(taps, backbone.latent_channels, backbone.dim)

    def standardised(self, features: Tensor) -> Float[Tensor, "row feature"]:
        """Features on the judge's scale, which these clips set where nothing has set it yet."""
        self.standard = self.standard or Standard.of(features)
        return self.standard(features)

    def keep(self, *, aspects: bool) -> None:
        """Take over what the judge has: its energy, and its aspects if they are wanted."""
        head, config = self.judge.head, self.judge.config
        if not isinstance(head, MomentReadout) or not bool(head.output.weight.any()):
            return  # fresh
        standard = Standard(head.mean.double().cpu(), head.deviation.double().cpu())
        energy = head.output if config.stage == "discriminator" else head.energy
        if energy is not None:
            self.standard, self.energy = standard, read(energy)
        if aspects and config.aspects and config.penalties is not None:
            self.standard, self.aspects, self.stage = standard, config.aspects, "aspects"
            penalties = Penalties(config.penalties, float("nan"), 0)
            root, noise = head.root.double().cpu(), head.noise.double().cpu()
            self.solved = Solved(read(head.output), penalties, None, root, noise)
            self.seed = config.projection_seed
            self.scale = {name: getattr(config, name) for name in NOT_MEASURED}
        self.record = {
            name: value
            for name, value in config.training.items()
            if name.startswith("energy: ") or (self.aspects and name.startswith("aspects: "))
        }

    def fit_energy(self, contrast: Sequence[Contrast], beta: float) -> None:
        """Stage 1."""
        rows = contrast_rows(self.cache, contrast)
        self.standard = Standard.of(rows.features[rows.positive])
        solved = solve_energy(
            self.standard(rows.features),
            self.widths,
            positive=rows.positive,
            weights=rows.weights,
            groups=rows.groups,
            beta=beta,
        )
        self.stage, self.solved, self.energy = "discriminator", solved, solved.fit
        left_out = require(solved.left_out)
        self.scale = scale_of(-left_out, f"{len(left_out)} positives and negatives, left out")
        known = {"pairs": len(contrast), "clips": len(rows.features), "beta": beta}
        self.note("energy", solved.penalties, known)

    def fit_aspects(self, ratings: Sequence[Rated], aspects: Sequence[Aspect]) -> None:
        """Stage 2."""
        self.fit_targets(
            [rated.clip for rated in ratings],
            range_normalised(ratings, aspects),
            [rated.group for rated in ratings],
            aspects,
            what="rated",
        )

    def fit_targets(
        self,
        clips: Sequence[Load],
        targets: Float[Tensor, "clip output"],
        groups: Sequence[str],
        aspects: Sequence[Aspect],
        *,
        what: str,
    ) -> None:
        """Regression of range-normalised aspects or, without `aspects`, of a score itself."""
        names = self.cache.read(clips, f"{what} clips")
        solved = solve_aspects(
            self.standardised(self.cache.features(names)),
            self.widths,
            targets,
            numbered(groups),
            energy=self.energy,
            seed=self.seed,
        )
        self.stage = "aspects" if aspects else "preference"
        self.solved, self.aspects = solved, tuple(aspects)
        left_out = require(solved.left_out)
        whole = left_out[~left_out.isnan().any(dim=1)]
        if len(whole) < 3:
            raise ValueError(
                f"{len(whole)} of {len(clips)} clips have a rating of every aspect: at least 3 "
                "are needed to measure the scale of the score"
            )
        self.scale = scale_of(
            whole.mean(dim=1, keepdim=True), f"{len(whole)} {what} clips, left out"
        )
        if aspects:
            centred = whole - whole.mean(dim=0)
            covariance = centred.T @ centred / (len(whole) - 1)
            self.scale |= {
                "aspect_mean": tuple(whole.mean(dim=0).tolist()),
                "aspect_covariance": tuple(tuple(row) for row in covariance.tolist()),
            }
        outputs = [aspect.name for aspect in aspects] or ["score"]
        known = {"clips": len(clips), "left-out spearman": agreement(left_out, targets, outputs)}
        self.note(self.stage, solved.penalties, known)

    def keep_preference(self, weights: Float[Tensor, " aspect"], bias: float) -> None:
        """Weight the aspects that were just fitted as another judge does."""
        left_out = require(require(self.solved).left_out)
        whole = left_out[~left_out.isnan().any(dim=1)]
        self.stage, self.preference = "preference", (weights, bias)
        scores = whole @ weights + bias
        self.scale |= scale_of(scores[:, None], f"{len(whole)} distilled clips, left out")

    def fit_preference(self, comparisons: Sequence[Compared], loss: PairLoss) -> None:
        """Stage 3, on the aspects or, without any, on the moments."""
        features, pairs = compared_rows(self.cache, comparisons)
        rows = self.standardised(features)
        if self.aspects:
            predicted = require(self.solved).fit(rows, rows[:, :0])
            weights, bias, chosen = solve_preference(predicted, pairs, loss)
            self.preference, scores = (weights, bias), predicted @ weights + bias
        else:
            solved = solve_comparisons(
                rows, self.widths, pairs, loss, energy=self.energy, seed=self.seed
            )
            self.solved, chosen = solved, solved.penalties
            scores = solved.fit(rows, rows[:, :0])[:, 0]
        self.stage = "preference"
        self.scale |= scale_of(scores[:, None], f"{len(features)} compared clips")
        self.note("preference", chosen, {"pairs": len(comparisons)})

    def note(self, stage: str, penalties: Penalties, known: Mapping[str, Any]) -> None:
        """Record a stage."""
        found = {
            **known,
            "penalty of each tap": [float(f"{value:.4g}") for value in penalties.penalties],
            "left-out error": round(penalties.left_out_error, 4),
        }
        self.record |= {f"{stage}: {name}": value for name, value in found.items()}

    def judge_of(self, geometry: Geometry | None) -> VideoJudge:
        """The judge that these parts make, on the backbone of the one they started from."""
        before, solved, standard = self.judge, require(self.solved), require(self.standard)
        posterior = solved.root is not None and self.stage != "discriminator"
        keeps_energy = self.stage != "discriminator" and self.energy is not None
        config = replace(
            before.config,
            **{**NOT_MEASURED, **self.scale},
            stage=self.stage,
            aspects=self.aspects,
            has_energy=keeps_energy,
            penalties=solved.penalties.penalties if posterior else None,
            projection_seed=self.seed,
            geometry=geometry,
            training={"method": "closed form", **self.record},
        )
        judge = VideoJudge(before.backbone, config, stored_text=before.stored_text, seed=0)
        head = judge.head
        if not isinstance(head, MomentReadout):
            raise TypeError(f"expected a moment readout, got {type(head).__name__}")
        head.mean.copy_(standard.mean)
        head.deviation.copy_(standard.deviation)
        fill(head.output, solved.fit)
        if head.energy is not None:
            fill(head.energy, require(self.energy))
        if posterior:
            head.root.copy_(require(solved.root))
            head.noise.copy_(require(solved.noise))
        if judge.preference is not None:
            weights, bias = require(self.preference)
            fill(judge.preference, Fit(weights[None], weights[None, :0], torch.tensor([bias])))
        judge.requires_grad_(False)
        judge.head.to(next(before.head.parameters()).device)
        return judge


@dataclass(frozen=True)
class ContrastRows:
    """The distinct clips among positives and negatives; a clip that occurs again weighs more."""

    features: Float[Tensor, "row feature"]
    positive: Bool[Tensor, " row"]
    weights: Float[Tensor, " row"]
    groups: Int[Tensor, " row"]


def contrast_rows(cache: FeatureCache, contrast: Sequence[Contrast]) -> ContrastRows:
    """Features of the clips of all pairs."""
    loads = [load for pair in contrast for load in (pair.positive, pair.negative)]
    names = cache.read(loads, "positives and negatives")
    groups = [group for pair in contrast for group in pair.groups]
    rows: dict[tuple[bool, str], list[str]] = {}
    for index, (name, group) in enumerate(zip(names, groups, strict=True)):
        rows.setdefault((index % 2 == 0, name), []).append(group)
    return ContrastRows(
        features=cache.features([name for _, name in rows]),
        positive=torch.tensor([positive for positive, _ in rows]),
        weights=torch.tensor([len(found) for found in rows.values()]).double(),
        groups=numbered([found[0] for found in rows.values()]),
    )


def compared_rows(
    cache: FeatureCache, comparisons: Sequence[Compared]
) -> tuple[Float[Tensor, "row feature"], Pairs]:
    """Features of the distinct clips that were compared, and the comparisons of these rows."""
    loads = [each.first for each in comparisons] + [each.second for each in comparisons]
    names = cache.read(loads, "compared clips")
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    first, second = names[: len(comparisons)], names[len(comparisons) :]
    same = [
        index for index, pair in enumerate(zip(first, second, strict=True)) if len(set(pair)) == 1
    ]
    if same:
        raise ValueError(
            f"comparison {same[0]} is of a clip with itself ({len(same)} of {len(comparisons)} "
            "have the same content on both sides): leave it out"
        )
    pairs = Pairs(
        first=torch.tensor([rows[name] for name in first]),
        second=torch.tensor([rows[name] for name in second]),
        labels=torch.tensor([each.label for each in comparisons]),
        groups=connected([each.groups for each in comparisons]),
    )
    return cache.features(list(rows)), pairs


def range_normalised(
    ratings: Sequence[Rated], aspects: Sequence[Aspect]
) -> Float[Tensor, "clip aspect"]:
    """Ratings scaled to 0..1, NaN where there is none, float64.

    Raises:
        ValueError: without aspects, and for a rating outside its scale.
    """
    if not aspects:
        raise ValueError("ratings need `aspects`: their names and scales")
    nothing = float("nan")
    table = torch.tensor(
        [[rated.scores.get(aspect.name, nothing) for aspect in aspects] for rated in ratings],
        dtype=torch.float64,
    )
    low = torch.tensor([aspect.low for aspect in aspects], dtype=torch.float64)
    high = torch.tensor([aspect.high for aspect in aspects], dtype=torch.float64)
    outside = ((table < low) | (table > high)).nonzero().tolist()
    if outside:
        row, column = outside[0]
        aspect = aspects[column]
        raise ValueError(
            f"rating {row} of {aspect.name!r} is {table[row, column]:g}, outside its scale "
            f"{aspect.low:g}..{aspect.high:g} ({len(outside)} such ratings)"
        )
    return (table - low) / (high - low)


def numbered(names: Sequence[str]) -> Int[Tensor, " row"]:
    """Groups as numbers, in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def connected(groups: Sequence[tuple[str, str]]) -> Int[Tensor, " pair"]:
    """A number per comparison, the same for those that share a group, also through others."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    for first, second in groups:
        root[find(first)] = find(second)
    return numbered([find(first) for first, _ in groups])


def read(layer: nn.Linear) -> Fit:
    """The readout of a layer."""
    weight, bias = layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()
    return Fit(weight, weight[:, :0], bias)


def fill(layer: nn.Linear, fit: Fit) -> None:
    """Write a readout into a layer."""
    with torch.no_grad():
        layer.weight.copy_(fit.weight)
        layer.bias.copy_(fit.bias)


def scale_of(scores: Float[Tensor, "row output"], data: str) -> dict[str, Any]:
    """Mean and standard deviation of a score, as the config has them.

    Raises:
        ValueError: if all scores are the same.
    """
    std = scores.std().item()
    if not std > 0:
        raise ValueError(f"the score is the same for all of {data}: its scale cannot be measured")
    return {"reward_mean": scores.mean().item(), "reward_std": std, "reward_data": data}


def agreement(
    left_out: Float[Tensor, "clip output"],
    targets: Float[Tensor, "clip output"],
    names: Sequence[str],
) -> dict[str, float]:
    """Rank correlation of ratings with predictions of fits that left the clip's group out."""
    found = {}
    for column, name in enumerate(names):
        rated = ~targets[:, column].isnan()
        value = spearman(left_out[rated, column], targets[rated, column])
        found[name] = round(value, 4)
    return found


T = TypeVar("T")


def require(value: T | None) -> T:
    """A part that an earlier stage has set."""
    if value is None:
        raise RuntimeError("a stage is missing that a later one builds on")
    return value
