"""How far raters agree who labelled the same clips: Krippendorff's alpha."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gtsvj_reward.labelling.labels import Answer


@dataclass(frozen=True)
class Agreement:
    """Agreement between raters."""

    units: int
    """Pairs or clips that at least two raters labelled."""
    raters: int
    """Who labelled any of these."""
    alpha: float | None
    """1: perfect; 0: as by chance; None if it is not defined, without such units or where all
    labels are the same."""
    conflicts: int
    """Units on which raters disagree."""


Table = Mapping[tuple[str, ...], Mapping[str, float]]
"""Unit -> rater -> label."""


def compared_table(answers: Sequence[Answer]) -> dict[tuple[str, ...], dict[str, float]]:
    """Pair, clips in order of their names -> rater -> label; the latest of a rater counts."""
    table: dict[tuple[str, ...], dict[str, float]] = {}
    for answer in answers:
        unit = tuple(sorted(answer.task.clips))
        label = answer.label or 0
        turned = label if unit == answer.task.clips else -label
        table.setdefault(unit, {})[answer.task.rater] = turned
    return table


def rated_table(answers: Sequence[Answer], aspect: str) -> dict[tuple[str, ...], dict[str, float]]:
    """Clip -> rater -> rating of an aspect; the latest of a rater counts."""
    table: dict[tuple[str, ...], dict[str, float]] = {}
    for answer in answers:
        if answer.scores and aspect in answer.scores:
            table.setdefault(answer.task.clips, {})[answer.task.rater] = answer.scores[aspect]
    return table


def agreement(table: Table, *, mirrored: bool = False) -> Agreement:
    """Krippendorff's alpha for ordered labels (Krippendorff 2011).

    Args:
        table: labels.
        mirrored: count each pair in both directions, so that alpha does not depend on which clip
            is called first.
    """
    import krippendorff

    shared = {unit: labels for unit, labels in table.items() if len(labels) > 1}
    raters = sorted({rater for labels in shared.values() for rater in labels})
    rows = [[labels.get(rater, np.nan) for rater in raters] for labels in shared.values()]
    conflicts = sum(len(set(labels.values())) > 1 for labels in shared.values())
    alpha = None
    if len({label for labels in shared.values() for label in labels.values()}) > 1:
        data = np.array(rows).T
        if mirrored:
            data = np.concatenate([data, -data], axis=1)
        alpha = float(krippendorff.alpha(reliability_data=data, level_of_measurement="ordinal"))
    return Agreement(len(shared), len(raters), alpha, conflicts)
