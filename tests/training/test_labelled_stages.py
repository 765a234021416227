"""Stages 2 and 3 from files to judges, and what their heads can recover."""

import json
import logging
import math
from dataclasses import replace

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.cli import main
from gtsvj_reward.judge import load_judge, read_config
from gtsvj_reward.judge.stages import preference_layer
from gtsvj_reward.latents import statistics
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.losses import (
    bradley_terry_loss,
    bradley_terry_with_ties_loss,
    rao_kupper_loss,
)
from gtsvj_reward.training import (
    AspectTrainer,
    ClipPair,
    JudgeArguments,
    PreferenceTrainer,
    RatedClip,
    train_aspects as run_aspects,
)
from gtsvj_reward.training.aspects.labels import choose_aspects
from gtsvj_reward.training.aspects.trainer import aspect_metrics
from gtsvj_reward.training.preference.trainer import pair_metrics
from tests.tiny import ASPECTS, clips, tiny_aspect_judge
from tests.training.clips import write_clips
from tests.training.stages import (
    aspect_args,
    preference_args,
    train_aspects,
    train_preference,
    write_csv,
    write_rated,
)


def changed(before, judge):
    return {n for n, p in judge.named_parameters() if not torch.equal(p, before[n])}


def state(judge):
    return {name: tensor.detach().clone() for name, tensor in judge.named_parameters()}


def test_all_stages_from_files_to_a_reward(world, caplog, monkeypatch):
    monkeypatch.setattr(statistics, "LEAST_CLIPS", 16)
    trainer = train_aspects(world)
    config = read_config(world / "aspects")
    assert config.stage == "aspects"
    assert [(a.name, a.low, a.high) for a in config.aspects] == [("clear", 0, 4), ("focus", 0, 4)]
    assert config.training["rated clips"] == 12
    assert config.training["held-out clips"] == 4
    history = [entry for entry in trainer.state.log_history if "mse/clear" in entry]
    assert len(history) == 4
    assert (world / "aspects" / "labelled_clips.json").is_file()

    with caplog.at_level(logging.WARNING):
        train_preference(world)
    assert "third stage fits" not in caplog.text, "stage 3 uses other clips here"
    config = read_config(world / "preference")
    assert config.stage == "preference"
    assert config.training["pairs"] == 9
    assert config.latent_statistics.clips == 18
    assert config.training["aspects: rated clips"] == 12
    assert config.training["discriminator: steps"] == 7
    assert len(config.aspect_weights) == 2
    assert "held-out clips of stage 3 (6 clips)" in config.reward_data

    reward = GTSVJReward.from_pretrained(world / "preference")
    folder = LatentFolder(world / "compared")
    out = reward.details(folder[0].latents[None], space=folder.space, fps=8.0)
    assert out.aspects.keys() == {"clear", "focus"}


def test_statistics_are_those_of_the_named_calibration_set(world):
    trainer = train_aspects(world, calibration=str(world / "compared"))
    config = read_config(world / "aspects")
    assert config.reward_data == "compared (24 clips)"
    judge, folder = trainer.judge.eval(), LatentFolder(world / "compared")
    with torch.no_grad():
        outputs = [judge(load_clip(info.path).latents[None]) for info in folder.infos]
    scores = torch.stack([output.scores.mean() for output in outputs]).double()
    table = torch.stack([output.aspects[0].mean(0) for output in outputs]).double()
    assert config.reward_mean == pytest.approx(scores.mean().item(), abs=1e-6)
    assert config.reward_std == pytest.approx(scores.std().item(), rel=1e-4)
    torch.testing.assert_close(
        torch.tensor(config.aspect_covariance, dtype=torch.float64),
        table.T.cov(),
        rtol=1e-4,
        atol=1e-9,
    )
    # a selection of all aspects has the statistics of the whole score, which is their mean
    every = GTSVJReward(judge, aspects=["clear", "focus"])
    assert every.statistics() == pytest.approx((config.reward_mean, config.reward_std), rel=1e-5)


