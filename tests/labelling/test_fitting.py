"""The judge that learns while people label: it learns, says what it expects, and is written."""

import json

import pytest
import torch

from gtsvj_reward.judge import load_judge
from gtsvj_reward.labelling import Session, SessionSettings
from gtsvj_reward.labelling.beliefs import beliefs_of
from gtsvj_reward.labelling.fitting import Model
from gtsvj_reward.labelling.progress import trials
from gtsvj_reward.labelling.session import RefusedAnswerError
from gtsvj_reward.latents import LatentFolder
from gtsvj_reward.training.preference.labels import compared_clips
from gtsvj_reward.training.preference.settings import ComparisonsData
from tests.judge.test_moment_judge import moment_judge
from tests.labelling.tiny import answer_all, calm, judged
from tests.tiny import tiny_judge, tiny_transformer


def right(made, beliefs):
    """Share of all pairs that are in the order of `calm`."""
    truth = torch.tensor([calm(n, len(made.clips)) for n in range(len(made.clips))])
    first, second = torch.triu_indices(len(truth), len(truth), 1)
    agree = (beliefs.scores[first] > beliefs.scores[second]) == (truth[first] > truth[second])
    return agree.double().mean().item()


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A session of active choice after forty answers, and its folder."""
    folder = tmp_path_factory.mktemp("taught")
    made = judged(folder, choice="active", random_share=0.3)
    assert made.model.beliefs is None, "a fresh judge has no opinion"
    for _ in range(4):
        answer_all(made, "ann", 10)
        made.worker.wait()
    yield made, folder
    made.close()


def test_forty_answers_teach_the_judge(taught):
    made, _ = taught
    assert made.worker.failures == {}
    assert made.model.summary["labels"] == 40
    assert right(made, made.model.beliefs) > 0.8


def test_predictions_are_on_disk_before_the_label_and_random_pairs_among_active_ones(taught):
    made, folder = taught
    kinds = [answer.task.choice for answer in made.labels.given("compare")]
    assert set(kinds[:10]) == {"random"}, "nothing is known yet"
    assert kinds[10:].count("active") > 10
    assert kinds[10:].count("random") > 2
    lines = (folder / "labels" / "labels.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    fits = 0
    for event in events:
        fits = event["labels"] if event["event"] == "fit" else fits
        if event["event"] == "shown":
            assert event["labels"] == fits
            assert (event["predicted"] is not None) == (fits > 0)
    assert trials(made.labels.given("compare"))


def test_variances_are_those_of_the_judge(taught):
    """The vectors of single clips have the length that the judge calls leverage."""
    made, _ = taught
    judge, features = made.model.judge, torch.cat(list(made.model.features()))
    fresh = beliefs_of(judge, [features[:7], features[7:]], 40)
    with torch.no_grad():
        out = judge.from_moments(features[:, None])
    lengths = fresh.vectors.square().sum(dim=1)
    expected = out.leverage.double() * judge.score_noise()
    torch.testing.assert_close(lengths, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(fresh.scores, out.scores[:, 0].double())
    means, variances = fresh.gaps([(0, 1), (2, 29)])
    assert bool((variances > 0).all())
    assert means[1].item() == pytest.approx((fresh.scores[2] - fresh.scores[29]).item())


def test_the_checkpoint_is_a_judge_and_a_restart_fits_again(tmp_path):
    base = tmp_path / "base"
    tiny_transformer().save_pretrained(base)
    made = judged(tmp_path, groups=3, each=4)
    with pytest.raises(RefusedAnswerError, match="to fit"):
        made.checkpoint()
    answer_all(made, "ann", 12)
    made.model.start.config.__dict__["base_model"] = str(base)
    folder = made.checkpoint()
    loaded = load_judge(folder, base_model=base)
    assert loaded.config.training["preference: pairs"] == 12
    features = torch.cat(list(made.model.features()))
    before = beliefs_of(loaded, [features], 12).scores
    torch.testing.assert_close(before, made.model.beliefs.scores, rtol=1e-4, atol=1e-5)
    model, clips = Model(made.model.start, made.clips), made.clips
    made.close()
    again = Session(tmp_path / "labels", clips, SessionSettings(), model)
    again.worker.wait()
    torch.testing.assert_close(again.model.beliefs.scores, made.model.beliefs.scores)
    again.close()


def test_the_tables_are_what_training_takes(taught):
    made, folder = taught
    args = ComparisonsData(
        output_dir="judge", comparisons=str(folder / "labels" / "comparisons.csv"), latents="-"
    )
    pairs = compared_clips(args.comparisons, LatentFolder(folder / "latents"), args)
    answers = made.labels.given("compare")
    assert [pair.label for pair in pairs] == [answer.label for answer in answers]
    assert [pair.first.source for pair in pairs] == [a.task.clips[0] for a in answers]


def test_ratings_teach_as_well(tmp_path):
    made = judged(tmp_path, kind="rate", choice="active", random_share=0.2)
    total = len(made.clips)
    for _ in range(20):
        task = made.task("ann")
        score = 1 + round(4 * calm(made.clips.numbers[task.clips[0]], total))
        made.answer("ann", task.ticket, scores={"overall": score})
        made.worker.wait()
    assert made.worker.failures == {}
    assert right(made, made.model.beliefs) > 0.75
    task = made.task("ann")
    assert 0 < task.predicted["overall"] < 6
    assert "active" in {answer.task.choice for answer in made.labels.given("rate")}
    made.close()


def test_what_a_judge_loses_by_ratings_is_said_once(tmp_path, caplog):
    judge = moment_judge(taps=[0, 2], stage="preference")
    made = judged(tmp_path, groups=4, each=5, judge=judge, kind="rate")
    for fitted in (10, 20):
        for score in range(10):
            made.answer("ann", made.task("ann").ticket, scores={"overall": 1 + score % 5})
        made.worker.wait()
        assert made.model.judge.config.training["aspects: clips"] == fitted
    made.close()
    assert sum("loses its score, from comparisons" in said for said in caplog.messages) == 1


def test_a_fit_that_fails_is_said_and_labelling_goes_on(tmp_path):
    made = judged(tmp_path, groups=2, each=6)
    for _ in range(10):
        made.answer("ann", made.task("ann").ticket, label=0)
    made.worker.wait()
    assert "fitting the judge" in made.worker.failures
    made.answer("ann", made.task("ann").ticket, label=1)
    assert made.answered() == 11
    made.close()


def test_a_judge_with_a_trained_head_is_refused(tmp_path):
    made = judged(tmp_path, groups=1, each=2)
    made.close()
    with pytest.raises(ValueError, match="give one with `--readout moments`"):
        Model(tiny_judge(), made.clips)
