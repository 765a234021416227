"""Folders of labels joined: nothing twice, conflicts counted, agreement of raters."""

import shutil

import pytest

from gtsvj_reward.annotations import read_comparisons, read_ratings
from gtsvj_reward.cli import main
from gtsvj_reward.labelling import export
from gtsvj_reward.labelling.agreement import agreement, compared_table, rated_table
from gtsvj_reward.labelling.journal import read_events
from gtsvj_reward.labelling.labels import Answer, Labels, Task
from gtsvj_reward.locks import FolderInUseError
from tests.holder import holder


def said(rater, clips, label=None, scores=None, ticket="t"):
    kind = "rate" if scores else "compare"
    task = Task(ticket=ticket, rater=rater, kind=kind, clips=clips, choice="random")
    return Answer(task=task, label=label, scores=scores)


def write(folder, answers):
    """A journal with these answers: (ticket, rater, clips, label)."""
    from gtsvj_reward.labelling.journal import Journal

    journal = Journal(folder)
    for ticket, rater, clips, label in answers:
        journal.append(
            "shown", ticket=ticket, rater=rater, task="compare", clips=list(clips),
            prompt="a dog", choice="random", predicted=None, labels=0,
        )  # fmt: skip
        journal.append("answer", ticket=ticket, label=label)
    journal.close()


@pytest.fixture
def folders(tmp_path):
    """Ann and Bob, apart: they agree on ab, not on cd; both were shown sides of their own."""
    write(tmp_path / "ann", [("1", "ann", "ab", 1), ("2", "ann", "cd", 1), ("3", "ann", "ef", 0)])
    write(tmp_path / "bob", [("4", "bob", "ba", -1), ("5", "bob", "cd", -1)])
    return [tmp_path / "ann", tmp_path / "bob"]


def test_folders_are_joined_and_conflicts_counted(tmp_path, folders):
    shutil.copytree(folders[0], tmp_path / "copy")
    done = export([*folders, tmp_path / "copy"], tmp_path / "all")
    assert (done.comparisons, done.raters, done.repeated, done.pair_conflicts) == (5, 2, 3, 1)
    rows = read_comparisons(tmp_path / "all" / "comparisons.csv").rows
    assert [(r.row, r.video_a, r.video_b, r.labels["overall"], r.prompt) for r in rows] == [
        ("1", "a", "b", 1, "a dog"),
        ("2", "c", "d", 1, "a dog"),
        ("3", "e", "f", 0, "a dog"),
        ("4", "b", "a", -1, "a dog"),
        ("5", "c", "d", -1, "a dog"),
    ]
    joined = Labels(read_events(tmp_path / "all" / "labels.jsonl"))
    assert [answer.label for answer in joined.answers.values()] == [1, 1, 0, -1, -1]
    with pytest.raises(ValueError, match="one of the folders to join"):
        export(folders, folders[0])


@pytest.mark.parametrize(
    ("conflicts", "rows"),
    [("majority", [("a", 1), ("c", 0), ("e", 0)]), ("drop", [("a", 1), ("e", 0)])],
)
def test_conflicts_can_be_settled(tmp_path, folders, conflicts, rows, capsys):
    words = ["label", "--export", *map(str, folders), "--out", str(tmp_path / "all")]
    assert main([*words, "--conflicts", conflicts]) == 0
    found = read_comparisons(tmp_path / "all" / "comparisons.csv").rows
    assert [(row.video_a, row.labels["overall"]) for row in found] == rows
    assert "2 raters disagree on 1 pairs" in capsys.readouterr().out


def test_disagreement_becomes_a_probability(tmp_path, folders):
    # cd: one vote for each side. ef: Ann's tie and Cem's e, 3/4 for e; he saw the sides turned.
    write(tmp_path / "cem", [("6", "cem", "fe", -1)])
    done = export([*folders, tmp_path / "cem"], tmp_path / "all", conflicts="votes")
    assert (done.comparisons, done.pair_conflicts) == (3, 2)
    rows = read_comparisons(tmp_path / "all" / "comparisons.csv").rows
    found = {row.video_a + row.video_b: (row.labels, row.probabilities) for row in rows}
    assert found == {
        "ab": ({"overall": 1}, {}),
        "cd": ({"overall": 0}, {"overall": 0.5}),
        "ef": ({"overall": 1}, {"overall": 0.75}),
    }
    export([tmp_path / "cem", folders[0]], tmp_path / "turned", conflicts="votes")
    rows = read_comparisons(tmp_path / "turned" / "comparisons.csv").rows
    (turned,) = (row for row in rows if row.video_a == "f")
    assert turned.probabilities == {"overall": 0.25}


def test_a_folder_that_is_labelled_is_not_written_to(tmp_path, folders):
    with holder(tmp_path / "open"), pytest.raises(FolderInUseError, match="in use by process"):
        export(folders, tmp_path / "open")
    assert not (tmp_path / "open" / "comparisons.csv").exists()


def test_agreement_by_hand():
    # Pairs ab, cd, ef with labels (1, 1), (1, -1), (-1, -1), each counted in both directions: six
    # units of two values, among them six 1s and six -1s. Two values only, so that every metric is
    # nominal: observed disagreement 4/12, expected 2 * 6 * 6 / (12 * 11), alpha = 1 - 11/18.
    answers = [
        said("ann", ("a", "b"), 1), said("bob", ("b", "a"), -1),
        said("ann", ("c", "d"), 1), said("bob", ("c", "d"), -1),
        said("ann", ("e", "f"), -1), said("bob", ("e", "f"), -1),
        said("ann", ("g", "h"), 1),
    ]  # fmt: skip
    found = agreement(compared_table(answers), mirrored=True)
    assert (found.units, found.raters, found.conflicts) == (3, 2, 1)
    assert found.alpha == pytest.approx(1 - 11 / 18)
    # Which clip was called first does not matter.
    turned = [said(a.task.rater, a.task.clips[::-1], -a.label) for a in answers]
    assert agreement(compared_table(turned), mirrored=True) == found


def test_agreement_is_not_defined_without_labels_that_differ():
    nobody = agreement(rated_table([], "clear"))
    assert (nobody.units, nobody.alpha) == (0, None)
    alike = [said(rater, ("a",), scores={"clear": 3}) for rater in ("ann", "bob")]
    same = agreement(rated_table(alike, "clear"))
    assert (same.units, same.alpha, same.conflicts) == (1, None, 0)
    ordered = [
        said(rater, (clip,), scores={"clear": 2 * number + slip})
        for number, clip in enumerate("abc")
        for rater, slip in (("ann", 0), ("bob", 1))
    ]
    assert 0.5 < agreement(rated_table(ordered, "clear")).alpha < 1


def test_ratings_are_joined(tmp_path):
    from tests.labelling.tiny import session

    for rater, score in (("ann", 5), ("bob", 2)):
        made = session(tmp_path / rater, groups=1, each=1, kind="rate")
        made.answer(rater, made.task(rater).ticket, scores={"overall": score})
        made.close()
    done = export([tmp_path / "ann" / "labels", tmp_path / "bob" / "labels"], tmp_path / "all")
    assert (done.ratings, done.rating_conflicts) == (1, 1)
    (row,) = read_ratings(tmp_path / "all" / "ratings.csv").rows
    assert row.scores == {"overall": 3.5}
