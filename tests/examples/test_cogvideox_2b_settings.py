"""The settings of examples/cogvideox-2b exist, are the paper's where it states them, and say so."""

import re
from dataclasses import fields

import pytest
import yaml

from benchmarks.training_cost import CLIPS, Counted, count, evaluations, report
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.training import (
    AspectConfig,
    DiscriminatorConfig,
    JudgeArguments,
    PreferenceConfig,
)
from tests.docs.commands import ROOT
from tests.examples.running import BASE, SMALLER_SETTINGS, blocks

RECIPE = ROOT / "examples" / "cogvideox-2b"
PAGE = (RECIPE / "README.md").read_text(encoding="utf-8")

CONFIGS = {
    "discriminator": DiscriminatorConfig,
    "aspects": AspectConfig,
    "preference": PreferenceConfig,
}

LORA = {"lora_rank": (8, "5.1"), "lora_alpha": (8, "5.1")}
DURATIONS = {"truncation_min_seconds": (2.0, "5.1"), "truncation_max_seconds": (6.0, "5.1")}
PAPER = {
    "discriminator": {
        "readout": ("mlp", "4.1"),
        "base_model": (BASE, "4, Table 1"),
        **LORA,
        "lora_placement": ("last", "4.1 and 5.3"),
        "beta": (0.2, "5.1"),
        "truncation_probability": (0.25, "5.1"),
        **DURATIONS,
    },
    "aspects": {
        "readout": ("mlp", "4.1"),
        "base_model": (BASE, "4, Table 1"),
        **LORA,
        "lora_placement": ("last", "4.2"),
        "ratings": ("labels/VisionRewardDB-Video/train", "5.1"),
        "ratings_format": ("visionreward", "5.1, with all its 21 aspects"),
        "keep_energy": (False, "4.2"),
    },
    "preference": {
        "readout": ("mlp", "4.1"),
        "comparisons": ("labels/VisionRewardDB-Video/regression", "5.1"),
        "comparisons_format": ("visionreward", "5.1"),
        "dimension": ("overall", "5.1: the only label of this split"),
        "preference_loss": ("bradley_terry_with_ties", "4.2, Eq. 7"),
        "head_only": (False, "5.1: LoRA is trained in all stages"),
        "truncation_probability": (0.2, "5.1"),
        **DURATIONS,
    },
}
"""File -> setting -> value in the paper, and the section that states it."""

YOURS = {
    "discriminator": {
        *("real", "generated", "held_out_real", "held_out_generated", "output_dir"),
    },
    "aspects": {"latents", "output_dir"},
    "preference": {"from_judge", "latents", "output_dir"},
}
"""File -> settings that name folders of the reader's."""

TABLE_A1 = {
    "temporal_slice_swap": 0.04,
    "noisy_segment": 0.10,
    "frame_shuffle": 0.18,
    "frame_drop": 0.18,
    "patch_swap": 0.20,
    "generated": 0.30,
}
"""Sampling probabilities of real videos, Table A.1, and the 0.3 of its caption."""


def text_of(name):
    return (RECIPE / f"{name}.yaml").read_text(encoding="utf-8")


def marks(name):
    """Setting -> (paper, ours or yours; what follows), from the comments of a file."""
    found = {}
    for line in text_of(name).splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(\w+): \S+ +# (paper|ours|yours)(?::? (.*))?", line)
            assert match, f"no comment that says whose value it is: {line}"
            assert match[1] not in found, line
            found[match[1]] = (match[2], match[3])
    return found


