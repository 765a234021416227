"""A whole evaluation against a slow one that loops over rows."""

import math
from dataclasses import replace

import pytest
import torch

from gtsvj_reward.annotations import Comparison, Comparisons
from gtsvj_reward.evaluation import METHODS, EvaluationSettings, ScoreTable, evaluate_comparisons
from gtsvj_reward.metrics import bootstrap_interval
from tests.evaluation.made_up import FAST, MODELS, QUICK, made_up, made_up_scores


def sign(value):
    return (value > 0) - (value < 0)


def right_at(pairs, threshold):
    """Pairs are (difference, label)."""
    return sum((0 if abs(d) <= threshold else sign(d)) == label for d, label in pairs)


def slow_fit(pairs):
    """Smallest of the best thresholds, by trying all."""
    return min({0.0, *(abs(d) for d, _ in pairs)}, key=lambda t: (-right_at(pairs, t), t))


def slow_with_ties(pairs):
    threshold = slow_fit(pairs)
    return right_at(pairs, threshold) / len(pairs), threshold


def slow_without_ties(pairs):
    decided = [(d, label) for d, label in pairs if label]
    return sum(sign(d) == label for d, label in decided) / len(decided)


def slow_walk(pairs):
    """VideoReward's script: one pair after another becomes a tie."""
    walk = sorted(pairs, key=lambda pair: abs(pair[0]))
    scores = [
        sum(label == 0 for _, label in walk[: done + 1])
        + sum(sign(d) == label != 0 for d, label in walk[done + 1 :])
        for done in range(len(walk))
    ]
    return max(scores) / len(walk)


def rows_of(comparisons, dimension, model=None):
    return [
        row
        for row in comparisons.rows
        if dimension in row.labels and model in (None, row.model_a, row.model_b)
    ]


def as_pairs(rows, dimension, scores):
    return [(scores[r.video_a] - scores[r.video_b], r.labels[dimension]) for r in rows]


def slow_interval(statistic, pairs, rows, settings=QUICK):
    prompts = {}
    groups = torch.tensor([prompts.setdefault(r.prompt, int(r.prompt.split()[1])) for r in rows])
    return bootstrap_interval(
        lambda chosen: statistic([pairs[i] for i in chosen.tolist()]),
        len(pairs),
        groups=groups,
        resamples=settings.resamples,
    )


def slow_folds(rows, prompt_order):
    """Prompts are dealt out to ten folds in the order of the split."""
    return [prompt_order.index(row.prompt) % 10 for row in rows]


def slow_cross_fit(pairs, folds):
    right = 0
    for fold in set(folds):
        others = [pair for pair, own in zip(pairs, folds, strict=True) if own != fold]
        mine = [pair for pair, own in zip(pairs, folds, strict=True) if own == fold]
        right += right_at(mine, slow_fit(others))
    return right / len(pairs)


