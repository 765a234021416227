"""A run that was stopped anywhere goes on as if it had not been, or says why it cannot."""

import json
import os
import re
import shutil
import signal
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerState, TrainingArguments

from gtsvj_reward.judge import read_config
from gtsvj_reward.locks import LOCK_FILE, FolderInUseError
from gtsvj_reward.training import (
    AspectConfig,
    DiscriminatorFit,
    DiscriminatorTrainer,
    DiscriminatorTuning,
    JudgeArguments,
    PreferenceConfig,
    build_judge,
    checkpoints,
    fit_discriminator,
    train_discriminator,
)
from gtsvj_reward.training.arguments import DECIDING, NOT_DECIDING, default_settings
from gtsvj_reward.training.discriminator.run import real_and_generated
from gtsvj_reward.training.discriminator.saturation import SaturationWatch
from gtsvj_reward.training.resume import (
    checkpoints_in,
    newest_whole,
    problem_of,
    refuse_changes,
    settings_text,
)
from tests.holder import holder
from tests.ranks import on_unix, run_apart
from tests.test_files import full_disk
from tests.tiny import tiny_transformer
from tests.training.clips import write_clips
from tests.training.stages import train_aspects, train_preference, write_csv
from tests.training.test_discriminator import config, train

STEPS = {
    "max_steps": 5, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 3,
}  # fmt: skip
"""Eight pairs in batches of three: neither step 4 nor step 5 ends an epoch."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a base model, real clips, and an uninterrupted run in `whole`."""
    folder = tmp_path_factory.mktemp("home")
    tiny_transformer().save_pretrained(folder / "base")
    write_clips(folder / "real", 10)
    run(folder, folder / "whole")
    return folder


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the uninterrupted run."""
    return shutil.copytree(home / "whole", tmp_path / "copy")


def run(home, folder, **changes):
    """The run of `STEPS` into a folder."""
    return train(home, home / "base", output_dir=str(folder), **{**STEPS, **changes})


def weights(folder):
    names = ("head.safetensors", "adapter_model.safetensors")
    return {key: value for name in names for key, value in load_file(folder / name).items()}


def assert_same(folder, other):
    first, second = weights(folder), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    records = [read_config(path).training for path in (folder, other)]
    assert records[0] == records[1]


def names(folder):
    return [path.name for path in checkpoints_in(folder)]


DAMAGES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "half a state": (lambda folder: cut(folder / "trainer_state.json"), "Unterminated|Expecting"),
    "half a head": (lambda folder: cut(folder / "head.safetensors"), "head.safetensors is not a w"),
    "no adapter": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model"),
    "half an optimizer": (lambda folder: cut(folder / "optimizer.pt"), "optimizer.pt is missing"),
    "no schedule": (lambda folder: (folder / "scheduler.pt").unlink(), "scheduler.pt is missing"),
    "no settings": (lambda folder: (folder / "settings.json").unlink(), "settings.json"),
    "nothing": (lambda folder: [file.unlink() for file in folder.iterdir()], "no judge in"),
}


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_checkpoints_that_are_not_whole_are_left_out_by_name(home, tmp_path, caplog):
    for damage, message in DAMAGES.values():
        folder = shutil.copytree(home / "whole", tmp_path / "damaged")
        assert [problem_of(path) for path in checkpoints_in(folder)] == [None, None, None]
        damage(folder / "checkpoint-5")
        found = {path.name: problem_of(path) for path in checkpoints_in(folder)}
        caplog.clear()
        assert newest_whole(folder, [("here", found)]) == folder / "checkpoint-4"
        assert f"left out {folder / 'checkpoint-5'}, which is not whole" in caplog.text
        assert re.search(message, found["checkpoint-5"]), found
        shutil.rmtree(folder)


def test_a_run_goes_on_from_the_newest_whole_checkpoint(home, copy, caplog):
    (copy / "config.json").unlink()
    cut(copy / "checkpoint-5" / "optimizer.pt")
    (copy / "checkpoint-4" / "trainer_state.json").unlink()
    again = run(home, copy)
    assert f"resuming from {copy / 'checkpoint-2'}" in caplog.text
    assert again.state.global_step == 5
    assert_same(copy, home / "whole")
    assert [problem_of(path) for path in checkpoints_in(copy)] == [None, None, None]


def killed_in_a_save(home, folder):
    """Train, and die by SIGKILL when the third checkpoint is to take its name."""
    put = checkpoints.put_folder

    def put_or_die(part, path):
        if path.name == "checkpoint-5":
            os.kill(os.getpid(), signal.SIGKILL)
        put(part, path)

    checkpoints.put_folder = put_or_die
    run(home, folder)


@on_unix
def test_a_run_that_is_killed_while_it_saves_goes_on(home, tmp_path, caplog):
    folder = tmp_path / "again"
    assert run_apart([partial(killed_in_a_save, home, folder)]) == [-signal.SIGKILL]
    killed = json.loads((folder / LOCK_FILE).read_text())["pid"]
    assert names(folder) == ["checkpoint-4", "checkpoint-2"]
    assert [path for path in folder.iterdir() if path.name.endswith(".part")], "killed too early"
    run(home, folder)
    assert f"resuming from {folder / 'checkpoint-4'}" in caplog.text
    assert f"left by process {killed} on" in caplog.text
    assert_same(folder, home / "whole")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


DISK_IS_FULL = (
    r"(large: '.*head.safetensors|cannot write .*part).*; stopped at step 4: the same command goes "
    r"on from .*checkpoint-2"
)


class FullDisk(TrainerCallback):
    """From a step on no file larger than so many bytes can be written."""

    def __init__(self, step, free):
        self.step, self.disk = step, full_disk(free)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.disk.__enter__()


def test_a_disk_that_is_full_while_a_run_saves_costs_only_the_steps_since(home, tmp_path):
    folder = tmp_path / "again"
    largest = max(file.stat().st_size for file in (home / "whole/checkpoint-4").iterdir())
    for free in (0, largest - 1):
        full = FullDisk(4, free)
        trainer = trainer_of(home, folder, full, logging_strategy="no")  # pytest has a disk too
        try:
            with pytest.raises(OSError, match=DISK_IS_FULL):
                trainer.run()
        finally:
            full.disk.__exit__(None, None, None)
        assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
    run(home, folder)
    assert_same(folder, home / "whole")


def trainer_of(home, folder, callback, **changes):
    """What `run` trains with, and a callback."""
    arguments = config(home, output_dir=str(folder), **STEPS, **changes)
    clips, held_out = real_and_generated(arguments)
    judge = JudgeArguments(base_model=str(home / "base"), head_width=16)
    return DiscriminatorTrainer(
        build_judge(judge, clips.real[0].space, seed=arguments.seed),
        arguments,
        train_dataset=clips,
        eval_dataset=held_out,
        callbacks=[callback],
    )


def test_a_finished_run_that_is_started_again_leaves_its_judge(home, copy, caplog):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    again = run(home, copy)
    assert "holds the judge of all 5 steps, which stays as it is" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    assert [e["step"] for e in again.state.log_history if "loss" in e] == [1, 2, 3, 4, 5]
    assert again.judge.config == read_config(copy)
    stored = weights(copy)
    assert torch.equal(again.judge.head.energy.weight, stored["head.energy.weight"])


def test_a_run_that_only_lacks_its_judge_writes_it_without_a_step(home, copy):
    (copy / "config.json").unlink()
    (copy / "trainer_state.json").unlink()
    again = run(home, copy)
    assert [e["step"] for e in again.state.log_history if "loss" in e] == [1, 2, 3, 4, 5]
    assert_same(copy, home / "whole")


def test_a_run_can_be_made_longer_and_saved_otherwise(home, copy):
    trainer = run(home, copy, max_steps=7, save_steps=1, logging_steps=2)
    assert trainer.state.global_step == 7
    assert names(copy)[:3] == ["checkpoint-7", "checkpoint-6", "checkpoint-5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "`seed` was 42, is now 7"),
        ({"learning_rate": 0.1}, r"`learning_rate` was 0.0001, is now 0.1"),
        ({"head_learning_rate": 0.1}, "`head_learning_rate` was 0.001, is now 0.1"),
        ({"per_device_train_batch_size": 2}, "`examples per step` was 3, is now 2"),
        (
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
            "`examples of an epoch` was 6, is now 8",
        ),
        ({"beta": 0.5}, "`beta` was 0.2, is now 0.5"),
        ({"optim": "sgd", "adam_beta1": 0.5}, "`adam_beta1` was 0.9, is now 0.5; `optim` was"),
        ({"held_out_fraction": 0.5}, "`training examples` was "),
        ({"warmup_steps": 3}, "`steps of warm-up` was 0, is now 3"),
        ({"lr_scheduler_type": "linear"}, '`lr_scheduler_type` was "constant_with_warmup", is now'),
    ],
)
def test_other_settings_are_refused_by_name(home, changes, message):
    for steps in (5, 7):  # also where no step is left
        with pytest.raises(ValueError, match=message):
            run(home, home / "whole", max_steps=steps, **changes)


def test_another_adapter_and_other_clips_are_refused(home, tmp_path):
    other = JudgeArguments(base_model=str(home / "base"), head_width=16, lora_alpha=2.0)
    settings = config(home, output_dir=str(home / "whole"), **STEPS)
    with pytest.raises(ValueError, match=r"`lora_alpha` was 8.0, is now 2.0"):
        train_discriminator(other, settings)
    write_clips(tmp_path / "louder", 10, scale=1.5)
    with pytest.raises(ValueError, match=r"`training examples` was \w{12}…, is now"):
        run(home, home / "whole", real=str(tmp_path / "louder"))


def test_a_rate_that_decays_over_the_run_fixes_its_length(home, tmp_path):
    run(home, tmp_path, lr_scheduler_type="linear", max_steps=2)
    with pytest.raises(ValueError, match="`max_steps` was 2, is now 5"):
        run(home, tmp_path, lr_scheduler_type="linear")


def test_labels_and_scales_of_later_stages_are_compared(world):
    save = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    train_aspects(world, **save)
    with pytest.raises(ValueError, match='`target_scale` was "range", is now "raw"'):
        train_aspects(world, **save, target_scale="raw")
    rows = [row.split(",") for row in (world / "ratings.csv").read_text().split()]
    rows[1][1] = "0" if rows[1][1] == "4" else "4"
    with pytest.raises(ValueError, match="`training examples` was"):
        train_aspects(world, **save, ratings=write_csv(world / "new.csv", rows[0], rows[1:]))
    train_preference(world, **save)
    with pytest.raises(ValueError, match=r"`gamma` was 1.0, is now 2.0"):
        train_preference(world, **save, gamma=2.0)


def test_the_same_examples_per_step_may_come_in_other_batches(home, tmp_path):
    run(home, tmp_path / "whole", max_steps=3, per_device_train_batch_size=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "checkpoint-3")
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    run(home, tmp_path / "other", max_steps=3, **halves)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "other")
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-5)


def test_the_length_of_a_run_is_that_of_transformers(home, tmp_path):
    for changes in ({}, {"gradient_accumulation_steps": 2}, {"dataloader_drop_last": False}):
        trainer = run(home, tmp_path, max_steps=-1, num_train_epochs=1.5, save_strategy="no",
                      **changes)  # fmt: skip
        assert trainer.total_steps() == trainer.state.max_steps == trainer.state.global_step
        assert trainer.batches_per_epoch() == len(trainer.get_train_dataloader())


def test_a_checkpoint_that_is_asked_for_must_be_whole(home, copy):
    cut(copy / "checkpoint-4" / "scheduler.pt")
    for asked in (copy / "checkpoint-4", copy / "nothing"):
        with pytest.raises(ValueError, match=f"cannot resume from {asked}: .*{asked.name}"):
            run(home, copy, resume_from_checkpoint=str(asked))


def test_what_processes_see_decides(caplog):
    """By process: host, and what is wrong with each checkpoint."""
    folder = Path("run")
    both = [("a", {"checkpoint-20": None, "checkpoint-4": None})] * 2
    assert newest_whole(folder, both) == folder / "checkpoint-20"
    late = [("a", {"checkpoint-20": None, "checkpoint-4": None}), ("b", {"checkpoint-4": None})]
    assert newest_whole(folder, late) == folder / "checkpoint-4"
    assert "left out run/checkpoint-20 of processes 1 (b), which is not whole: no" in caplog.text
    with pytest.raises(ValueError, match=r"checkpoint-20 is not there, .* on processes 1 \(b\)"):
        newest_whole(folder, [late[0], ("b", {})])
    assert newest_whole(folder, [("a", {"checkpoint-4": "cut short"})]) is None
    assert newest_whole(folder, [("a", {}), ("b", {})]) is None


def test_the_newest_checkpoints_and_the_best_one_are_kept(home, tmp_path):
    trainer = run(
        home, tmp_path, eval_strategy="steps", eval_steps=1, save_steps=1, save_total_limit=2,
        metric_for_best_model="loss", greater_is_better=True, head_learning_rate=0.01,
    )  # fmt: skip
    best = Path(trainer.state.best_model_checkpoint)
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    step = max(range(1, 6), key=losses.__getitem__)
    assert step < 4, "the best one is among the newest anyway"
    assert best == tmp_path / f"checkpoint-{step}"
    assert names(tmp_path) == ["checkpoint-5", f"checkpoint-{step}"]
    state = json.loads((tmp_path / "checkpoint-5/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)


@on_unix
def test_two_runs_on_one_folder_are_refused(home, tmp_path):
    with holder(tmp_path / "out") as other:
        with pytest.raises(FolderInUseError, match=f"out is in use by process {other.pid} on"):
            run(home, tmp_path / "out")
        moments = JudgeArguments(base_model=str(home / "base"), readout="moments")
        fit = DiscriminatorFit(real=str(home / "real"), output_dir=str(tmp_path / "out"))
        with pytest.raises(FolderInUseError, match="out is in use by"):
            fit_discriminator(moments, fit)
    assert not names(tmp_path / "out")


class CtrlC(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """A runner in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_says_how_to_go_on(home, tmp_path):
    expected = {
        1: "step 1, before the first checkpoint: the same command starts anew",
        3: f"step 3: the same command goes on from {tmp_path / 'checkpoint-2'}",
    }
    for step, words in expected.items():
        with pytest.raises(KeyboardInterrupt, match=f"stopped at {words}"):
            trainer_of(home, tmp_path, CtrlC(step)).run()


