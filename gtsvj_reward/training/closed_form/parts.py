"""The parts of a moment judge, stage by stage, and the judge built from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gtsvj_reward.judge import Aspect, Geometry, VideoJudge
from gtsvj_reward.judge.reading import feature_widths
from gtsvj_reward.judge.readout import MomentReadout
from gtsvj_reward.judge.settings import Stage
from gtsvj_reward.judge.stages import NOT_MEASURED
from gtsvj_reward.losses import PairLoss
from gtsvj_reward.training.closed_form.examples import (
    Compared,
    Contrast,
    Rated,
    compared_rows,
    contrast_rows,
    numbered,
    own_scale,
    range_normalised,
)
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from gtsvj_reward.training.closed_form.record import (
    GROUP_SHARE,
    METHODS,
    RATED,
    agreement,
    content_record,
    scale_of,
)
from gtsvj_reward.training.closed_form.ridge import Fit, Penalties
from gtsvj_reward.training.closed_form.searched import check_targets
from gtsvj_reward.training.closed_form.sketch import BlockProjection
from gtsvj_reward.training.closed_form.spread import shared_standard, solve_spread
from gtsvj_reward.training.closed_form.stages import (
    Solved,
    Standard,
    energy_targets,
    solve_aspects,
    solve_comparisons,
    solve_energy,
    solve_preference,
)


@dataclass
class Parts:
    """The parts of a judge, stage by stage."""

    judge: VideoJudge
    cache: FeatureCache
    seed: int
    projection_width: int | None = None
    """Of the projection in which stages 1 and 2 are solved; None: all features."""
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
    def before(self) -> Mapping[str, Any]:
        """How the judge that is refitted was fitted."""
        return self.judge.config.training

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each tap, and of the surprise."""
        return feature_widths(self.judge.backbone, self.judge.config)

    def standardised(self, features: Tensor) -> Float[Tensor, "row feature"]:
        """Features on the judge's scale, which these clips set where nothing has set it yet."""
        self.standard = self.standard or Standard.of(features)
        return self.standard(features)

    def keep(self, *, aspects: bool) -> None:
        """Keep the judge's energy, and its aspects if wanted."""
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

    def solve_spread(
        self,
        names: Sequence[str],
        targets: Float[Tensor, "row output"],
        groups: Int[Tensor, " row"],
        weights: Float[Tensor, " row"],
        *,
        standard_rows: Tensor,
        posterior: bool,
    ) -> Solved:
        """Regression in which each process holds the features of clips that it read."""
        place, features = self.cache.share(names)
        if self.standard is None:
            self.standard = shared_standard(features[standard_rows[place]])
        return solve_spread(
            place,
            features,
            self.standard,
            BlockProjection(self.widths, require(self.projection_width), seed=self.seed),
            self.widths,
            targets,
            groups,
            weights,
            energy=self.energy if posterior else None,
            seed=self.seed if posterior else None,
        )

    def fit_energy(self, contrast: Sequence[Contrast], beta: float) -> None:
        """Stage 1."""
        rows = contrast_rows(self.cache, contrast)
        targets, halves = energy_targets(rows.positive, rows.weights, beta)
        check_targets(rows.groups, targets, ["energy of positives and negatives"])
        if self.projection_width is None:
            features = self.cache.features(rows.names)
            self.standard = Standard.of(features[rows.positive])
            solved = solve_energy(
                self.standard(features),
                self.widths,
                positive=rows.positive,
                weights=rows.weights,
                groups=rows.groups,
                beta=beta,
            )
        else:
            self.standard = None
            solved = self.solve_spread(
                rows.names, targets, rows.groups, halves,
                standard_rows=rows.positive, posterior=False,
            )  # fmt: skip
        self.stage, self.solved, self.energy = "discriminator", solved, solved.fit
        left_out = require(solved.left_out)
        self.scale = scale_of(-left_out, f"{len(left_out)} positives and negatives, left out")
        known = {"pairs": len(contrast), "clips": len(rows.names), "beta": beta}
        self.note("energy", solved.penalties, known)

    def fit_aspects(self, ratings: Sequence[Rated], aspects: Sequence[Aspect]) -> None:
        """Stage 2."""
        self.fit_targets(
            [rated.clip for rated in ratings],
            range_normalised(ratings, aspects),
            [rated.group for rated in ratings],
            aspects,
            what=RATED,
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
        outputs = [aspect.name for aspect in aspects] or ["score"]
        given = own_scale(targets, aspects) if aspects else targets
        check_targets(numbered(groups), given, [f"{name!r} of {what} clips" for name in outputs])
        names = self.cache.read(clips, f"{what} clips")
        if self.projection_width is None:
            solved = solve_aspects(
                self.standardised(self.cache.features(names)),
                self.widths,
                targets,
                numbered(groups),
                energy=self.energy,
                seed=self.seed,
                group_effects=what == RATED,
            )
        else:
            every = targets.new_ones(len(names))
            solved = self.solve_spread(
                names, targets, numbered(groups), every, standard_rows=every > 0, posterior=True
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
        known: dict[str, Any] = {"clips": len(clips)}
        if what == RATED:
            known |= content_record("aspects", [[name] for name in names], self.before)
        known["left-out spearman"] = agreement(left_out, targets, outputs)
        if what == RATED and solved.group_share is not None:
            known[GROUP_SHARE] = solved.group_share
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
        names, pairs = compared_rows(self.cache, comparisons)
        rows = self.standardised(self.cache.features(names))
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
        self.scale |= scale_of(scores[:, None], f"{len(names)} compared clips")
        sides = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        compared = [[names[first], names[second]] for first, second in sides]
        known = content_record("preference", compared, self.before)
        self.note("preference", chosen, {"pairs": len(comparisons), **known})

    def note(self, stage: str, penalties: Penalties, known: Mapping[str, Any]) -> None:
        """Record a stage."""
        projected = {"projected to": self.projection_width}
        found = {
            **known,
            **(projected if self.projection_width and stage != "preference" else {}),
            "penalty of each tap": [float(f"{value:.4g}") for value in penalties.penalties],
            "left-out error": round(penalties.left_out_error, 4),
        }
        self.record |= {f"{stage}: {name}": value for name, value in found.items()}

    def judge_of(self, geometry: Geometry | None) -> VideoJudge:
        """The judge built from these parts, on the same backbone."""
        before, solved, standard = self.judge, require(self.solved), require(self.standard)
        posterior = solved.root is not None and self.stage != "discriminator"
        keeps_energy = self.stage != "discriminator" and self.energy is not None
        config = replace(
            before.config,
            **{**NOT_MEASURED, **self.scale},
            aspect_weights=None,  # written when the judge is saved
            score_bias=None,
            stage=self.stage,
            aspects=self.aspects,
            has_energy=keeps_energy,
            penalties=solved.penalties.penalties if posterior else None,
            projection_seed=self.seed,
            geometry=geometry,
            training={"method": METHODS[before.config.lora_rank > 0], **self.record},
        )
        judge = VideoJudge(
            before.backbone,
            config,
            stored_text=before.stored_text,
            seed=0,
            adapted=config.lora_rank > 0,
        )
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


def read(layer: nn.Linear) -> Fit:
    """The readout of a layer."""
    weight, bias = layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()
    return Fit(weight, weight[:, :0], bias)


def fill(layer: nn.Linear, fit: Fit) -> None:
    """Write a readout into a layer."""
    with torch.no_grad():
        layer.weight.copy_(fit.weight)
        layer.bias.copy_(fit.bias)


T = TypeVar("T")


def require(value: T | None) -> T:
    """A part that an earlier stage has set."""
    if value is None:
        raise RuntimeError("a stage is missing that a later one builds on")
    return value
