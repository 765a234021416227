"""Sessions without HTTP: who is asked what, restarts, undo, several raters, skips."""

import json

import pytest

from gtsvj_reward.annotations import read_comparisons, read_ratings
from gtsvj_reward.labelling import Session, SessionSettings, read_clips
from gtsvj_reward.labelling.session import RefusedAnswerError
from tests.labelling.tiny import empty_files, session


def pairs_of(made):
    return [frozenset(answer.task.clips) for answer in made.labels.given("compare")]


def test_every_pair_of_a_group_is_asked_once_and_then_nothing(tmp_path):
    made = session(tmp_path)
    for _ in range(6):
        task = made.task("ann")
        first, second = (name.split("/")[0] for name in task.clips)
        assert first == second
        assert made.task("ann") is task, "it stays until it is answered"
        made.answer("ann", task.ticket, label=0)
    assert len(set(pairs_of(made))) == 6
    assert made.task("ann") is None
    made.close()


def test_sides_are_drawn(tmp_path):
    made = session(tmp_path, groups=1, each=12)
    for _ in range(60):
        made.answer("ann", made.task("ann").ticket, label=1)
    turned = sum(a.task.clips[0] > a.task.clips[1] for a in made.labels.given("compare"))
    made.close()
    assert 15 < turned < 45  # 30, deviation 4


def test_a_session_goes_on_where_it_was(tmp_path):
    made = session(tmp_path)
    first = made.task("ann")
    made.answer("ann", first.ticket, label=-1, seconds=2.5)
    waiting = made.task("ann")
    made.close()
    again = session(tmp_path)
    assert again.task("ann") == waiting
    assert [answer.label for answer in again.labels.given("compare")] == [-1]
    again.close()
    (row,) = read_comparisons(tmp_path / "labels" / "comparisons.csv").rows
    assert row.labels == {"overall": -1}


