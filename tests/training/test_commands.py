"""The training commands as a new user meets them."""

import sys
import warnings

import pytest
import torch

from gtsvj_reward import training
from gtsvj_reward.assets import ASSETS
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.cli import main
from gtsvj_reward.cli.train import verdict
from gtsvj_reward.judge import load_judge, read_config
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.sampling.pipelines import load_pipeline
from gtsvj_reward.training.aspects.labels import rated_clips
from tests.training.clips import write_clips
from tests.training.stages import aspect_args, train_aspects, write_csv
from tests.training.test_discriminator import config

WORDS = [
    *("train-discriminator", "--readout", "mlp", "--base_model", "base", "--real", "real"),
    *("--head_width", "16", "--max_steps", "1", "--save_strategy", "no", "--disable_tqdm", "true"),
    *("--per_device_train_batch_size", "2", "--held_out_fraction", "0.2"),
]


@pytest.mark.parametrize("readout", ["mlp", "moments"])
def test_a_relative_base_is_found_from_anywhere(tmp_path, base, monkeypatch, capsys, readout):
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "real", 10)
    words = WORDS if readout == "mlp" else [*WORDS[:1], *WORDS[3:7]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of torch: no accelerator to pin memory for
        assert main([*words, "--output_dir", "runs/out"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load_judge(tmp_path / "runs" / "out")
    assert read_config(tmp_path / "runs" / "out").base_model == str(base)
    printed = capsys.readouterr().out
    expected = "held out: loss  " if readout == "mlp" else "held out: accuracy/patch_swap  "
    assert expected in printed
    assert "judge: runs/out\nits card: runs/out/README.md" in printed
    assert ("its curves: runs/out/training.png" in printed) == (readout == "mlp")
    assert "gtsvj score runs/out LATENTS --out scores.csv" in printed
    assert "gtsvj train-aspects --from_judge runs/out --latents LATENTS --ratings" in printed


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ({"accuracy/frame_drop": 0.5, "accuracy/patch_swap": 0.97, "energy/real": -2.0},
         "scores the real one higher in 50% (frame_drop, the worst) to 97%."),
        ({"accuracy_without_ties": 0.75, "pairs": 50, "human_ties": 10},
         "agrees with people on 75% of 40 held-out pairs"),
        ({"spearman": 0.5, "spearman/clear": 0.4, "spearman/motion": 0.6},
         "ratings is 0.40 (clear, the worst) to 0.60."),
        ({"clips": 4.0, "correlation/clear": 0.9, "correlation/score": 0.95},
         "correlation with the teacher is 0.90 (clear, the worst) to 0.95."),
        ({"loss": 1.0}, "There are no held-out metrics"),
    ],
)  # fmt: skip
def test_training_ends_with_how_good_the_judge_is(held_out, said):
    assert said in verdict(held_out)


def test_later_stages_name_the_base_that_they_found(world):
    """The discriminator names its base relative to its own folder; the next judge is elsewhere."""
    file = world / "discriminator" / "config.json"
    file.write_text(file.read_text().replace(f'"{world / "base"}"', '"../base"'))
    assert read_config(world / "discriminator").base_model == "../base"
    train_aspects(world, output_dir=str(world / "runs" / "deep" / "aspects"), max_steps=1)
    judge = load_judge(world / "runs" / "deep" / "aspects")
    assert judge.config.base_model == str(world / "base")


def test_bundled_names_and_hub_ids_stay_names(base):
    from gtsvj_reward.assets import lasting_name

    assert [lasting_name(name) for name in ASSETS] == list(ASSETS)
    assert lasting_name("zai-org/CogVideoX-2b") == "zai-org/CogVideoX-2b"


def test_without_matplotlib_nothing_is_trained(tmp_path, base, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "real", 10)
    assert main([*WORDS, "--output_dir", "out"]) == 1
    assert 'pip install "gtsvj-reward[plot]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_tensorboard_nothing_is_trained(tmp_path, monkeypatch):
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"`report_to` tensorboard: pip install .*\[train\]"):
        config(tmp_path, report_to="tensorboard")
    with pytest.raises(ValueError, match="tensorbord is not supported"):
        config(tmp_path, report_to="tensorbord")


def test_only_the_aspects_that_are_asked_for_are_read(world):
    """A column of remarks, and a column of numbers on another scale, are no labels here."""
    rows = [row.split(",") for row in (world / "ratings.csv").read_text().split()]
    path = write_csv(
        world / "remarks.csv",
        ["", *rows[0], "remarks"],
        [[str(i), *row[:2], "99", "very nice"] for i, row in enumerate(rows[1:])],
    )
    args = aspect_args(world, ratings=path, aspects=["clear=0:4"])
    trainer = training.train_aspects(training.JudgeArguments(head_width=16), args)
    assert [aspect.name for aspect in trainer.judge.config.aspects] == ["clear"]
    folder = LatentFolder(world / "rated")
    with pytest.raises(ValueError, match=r"remarks.csv has no aspect 'clea': choose from .*'clear"):
        rated_clips(path, folder, aspect_args(world, ratings=path, aspects=["clea=0:4"]))


def test_ctrl_c_ends_with_one_line(monkeypatch, capsys):
    def stopped(*said):
        def run(*arguments):
            raise KeyboardInterrupt(*said)

        monkeypatch.setattr("gtsvj_reward.cli.train.judge_and_config", run)
        status = main(["train-aspects"])
        printed = capsys.readouterr()
        assert not printed.out
        return status, printed.err

    line = "\ngtsvj train-aspects: stopped at step 3: the same command goes on from out\n"
    assert stopped("stopped at step 3: the same command goes on from out") == (130, line)
    status, said = stopped()
    assert status == 130
    assert said.startswith("\ngtsvj train-aspects: stopped: the same command resumes; features")
    assert said.count("\n") == 2
    monkeypatch.setenv("RANK", "1")
    assert stopped("said by the first process") == (130, "")


def test_pipelines_and_vaes_load_without_warnings_of_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        pipe = load_pipeline("gtsvj-toy-pipeline", dtype=torch.bfloat16, device="cpu")
        vae = load_vae("gtsvj-toy-pipeline", dtype=torch.bfloat16)
    assert pipe.transformer.dtype == pipe.vae.dtype == vae.dtype == torch.bfloat16