def test_no_dm_starts_from_the_bare_base(world, base):
    run_aspects(
        JudgeArguments(base_model=str(base), head_width=16),
        aspect_args(world, from_judge=None, output_dir=str(world / "bare")),
    )
    assert "No DM" in read_config(world / "bare").training["started from"]
    with pytest.raises(ValueError, match="`keep_energy` needs `from_judge`"):
        run_aspects(
            JudgeArguments(base_model=str(base)),
            aspect_args(world, from_judge=None, keep_energy=True),
        )
    with pytest.raises(ValueError, match="`base_model` must be set"):
        run_aspects(JudgeArguments(), aspect_args(world, from_judge=None))


def test_stages_refuse_judges_of_other_stages(world):
    with pytest.raises(ValueError, match=r"'preference' starts from .* 'aspects'"):
        train_preference(world, from_judge=str(world / "discriminator"))
    train_aspects(world)
    with pytest.raises(ValueError, match=r"'aspects' starts from .* 'discriminator'"):
        train_aspects(world, from_judge=str(world / "aspects"), output_dir=str(world / "again"))
    with pytest.raises(ValueError, match=r"\['depth', 'lora_rank'\] come from the judge"):
        run_aspects(JudgeArguments(depth=2, lora_rank=4), aspect_args(world))


@pytest.mark.parametrize("keep_energy", [False, True])
def test_stage_2_trains_adapter_and_head(world, keep_energy):
    judge = load_judge(world / "discriminator")
    judge.start_aspects(ASPECTS[:1], keep_energy=keep_energy, head_width=16)
    before = state(judge)
    infos = LatentFolder(world / "rated").infos
    clips_ = [RatedClip(info, {"clear": 1.0 + index % 5}, "") for index, info in enumerate(infos)]
    AspectTrainer(
        judge, aspect_args(world), train_dataset=clips_[:12], eval_dataset=clips_[12:]
    ).train()
    moved = changed(before, judge)
    assert any(".lora_A." in name for name in moved)
    assert "head.aspects.weight" in moved
    assert ("head.from_energy.weight" in moved) == keep_energy
    assert not any("energy_head" in name or "base_layer" in name for name in moved)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, {"adapter", "preference"}),
        ({"head_only": True}, {"preference"}),
        ({"train_aspect_head": True}, {"adapter", "preference", "head"}),
    ],
)
def test_stage_3_trains_what_is_asked(world, base, setting, expected):
    judge = tiny_aspect_judge(base_model=str(base))
    judge.start_preference()
    before = state(judge)
    infos = LatentFolder(world / "compared").infos
    pairs = [ClipPair(infos[i], infos[i + 1], (-1) ** i, "") for i in range(0, 24, 2)]
    PreferenceTrainer(
        judge, preference_args(world, **setting), train_dataset=pairs[:8], eval_dataset=pairs[8:]
    ).train()
    parts = {"adapter" if ".lora_" in n else n.split(".")[0] for n in changed(before, judge)}
    assert parts == expected


def test_resumed_runs_of_both_stages_repeat_the_uninterrupted_one(world):
    whole = {"save_strategy": "steps", "save_steps": 2, "truncation_probability": 0.5}
    for train, name in ((train_aspects, "aspects"), (train_preference, "preference")):
        expected = train(world, **whole).judge.state_dict()
        part = str(world / f"{name}-part")
        straight = train(world, output_dir=part, **whole)
        assert all(torch.equal(t, expected[n]) for n, t in straight.judge.state_dict().items())
        for later in (world / f"{name}-part").glob("checkpoint-4"):
            for file in later.iterdir():
                file.unlink()
            later.rmdir()
        resumed = train(world, output_dir=part, **whole)
        assert resumed.state.global_step == 4
        for key, tensor in resumed.judge.state_dict().items():
            assert torch.equal(tensor, expected[key]), key


def test_reuse_of_rated_clips_is_warned_of_with_counts(world, caplog):
    train_aspects(world)
    write_csv(
        world / "same.csv",
        ["video_a", "video_b", "label"],
        [(f"{i:03d}.mp4", f"{i + 1:03d}.mp4", 1) for i in range(0, 16, 2)],
    )
    with caplog.at_level(logging.WARNING):
        train_preference(world, comparisons=str(world / "same.csv"), latents=str(world / "rated"))
    assert "6 of 6 training pairs have clips" in caplog.text
    assert "2 of 2 held-out pairs have clips" in caplog.text
    assert "12 of 12 clips" in caplog.text
    caplog.clear()
    (world / "aspects" / "labelled_clips.json").unlink()
    with caplog.at_level(logging.WARNING):
        train_preference(world, output_dir=str(world / "other"))
    assert "cannot be checked" in caplog.text


