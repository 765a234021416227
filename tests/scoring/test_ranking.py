"""Ranks within groups, and the pairs made of them."""

import json
import math

import pytest
from hypothesis import given, settings, strategies as st

from gtsvj_reward.scoring.groups import folder_groups, read_groups, read_rewards, read_several
from gtsvj_reward.scoring.ranking import check_paths, rank_clips, write_pairs, write_ranking
from gtsvj_reward.tables import read_table

REWARDS = {"b/2": 0.5, "a/1": 1.0, "b/1": 2.0, "a/2": 1.0, "a/3": -1.0, "b/3": 0.5}


def test_ranks_margins_and_pairs_by_hand():
    ranking = rank_clips(REWARDS, folder_groups(list(REWARDS)))
    # Group b comes first, since the scores name it first. Of equal scores the name decides.
    assert [(c.group, c.rank, c.video, c.reward, c.margin) for c in ranking.clips] == [
        ("b", 1, "b/1", 2.0, 1.5),
        ("b", 2, "b/2", 0.5, 0.0),
        ("b", 3, "b/3", 0.5, None),
        ("a", 1, "a/1", 1.0, 0.0),
        ("a", 2, "a/2", 1.0, 2.0),
        ("a", 3, "a/3", -1.0, None),
    ]
    assert [(p.prompt, p.chosen, p.rejected, p.margin) for p in ranking.pairs] == [
        ("b", "b/1", "b/3", 1.5),
        ("a", "a/1", "a/3", 2.0),
    ]
    for pair in ranking.pairs:
        assert (pair.video_a, pair.video_b, pair.label) == (pair.chosen, pair.rejected, 1)
        assert pair.chosen_reward == REWARDS[pair.chosen]
        assert pair.rejected_reward == REWARDS[pair.rejected]


def slow_ranks(rewards, groups):
    """One plus the number of clips of the group that are better, or equal and named earlier."""
    return {
        video: 1 + sum(
            groups[other] == groups[video]
            and (score > rewards[video] or (score == rewards[video] and other < video))
            for other, score in rewards.items()
        )
        for video in rewards
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    scored=st.dictionaries(
        st.text("abc", min_size=1, max_size=4),
        st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]), st.sampled_from("xyz")),
        min_size=1,
    ),
    min_margin=st.sampled_from([0.0, 0.25, 0.5, 10.0]),
)
def test_ranking_equals_a_slow_one(scored, min_margin):
    rewards = {video: reward for video, (reward, _) in scored.items()}
    groups = {video: group for video, (_, group) in scored.items()}
    ranking = rank_clips(rewards, groups, min_margin=min_margin, allow_singletons=True)
    assert {clip.video: clip.rank for clip in ranking.clips} == slow_ranks(rewards, groups)
    assert len(ranking.clips) == len(rewards)
    pairs = {pair.prompt: pair for pair in ranking.pairs}
    assert len(pairs) == len(ranking.pairs)
    singles = below = 0
    for group in set(groups.values()):
        values = [rewards[video] for video in rewards if groups[video] == group]
        spread = max(values) - min(values)
        if len(values) == 1:
            singles += 1
        elif spread == 0 or spread < min_margin:
            below += 1
        else:
            assert pairs[group].margin == spread
            continue
        assert group not in pairs
    assert (ranking.singletons, ranking.below_margin) == (singles, below)
    assert ranking.groups == len(set(groups.values())) == len(pairs) + singles + below
    summed = dict.fromkeys(groups.values(), 0.0)
    for clip in ranking.clips:
        assert (clip.margin is None) == (clip.rank == list(groups.values()).count(clip.group))
        summed[clip.group] += clip.margin or 0.0
    for group, pair in pairs.items():
        assert summed[group] == pair.margin, "margins add up to the whole"


def test_a_group_at_the_least_margin_counts():
    rewards, groups = {"p": 1.0, "q": 0.5}, {"p": "g", "q": "g"}
    assert len(rank_clips(rewards, groups, min_margin=0.5).pairs) == 1
    dropped = rank_clips(rewards, groups, min_margin=0.5000001)
    assert (dropped.pairs, dropped.below_margin) == ((), 1)
    assert dropped.counts() == {
        "clips": 2,
        "groups": 1,
        "pairs": 0,
        "groups of one clip": 0,
        "groups below the margin": 1,
    }


@pytest.mark.parametrize(
    ("rewards", "groups", "message"),
    [
        ({}, {}, "no clips to rank"),
        ({"p": 1.0, "q": 2.0}, {"p": "g"}, r"1 of 2 scored ones have no group .*'q'.* 0 of 1"),
        ({"p": 1.0}, {"p": "g", "r": "g"}, r"1 of 2 grouped ones have no score .*'r'"),
        ({"p": math.nan, "q": 1.0}, {"p": "g", "q": "g"}, r"1 of 2 scores are not finite .*'p'"),
        ({"p": 1.0, "q": 2.0}, {"p": "g", "q": "h"}, r"2 of 2 groups have one clip only.*'g'"),
    ],
)
def test_what_cannot_be_ranked_is_refused(rewards, groups, message):
    with pytest.raises(ValueError, match=message):
        rank_clips(rewards, groups)


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_margins_that_mean_nothing_are_refused(margin):
    with pytest.raises(ValueError, match=r"min_margin.* must be >= 0"):
        rank_clips({"p": 1.0}, {"p": "g"}, min_margin=margin, allow_singletons=True)


