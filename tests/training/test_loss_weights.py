"""The loss of a step is the mean over its terms, however they are cut into batches."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gtsvj_reward.cli import main
from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.training import AspectTrainer, ClipPair, PreferenceTrainer, RatedClip
from tests.ranks import on_unix, run_ranks
from tests.tiny import tiny_aspect_judge
from tests.training.stages import aspect_args, preference_args, write_csv

FOUR = tuple(Aspect(name=name, low=0, high=2) for name in "abcd")


def losses(trainer):
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def two_clips(world, base, batch, accumulation):
    """A judge that predicts 0, one label of 1, and four labels of 1, 1, 1 and 2, in two batches."""
    judge = tiny_aspect_judge(aspects=FOUR, base_model=str(base))
    judge.head.aspects.weight.data.zero_()
    judge.head.aspects.bias.data.zero_()
    infos = LatentFolder(world / "rated").infos
    labels = [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0}]
    rated = [RatedClip(info, scores, "") for info, scores in zip(infos[:2], labels, strict=True)]
    args = aspect_args(
        world, target_scale="raw", max_steps=1, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    trainer = AspectTrainer(judge, args, train_dataset=rated, eval_dataset=rated)
    trainer.train()
    return trainer


def test_labels_weigh_alike_with_gradient_accumulation(world, base):
    # Squared errors of batch one: 1; of batch two: 1, 1, 1, 4. Over five labels (1 + 7) / 5 = 1.6;
    # the mean of the means of the batches would be (1 + 7/4) / 2 = 1.375.
    whole, cut = two_clips(world, base, 2, 1), two_clips(world, base, 1, 2)
    assert losses(cut) == pytest.approx([1.6], abs=1e-4)
    assert losses(whole) == pytest.approx([1.6], abs=1e-4)
    norms = [t.state.log_history[0]["grad_norm"] for t in (whole, cut)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4), "the gradient is of another loss"
    assert norms[0] > 0.1


def test_an_incomplete_last_batch_weighs_by_its_pairs(world, base):
    """Three pairs in batches of 2 and 1: the loss of the step is that of one batch of 3."""
    infos = LatentFolder(world / "compared").infos
    pairs = [ClipPair(infos[i], infos[i + 1], (-1) ** i, "") for i in (0, 2, 4)]
    pairs[1] = ClipPair(infos[3], infos[2], 1, "")
    found = []
    for batch, accumulation in ((3, 1), (2, 2)):
        args = preference_args(
            world, max_steps=1, per_device_train_batch_size=batch, dataloader_drop_last=False,
            gradient_accumulation_steps=accumulation, truncation_probability=0.0,
        )  # fmt: skip
        judge = tiny_aspect_judge(stage="preference", base_model=str(base))
        trainer = PreferenceTrainer(judge, args, train_dataset=pairs, eval_dataset=pairs)
        trainer.train()
        single = [
            trainer.compute_loss(
                trainer.model, trainer.data_collator([trainer.train_dataset[i]])
            ).item()
            for i in range(3)
        ]
        found += losses(trainer)
    assert found[1] == pytest.approx(found[0], abs=2e-4)
    assert max(single) - min(single) > 0.05, "the pairs are alike: the test proves nothing"


@on_unix
def test_labels_weigh_alike_over_processes(world):
    """Clip i has one label or two in turn; two processes of one clip are one process of two."""
    rows = (world / "ratings.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    ratings = write_csv(
        world / "gaps.csv",
        cells[0],
        [[*row[:2], row[2] if int(row[0][:3]) % 3 else ""] for row in cells[1:]],
    )
    flags = {
        "from_judge": world / "discriminator", "head_width": 16, "ratings": ratings,
        "latents": world / "rated", "max_steps": 4, "logging_steps": 1, "use_cpu": True,
        "save_strategy": "no", "held_out_fraction": 0.25, "disable_tqdm": True,
    }  # fmt: skip
    words = ["train-aspects", "--aspects", "clear=0:4", "focus=0:4"]
    words += [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    batch = "--per_device_train_batch_size"
    assert main([*words, "--output_dir", str(world / "1"), batch, "4"]) == 0
    together = [*words, "--output_dir", world / "2", batch, "2"]
    status, logs = run_ranks(2, lambda rank: together, world)
    assert status == [0, 0], logs
    for name in ("head.safetensors", "adapter_model.safetensors"):
        one, two = (load_file(world / run / name) for run in ("1", "2"))
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-5)
    first, second = (
        json.loads((world / run / "trainer_state.json").read_text())["log_history"]
        for run in ("1", "2")
    )
    for a, b in zip(first, second, strict=True):
        for key in a.keys() & {"loss", "grad_norm", "mse/clear", "eval_loss"}:
            assert float(b[key]) == pytest.approx(float(a[key]), rel=1e-3, abs=1e-4), key
