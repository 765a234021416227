import json
import logging
from dataclasses import fields
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from gtsvj_reward.cli import main
from gtsvj_reward.judge import load_judge, read_config
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.losses import contrastive_loss
from gtsvj_reward.perturbations import GENERATED, PERTURBATIONS, PerturbationSampler
from gtsvj_reward.training import (
    DiscriminatorConfig,
    DiscriminatorFit,
    DiscriminatorTrainer,
    JudgeArguments,
    RealAndGenerated,
    build_judge,
    train_discriminator,
)
from gtsvj_reward.training.discriminator.held_out import REAL, metrics_by_kind, pair_up
from gtsvj_reward.training.discriminator.saturation import SaturationWatch
from gtsvj_reward.training.discriminator.trainer import means
from gtsvj_reward.training.outputs import ClipScores
from tests.ranks import on_unix, run_ranks
from tests.tiny import clips, tiny_judge, tiny_space
from tests.training.clips import write_clips


def config(tmp_path, **changes):
    """Six steps of four pairs, logged every step."""
    fields = {
        "real": str(tmp_path / "real"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "truncation_min_seconds": 0.5,
        "logging_steps": 1,
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "held_out_fraction": 0.2,
    }
    return DiscriminatorConfig(**{**fields, **changes})


def train(tmp_path, base, **changes):
    """Train a tiny judge from folders, as the command line does."""
    return train_discriminator(
        JudgeArguments(base_model=str(base), head_width=16), config(tmp_path, **changes)
    )


def test_every_trainable_parameter_moves_and_no_frozen_one(tmp_path, base):
    write_clips(tmp_path / "real", 10)
    before = build_judge(
        JudgeArguments(base_model=str(base), head_width=16), tiny_space(), seed=42
    ).state_dict()
    judge = train(tmp_path, base).judge
    judge.unfreeze()
    for name, parameter in judge.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


def test_the_written_judge_is_the_trained_one_and_says_how_it_was_made(tmp_path, base):
    write_clips(tmp_path / "real", 10)
    write_clips(tmp_path / "fake", 5, seed=50)
    trainer = train(tmp_path, base, generated=str(tmp_path / "fake"))
    loaded = load_judge(tmp_path / "out")
    assert torch.equal(loaded.energies(clips()), trainer.judge.energies(clips()))
    recorded = read_config(tmp_path / "out")
    assert recorded.geometry.latent_frames == (3, 7)
    assert recorded.training["steps"] == 6
    assert recorded.training["real clips"] == 8
    assert recorded.training["generated clips"] == 4
    assert recorded.training["negatives"][GENERATED] == 0.3
    assert recorded.reward_data == (
        "held-out clips of stage 1 (2 frame_drop, 2 frame_shuffle, 1 generated, 2 noisy_segment, "
        "2 patch_swap, 2 real, 2 temporal_slice_swap)"
    )


def test_cheaper_judges_are_trained_as_they_will_score(tmp_path, base):
    write_clips(tmp_path / "real", 10)
    options = {"latent_pooling": 2, "temporal_stride": 2, "depth": 3}
    arguments = JudgeArguments(base_model=str(base), head_width=16, **options)
    trainer = train_discriminator(arguments, config(tmp_path, max_steps=2))
    recorded = read_config(tmp_path / "out")
    assert {name: getattr(recorded, name) for name in options} == options
    assert recorded.geometry.latent_frames == (3, 7)
    assert (recorded.geometry.height, recorded.geometry.width) == ((8, 8), (12, 12))
    loaded = load_judge(tmp_path / "out")
    assert loaded.energies(clips()).shape == (2, 3)
    assert torch.equal(loaded.energies(clips()), trainer.judge.energies(clips()))


def test_clips_too_short_for_the_stride_are_refused_before_training(tmp_path, base):
    """The shortest cut of the clips counts: half a second is 3 latent frames at least."""
    write_clips(tmp_path / "real", 10)
    arguments = JudgeArguments(base_model=str(base), head_width=16, temporal_stride=3)
    with pytest.raises(ValueError, match=r"3 latent frames is too short.*one in 3"):
        train_discriminator(arguments, config(tmp_path))
    assert not (tmp_path / "out").exists()
    train_discriminator(arguments, config(tmp_path, truncation_probability=0.0, max_steps=1))


def test_score_statistics_are_those_of_the_held_out_clips(tmp_path, base):
    write_clips(tmp_path / "real", 10)
    trainer = train(tmp_path, base, max_steps=2)
    scores = torch.tensor(
        [-e for energies in trainer.held_out_by_kind().values() for e in energies.values()]
    )
    recorded = read_config(tmp_path / "out")
    assert recorded.reward_mean == pytest.approx(scores.mean().item(), rel=1e-5)
    assert recorded.reward_std == pytest.approx(scores.std().item(), rel=1e-5)
    assert len(scores) == 2 * 6


def test_logged_figures(tmp_path, base):
    """Loss, share of its bound, gradient norm, mean energies, and held-out figures per kind."""
    write_clips(tmp_path / "real", 10)
    write_clips(tmp_path / "fake", 5, seed=50)
    trainer = train(
        tmp_path, base, generated=str(tmp_path / "fake"), eval_strategy="steps", eval_steps=3
    )
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 6
    for entry in steps:
        assert entry["bound_share"] == pytest.approx(float(entry["loss"]) / -2.5, rel=1e-3)
        assert entry["grad_norm"] > 0
        assert f"energy/{REAL}" in entry
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [3, 6, 6]
    for kind in (*PERTURBATIONS, GENERATED):
        assert 0 <= evaluations[0][f"eval_accuracy/{kind}"] <= 1
        assert f"eval_energy/{kind}" in evaluations[0]
    assert evaluations[0]["eval_pairs"] == 2 * 5 + 2 * 1
    assert json.dumps(evaluations)


def test_the_loss_is_that_of_time_means_or_of_steps(tmp_path):
    real = write_clips(tmp_path / "real", 8).infos
    judge = tiny_judge()
    trainer = DiscriminatorTrainer(
        judge,
        config(tmp_path),
        train_dataset=RealAndGenerated(real),
        eval_dataset=RealAndGenerated(real[:1]),
        callbacks=[],
    )
    batch = trainer.data_collator([trainer.train_dataset[key] for key in range(4)])
    first = [judge.energies(clip[None])[0] for clip in batch["positive"]]
    second = [judge.energies(clip[None])[0] for clip in batch["negative"]]
    expected = contrastive_loss(means(first), means(second), 0.2).mean()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)
    trainer.args.loss_per_step = True
    per_step = torch.stack(
        [((p + 0.2 * p**2) + (0.2 * n**2 - n)).mean() for p, n in zip(first, second, strict=True)]
    ).mean()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), per_step)
    assert per_step > expected