def test_there_is_a_file_for_each_stage():
    assert {path.stem for path in RECIPE.glob("*.yaml")} == CONFIGS.keys()
    assert all(f"[{name}.yaml]({name}.yaml)" in PAGE for name in CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_exists(name):
    known = {item.name for part in (JudgeArguments, CONFIGS[name]) for item in fields(part)}
    assert yaml.safe_load(text_of(name)).keys() <= known


@pytest.mark.parametrize("name", CONFIGS)
def test_every_value_says_whose_it_is(name):
    by_mark = {"paper": {}, "ours": {}, "yours": {}}
    for setting, (mark, rest) in marks(name).items():
        by_mark[mark][setting] = rest
    assert by_mark["paper"] == {key: section for key, (_, section) in PAPER[name].items()}
    assert by_mark["yours"].keys() == YOURS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_values_are_the_paper_s(name):
    values = yaml.safe_load(text_of(name))
    assert {key: values[key] for key in PAPER[name]} == {
        key: value for key, (value, _) in PAPER[name].items()
    }


def test_stage_1_samples_by_table_a1():
    assert "perturbations" not in yaml.safe_load(text_of("discriminator"))
    config = DiscriminatorConfig(real="x", output_dir="y", use_cpu=True)
    assert config.sampler() == PerturbationSampler()
    assert config.sampler().probabilities(generated_available=True) == TABLE_A1
    printed = PAGE.replace("\n", " ")
    for kind, share in TABLE_A1.items():
        words = "noisy segments" if kind == "noisy_segment" else kind.replace("_", " ")
        share_first = kind == "generated"
        assert (f"{share:.2f} {words}" if share_first else f"{words} {share:.2f}") in printed


def test_small_runs_change_no_more_than_they_must():
    """What the other test replaces is never something that the paper states, but the base."""
    stated = {key for settings in PAPER.values() for key in settings}
    assert stated & SMALLER_SETTINGS.keys() == {"base_model"}


def test_folders_lead_from_stage_to_stage():
    first, second, third = (yaml.safe_load(text_of(name)) for name in CONFIGS)
    assert f"--from_judge {first['output_dir']}" in PAGE
    assert third["from_judge"] == second["output_dir"]
    assert f'"{third["output_dir"]}"' in PAGE
    for values in (first, second, third):
        for key in ("real", "generated", "held_out_real", "held_out_generated", "latents"):
            assert values.get(key, "latents/real").removeprefix("latents/") in CLIPS


def test_arithmetic_of_the_costs():
    """By hand, with round numbers: one clip is 13 * 16 * 60 * 90 * 4 = 4,492,800 bytes.

    Stage 1: 2,500 steps of 8 * 1 * 2 pairs are 80,000 clips, at 100 TFLOP 8 EFLOP, which are
    8e18 / 1e14 / 3600 = 22.2 hours at 100 TFLOP/s. It is evaluated 2,500 / 250 + 2 = 12 times on
    6 * 200 + 200 clips: 16,800, at 50 TFLOP 0.84 EFLOP.
    """
    stages = dict.fromkeys(CONFIGS, 100.0)
    sizes = dict.fromkeys(CONFIGS, 4)
    counted = Counted(encode=10.0, score=50.0, train=stages, checkpoint=sizes, base=2)
    lines = [" ".join(line.split()) for line in
             report(counted, processes=8, rates=[100.0]).splitlines()]  # fmt: skip
    assert "real 20,000 clips 89.9 GB" in lines
    assert "train discriminator 2,500 steps of 16, 80,000 clips 8.00 22.2" in lines
    assert "evaluate discriminator 16,800 clips 0.84 2.3" in lines
    assert "train aspects 5,000 steps of 16, 80,000 clips 8.00 22.2" in lines
    assert "encode real 20,000 clips 0.20 0.6" in lines
    assert evaluations({"max_steps": 500, "eval_steps": 100}) == 7


COUNTED = Counted(
    encode=208.55055384576,
    score=120.05393,
    train={"discriminator": 224.08227, "aspects": 224.08227, "preference": 224.06501},
    checkpoint={"discriminator": 6_898_692, "aspects": 6_919_252, "preference": 6_919_340},
    base=3_387_567_744,
)
"""What the script counts, with the versions that made the page."""


def test_the_page_has_the_output_of_the_script():
    (output,) = (text for language, text in blocks(PAGE) if language == "text")
    assert report(COUNTED, processes=8, rates=[300.0, 100.0]) == output


def test_bytes_of_a_checkpoint():
    """By hand: q, k, v and out of 10 blocks, 1920 wide, rank 8: 10 * 4 * 2 * 8 * 1920 = 1,228,800.

    LayerNorm 2 * 1920, hidden 1920 * 256 + 256, energy 256 + 1: 495,873. 21 aspects have
    256 * 21 + 21 in place of the energy's, and the linear layer of stage 3 is 21 + 1 more.
    """
    adapter, features = 1_228_800, 2 * 1920 + 1920 * 256 + 256
    aspects = adapter + features + 256 * 21 + 21
    numbers = {
        "discriminator": adapter + features + 257,
        "aspects": aspects,
        "preference": aspects + 22,
    }
    assert COUNTED.checkpoint == {stage: 4 * number for stage, number in numbers.items()}


@pytest.mark.slow
def test_counts_are_repeated():
    """All but the VAE's, which take as long again; formulas of attention vary with torch."""
    again = count(COUNTED.encode)
    assert again.score == pytest.approx(COUNTED.score, rel=0.01)
    assert again.train == pytest.approx(COUNTED.train, rel=0.05)
    assert (again.checkpoint, again.base) == (COUNTED.checkpoint, COUNTED.base)