def test_ties_need_a_loss_that_can_use_them(world):
    train_aspects(world)
    text = (world / "pairs.csv").read_text().splitlines()
    rows = [line.split(",") for line in text[1:]]
    for row in rows[::3]:
        row[2] = "0"
    write_csv(world / "ties.csv", text[0].split(","), rows)
    ties = {"comparisons": str(world / "ties.csv"), "per_device_train_batch_size": 1}
    with pytest.raises(ValueError, match=r"pairs are ties.*rao_kupper.*drop_ties"):
        train_preference(world, preference_loss="bradley_terry", **ties)
    kept = train_preference(world, preference_loss="rao_kupper", **ties)
    dropped = train_preference(
        world, preference_loss="bradley_terry", drop_ties=True, output_dir=str(world / "d"), **ties
    )
    assert dropped.ties_dropped > 0
    assert len(dropped.train_dataset) + dropped.ties_dropped == len(kept.train_dataset)
    config = read_config(world / "d")
    assert config.training["tied pairs left out"] == dropped.ties_dropped


def test_raw_targets_weigh_by_the_square_of_the_range(world):
    """Two aspects, ranges 4 and 2: the loss is the plain mean of squared raw errors."""
    rows = [RatedClip(info, {"clear": 1.0, "focus": 2.0}, "") for info in
            LatentFolder(world / "rated").infos]  # fmt: skip
    judge = load_judge(world / "discriminator")
    wanted = choose_aspects(["clear=0:4", "focus=0:2"], ["clear", "focus"])
    judge.start_aspects(wanted, head_width=16)
    trainer = AspectTrainer(
        judge,
        aspect_args(world, target_scale="raw"),
        train_dataset=rows[:12],
        eval_dataset=rows[12:],
    )
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    loss = trainer.compute_loss(trainer.model, batch)
    raw = torch.stack([judge(clip[None]).aspects[0].mean(0) for clip in batch["clips"]])
    errors = (raw * torch.tensor([4.0, 2.0]) - torch.tensor([1.0, 2.0])).square()
    torch.testing.assert_close(loss, errors.mean())


@pytest.mark.parametrize("name", ["bradley_terry", "bradley_terry_with_ties", "rao_kupper"])
def test_a_probability_is_both_outcomes_in_parts(world, base, name):
    infos = LatentFolder(world / "compared").infos
    judge = tiny_aspect_judge(stage="preference", base_model=str(base))
    wins, loses = (ClipPair(infos[0], infos[1], label, "") for label in (1, -1))
    soft = replace(wins, probability=0.7, weight=0.5)
    half = replace(wins, label=0, probability=0.5)
    args = preference_args(world, preference_loss=name, drop_ties=True, truncation_probability=0.0)
    pairs = [wins, loses, soft, half]
    trainer = PreferenceTrainer(judge, args, train_dataset=pairs, eval_dataset=pairs)
    assert trainer.ties_dropped == 0  # votes in halves are no tie
    a, b, c, d = (
        trainer.compute_loss(trainer.model, trainer.data_collator([example])).item()
        for example in (trainer.train_dataset[index] for index in range(4))
    )
    assert c == pytest.approx(0.5 * (0.7 * a + 0.3 * b), rel=1e-5)
    assert d == pytest.approx((a + b) / 2, rel=1e-5)
    assert abs(a - b) > 1e-3, "both outcomes cost the same: the test proves nothing"
    # Of the held-out pairs it is the mean by weight.
    scores = {str(info.path): judge(load_clip(info.path).latents[None]).scores.mean().item()
              for info in infos[:2]}  # fmt: skip
    metrics = pair_metrics(pairs, scores, args)
    assert metrics["loss"] == pytest.approx((a + b + c + d) / 3.5, rel=1e-4)
    said = {json.dumps(row) for row in trainer.trained_on()}
    assert len(said) == 4, "a run with other labels would be resumed as this one"


