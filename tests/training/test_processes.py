"""Several processes, also in containers of their own, write what one process writes."""

import os
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from gtsvj_reward.cli import main
from gtsvj_reward.files import write_bytes
from gtsvj_reward.training.resume import checkpoints_in, problem_of
from tests.ranks import on_unix, run_apart, run_ranks
from tests.tiny import tiny_transformer
from tests.training.clips import write_clips
from tests.training.stages import write_csv, write_rated

pytestmark = on_unix


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base model, real clips and rated ones."""
    folder = tmp_path_factory.mktemp("home")
    tiny_transformer(layers=2).save_pretrained(folder / "base")
    write_clips(folder / "real", 12)
    rated = write_rated(folder / "rated", 24)
    write_csv(folder / "ratings.csv", ["video", "clear", "focus"], rated)
    pairs = [
        (a, b, (clear > other) - (clear < other))
        for (a, clear, _), (b, other, _) in zip(rated[::2], rated[1::2], strict=True)
    ]
    write_csv(folder / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    return folder


def weights(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {f"{file.name}/{key}": value for file in files for key, value in load_file(file).items()}


def assert_close(folder, other):
    first, second = weights(folder), weights(other)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-5, msg=key)


def write_often(path, content):
    assert os.getpid() == 1
    for _ in range(60):
        write_bytes(path, content)


def test_containers_write_one_file_at_once(tmp_path):
    """Process 1 of each of three containers writes to a shared disk."""
    contents = [bytes([65 + rank]) * 4096 for rank in range(3)]
    works = [partial(write_often, tmp_path / "shared.bin", content) for content in contents]
    assert run_apart(works, own_ids=True) == [0, 0, 0]
    assert (tmp_path / "shared.bin").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["shared.bin"]


def training_words(home, out, **changes):
    settings = {
        "readout": "mlp", "base_model": home / "base", "lora_placement": "all", "head_width": 8,
        "real": home / "real", "output_dir": out, "held_out_fraction": 0.2, "max_steps": 4,
        "save_steps": 2, "per_device_train_batch_size": 1, "truncation_min_seconds": 0.5,
        "use_cpu": True, "disable_tqdm": True, "save_total_limit": 1, **changes,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return ["train-discriminator", *map(str, words)]


def test_what_three_containers_saved_one_process_goes_on_with(home, tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    words = training_words(home, together, max_steps=2)
    status, logs = run_ranks(3, lambda rank: words, tmp_path, own_ids=True)
    assert status == [0, 0, 0], logs
    (checkpoint,) = checkpoints_in(together)
    assert problem_of(checkpoint) is None
    assert len(list(checkpoint.glob("rng_state_*.pth"))) == 3
    assert not [path for path in together.iterdir() if path.name.startswith(".")]
    for folder in (together, alone):
        assert main(training_words(home, folder, per_device_train_batch_size=3)) == 0
    assert [path.name for path in checkpoints_in(together)] == ["checkpoint-4"]
    assert_close(alone, together)


def test_a_checkpoint_that_only_one_machine_has_is_refused_by_all(home, tmp_path):
    """Each process is given a folder of its own, as if each machine had its own disk."""
    first = tmp_path / "0"
    assert main(training_words(home, first, max_steps=2, per_device_train_batch_size=2)) == 0
    status, logs = run_ranks(2, lambda rank: training_words(home, tmp_path / str(rank)), tmp_path)
    assert status == [1, 1]
    for log in logs:
        assert "checkpoint-2 is not there, or not whole, on processes 1 (" in log


FITS = {
    "train-discriminator": ["--real", "real", "--draws", "2", "--truncation_min_seconds", "0.5"],
    "train-discriminator, projected": ["--real", "real", "--draws", "2", "--projection_width", "40",
                                       "--truncation_min_seconds", "0.5"],
    "train-aspects": ["--latents", "rated", "--ratings", "ratings.csv",
                      "--aspects", "clear=0:4", "focus=0:4"],
    "train-aspects, projected": ["--latents", "rated", "--ratings", "ratings.csv", "--aspects",
                                 "clear=0:4", "focus=0:4", "--projection_width", "40"],
    "train-preference": ["--latents", "rated", "--comparisons", "pairs.csv"],
    "distill": ["rated", "--scores", "ratings.csv"],
}  # fmt: skip


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_of_two_containers_is_that_of_one_process(home, tmp_path, monkeypatch, fit):
    monkeypatch.chdir(home)
    command = fit.split(",")[0]
    out = "--out" if command == "distill" else "--output_dir"

    def words(name):
        return [command, *FITS[fit], "--base_model", "base", "--held_out_fraction", "0.25",
                "--device", "cpu", out, tmp_path / name,
                "--features", tmp_path / f"{name}-features"]  # fmt: skip

    assert main([str(word) for word in words("alone")]) == 0
    status, logs = run_ranks(2, lambda rank: words("together"), tmp_path, own_ids=True)
    assert status == [0, 0], logs
    assert_close(tmp_path / "alone", tmp_path / "together")
    assert "gtsvj score" in logs[0]
    assert "gtsvj score" not in logs[1]
