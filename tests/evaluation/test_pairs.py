"""The calibration split keeps prompts together."""

from dataclasses import replace

from hypothesis import given, settings, strategies as st

from gtsvj_reward.annotations import Comparison
from gtsvj_reward.evaluation.evaluate import fingerprint
from gtsvj_reward.evaluation.pairs import group_rows, scored_pairs

PROMPTS = st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), min_size=1, max_size=30)


def rows_with(prompts):
    return [
        Comparison(row=str(i), video_a=f"{i}a", video_b=f"{i}b", labels={"x": 1}, prompt=prompt)
        for i, prompt in enumerate(prompts)
    ]


@given(prompts=PROMPTS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_prompt_is_on_one_side(prompts, fraction, seed):
    grouped = group_rows(rows_with(prompts), fraction=fraction, seed=seed)
    sides = {}
    for group, side in zip(grouped.groups, grouped.calibration, strict=True):
        sides.setdefault(group, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    named = {prompt for prompt in prompts if prompt is not None}
    assert len(sides) == len(named) + prompts.count(None)
    by_prompt = {
        p: {g for q, g in zip(prompts, grouped.groups, strict=True) if q == p} for p in named
    }
    assert all(len(found) == 1 for found in by_prompt.values())
    chosen = sum(side == {True} for side in sides.values())
    assert chosen == min(max(round(fraction * len(sides)), 1), len(sides) - 1)


def test_it_says_what_is_drawn():
    for prompts, said in (
        ("ab", "prompts"),
        ([None, None], "pairs"),
        (["a", None], "prompts and pairs"),
    ):
        assert group_rows(rows_with(prompts), fraction=0.5, seed=0).resampled == said


def test_a_group_counts_instead_of_the_prompt():
    rows = [replace(row, group=g) for row, g in zip(rows_with("abcab"), "xxy", strict=False)]
    rows += rows_with([None, "a", "a"])
    grouped = group_rows(rows, fraction=0.5, seed=0)
    assert grouped.groups == (0, 0, 1, 2, 3, 3)
    assert grouped.resampled == "groups and prompts and pairs"
    assert fingerprint(rows) != fingerprint(rows_with("abc") + rows[3:])


def test_other_seeds_split_otherwise():
    rows = rows_with("abcdefghijkl")
    splits = {group_rows(rows, fraction=0.5, seed=seed).calibration for seed in range(8)}
    assert len(splits) > 4


def test_the_split_does_not_depend_on_what_was_scored():
    grouped = group_rows(rows_with("abcdefabcdef"), fraction=0.5, seed=0)
    kept = grouped.keep([index % 3 != 0 for index in range(12)])
    pairs = scored_pairs(kept, "x", {v: 0.0 for r in kept.rows for v in (r.video_a, r.video_b)})
    wanted = [g for i, g in enumerate(grouped.calibration) if i % 3]
    assert pairs.calibration.tolist() == wanted
    assert len(set(wanted)) == 2
