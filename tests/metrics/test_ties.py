"""Accuracy with ties against a search over all thresholds, and by hand."""

import math
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward import metrics
from gtsvj_reward.metrics import (
    accuracy_against_threshold,
    accuracy_at_threshold,
    accuracy_with_ties,
    accuracy_without_ties,
    held_out_accuracy_with_ties,
)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def answer(difference, threshold):
    """What scores say of one pair, the slow way."""
    if abs(difference) <= threshold:
        return 0
    return 1 if difference > 0 else -1


def searched(differences, labels):
    """(accuracy, threshold) of the best threshold, trying each on each pair."""
    best = (-1, None)
    for threshold in sorted({0.0, *(abs(d) for d in differences)}):
        right = sum(answer(d, threshold) == h for d, h in zip(differences, labels, strict=True))
        best = max(best, (right, -threshold))
    return best[0] / len(labels), -best[1]


def made_up(rng):
    """A few pairs of one of many kinds: rounded or not, with any share of ties on either side."""
    count = rng.choice([1, 1, 2, 3, 5, 8, 13])
    digits = rng.choice([None, 1, 0])
    differences = [rng.gauss(0, 1) for _ in range(count)]
    if digits is not None:
        differences = [round(d, digits) + 0.0 for d in differences]
    if rng.random() < 0.1:
        differences = [differences[0]] * count
    answers = rng.choice([(1, -1, 0), (1, -1), (0,), (1,), (1, 0), (0, 0, 0, 1, -1)])
    return differences, [rng.choice(answers) for _ in range(count)]


@pytest.mark.usefixtures("unchecked")
def test_it_equals_a_search_over_all_thresholds():
    rng, thresholds, ties = random.Random(0), set(), 0
    for _ in range(5000):
        differences, labels = made_up(rng)
        found = accuracy_with_ties(doubles(*differences), torch.tensor(labels))
        assert (found.accuracy, found.threshold) == searched(differences, labels)
        assert found.pairs == len(labels)
        assert found.human_ties == labels.count(0)
        assert found.predicted_ties == sum(abs(d) <= found.threshold for d in differences)
        at = accuracy_at_threshold(doubles(*differences), torch.tensor(labels), found.threshold)
        assert at == found
        thresholds.add(found.threshold > 0)
        ties += found.predicted_ties
    assert thresholds == {True, False}
    assert ties > 1000, "hardly a tie was predicted: the test proves little"


@pytest.mark.usefixtures("unchecked")
def test_the_curve_is_the_accuracy_at_each_threshold():
    rng = random.Random(1)
    for _ in range(300):
        differences, labels = made_up(rng)
        pairs = doubles(*differences), torch.tensor(labels)
        thresholds, accuracies = accuracy_against_threshold(*pairs)
        assert thresholds.tolist() == sorted({0.0, *(abs(d) for d in differences)})
        for threshold, accuracy in zip(thresholds.tolist(), accuracies.tolist(), strict=True):
            assert accuracy_at_threshold(*pairs, threshold).accuracy == accuracy
        best = accuracy_with_ties(*pairs)
        assert best.accuracy == accuracies.max()
        assert best.threshold == thresholds[accuracies == accuracies.max()][0]


def test_three_answers_by_hand():
    # Differences 0.1 (tie), -0.2 (A), 0.9 (A), -0.8 (B), 0 (tie), 0.9 (tie).
    # Threshold 0: right on 0.9 (A), -0.8 and 0, that is 3. At 0.1 also on 0.1: 4. At 0.2 the wrong
    # -0.2 becomes a tie, no better: 4. At 0.8 the right -0.8 is lost: 3. At 0.9 the three ties.
    differences, labels = doubles(0.1, -0.2, 0.9, -0.8, 0, 0.9), torch.tensor([0, 1, 1, -1, 0, 0])
    thresholds, accuracies = accuracy_against_threshold(differences, labels)
    torch.testing.assert_close(thresholds, doubles(0, 0.1, 0.2, 0.8, 0.9))
    torch.testing.assert_close(accuracies, doubles(3, 4, 4, 3, 3) / 6)
    found = accuracy_with_ties(differences, labels)
    assert (found.accuracy, found.threshold, found.predicted_ties) == (4 / 6, 0.1, 2)
    assert (found.pairs, found.human_ties) == (6, 3)


def test_all_pairs_of_four_by_hand():
    # Scores 0, 2, 6, 8 for clips that people rate 1, 1, 1, 4; six pairs, later minus earlier:
    # 2 (tie), 6 (tie), 8 (better), 4 (tie), 6 (better), 2 (better).
    # Right at 0: 8, 6 and 2, that is 3. At 2 (both pairs) a tie is gained and a win lost: 3. At 4
    # another tie: 4. At 6 a tie for a win: 4. At 8 the three ties.
    differences, labels = doubles(2, 6, 8, 4, 6, 2), torch.tensor([0, 0, 1, 0, 1, 1])
    found = accuracy_with_ties(differences, labels)
    assert (found.accuracy, found.threshold, found.predicted_ties) == (4 / 6, 4, 3)
    torch.testing.assert_close(
        accuracy_against_threshold(differences, labels)[1], doubles(3, 3, 4, 4, 3) / 6
    )