@pytest.mark.parametrize("name", ["bradley_terry", "bradley_terry_with_ties", "rao_kupper"])
def test_the_preference_loss_is_taken_of_mean_scores(world, base, name):
    judge = tiny_aspect_judge(stage="preference", base_model=str(base))
    infos = LatentFolder(world / "compared").infos
    pairs = [ClipPair(infos[i], infos[i + 1], 1 if i % 4 else -1, "") for i in range(0, 24, 2)]
    trainer = PreferenceTrainer(
        judge, preference_args(world, preference_loss=name, gamma=0.5, tie_threshold=0.7),
        train_dataset=pairs[:8], eval_dataset=pairs[8:],
    )  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    loss = trainer.compute_loss(trainer.model, batch)
    first, second = (
        torch.stack([judge(clip[None]).scores.mean() for clip in batch[side]])
        for side in ("first", "second")
    )
    expected = []
    for a, b, label in zip(first.tolist(), second.tolist(), batch["label"].tolist(), strict=True):
        win, lose = (a, b) if label > 0 else (b, a)
        expected.append({
            "bradley_terry": math.log1p(math.exp(lose - win)),
            "bradley_terry_with_ties": -math.log(
                math.exp(win / 0.5) / (math.exp(win / 0.5) + math.exp(lose / 0.5) + 1)
            ),
            "rao_kupper": math.log1p(math.exp(lose - win + 0.7)),
        }[name])  # fmt: skip
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_aspect_metrics_of_known_values():
    nan = float("nan")
    predicted = torch.tensor([[0.0, 0.5], [0.5, 0.5], [1.0, 0.5], [0.2, 0.5]])
    targets = torch.tensor([[0.1, 1.0], [0.4, nan], [0.9, 0.5], [nan, 0.0]])
    metrics = aspect_metrics(predicted, targets, ["a", "b"])
    assert metrics["mse/a"] == pytest.approx(0.01)
    assert metrics["mse/b"] == pytest.approx((0.25 + 0 + 0.25) / 3)
    assert metrics["spearman/a"] == pytest.approx(1.0)
    assert "spearman/b" not in metrics, "constant predictions have no correlation"
    assert metrics["spearman"] == pytest.approx(1.0)
    assert metrics["correlated_aspects"] == 1
    assert metrics["loss"] == pytest.approx((3 * 0.01 + 0.5) / 6)


def test_scales_must_come_from_somewhere():
    with pytest.raises(ValueError, match=r"does not define the scale of 'clear'.*clear=LOW:HIGH"):
        choose_aspects(["clear"], ["clear"])
    with pytest.raises(ValueError, match=r"no aspect 'blur': choose from \['clear'\]"):
        choose_aspects(["blur=0:1"], ["clear"])


def test_unknown_formats_and_dimensions_are_refused(world):
    with pytest.raises(ValueError, match=r"`ratings_format` must be one of .*got 'visionrewrad'"):
        train_aspects(world, ratings_format="visionrewrad")
    train_aspects(world)
    with pytest.raises(ValueError, match=r"no dimension 'VQ': choose one of"):
        train_preference(world, dimension="VQ")


def test_held_out_files_are_used_and_may_not_overlap(world):
    lines = (world / "ratings.csv").read_text().splitlines()
    first, second = world / "first.csv", world / "second.csv"
    first.write_text("\n".join(lines[:11]) + "\n")
    second.write_text("\n".join([lines[0], *lines[11:]]) + "\n")
    trainer = train_aspects(world, ratings=str(first), held_out_ratings=str(second))
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (10, 6)
    with pytest.raises(ValueError, match="10 held-out clips are trained on as well"):
        train_aspects(world, ratings=str(first), held_out_ratings=str(world / "ratings.csv"))

    lines = (world / "pairs.csv").read_text().splitlines()
    first.write_text("\n".join(lines[:9]) + "\n")
    second.write_text("\n".join([lines[0], *lines[9:]]) + "\n")
    pairs = {"comparisons": str(first), "held_out_comparisons": str(second)}
    trainer = train_preference(world, **pairs)
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (8, 4)
    with pytest.raises(ValueError, match="16 held-out clips are trained on as well"):
        train_preference(world, **{**pairs, "held_out_comparisons": str(world / "pairs.csv")})


