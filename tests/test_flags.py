"""Messages name what a user typed: flags in a command, arguments in a Python call."""

import logging
import re

import pytest
from PIL import Image

from gtsvj_reward.cli import main
from gtsvj_reward.cli.parsing import RUNNING, FlagFormatter, subparser
from gtsvj_reward.flags import in_flags
from tests.tiny import tiny_transformer
from tests.training.clips import write_clips
from tests.training.stages import write_csv, write_rated


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("`depth` must be in 1..4", "--depth must be in 1..4"),
        ("set `lora_rank=0` or `other=0`", "set --lora_rank 0 or `other=0`"),
        ("`lora_rank 8` is refused", "--lora_rank 8 is refused"),
        ("pass `overwrite=True`", "pass --overwrite"),
        ("pass `check=False`", "pass --no_check"),
        ("replace them with --overwrite (`overwrite=True`)", "replace them with --overwrite"),
        ("say how fast, --fps (`fps`)", "say how fast, --fps"),
        ("readout='moments' reads no `text`", "readout='moments' reads no `text`"),
        ("stage='aspects' has `depth`", "stage='aspects' has `depth`"),
        ("for name='a' and f(depth='x')", "for --name a and f(depth='x')"),
        ("no column `name`, it has `x`, `fps`, `a`", "no column `name`, it has `x`, `fps`, `a`"),
        ("1 of 2 cells of `fps` are no numbers", "1 of 2 cells of `fps` are no numbers"),
        ("see `gtsvj encode --fps`", "see `gtsvj encode --fps`"),
    ],
)
def test_settings_become_flags_and_other_names_stay(message, typed):
    flags = {"depth", "lora_rank", "overwrite", "fps", "name", "no_check"}
    assert in_flags(message, flags) == typed


def test_warnings_name_flags_too():
    RUNNING.clear()
    subparser("score").add_argument("--batch_size")
    record = logging.LogRecord("x", logging.WARNING, "", 0, "lower `%s`", ("batch_size",), None)
    assert FlagFormatter("%(levelname)s: %(message)s").format(record) == (
        "WARNING: lower --batch_size"
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What the commands below are given."""
    folder = tmp_path_factory.mktemp("home")
    tiny_transformer(layers=2).save_pretrained(folder / "base")
    write_clips(folder / "real", 4)
    rated = write_rated(folder / "rated", 6)
    write_csv(folder / "ratings.csv", ["video", "clear", "focus"], rated)
    write_csv(folder / "pairs.csv", ["video_a", "video_b", "label"], [("x/a.mp4", "x/b.mp4", 1)])
    write_csv(folder / "scores.csv", ["video", "reward"], [("x/a.mp4", 1), ("x/b.mp4", 2)])
    (folder / "prompts.txt").write_text("one red square\n")
    (folder / "frames" / "a").mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", (32, 32)).save(folder / "frames" / "a" / f"{index}.png")
    return folder


MLP = "--readout mlp --base_model base --output_dir out"
FIT = "--base_model base --device cpu --output_dir out"
RATED = "--latents rated --ratings ratings.csv --aspects clear=0:4"
MADE = "--prompts prompts.txt --num_frames 9 --height 64 --width 64 --fps 8 --device cpu"

REFUSED = [
    (f"train-discriminator {MLP} --real real --label_smoothing_factor 0.1", "--label_smoothing"),
    (f"train-discriminator {MLP} --real real --depth 99", "--depth"),
    (f"train-discriminator {MLP} --real real --truncation_probability 2", "--truncation_prob"),
    (f"train-discriminator {MLP} --real real --truncation_min_seconds 9", "--truncation_max"),
    (f"train-discriminator {MLP} --real real --group_by xyz", "--group_by"),
    (f"train-discriminator {FIT} --real real --draws -1", "--draws"),
    (f"train-discriminator {FIT} --real real --taps 0 9", "--taps"),
    (f"train-discriminator {FIT} --real real --surprise 0.5 --depth 1", "--surprise"),
    (f"train-discriminator {FIT} --held_out_fraction 2", "--held_out_fraction"),
    ("train-discriminator --real real --output_dir out", "--base_model"),
    (f"train-discriminator {FIT}", "--real"),
    (f"train-aspects {MLP} {RATED} --keep_energy", "--from_judge"),
    (f"train-aspects {FIT} {RATED} --held_out_fraction 0", "--held_out_fraction"),
    (f"train-preference {FIT} --latents rated", "--comparisons"),
    ("distill rated --scores ratings.csv --base_model base --out out --held_out_fraction 0",
     "--held_out_fraction"),
    ("encode frames out --vae gtsvj-demo-codec --fps 8 --height 32 --width 32", "--frames_fps"),
    (f"negatives gtsvj-toy-pipeline --out out {MADE} --per_prompt 0", "--per_prompt"),
    ("score gtsvj-toy rated --out out.csv --batch_size 0 --device cpu", "--batch_size"),
    ("rank --scores scores.csv --group_by folder --out out.csv --min_margin -1", "--min_margin"),
    ("evaluate --benchmark pairs --data pairs.csv --scores scores.csv --resamples 0 --out out",
     "--resamples"),
    ("split --comparisons pairs.csv --latents rated --out out --held_out_fraction 2",
     "--held_out_fraction"),
    ("serve gtsvj-toy --max_wait_ms -1 --port 0 --device cpu", "--max_wait_ms"),
    ("label rated --out out --task rate --aspects clear --double_share 2", "--double_share"),
]  # fmt: skip
"""Command -> a flag that its message must name."""


@pytest.mark.parametrize(("words", "flag"), REFUSED)
def test_errors_of_commands_name_flags(home, monkeypatch, capsys, words, flag):
    monkeypatch.chdir(home)
    assert main(words.split()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert flag in said, said
    flags = {option.removeprefix("--") for option in RUNNING[-1]._option_string_actions}
    assert not flags & set(re.findall(r"`(\w+)[`=]", said)), said
