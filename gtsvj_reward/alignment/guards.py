"""Detects reward hacking: compares the trained reward with metrics that are not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.metrics.student import student_quantile


@dataclass(frozen=True)
class Checkup:
    """Metrics of the same prompts and seeds at one iteration."""

    iteration: int
    proxy: Float[Tensor, " clip"]
    """The reward that is trained on."""
    eval_metrics: Mapping[str, Float[Tensor, " clip"]]
    """Metrics that are not trained on: other judges, pixel statistics; higher is better."""
    roughness: Float[Tensor, " clip"] | None = None
    """Variance over time of the reward's trajectory; None for a reward without one."""
    refits: int = 0
    """Number of refits of the reward so far; only proxies of the same reward are compared."""

    def metrics(self) -> dict[str, float]:
        """Means, by name, for logs."""
        found = {"proxy": self.proxy.mean().item()}
        means = {name: values.mean().item() for name, values in self.eval_metrics.items()}
        found |= {f"eval/{name}": mean for name, mean in means.items()}
        if self.roughness is not None:
            found["roughness"] = self.roughness.mean().item()
        return found

    def state(self) -> dict[str, Any]:
        """What `checkup_of` takes, for JSON."""
        return {
            "iteration": self.iteration,
            "proxy": self.proxy.tolist(),
            "eval_metrics": {name: values.tolist() for name, values in self.eval_metrics.items()},
            "roughness": None if self.roughness is None else self.roughness.tolist(),
            "refits": self.refits,
        }


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with its interval by Student's t."""

    mean: float
    low: float
    high: float


def paired_difference(
    after: Float[Tensor, " clip"], before: Float[Tensor, " clip"], *, tail: float = 0.025
) -> Difference:
    """How much a measure rose on the same prompts and seeds.

    Args:
        after: a measure of each clip.
        before: the same of the same clips.
        tail: probability that the true mean is beyond either end; 0.025 gives a 95% interval. It
            holds for measurements that were not selected by their values.

    Raises:
        ValueError: if the two are not of the same clips, or of fewer than two.
    """
    if after.shape != before.shape or after.ndim != 1 or len(after) < 2:
        raise ValueError(
            "expected two measurements of the same clips, at least two of them; got shapes "
            f"{tuple(after.shape)} and {tuple(before.shape)}"
        )
    gaps = (after - before).double()
    mean, error = gaps.mean().item(), gaps.std().item() / math.sqrt(len(gaps))
    half = student_quantile(tail, len(gaps) - 1) * error
    return Difference(mean, mean - half, mean + half)


@dataclass(frozen=True)
class GuardReport:
    """Result of the guards for a checkup."""

    alarms: tuple[str, ...]
    """Warnings; the metric that diverged at the most checkups in a row comes first."""
    diverged: bool
    """Whether the proxy has risen while an eval metric fell."""
    stop: bool
    """Whether the run should stop."""


