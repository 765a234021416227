"""The settings of examples/alignment are taken by every script, and say what memory they take."""

import importlib

import pytest
import torch

from benchmarks.align_memory import CLIPS, GIB, MODELS, PROMPTS, STEPS, fits, read
from gtsvj_reward.alignment import AlignArguments
from tests.alignment.tiny import tiny_pipeline
from tests.docs.commands import ROOT
from tests.examples.scripts import EXAMPLES

SETTINGS = {
    "cogvideox-2b": "CogVideoX-2B",
    "hunyuan-video": "HunyuanVideo",
    "ltx-video": "LTX-Video",
    "wan2.1-1.3b": "Wan2.1-1.3B",
    "wan2.2-5b": "Wan2.2-5B",
}
SCRIPTS = {
    "ddpo": "DDPOArguments",
    "dpo": "DPOArguments",
    "reward_gradients": "RewardGradientArguments",
}


def test_there_are_settings_for_these_models_alone():
    found = {path.stem for path in (EXAMPLES / "alignment").glob("*.yaml")}
    assert found == set(SETTINGS)
    assert set(SETTINGS.values()) <= set(MODELS)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_script_takes_them_and_their_memory_is_what_was_computed(name):
    file = EXAMPLES / "alignment" / f"{name}.yaml"
    shared = importlib.import_module("shared")
    for script, kind in SCRIPTS.items():
        arguments = getattr(importlib.import_module(script), kind)
        given = shared.parse(arguments, ["--config", str(file), "--output_dir", "x"])
        assert (given.output_dir, given.dtype, given.batch_size) == ("x", "bfloat16", 1)
        counted = given.clips, given.prompts_per_iteration, given.num_inference_steps
        assert counted == (CLIPS, PROMPTS, STEPS), "the memory below is for these"
        assert given.samples == 0, "the memory below is without the VAE"
    assert given.refl_steps == [15, 18]
    size = f"{given.num_frames}x{given.height}x{given.width}"
    assert given.gradient_checkpointing
    rows = {
        need.algorithm: need
        for need in read(ROOT / "benchmarks" / "results" / "align_memory.json")
        if (need.model, need.size) == (SETTINGS[name], size) and need.recomputing
    }
    text = file.read_text()
    for algorithm in ("DDPO", "Diffusion-DPO", "reward gradients, K = 1"):
        need = rows[algorithm]
        assert f"# {algorithm}: {need.total / GIB:.1f} GiB, {fits(need)}" in text


def test_refl_takes_late_steps_of_any_schedule():
    script = importlib.import_module("reward_gradients")
    known = {1: [0, 0], 2: [0, 0], 3: [0, 1], 5: [2, 3], 8: [5, 6], 40: [30, 38]}
    for steps, expected in known.items():
        given = {"num_inference_steps": steps, "method": "refl", "output_dir": "x"}
        assert script.RewardGradientArguments(**given).refl_steps == expected
    given = ["--num_inference_steps", "20", "--refl_steps", "0", "19", "--output_dir", "x"]
    shared = importlib.import_module("shared")
    assert shared.parse(script.RewardGradientArguments, given).refl_steps == [0, 19]


@pytest.mark.parametrize(
    ("samples", "model", "place"),
    [(0, "a/b", "cpu"), (1, "a/b", "meta"), (0, "gtsvj-toy-pipeline", "meta")],
)
def test_a_vae_that_decodes_nothing_stays_where_it_is(samples, model, place):
    settings = AlignArguments(output_dir="x", samples=samples, pretrained_model=model)
    shared = importlib.import_module("shared")
    pipe = shared.placed(tiny_pipeline(), settings, torch.device("meta"))
    assert pipe.vae.device.type == place
    assert {part.device.type for part in (pipe.transformer, pipe.text_encoder)} == {"meta"}
    assert pipe.device.type == "meta"  # where judges are put