def test_labels_without_latents_are_refused_or_counted(world, caplog):
    text = (world / "ratings.csv").read_text()
    (world / "ratings.csv").write_text(text + "gone.mp4,1,1\n")
    with pytest.raises(ValueError, match=r"1 of 17 videos have no latent file.*gone\.mp4"):
        train_aspects(world)
    with caplog.at_level(logging.WARNING):
        train_aspects(world, allow_missing_videos=True)
    assert "1 rows without latents left out, 16 kept" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_stage_2_learns_what_can_be_seen(world):
    """Brightness of two channels is rated: the held-out correlation must be high."""
    write_csv(world / "more.csv", ["video", "clear", "focus"], write_rated(world / "more", 80))
    trainer = train_aspects(
        world, ratings=str(world / "more.csv"), latents=str(world / "more"), max_steps=120,
        per_device_train_batch_size=16, head_learning_rate=1e-2, learning_rate=1e-3,
    )  # fmt: skip
    trainer.model.train()
    metrics = trainer.evaluate()
    assert trainer.model.training, "evaluation left the model in its own mode"
    assert metrics["eval_spearman/clear"] > 0.8
    assert metrics["eval_spearman/focus"] > 0.8
    assert metrics["eval_mse"] < 0.05  # the variance of 0..1 in five steps is 0.125


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["bradley_terry", "bradley_terry_with_ties", "rao_kupper"])
def test_a_known_linear_preference_is_recovered(name):
    """Labels drawn from the loss's own model of 1,500 pairs; five seeds; a 95% t interval.

    Synthetic aspects of correlation 0.3 and a weight vector with both signs. The cosine between
    true and recovered weights says whether the direction is found, whatever its length.
    """
    cosines = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        true = torch.tensor([6.0, -3.0, 0.0, 2.0, 4.0])
        mix = 0.7**0.5 * torch.eye(5) + (0.3 / 5) ** 0.5
        first, second = (torch.randn(1500, 5, generator=generator) @ mix * 0.3 for _ in range(2))
        labels = drawn_labels(name, first @ true, second @ true, generator)
        layer = preference_layer(tiny_aspect_judge(stage="preference", aspects=FIVE).config)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.2)
        for _ in range(150):
            a, b = layer(first)[:, 0], layer(second)[:, 0]
            loss = {
                "bradley_terry": lambda: bradley_terry_loss(a, b, labels),  # noqa: B023
                "bradley_terry_with_ties": lambda: bradley_terry_with_ties_loss(a, b, labels),  # noqa: B023
                "rao_kupper": lambda: rao_kupper_loss(a, b, labels, 0.5),  # noqa: B023
            }[name]().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        cosines.append(torch.cosine_similarity(layer.weight[0], true, dim=0).item())
    values = torch.tensor(cosines)
    margin = 2.776 * values.std().item() / math.sqrt(5)  # t of 4 degrees of freedom
    assert values.mean() - margin > 0.97, cosines
    start = torch.cosine_similarity(torch.ones(5), torch.tensor([6.0, -3.0, 0.0, 2.0, 4.0]), dim=0)
    assert start < 0.6, "the start is too near the truth: the test proves nothing"


FIVE = tuple(type(ASPECTS[0])(name=f"a{index}", low=0, high=1) for index in range(5))


def drawn_labels(name, first, second, generator):
    """+1, -1 and 0 with the probabilities of the model that the loss belongs to."""
    if name == "bradley_terry":
        win, lose = (first - second).sigmoid(), (second - first).sigmoid()
    elif name == "rao_kupper":
        win, lose = (first - second - 0.5).sigmoid(), (second - first - 0.5).sigmoid()
    else:
        total = first.exp() + second.exp() + 1
        win, lose = first.exp() / total, second.exp() / total
    draw = torch.rand(len(first), generator=generator)
    return (draw < win).long() - ((draw >= win) & (draw < win + lose)).long()