def test_an_answer_that_is_sent_twice_counts_once_and_another_is_refused(tmp_path):
    made = session(tmp_path)
    ticket = made.task("ann").ticket
    made.answer("ann", ticket, label=1)
    made.answer("ann", ticket, label=1)
    lines = (tmp_path / "labels" / "labels.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "answer" for line in lines) == 1
    with pytest.raises(RefusedAnswerError, match="another answer already"):
        made.answer("ann", ticket, label=0)
    with pytest.raises(RefusedAnswerError, match="was not shown"):
        made.answer("bob", ticket, label=1)
    with pytest.raises(RefusedAnswerError, match="label of 1, 0 or -1"):
        made.answer("ann", made.task("ann").ticket, label=2)
    made.close()


def test_undo_goes_back_step_by_step(tmp_path):
    made = session(tmp_path)
    tickets = []
    for label in (1, -1):
        tickets.append(made.task("ann").ticket)
        made.answer("ann", tickets[-1], label=label)
    tickets.append(made.task("ann").ticket)
    assert made.undo("ann")
    assert made.undo("ann")
    assert not made.undo("ann")
    assert made.answered() == 0
    for ticket in tickets:
        assert made.task("ann").ticket == ticket
        made.answer("ann", ticket, label=0)
    made.close()
    assert not [a for a in made.labels.given("compare") if a.label]


def test_two_raters_share_the_work_and_a_share_is_asked_of_both(tmp_path):
    made = session(tmp_path, groups=4, each=5, double_share=0.5)
    for rater in ("ann", "bob") * 15:
        made.answer(rater, made.task(rater).ticket, label=1)
    answers = made.labels.given("compare")
    doubled = [a for a in answers if a.task.choice == "double"]
    assert 8 < len(doubled) < 22  # of 29 chances
    fresh = [frozenset(a.task.clips) for a in answers if a.task.choice == "random"]
    assert len(set(fresh)) == len(fresh)
    for rater in ("ann", "bob"):
        mine = [frozenset(a.task.clips) for a in answers if a.task.rater == rater]
        assert len(set(mine)) == len(mine)
    made.close()


def test_pairs_that_wait_for_one_rater_are_not_shown_to_another(tmp_path):
    made = session(tmp_path, groups=1, each=3, double_share=0)
    shown = {frozenset(made.task(rater).clips) for rater in ("ann", "bob", "cid")}
    assert len(shown) == 3
    assert made.task("dan") is None
    made.close()


def test_a_broken_clip_is_shown_to_nobody_until_that_is_taken_back(tmp_path):
    made = session(tmp_path, groups=1, each=3)
    task, other = made.task("ann"), made.task("bob")
    broken = next(name for name in task.clips if name in other.clips)
    made.skip("ann", task.ticket, "broken", (broken,))
    assert broken not in made.task("ann").clips
    assert made.task("bob") is None, "what waits is not shown any more"
    made.undo("ann")
    assert made.task("ann").ticket == task.ticket
    assert made.task("bob").ticket == other.ticket
    with pytest.raises(RefusedAnswerError, match="expected a reason"):
        made.skip("ann", task.ticket, "dull")
    made.skip("ann", task.ticket, "too alike")
    assert made.skip_counts() == {"too alike": 1}
    made.close()
    assert not (tmp_path / "labels" / "comparisons.csv").exists()


def test_ratings_are_written_as_the_mean_of_raters(tmp_path):
    made = session(
        tmp_path, groups=1, each=1, kind="rate", aspects=("clear", "calm"), double_share=1.0
    )
    made.answer("ann", made.task("ann").ticket, scores={"clear": 4, "calm": 2})
    assert made.task("ann") is None
    made.answer("bob", made.task("bob").ticket, scores={"clear": 1})
    made.close()
    (row,) = read_ratings(tmp_path / "labels" / "ratings.csv").rows
    assert row.video == "prompt0/0.mp4"
    assert row.scores == {"clear": 2.5, "calm": 2.0}


@pytest.mark.parametrize("scores", [None, {}, {"overall": 0}, {"overall": 3.5}, {"other": 3}])
def test_ratings_off_the_scale_are_refused(tmp_path, scores):
    made = session(tmp_path, kind="rate")
    with pytest.raises(RefusedAnswerError, match="whole ratings from 1 to 5"):
        made.answer("ann", made.task("ann").ticket, scores=scores)
    made.close()


def test_clips_without_anything_to_compare_them_with(tmp_path):
    with pytest.raises(ValueError, match="nothing to compare"):
        session(tmp_path, each=1)
    with pytest.raises(ValueError, match="active choice needs a judge"):
        session(tmp_path, choice="active")
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        SessionSettings(random_share=2)


def test_labels_of_clips_that_are_gone_are_kept(tmp_path):
    made = session(tmp_path)
    made.answer("ann", made.task("ann").ticket, label=1)
    waiting = made.task("ann")
    made.close()
    (tmp_path / "videos" / waiting.clips[0]).unlink()
    again = Session(tmp_path / "labels", read_clips(tmp_path / "videos"))
    assert waiting.clips[0] not in again.task("ann").clips
    assert again.answered() == 1
    again.close()


def test_prompts_and_what_cannot_be_shown(tmp_path):
    videos = empty_files(tmp_path / "videos", groups=1, each=3)
    (videos / "old.avi").touch()
    (videos / "pictures").mkdir()
    (videos / "pictures" / "0.png").touch()
    (tmp_path / "secret.mp4").touch()
    (videos / "prompt0" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    found = read_clips(videos)
    assert [clip.name for clip in found] == [f"prompt0/{n}.mp4" for n in range(3)]
    assert sum(found.left_out.values()) == 3
    (tmp_path / "prompts.csv").write_text(
        "video,prompt\n0.mp4,a dog\n1.mp4,a dog\nprompt0/2.mp4,a cat\n"
    )
    grouped = read_clips(videos, prompts=tmp_path / "prompts.csv")
    assert [clip.prompt for clip in grouped] == ["a dog", "a dog", "a cat"]
    assert grouped.groups == {"a dog": [0, 1], "a cat": [2]}
    (tmp_path / "prompts.csv").write_text("video,prompt\n0.mp4,a dog\n")
    with pytest.raises(ValueError, match="2 of 3 videos have no prompt"):
        read_clips(videos, prompts=tmp_path / "prompts.csv")