def test_a_constant_score_gets_the_share_of_human_ties():
    found = accuracy_with_ties(torch.zeros(8), torch.tensor([0, 0, 0, 1, 1, -1, 1, -1]))
    assert (found.accuracy, found.threshold, found.predicted_ties) == (3 / 8, 0, 8)


def test_a_tie_that_people_saw_and_scores_show_is_right_at_threshold_0():
    found = accuracy_with_ties(doubles(0.0, 1.0), torch.tensor([0, 1]))
    assert (found.accuracy, found.threshold, found.predicted_ties) == (1, 0, 1)


PAIRS = st.lists(st.tuples(st.integers(-6, 6), st.sampled_from([-1, 0, 1])), min_size=1, max_size=9)


@settings(max_examples=60)
@given(pairs=PAIRS, seed=st.integers(0, 99))
def test_only_the_order_of_the_differences_counts(pairs, seed):
    differences, labels = (torch.tensor(side) for side in zip(*pairs, strict=True))
    found = accuracy_with_ties(differences.double(), labels)
    swapped = accuracy_with_ties(-differences.double(), -labels)
    assert swapped == found, "which clip is called A is of no account"
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    assert accuracy_with_ties(differences[order].double(), labels[order]) == found
    cubed = accuracy_with_ties(differences.double() ** 3, labels)
    assert (cubed.accuracy, cubed.predicted_ties) == (found.accuracy, found.predicted_ties)


def test_half_precision_is_read_exactly():
    differences = torch.tensor([0.1, -0.2, 0.3], dtype=torch.bfloat16)
    found = accuracy_with_ties(differences, torch.tensor([0, -1, 1]))
    assert (found.accuracy, found.threshold) == (1, differences[0].item())


def test_a_given_threshold_by_hand():
    # |d| <= 0.5: 0.5 and -0.1 are ties, 0.6 and -2 are A and B.
    differences, labels = doubles(0.5, -0.1, 0.6, -2), torch.tensor([0, -1, 1, 1])
    found = accuracy_at_threshold(differences, labels, 0.5)
    assert (found.accuracy, found.pairs, found.human_ties) == (2 / 4, 4, 1)
    assert (found.predicted_ties, found.threshold) == (2, 0.5)


def test_without_ties_by_hand():
    # Two human ties left out; of the other four 1 (A) and -3 (B) are right, -1 (A) and 0 (B) wrong.
    differences, labels = doubles(1, 0, -3, -1, 0, 5), torch.tensor([1, 0, -1, 1, -1, 0])
    found = accuracy_without_ties(differences, labels)
    assert (found.accuracy, found.pairs, found.human_ties) == (0.5, 4, 2)
    assert (found.predicted_ties, found.threshold) == (1, None)


def test_the_held_out_threshold_comes_from_the_other_pairs():
    # Calibration pairs: 0.3 (tie), 0.4 (A): threshold 0.3, all right. Held out: 0.2 (A), 0.9 (A),
    # -0.25 (tie): 0.2 is wrongly a tie: 2/3.
    differences, labels = doubles(0.3, 0.4, 0.2, 0.9, -0.25), torch.tensor([0, 1, 1, 1, 0])
    calibration = torch.tensor([True, True, False, False, False])
    found = held_out_accuracy_with_ties(differences, labels, calibration)
    assert (found.accuracy, found.threshold, found.predicted_ties) == (2 / 3, 0.3, 2)
    assert (found.pairs, found.human_ties) == (3, 1)
    # The other way round, right are 2 at 0, 1 at 0.2, 2 at 0.25, 1 at 0.9: threshold 0, at which
    # the tie at 0.3 is wrong: 1/2.
    back = held_out_accuracy_with_ties(differences, labels, ~calibration)
    assert (back.accuracy, back.threshold, back.predicted_ties) == (1 / 2, 0, 0)


@pytest.mark.usefixtures("unchecked")
def test_a_fitted_threshold_flatters_and_a_held_out_one_does_not():
    # Differences that know nothing of the labels; 20 pairs, one of three answers each. Whatever the
    # threshold, an honest accuracy is 1/3 on average; the best of 20 thresholds is far above.
    generator = torch.Generator().manual_seed(0)
    fitted, honest = [], []
    for _ in range(600):
        differences = torch.randn(40, generator=generator)
        labels = torch.randint(-1, 2, (40,), generator=generator)
        half = torch.arange(40) < 20
        honest.append(held_out_accuracy_with_ties(differences, labels, half).accuracy)
        fitted.append(accuracy_with_ties(differences[half], labels[half]).accuracy)
    # Standard error: sqrt(2/9 / 20 / 600) = 0.0043.
    assert sum(honest) / 600 == pytest.approx(1 / 3, abs=0.015)
    assert sum(fitted) / 600 > 0.4