def test_energies_of_mixed_clips_keep_their_order():
    judge = tiny_judge()
    batch = [clips(1, time, seed=time + n)[0] for n, time in enumerate((5, 3, 5, 4, 3))]
    for clip, output in zip(batch, ClipScores(judge)(batch), strict=True):
        torch.testing.assert_close(-output.scores, judge.energies(clip[None])[0], rtol=0, atol=1e-5)


def test_training_learns_an_easy_difference(tmp_path, base):
    """Not a claim about quality: noise against a smooth ramp must be told apart after 60 steps."""
    write_clips(tmp_path / "real", 16, drift=2.0)
    write_clips(tmp_path / "fake", 8, seed=50)
    (tmp_path / "p.json").write_text(json.dumps({"real": {GENERATED: 1.0}}))
    trainer = train(
        tmp_path,
        base,
        generated=str(tmp_path / "fake"),
        perturbations=str(tmp_path / "p.json"),
        max_steps=60,
        logging_steps=20,
        learning_rate=1e-3,
        head_learning_rate=1e-2,
    )
    metrics = metrics_by_kind(trainer.held_out_by_kind())
    assert metrics[f"accuracy/{GENERATED}"] == 1.0
    losses = [float(e["loss"]) for e in trainer.state.log_history if "loss" in e]
    assert losses[-1] < losses[0] - 1.0


@pytest.mark.parametrize("per_step", [False, True])
def test_the_loss_weighs_squares_by_beta(tmp_path, base, per_step):
    """Eq. 4 is e+ - e- + beta (e+^2 + e-^2): a straight line in beta, before the first step."""
    write_clips(tmp_path / "real", 10)
    losses = []
    for beta in (0.2, 0.6, 1.0):
        trainer = train(tmp_path, base, beta=beta, loss_per_step=per_step, max_steps=1)
        losses += [float(e["loss"]) for e in trainer.state.log_history if "loss" in e]
    assert losses[2] - losses[0] > 1e-3, "the squares are too small to tell"
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, abs=2e-4)  # logs are rounded


def test_logged_energies_are_those_of_the_clips(tmp_path, base):
    """One step over all clips, at a learning rate that moves nothing."""
    write_clips(tmp_path / "real", 10, drift=2.0)
    trainer = train(tmp_path, base, max_steps=1, per_device_train_batch_size=8,
                    truncation_probability=0.0, learning_rate=0.0, head_learning_rate=0.0,
                    eval_strategy="steps", eval_steps=1)  # fmt: skip
    logged = {k: v for entry in trainer.state.log_history for k, v in entry.items()}
    for name, data in (("energy", trainer.train_dataset), ("eval_energy", trainer.eval_dataset)):
        latents = torch.stack([load_clip(info.path).latents for info in data.real])
        with torch.no_grad():
            expected = trainer.judge.energies(latents).mean().item()
        assert abs(expected) > 1e-2
        assert logged[f"{name}/{REAL}"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4])
