"""Accuracy at thresholds that other pairs chose, and what its interval is worth."""

import numpy as np
import pytest
import torch

from gtsvj_reward.metrics import (
    accuracy_at_threshold,
    accuracy_with_ties,
    bootstrap_interval,
    cross_fitted_accuracy_with_ties,
    cross_fitted_interval,
)


def some_pairs(count=60, seed=0, grid=0.5):
    """Scores that collide, and labels that follow them loosely; a third are ties."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator)
    told = values + torch.randn(count, generator=generator)
    labels = told.sign().masked_fill(told.abs() < 0.6, 0).long()
    return (values / grid).round() * grid, labels


def test_each_fold_is_answered_by_the_others():
    # Fold 0 (1, -4) is answered at 3, which suits (3, 0) and (2, 0): both right there, and then
    # 1 is a tie, wrong, and -4 right. Fold 1 is answered at 0, which suits (1, +1) and (-4, -1):
    # 3 and 2 are no ties, wrong. One of four; in-sample 0 gets two, 1 one, 2 two, 3 three.
    differences = torch.tensor([1.0, -4.0, 3.0, 2.0])
    labels = torch.tensor([1, -1, 0, 0])
    found = cross_fitted_accuracy_with_ties(differences, labels, torch.tensor([0, 0, 1, 1]))
    assert (found.accuracy, found.threshold, found.predicted_ties) == (1 / 4, 3.0, 1)
    assert accuracy_with_ties(differences, labels).accuracy == 3 / 4


@pytest.mark.parametrize("seed", range(5))
def test_one_sort_finds_what_a_fit_per_fold_finds(seed):
    differences, labels = some_pairs(seed=seed)
    folds = torch.randint(3, (60,), generator=torch.Generator().manual_seed(seed))
    right = 0.0
    for fold in range(3):
        threshold = accuracy_with_ties(differences[folds != fold], labels[folds != fold]).threshold
        own = accuracy_at_threshold(differences[folds == fold], labels[folds == fold], threshold)
        right += own.accuracy * own.pairs
    found = cross_fitted_accuracy_with_ties(differences, labels, 7 - 3 * folds)
    assert found.accuracy == pytest.approx(right / 60)
    assert found.threshold == accuracy_with_ties(differences, labels).threshold


def test_the_interval_fits_thresholds_anew_and_lies_around_the_accuracy():
    differences, labels = some_pairs()
    folds = torch.arange(60) % 10
    found = cross_fitted_accuracy_with_ties(differences, labels, folds)
    low, high = cross_fitted_interval(differences, labels, folds, resamples=400)
    assert 0 <= low < found.accuracy < high <= 1
    kept = bootstrap_interval(
        lambda i: accuracy_at_threshold(differences[i], labels[i], found.threshold).accuracy, 60
    )
    assert high - low > kept[1] - kept[0], "a threshold that is fitted varies"
    alone = cross_fitted_interval(differences, labels, folds, resamples=400, groups=folds)
    assert alone != (low, high)


@pytest.mark.usefixtures("unchecked")
def test_bad_folds_are_refused():
    differences, labels = some_pairs(4)
    with pytest.raises(ValueError, match="all 4 pairs are in one fold"):
        cross_fitted_accuracy_with_ties(differences, labels, torch.full((4,), 2))
    with pytest.raises(ValueError, match=r"one entry per pair: got shape \(3,\) for 4"):
        cross_fitted_accuracy_with_ties(differences, labels, torch.arange(3))


@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_folds_and_groups_come_as_people_have_them(make):
    differences, labels = [0.5, -1.0, 2.0, -0.5], [1, -1, 0, 0]
    folds, groups = [0, 1, 0, 1], [3, 4, 3, 5]
    expected = cross_fitted_interval(
        torch.tensor(differences).double(), torch.tensor(labels), torch.tensor(folds),
        groups=torch.tensor(groups), resamples=9,
    )  # fmt: skip
    found = cross_fitted_interval(
        make(differences), make(labels), make(folds), groups=make(groups), resamples=9
    )
    assert found == expected
