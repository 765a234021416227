"""Accuracies as VideoReward's public script counts them, to compare with published tables.

Differences and labels as in `gtsvj_reward.metrics.ties`. Use `accuracy_with_ties` for anything but
a comparison with numbers that were made by that script.
"""

from gtsvj_reward.metrics.arrays import Labels, Scores
from gtsvj_reward.metrics.ties import TieAccuracy, accuracy_without_ties, check_pairs


def videoreward_accuracy_with_ties(differences: Scores, labels: Labels) -> TieAccuracy:
    """Best accuracy met while one pair after another becomes a predicted tie.

    Pairs are taken in the order of |difference|, those with the same in the order given. Unlike
    `accuracy_with_ties`:

    - the accuracy is taken amid pairs of equal |difference|, which no threshold can part: it may
      be too high, and depends on the order of the pairs (scores in half precision are often equal);
    - "no ties" is never tried, since the pair with the least |difference| is a tie from the start:
      the accuracy may be too low, by up to 1/n.

    `threshold` is the |difference| of the last pair that was turned, the first best of the walk;
    `predicted_ties` is the number of pairs turned, which may be fewer than the threshold covers.

    Raises:
        ValueError: as for `accuracy_with_ties`; the script prints the exception and returns 0.
    """
    values, answers = check_pairs(differences, labels)
    size, order = values.abs().sort(stable=True)
    # A pair not yet turned is not a tie, even if its scores are equal.
    right = ((values.sign() == answers) & (answers != 0))[order].long()
    tied = (answers == 0)[order].long()
    correct = right.sum() + (tied - right).cumsum(0)
    best = int(correct.argmax())
    return TieAccuracy(
        accuracy=int(correct[best]) / len(answers),
        pairs=len(answers),
        human_ties=int((answers == 0).sum()),
        predicted_ties=best + 1,
        threshold=size[best].item(),
    )


def videoreward_accuracy_without_ties(differences: Scores, labels: Labels) -> TieAccuracy:
    """Accuracy on the pairs in which people preferred one clip.

    On what both accept this is `accuracy_without_ties`: the script, too, counts equal scores as a
    wrong answer. The script differs in what it makes of bad input, which is refused here: a label
    that is none (`invalid`, blank) counts as a wrong answer there, and nothing but human ties
    divides by zero.

    Raises:
        ValueError: as for `accuracy_without_ties`.
    """
    return accuracy_without_ties(differences, labels)