def check(agreement, rows, scores, prompt_order):
    """Every number of an agreement, recomputed."""
    pairs = as_pairs(rows, agreement.dimension, scores)
    ties = sum(label == 0 for _, label in pairs)
    assert (agreement.pairs, agreement.human_ties) == (len(pairs), ties)
    assert agreement.groups == len({row.prompt for row in rows})

    found = agreement.accuracies["with_ties"]
    accuracy, threshold = slow_with_ties(pairs)
    assert (found.accuracy, found.threshold) == (accuracy, threshold)
    assert (found.pairs, found.human_ties) == (len(pairs), ties)
    assert found.predicted_ties == sum(abs(d) <= threshold for d, _ in pairs)
    assert found.constant == ties / len(pairs), "a constant score gets the share of ties"
    assert found.chance == pytest.approx(max(ties, (len(pairs) - ties) / 2) / len(pairs))
    assert found.interval is None, "resampled optimism is no interval"

    folds = slow_folds(rows, prompt_order)
    found = agreement.accuracies["cross_fitted_with_ties"]
    assert found.accuracy == slow_cross_fit(pairs, folds)
    assert found.threshold == threshold, "the one for new pairs"
    assert (found.pairs, found.human_ties) == (len(pairs), ties)
    assert found.constant == ties / len(pairs)
    low, high = found.interval
    assert 0 <= low < found.accuracy < high <= 1

    decided = [pair for pair in pairs if pair[1]]
    decided_rows = [row for row in rows if row.labels[agreement.dimension]]
    for name in ("without_ties", "videoreward_without_ties"):
        found = agreement.accuracies[name]
        assert found.accuracy == slow_without_ties(pairs)
        assert (found.pairs, found.human_ties, found.threshold) == (len(decided), ties, None)
        assert found.predicted_ties == sum(d == 0 for d, _ in decided)
        assert (found.constant, found.chance) == (0, 0.5)
        assert found.interval == pytest.approx(
            slow_interval(slow_without_ties, decided, decided_rows)
        )

    found = agreement.accuracies["videoreward_with_ties"]
    assert found.accuracy == slow_walk(pairs)
    assert found.interval is None

    held = [row.prompt not in prompt_order[: len(prompt_order) // 2] for row in rows]
    fitted = [pair for pair, kept in zip(pairs, held, strict=True) if not kept]
    reported = [pair for pair, kept in zip(pairs, held, strict=True) if kept]
    reported_rows = [row for row, kept in zip(rows, held, strict=True) if kept]
    threshold = slow_fit(fitted)
    found = agreement.accuracies["held_out_with_ties"]
    assert found.threshold == threshold
    assert found.accuracy == right_at(reported, threshold) / len(reported)
    assert (found.pairs, found.calibration_pairs) == (len(reported), len(fitted))
    assert found.constant == sum(label == 0 for _, label in reported) / len(reported)
    assert found.interval == pytest.approx(
        slow_interval(lambda p: right_at(p, threshold) / len(p), reported, reported_rows)
    )


def test_a_whole_evaluation_equals_a_slow_one(comparisons, table):
    result = evaluate_comparisons(
        comparisons, table, columns={"VQ": "aspect:clear+aspect:focus"}, settings=QUICK
    )
    both = {
        v: table.columns["aspect:clear"][v] + table.columns["aspect:focus"][v]
        for v in comparisons.videos()
    }
    scores = {"VQ": both, "MQ": table.columns["reward"], "overall": table.columns["reward"]}
    prompts = list(dict.fromkeys(row.prompt for row in comparisons.rows))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    prompt_order = [prompts[place] for place in order]

    assert [a.dimension for a in result.dimensions] == ["VQ", "MQ", "overall"]
    assert [a.column for a in result.dimensions] == ["aspect:clear+aspect:focus", *2 * ["reward"]]
    for item in result.dimensions:
        rows = rows_of(comparisons, item.dimension)
        check(item, rows, scores[item.dimension], prompt_order)
    assert [(a.model, a.dimension) for a in result.models] == [
        (model, name) for model in MODELS for name in comparisons.dimensions
    ]
    for item in result.models:
        rows = rows_of(comparisons, item.dimension, item.model)
        assert len(rows) < len(comparisons.rows)
        check(item, rows, scores[item.dimension], prompt_order)
    assert [a.column for a in result.aspects] == ["aspect:clear", "aspect:focus"]
    for item in result.aspects:
        assert item.dimension == "overall"
        rows = rows_of(comparisons, "overall")
        check(item, rows, table.columns[item.column], prompt_order)
    accuracies = {a.accuracies["with_ties"].accuracy for a in result.dimensions + result.aspects}
    assert len(accuracies) > 2, "all alike: the test proves nothing"
    assert result.resampled == "prompts"
    assert result.evaluated == result.comparisons == 60
    assert result.videos == len(comparisons.videos())


def test_mean_scores_count_each_video_once(comparisons, table):
    result = evaluate_comparisons(comparisons, table, settings=FAST)
    for item in result.model_scores:
        own = [v for v in comparisons.videos() if f"/{item.model}/" in v]
        assert item.videos == len(own)
        scores = table.columns["reward"]
        assert item.mean == pytest.approx(sum(scores[v] for v in own) / len(own))
    means = [item.mean for item in result.model_scores]
    assert len(means) == 3
    assert means == sorted(means, reverse=True)


def pair(row, label, *, prompt=None, **changes):
    fields = {"video_a": f"{row}a.mp4", "video_b": f"{row}b.mp4", "labels": {"overall": label}}
    return Comparison(row=str(row), prompt=prompt, **{**fields, **changes})


def test_a_constant_score_is_no_better_than_its_baseline():
    # 2 ties of 5: 0.4 with ties by saying "tie" always, nothing right without ties.
    rows = tuple(pair(i, label) for i, label in enumerate((1, -1, 0, 0, 1)))
    data = Comparisons(name="five", rows=rows, dimensions=("overall",))
    table = ScoreTable(name="one", columns={"score": dict.fromkeys(data.videos(), 2.5)})
    [item] = evaluate_comparisons(data, table, settings=FAST).dimensions
    for found in item.accuracies.values():
        assert found.accuracy == found.constant
    assert item.accuracies["with_ties"].accuracy == 0.4
    assert item.accuracies["without_ties"].accuracy == 0.0
    assert item.undefined == {"win_rates": "the scores order these pairs no better than chance"}


def test_random_scores_tend_to_the_chance_level():
    generator = torch.Generator().manual_seed(3)
    labels = [1, -1, 0, 1] * 2500  # a quarter ties: chance is (1 - 1/4) / 2
    rows = tuple(pair(i, label) for i, label in enumerate(labels))
    data = Comparisons(name="many", rows=rows, dimensions=("overall",))
    noise = torch.randn(2 * len(rows), generator=generator).tolist()
    table = ScoreTable(name="noise", columns={"s": dict(zip(data.videos(), noise, strict=True))})
    [item] = evaluate_comparisons(data, table, settings=FAST).dimensions
    assert item.accuracies["with_ties"].chance == 0.375
    for found in item.accuracies.values():
        assert found.accuracy == pytest.approx(found.chance, abs=0.02)
        assert found.constant != found.chance


def test_swapping_the_sides_changes_nothing_that_matters(comparisons, table):
    swapped = tuple(
        replace(
            row,
            video_a=row.video_b,
            video_b=row.video_a,
            model_a=row.model_b,
            model_b=row.model_a,
            labels={name: -label for name, label in row.labels.items()},
        )
        for row in comparisons.rows
    )
    first = evaluate_comparisons(comparisons, table, settings=FAST)
    second = evaluate_comparisons(replace(comparisons, rows=swapped), table, settings=FAST)
    for one, other in zip(first.dimensions, second.dimensions, strict=True):
        assert one.accuracies == other.accuracies
        assert one.win_rates.scale == pytest.approx(other.win_rates.scale)
    assert first.fingerprint != second.fingerprint


def test_missing_videos_are_refused_or_counted(comparisons, table):
    gone = f"videos/{MODELS[0]}/0.mp4"
    columns = {
        name: {v: s for v, s in scores.items() if v != gone}
        for name, scores in table.columns.items()
    }
    short = replace(table, columns=columns)
    total = len(comparisons.videos())
    with pytest.raises(ValueError, match=rf"1 of {total} videos of made up have no score.*{gone}"):
        evaluate_comparisons(comparisons, short, settings=FAST)
    result = evaluate_comparisons(comparisons, short, allow_missing=True, settings=FAST)
    needed = [row for row in comparisons.rows if gone in (row.video_a, row.video_b)]
    assert needed
    assert result.missing_videos == (gone,)
    assert (result.comparisons, result.evaluated) == (60, 60 - len(needed))
    kept = [row for row in comparisons.rows if row not in needed]
    alone = evaluate_comparisons(replace(comparisons, rows=tuple(kept)), table, settings=FAST)
    for one, other in zip(result.dimensions, alone.dimensions, strict=True):
        assert one.accuracies["with_ties"] == other.accuracies["with_ties"]
    whole = evaluate_comparisons(comparisons, table, settings=FAST)
    assert result.fingerprint == whole.fingerprint != alone.fingerprint


def test_a_video_without_a_value_in_one_column_in_use_is_missing(comparisons, table):
    video = comparisons.videos()[0]
    clear = {v: s for v, s in table.columns["aspect:clear"].items() if v != video}
    short = replace(table, columns={**table.columns, "aspect:clear": clear})
    with pytest.raises(ValueError, match=r"1 of .* have no score in `reward`, `aspect:clear`"):
        evaluate_comparisons(comparisons, short, settings=FAST)


def test_foreign_scores_leave_nothing(comparisons):
    table = ScoreTable(name="other", columns={"score": {"elsewhere.mp4": 1.0}})
    with pytest.raises(ValueError, match=r"none of the 60 comparisons.*like elsewhere\.mp4.*like"):
        evaluate_comparisons(comparisons, table, allow_missing=True)


def test_scores_that_are_not_finite_are_refused(comparisons, table):
    video = comparisons.videos()[2]
    for bad in (math.nan, math.inf):
        broken = {**table.columns["reward"], video: bad}
        wrong = replace(table, columns={**table.columns, "reward": broken})
        with pytest.raises(ValueError, match=rf"1 of .* in `reward` of scorer are NaN.*{video}"):
            evaluate_comparisons(comparisons, wrong, settings=FAST)


def test_unknown_dimensions_and_columns_are_refused(comparisons, table):
    with pytest.raises(ValueError, match="no dimension TA, it has: VQ, MQ, overall"):
        evaluate_comparisons(comparisons, table, columns={"TA": "reward"})
    with pytest.raises(ValueError, match="no numeric column 'aspect:sharp', it has: reward"):
        evaluate_comparisons(comparisons, table, columns={"VQ": "reward+aspect:sharp"})


def test_what_pairs_do_not_define_is_said():
    rows = (pair(0, 0, model_a="m"), pair(1, 0), pair(2, 0))
    data = Comparisons(name="ties", rows=rows, dimensions=("overall", "VQ"))
    table = ScoreTable(
        name="s", columns={"score": {v: float(i) for i, v in enumerate(data.videos())}}
    )
    result = evaluate_comparisons(data, table, settings=FAST)
    overall, empty = result.dimensions
    for item in (*result.dimensions, *result.models):
        assert item.accuracies.keys() | item.undefined.keys() == {*METHODS, "win_rates"}
    assert overall.undefined["without_ties"] == "all 3 pairs are human ties"
    assert overall.undefined["win_rates"] == "all pairs are human ties"
    assert set(empty.undefined.values()) >= {"no labelled pairs"}
    assert not empty.accuracies
    lonely = result.models[0]
    assert lonely.accuracies["with_ties"].interval is None
    assert "it needs both halves" in lonely.undefined["held_out_with_ties"]
    assert "all 1 pairs are in one fold" in lonely.undefined["cross_fitted_with_ties"]


def test_aspects_need_an_overall_label(comparisons, table):
    rows = tuple(replace(row, labels={"VQ": 1, "MQ": -1}) for row in comparisons.rows)
    two = Comparisons(name="two", rows=rows, dimensions=("VQ", "MQ"))
    assert evaluate_comparisons(two, table, settings=FAST).aspects == ()
    one = Comparisons(name="one", rows=rows, dimensions=("VQ",))
    aspects = evaluate_comparisons(one, table, settings=FAST).aspects
    assert {item.dimension for item in aspects} == {"VQ"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration_fraction": 1.0}, "`calibration_fraction` must lie between 0 and 1, got 1"),
        ({"confidence": 0.0}, "`confidence` must lie between 0 and 1, got 0"),
        ({"resamples": 0}, "`resamples` must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**changes)


def test_the_same_seed_gives_the_same_result():
    data = made_up(20, dimensions=("overall",), seed=5)
    table = made_up_scores(data, seed=6)
    first, second = (evaluate_comparisons(data, table, settings=QUICK) for _ in range(2))
    assert first == second
    other = evaluate_comparisons(data, table, settings=replace(QUICK, seed=1))
    assert other.dimensions != first.dimensions