@dataclass
class Guards:
    """Compares each checkup with earlier ones, and decides when to stop.

    The proxy and an eval metric diverge if, since the checkup at which the metric was best, the
    metric has fallen and the proxy has risen, both by Student's t. When one metric has diverged at
    `patience` checkups in a row, the run should stop. A refit changes the scale of the reward, so
    later checkups are compared only with those after the refit.

    The tests are corrected for multiple comparisons: the tail of each is `false_alarms` divided by
    all pairs of planned checkups and by the number of eval metrics (Bonferroni; Dunn 1961, Multiple
    comparisons among means, JASA 56). So if no metric falls, the probability of any alarm over all
    planned looks is at most `false_alarms`. Looks beyond the plan are tested as if they were
    planned, and increase this probability.

    Args:
        patience: checkups in a row before the stop; 0 never stops.
        roughness_factor: alarm if trajectories vary this many times as much as at the start.
        looks: number of planned checkups after the first.
        false_alarms: probability of an alarm in a run without divergence.

    Raises:
        ValueError: for numbers out of range.
    """

    patience: int = 2
    roughness_factor: float = 3.0
    looks: int = 20
    false_alarms: float = 0.05
    checkups: list[Checkup] = field(default_factory=list)
    diverged: dict[str, int] = field(default_factory=dict)
    """Eval metric -> checkups in a row that diverged by it."""

    def __post_init__(self) -> None:
        if self.patience < 0 or not self.roughness_factor > 1:
            raise ValueError(
                "expected patience >= 0 and roughness_factor > 1, got "
                f"{self.patience} and {self.roughness_factor}"
            )
        if self.looks < 1 or not 0 < self.false_alarms < 1:
            raise ValueError(
                "expected looks >= 1 and false_alarms between 0 and 1, got "
                f"{self.looks} and {self.false_alarms}"
            )

    def look(self, checkup: Checkup) -> GuardReport:
        """Record a checkup, and test it.

        Raises:
            ValueError: for a checkup of other measures or clips than the first.
        """
        names = sorted(checkup.eval_metrics)
        if self.checkups and (known := sorted(self.checkups[0].eval_metrics)) != names:
            raise ValueError(
                f"expected the eval metrics of the first checkup, {known}, got {names}"
            )
        self.checkups.append(checkup)
        found = {name: text for name in checkup.eval_metrics if (text := self._divergence(name))}
        self.diverged = {name: self.diverged.get(name, 0) + 1 for name in found}
        longest = sorted(found, key=lambda name: -self.diverged[name])
        stop = bool(longest) and 0 < self.patience <= self.diverged[longest[0]]
        return GuardReport((*(found[name] for name in longest), *self._rough()), bool(found), stop)

    def _divergence(self, name: str) -> str | None:
        """A warning if an eval metric has fallen since its best while the proxy rose."""
        latest = self.checkups[-1]
        alike = [checkup for checkup in self.checkups if checkup.refits == latest.refits]
        best = max(alike, key=lambda checkup: checkup.eval_metrics[name].mean().item())
        if best is latest:
            return None
        looks = max(self.looks, len(self.checkups) - 1)
        tail = self.false_alarms / (len(latest.eval_metrics) * math.comb(looks + 1, 2))
        metric = paired_difference(latest.eval_metrics[name], best.eval_metrics[name], tail=tail)
        proxy = paired_difference(latest.proxy, best.proxy, tail=tail)
        if metric.high >= 0 or proxy.low <= 0:
            return None
        return (
            f"{name} fell by {-metric.mean:.3g} since iteration {best.iteration} while the reward "
            f"rose by {proxy.mean:.3g}: the reward may be exploited, look at the clips"
        )

    def _rough(self) -> list[str]:
        latest_refits = self.checkups[-1].refits
        begun = next(checkup for checkup in self.checkups if checkup.refits == latest_refits)
        first, latest = begun.roughness, self.checkups[-1].roughness
        if first is None or latest is None:
            return []
        factor = latest.mean().item() / max(first.mean().item(), 1e-12)
        if factor <= self.roughness_factor:
            return []
        return [
            f"trajectories vary {factor:.1f} times as much over time as at the start: a few "
            "latent frames may carry the score"
        ]

    def state(self) -> dict[str, Any]:
        """What `load` takes, for JSON."""
        return {"checkups": [checkup.state() for checkup in self.checkups]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state by testing its checkups again."""
        self.checkups, self.diverged = [], {}
        for entry in state["checkups"]:
            self.look(checkup_of(entry))


def checkup_of(entry: Mapping[str, Any]) -> Checkup:
    """A checkup from its state."""
    roughness = entry["roughness"]
    return Checkup(
        iteration=int(entry["iteration"]),
        proxy=torch.tensor(entry["proxy"]),
        eval_metrics={name: torch.tensor(values) for name, values in entry["eval_metrics"].items()},
        roughness=None if roughness is None else torch.tensor(roughness),
        refits=int(entry["refits"]),
    )


def trajectory_variance(trajectories: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, " clip"]:
    """Variance over time of each clip's trajectory.

    The judge scores each latent time step, and the mean is the clip's score. If training raises the
    scores of a few steps only, the variance rises with the mean.
    """
    return torch.stack([steps.float().var(correction=0) for steps in trajectories])