@pytest.mark.usefixtures("unchecked")
def test_a_million_pairs_take_seconds():
    """Of this process, however busy the machine; n squared would take hours."""
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(10**6, generator=generator)
    labels = torch.randint(-1, 2, (10**6,), generator=generator)
    began = time.process_time()
    found = accuracy_with_ties(differences, labels)
    assert time.process_time() - began < 30
    assert found.pairs == 10**6


CALLS = {
    "accuracy_with_ties": (),
    "accuracy_against_threshold": (),
    "accuracy_at_threshold": (0.1,),
    "accuracy_without_ties": (),
    "held_out_accuracy_with_ties": (torch.tensor([True, False]),),
    "videoreward_accuracy_with_ties": (),
    "videoreward_accuracy_without_ties": (),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CALLS)
def test_bad_pairs_are_refused_by_all(name):
    def call(differences, labels):
        return getattr(metrics, name)(differences, labels, *CALLS[name])

    labels = torch.tensor([1, 0])
    assert call(doubles(1, 2), labels) is not None
    with pytest.raises(ValueError, match=r"pair 1 has the difference nan \(1 of 2"):
        call(doubles(1, math.nan), labels)
    with pytest.raises(ValueError, match="pair 0 has the difference -inf"):
        call(doubles(-math.inf, 1), labels)
    with pytest.raises(ValueError, match=r"pair 1 has the label 2 \(1 of 2 pairs\)"):
        call(doubles(1, 2), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="pair 0 has the label -100"):
        call(doubles(1, 2), torch.tensor([-100, 2]))
    with pytest.raises(ValueError, match=r"labels must be integers.*got torch\.float32"):
        call(doubles(1, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"labels must be integers.*got torch\.bool"):
        call(doubles(1, 2), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        call(doubles(1, 2), torch.tensor([1, 0, 1]))
    with pytest.raises(ValueError, match="at least one pair"):
        call(doubles(), torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match="one difference and one label"):
        call(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.long))


def test_only_ties_leave_nothing_to_count_without_ties():
    with pytest.raises(ValueError, match=r"all 3 pairs are human ties.*use `accuracy_with_ties`"):
        accuracy_without_ties(torch.randn(3), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="`threshold` must be >= 0 and finite"):
        accuracy_at_threshold(doubles(1), torch.tensor([1]), threshold)


@pytest.mark.usefixtures("unchecked")
def test_bad_splits_are_refused():
    pairs = doubles(1, 2, 3), torch.tensor([1, 0, 1])
    with pytest.raises(ValueError, match="True for 3 of 3 pairs"):
        held_out_accuracy_with_ties(*pairs, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="True for 0 of 3 pairs"):
        held_out_accuracy_with_ties(*pairs, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got shape \(2,\) for 3 pairs"):
        held_out_accuracy_with_ties(*pairs, torch.tensor([True, False]))


KINDS = {
    "tensor": (lambda x: torch.tensor(x).double(), torch.tensor),
    "float32": (lambda x: torch.tensor(x), torch.tensor),
    "numpy": (np.array, np.array),
    "small numpy": (lambda x: np.array(x, dtype=np.float32), lambda x: np.array(x, dtype=np.int8)),
    "list": (list, list),
    "tuple": (tuple, tuple),
}
SPLIT = [True, False, True, False, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_numbers_come_as_people_have_them(kind, name):
    """Halves are exact in every dtype, so that every kind says the same."""
    differences, labels = [0.5, -1.0, 2.0, -0.5, 3.0], [1, -1, 0, 0, 1]
    make, make_labels = KINDS[kind]
    options = (SPLIT,) if name.startswith("held_out") else CALLS[name]
    call = getattr(metrics, name)
    expected = call(doubles(*differences), torch.tensor(labels), *options)
    found = call(make(differences), make_labels(labels), *options)
    if name == "accuracy_against_threshold":
        found, expected = ([part.tolist() for part in both] for both in (found, expected))
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_scores_come_as_people_have_them(kind):
    make, _ = KINDS[kind]
    first, second = [0.5, 1.0, 2.5, 2.5], [0.25, 1.5, 2.0, 2.5]
    # First wins twice, ties once: 2.5 / 4. Ranks 1, 2, 3.5, 3.5 and 1, 2, 3, 4 have the
    # covariance 4.5 and the variances 4.5 and 5.
    assert metrics.pairwise_accuracy(make(first), make(second)).accuracy == 2.5 / 4
    assert metrics.spearman(make(first), make(second)) == pytest.approx(4.5 / math.sqrt(22.5))
    assert metrics.pearson(make(first), make(first)) == pytest.approx(1)


@pytest.mark.usefixtures("unchecked")
def test_what_holds_no_numbers_is_refused():
    with pytest.raises(TypeError, match=r"`differences` must hold numbers .* got list of <U1"):
        accuracy_with_ties(["a", "b"], [1, 0])
    with pytest.raises(TypeError, match="`labels` must hold numbers"):
        accuracy_with_ties([1.0, 2.0], ["A", "tie"])
    with pytest.raises(ValueError, match=r"got shapes \(0,\) and \(0,\)"):
        accuracy_with_ties([], [])