def test_a_resumed_run_repeats_the_uninterrupted_one_bitwise(tmp_path, base, stop):
    """Ten pairs, batches of 2, accumulation 2: steps 3 and 4 are the middle of epochs 1 and 2."""
    write_clips(tmp_path / "real", 12)
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": stop,
        "truncation_probability": 0.5,
    }
    whole = train(tmp_path, base, output_dir=str(tmp_path / "whole"), **settings)
    checkpoint = tmp_path / "whole" / f"checkpoint-{stop}"
    again = train(
        tmp_path,
        base,
        output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(checkpoint),
        **settings,
    )
    assert again.state.global_step == whole.state.global_step == 6
    for name in ("head.safetensors", "adapter_model.safetensors"):
        first, second = (load_file(tmp_path / run / name) for run in ("whole", "again"))
        halfway = load_file(checkpoint / name)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert any(not torch.equal(first[key], halfway[key]) for key in first)
    assert not list((tmp_path / "whole").rglob("model.safetensors")), "base weights were saved"


@on_unix
def test_two_processes_equal_one_at_the_same_global_batch(tmp_path, base):
    write_clips(tmp_path / "real", 18)
    write_clips(tmp_path / "fake", 6, time=5, seed=50)
    flags = {
        "readout": "mlp",
        "base_model": base,
        "head_width": 16,
        "real": tmp_path / "real",
        "generated": tmp_path / "fake",
        "max_steps": 6,
        "logging_steps": 2,
        "truncation_probability": 0.5,
        "truncation_min_seconds": 0.5,
        "use_cpu": True,
        "save_strategy": "no",
        "max_grad_norm": 1.0,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    words = ["train-discriminator", *words, "--per_device_train_batch_size"]
    assert main([*words, "4", "--output_dir", str(tmp_path / "1")]) == 0
    together = [*words, "2", "--output_dir", tmp_path / "2", "--ddp_backend", "gloo"]
    status, logs = run_ranks(2, lambda rank: together, tmp_path)
    assert status == [0, 0], logs
    for name in ("head.safetensors", "adapter_model.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("1", "2"))
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-5)
    histories = [
        json.loads((tmp_path / run / "trainer_state.json").read_text())["log_history"]
        for run in ("1", "2")
    ]
    for first, second in zip(*histories, strict=True):
        for key in first:
            if key.startswith(("energy/", "eval_", "bound_share")):
                assert second[key] == pytest.approx(first[key], abs=1e-4), key
    assert read_config(tmp_path / "2").training["examples per step"] == 4


def test_checkpointing_trains_the_same(tmp_path, base):
    write_clips(tmp_path / "real", 10)
    plain = train(tmp_path, base, output_dir=str(tmp_path / "plain"))
    new_name = "activation_checkpointing" in {f.name for f in fields(DiscriminatorConfig)}
    setting = {"activation_checkpointing" if new_name else "gradient_checkpointing": True}
    recomputed = train(tmp_path, base, output_dir=str(tmp_path / "recomputed"), **setting)
    assert recomputed.judge.backbone.gradient_checkpointing
    torch.testing.assert_close(
        recomputed.judge.energies(clips()), plain.judge.energies(clips()), rtol=0, atol=1e-5
    )


def test_saturation_is_reported_once(caplog):
    watch = SaturationWatch(0.9)
    state = TrainerState()
    entries = [(0.1, 3.0), (0.5, 3.2), (0.95, 2.0), (0.95, 0.9), (0.98, 0.1)]
    with caplog.at_level(logging.WARNING):
        for state.global_step, (share, norm) in enumerate(entries):
            watch.on_log(None, state, None, {"bound_share": share, "grad_norm": norm})
    assert watch.step == 3
    assert caplog.text.count("saturated at step") == 1
    assert "95% of the loss's bound" in caplog.text


def test_pairs_of_perturbations_are_of_one_clip_and_of_generated_clips_all():
    real = {0: 1.0, 1: 2.0}
    assert pair_up(real, {1: 5.0, 0: 4.0}, same_clip=True) == [(2.0, 5.0), (1.0, 4.0)]
    assert pair_up(real, {0: 5.0}, same_clip=False) == [(1.0, 5.0), (2.0, 5.0)]


def test_learning_rates_of_head_and_adapter(tmp_path):
    real = write_clips(tmp_path / "real", 8).infos
    trainer = DiscriminatorTrainer(
        tiny_judge(),
        config(tmp_path),
        train_dataset=RealAndGenerated(real),
        eval_dataset=RealAndGenerated(real[:1]),
    )
    groups = trainer.create_optimizer().param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-4]
    trainable = [p for p in trainer.judge.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trainable)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": ""}, "`real` must be set"),
        ({"held_out_fraction": 1.5}, "`held_out_fraction` must lie in"),
        ({"remove_unused_columns": True}, "would drop the latents"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_batches_that_cannot_be_filled_are_refused(tmp_path, base):
    write_clips(tmp_path / "real", 4)
    with pytest.raises(ValueError, match="3 examples do not fill one batch of 4"):
        train(tmp_path, base)


def test_clips_of_another_space_are_refused(tmp_path):
    real = write_clips(tmp_path / "real", 8)
    judge = tiny_judge(latent_space=tiny_space(id="other"))
    with pytest.raises(ValueError, match="is of latent space 'tiny', the judge of 'other'"):
        DiscriminatorTrainer(
            judge,
            config(tmp_path),
            train_dataset=RealAndGenerated(real.infos),
            eval_dataset=RealAndGenerated(real.infos[:1]),
        )


def test_held_out_clips_that_are_trained_on_are_refused(tmp_path, base):
    write_clips(tmp_path / "real", 8)
    with pytest.raises(ValueError, match="8 held-out clips are trained on as well"):
        train(tmp_path, base, held_out_real=str(tmp_path / "real"))


def test_empty_folders_are_refused(tmp_path, base):
    (tmp_path / "real").mkdir()
    with pytest.raises(ValueError, match="no latent files"):
        train(tmp_path, base)


def test_calibrated_probabilities_are_read(tmp_path):
    file = tmp_path / "p.json"
    only = {"real": {"frame_drop": 0.7, GENERATED: 0.3}, "generated": {"frame_drop": 1.0}}
    file.write_text(json.dumps({"sampler": only}))
    assert config(tmp_path, perturbations=str(file)).sampler().real == only["real"]
    table, extended = PerturbationSampler(), PerturbationSampler.extended()
    fit = partial(DiscriminatorFit, real=str(tmp_path), output_dir=str(tmp_path / "out"))
    assert config(tmp_path).sampler() == config(tmp_path, perturbations="table").sampler() == table
    assert fit().sampler() == extended
    assert fit(perturbations="table").sampler() == table
    assert config(tmp_path, perturbations="extended").sampler() == extended
    file.write_text('{"sampler": {"real": {"frame_drop": 2.0}}}')
    with pytest.raises(ValueError, match=r"not the JSON of a perturbation sampler.*sum to 1"):
        config(tmp_path, perturbations=str(file)).sampler()
    with pytest.raises(FileNotFoundError, match="calibrate-perturbations"):
        config(tmp_path, perturbations=str(tmp_path / "none.json")).sampler()


def test_evaluation_does_not_depend_on_when_it_runs(tmp_path):
    folder = write_clips(tmp_path / "real", 8)
    assert isinstance(folder, LatentFolder)
    judge = tiny_judge()
    trainer = DiscriminatorTrainer(
        judge,
        config(tmp_path),
        train_dataset=RealAndGenerated(folder.infos),
        eval_dataset=RealAndGenerated(folder.infos),
    )
    first = trainer.held_out_by_kind()
    torch.manual_seed(7)
    assert trainer.held_out_by_kind() == first
    for index, info in enumerate(folder.infos):
        clip = folder[index].latents[None]
        assert first[REAL][index] == pytest.approx(judge.energies(clip).mean().item(), abs=1e-6), (
            info.path
        )


@pytest.mark.parametrize("per_step", [False, True])
def test_eval_loss_is_the_training_loss_on_the_held_out_clips(tmp_path, per_step):
    """Nothing is learned: an epoch over the very clips that are held out has that mean loss."""
    real = write_clips(tmp_path / "real", 8).infos
    fake = write_clips(tmp_path / "fake", 4, time=5, seed=50).infos
    args = config(
        tmp_path, max_steps=2, logging_steps=2, learning_rate=0.0, head_learning_rate=0.0,
        truncation_probability=0.5, loss_per_step=per_step, logging_first_step=False,
    )  # fmt: skip
    trainer = DiscriminatorTrainer(
        tiny_judge(), args,
        train_dataset=RealAndGenerated(real, fake), eval_dataset=RealAndGenerated(real, fake),
    )  # fmt: skip
    trainer.train()
    (loss,) = [float(e["loss"]) for e in trainer.state.log_history if "loss" in e]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-4)
    kinds = {trainer.train_dataset[key].kind for key in range(8)}
    assert GENERATED in kinds
    assert len(kinds) > 2