def test_a_resumed_run_remembers_when_it_saturated(caplog):
    watch = SaturationWatch(0.9)
    logged = [
        {"step": 1, "grad_norm": 3.0, "bound_share": 0.2},
        {"step": 2, "grad_norm": 0.5, "bound_share": 0.95},
    ]
    state = TrainerState(log_history=logged, global_step=3)
    watch.on_train_begin(None, state, None)
    watch.on_log(None, state, None, {"grad_norm": 0.4, "bound_share": 0.96})
    assert watch.step == 2
    assert not caplog.text, "it was said before"


def test_all_our_settings_are_known():
    """One that is neither compared nor known to decide nothing is compared."""
    ours = {item.name for c in (AspectConfig, DiscriminatorTuning, PreferenceConfig)
            for item in fields(c)}  # fmt: skip
    assert ours >= NOT_DECIDING | set(DECIDING) - {"adafactor"}


def test_a_setting_that_one_side_lacks_has_its_default_there(tmp_path):
    (tmp_path / "settings.json").write_text(settings_text({"seed": 1, "removed": 3}))
    defaults = {"removed": 3, "added": 0.2}
    refuse_changes(tmp_path, {"seed": 1, "added": 0.2}, defaults)
    with pytest.raises(ValueError, match=r"settings: `added` was not given, is now 0\.5\. Give"):
        refuse_changes(tmp_path, {"seed": 1, "added": 0.5}, defaults)
    for defaults in ({}, {"removed": 4}):
        with pytest.raises(ValueError, match=r"settings: `removed` was 3, is now not given\. Give"):
            refuse_changes(tmp_path, {"seed": 1}, defaults)


def test_all_settings_that_are_compared_have_a_default():
    theirs = {item.name for item in fields(TrainingArguments)}
    for kind in (AspectConfig, DiscriminatorTuning, PreferenceConfig):
        ours = {item.name for item in fields(kind)} - theirs - NOT_DECIDING
        defaults = default_settings(kind)
        assert ours | set(DECIDING) <= defaults.keys()
        assert defaults["head_learning_rate"] == kind.head_learning_rate
        assert defaults["adafactor"] is False