def test_groups_by_folder():
    assert folder_groups(["a/b/x.mp4", "c/x.mp4"]) == {"a/b/x.mp4": "a", "c/x.mp4": "c"}
    with pytest.raises(ValueError, match=r"1 of 2 videos are in no folder .*'x.mp4'"):
        folder_groups(["a/x.mp4", "x.mp4"])


@settings(max_examples=40, deadline=None)
@given(prompts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
                        .filter(str.strip), min_size=2, max_size=5))  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_tables_of_any_prompts_come_back(tmp_path_factory, suffix, prompts):
    folder = tmp_path_factory.mktemp("tables")
    rewards = {f"{i}.mp4": float(i % 3) for i in range(2 * len(prompts))}
    groups = {f"{i}.mp4": prompts[i % len(prompts)] for i in range(2 * len(prompts))}
    ranking = rank_clips(rewards, groups)
    path = folder / f"ranks.{suffix}"
    write_ranking(ranking, path, {"column": "reward"})
    table = read_table(path)
    assert list(table.cells) == ["group", "rank", "video", "reward", "margin"]
    assert list(table.cells["group"]) == [clip.group for clip in ranking.clips]
    assert read_rewards(path) == rewards
    assert {str(margin) for margin in table.cells["margin"]} >= {
        "None" if suffix == "jsonl" else ""
    }
    summary = json.loads((folder / "ranks-summary.json").read_text())
    assert summary == {"column": "reward", **ranking.counts()}
    write_pairs(ranking, folder / "pairs.jsonl")
    lines = (folder / "pairs.jsonl").read_text().split("\n")
    assert [json.loads(line)["prompt"] for line in lines[:-1]] == [p.prompt for p in ranking.pairs]


def test_pairs_read_as_plain_comparisons(tmp_path):
    from gtsvj_reward.annotations import COMPARISON_FORMATS

    ranking = rank_clips(REWARDS, folder_groups(list(REWARDS)))
    write_pairs(ranking, tmp_path / "pairs.jsonl")
    comparisons = COMPARISON_FORMATS["plain"](tmp_path / "pairs.jsonl")
    found = [
        (row.prompt, row.video_a, row.video_b, list(row.labels.values()))
        for row in comparisons.rows
    ]
    assert found == [("b", "b/1", "b/3", [1]), ("a", "a/1", "a/3", [1])]


def test_pairs_and_ranks_need_the_right_suffix(tmp_path):
    ranking = rank_clips({"p": 1.0, "q": 0.5}, {"p": "g", "q": "g"})
    with pytest.raises(ValueError, match=r"pairs that ends in \.jsonl"):
        write_pairs(ranking, tmp_path / "pairs.csv")
    with pytest.raises(ValueError, match=r"ends in \.csv or \.jsonl"):
        write_ranking(ranking, tmp_path / "ranks.txt", {})
    with pytest.raises(ValueError, match=r"pairs that ends in \.jsonl"):
        check_paths("ranks.csv", "pairs.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,score\np,1\n", "no column `reward`"),
        ("reward\n1\n", "no column `video`"),
        ("video,reward\np,1\nq,nan\n", r"1 of 2 cells of `reward`.*not finite numbers.*row 2"),
        ("video,reward\np,1\nq,\n", r"1 of 2 cells of `reward` are empty .*--column raw.*row 2"),
        ("video,reward\np,1\nq,2\np,1\n", r"2 of 3 cells of `video` repeat a video.*'p'.*row 1"),
    ],
)
def test_unsound_scores_are_refused_by_row(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rewards(tmp_path / "x.csv")


def test_another_column_can_be_ranked_by(tmp_path):
    (tmp_path / "x.csv").write_text("video,reward,aspect:motion\np,,3\nq,,4\n")
    assert read_rewards(tmp_path / "x.csv", "aspect:motion") == {"p": 3.0, "q": 4.0}


def test_unsound_groups_are_refused_by_row(tmp_path):
    (tmp_path / "g.csv").write_text("video,prompt\np,a cat\nq, \n")
    with pytest.raises(ValueError, match=r"1 of 2 cells of `prompt`.*row 2"):
        read_groups(tmp_path / "g.csv")
    (tmp_path / "g.jsonl").write_text('{"video": "p", "prompt": "a"}\n' * 2)
    with pytest.raises(ValueError, match=r"repeat a video"):
        read_groups(tmp_path / "g.jsonl")
    (tmp_path / "g.csv").write_text('video,prompt\np,"a cat, in ""hats"""\nq,a\n')
    assert read_groups(tmp_path / "g.csv") == {"p": 'a cat, in "hats"', "q": "a"}
    (tmp_path / "g.csv").write_text("video,prompt\np,a\np,b\nq,a\n")
    assert read_several(tmp_path / "g.csv") == {"p": ["a", "b"], "q": ["a"]}
    (tmp_path / "g.csv").write_text("video,prompt\np,a\nq,a\np,a\n")
    with pytest.raises(ValueError, match=r"2 of 3 cells of `prompt`.*repeat a row"):
        read_several(tmp_path / "g.csv")