@pytest.mark.usefixtures("unchecked")
def test_the_trainer_recovers_a_known_preference_too(world, base):
    """Labels by a hidden weighting of the judge's own aspects: only the linear layer can learn."""
    write_clips(world / "many", 64, time=3)
    infos = LatentFolder(world / "many").infos
    judge = tiny_aspect_judge(base_model=str(base), spread=6.0)
    with torch.no_grad():
        aspects = torch.stack(
            [judge(load_clip(i.path).latents[None]).aspects[0].mean(0) for i in infos]
        )
    hidden = (aspects @ torch.tensor([4.0, -8.0, 2.0])).tolist()
    generator = torch.Generator().manual_seed(0)
    chosen = [torch.randperm(64, generator=generator)[:2].tolist() for _ in range(200)]
    pairs = [
        ClipPair(infos[a], infos[b], 1 if hidden[a] > hidden[b] else -1, "") for a, b in chosen
    ]
    judge.start_preference()
    args = preference_args(
        world, head_only=True, preference_loss="bradley_terry", head_learning_rate=0.3,
        max_steps=120, per_device_train_batch_size=16, truncation_probability=0.0,
    )  # fmt: skip
    trainer = PreferenceTrainer(judge, args, train_dataset=pairs[:150], eval_dataset=pairs[150:])
    before = trainer.evaluate()["eval_accuracy_without_ties"]
    trainer.train()
    after = trainer.evaluate()["eval_accuracy_without_ties"]
    assert before < 0.8
    assert after > 0.9


def test_held_out_pairs_are_answered_at_the_tie_threshold_of_others(world, base, caplog):
    """A pair people decided, and a tie whose clips differ less.

    At the size of the tie's difference both are right. But a pair that was decided is right at 0
    as well, which is what it says of the tie: wrong.
    """
    infos = write_clips(world / "more", 6, time=3).infos
    judge = tiny_aspect_judge(base_model=str(base), spread=6.0)
    judge.start_preference()

    def trainer_of(*links):
        train, *held_out = [
            ClipPair(infos[a], infos[b], label, "") for a, b, label in ((4, 5, 1), *links)
        ]
        args = preference_args(world, per_device_train_batch_size=1)
        return PreferenceTrainer(judge, args, train_dataset=[train], eval_dataset=held_out)

    scores, _ = trainer_of((0, 1, 1)).predict_clips(infos[:4])
    order = sorted(range(4), key=scores.__getitem__)
    near = min(range(3), key=lambda i: scores[order[i + 1]] - scores[order[i]])
    tie = order[near : near + 2]
    low, high = (i for i in order if i not in tie)
    assert scores[high] - scores[low] > scores[tie[1]] - scores[tie[0]] > 1e-4
    metrics = trainer_of((high, low, 1), (*tie, 0)).evaluate()
    assert metrics["eval_accuracy_with_ties"] == 1.0
    assert metrics["eval_cross_fitted_with_ties"] == 0.5
    caplog.clear()
    metrics = trainer_of((high, low, 1), (low, tie[0], 0)).evaluate()
    assert "eval_cross_fitted_with_ties" not in metrics
    assert "all 2 held-out pairs are connected" in caplog.text


def test_commands_train_and_draw(world, capsys):
    quick = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "True",
             "--save_strategy", "no", "--logging_steps", "1", "--held_out_fraction", "0.25",
             "--truncation_min_seconds", "0.5"]  # fmt: skip
    words = ["train-aspects", "--from_judge", str(world / "discriminator"), "--ratings",
             str(world / "ratings.csv"), "--latents", str(world / "rated"), "--output_dir",
             str(world / "aspects"), "--aspects", "clear=0:4", "focus=0:4", *quick]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    words = ["train-preference", "--from_judge", str(world / "aspects"), "--comparisons",
             str(world / "pairs.csv"), "--latents", str(world / "compared"), "--output_dir",
             str(world / "preference"), *quick]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    assert f"judge: {world / 'preference'}" in capsys.readouterr().out
    assert (world / "preference" / "training.png").stat().st_size > 10_000
    assert main(["inspect", str(world / "preference")]) == 0
    printed = capsys.readouterr().out
    assert "clear 0-4, focus 0-4" in printed
    weights = json.loads((world / "preference" / "config.json").read_text())["aspect_weights"]
    assert f"{weights[0]:+.4g} clear" in printed
    scores = GTSVJReward.from_pretrained(world / "preference", allow_untrained_geometry=True)
    assert scores(clips(1)).isfinite().all()
