"""Each script on a generator that is trained by flow matching: a tiny Wan, with a judge on it."""

import importlib
import json
import re
import shutil

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load_file

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.alignment.journal import read_journal
from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from gtsvj_reward.training.closed_form import Contrast, FeatureCache, refit
from tests.examples.scripts import SMALL
from tests.examples.test_scripts import OWN, adapter, in_two_processes, run_scripts
from tests.pipelines import PIPELINES, frozen
from tests.ranks import on_unix

TEXTS = ["a dog runs", "red square", "a red dog", "dog runs"]


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """Flags that name a Wan pipeline on disk, with UniPC as published, and a judge on it."""
    folder = tmp_path_factory.mktemp("wan")
    pipe = frozen(PIPELINES["wan"])
    pipe.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipe.save_pretrained(folder / "pipeline")
    config = JudgeConfig(
        base_model="tiny",
        latent_space=LatentSpace.from_pipeline(pipe),
        reward_mean=0.0,
        reward_std=0.5,
        reward_data="none",
    )
    judge = VideoJudge.from_transformer(pipe.transformer, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in judge.named_parameters():
        if ".lora_B." in name or name.startswith("head."):
            parameter.data.normal_(0, 0.3, generator=generator)
    GTSVJReward(judge).save_pretrained(folder / "judge")
    (folder / "prompts.txt").write_text("\n".join(TEXTS))
    return ["--pretrained_model", str(folder / "pipeline"), "--reward", str(folder / "judge"),
            "--prompts", str(folder / "prompts.txt"), "--num_frames", "9", "--height", "32",
            "--width", "32", "--num_inference_steps", "3", "--guidance_scale", "2"]  # fmt: skip


def run(script, wan, folder, *changes):
    main = importlib.import_module(script).main
    return main([*SMALL, *wan, *OWN[script], "--output_dir", str(folder), *changes])


@pytest.mark.parametrize("script", OWN)
def test_a_run_learns_and_resumes_to_the_bit(script, wan, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(script, wan, whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "iteration-000002")
    run(script, wan, parts)
    found, again = adapter(whole), adapter(parts)
    assert all(torch.equal(value, again[name]) for name, value in found.items())
    assert read_journal(whole / "metrics.jsonl") == read_journal(parts / "metrics.jsonl")
    first = load_file(whole / "checkpoints" / "iteration-000001" / "adapter.safetensors")
    assert any(not torch.equal(value, first[name]) for name, value in found.items())
    norms = [e["grad_norm"] for e in read_journal(whole / "metrics.jsonl") if "grad_norm" in e]
    assert len(norms) == 2
    assert min(norms) > 0


@pytest.fixture(scope="module")
def refitted(wan, tmp_path_factory):
    """Flags of a run whose moment judge is refitted after each iteration."""
    folder = tmp_path_factory.mktemp("refitted")
    pipe = frozen(PIPELINES["wan"])
    space = LatentSpace.from_pipeline(pipe)
    random = torch.randn(6, 3, space.channels, 4, 4, generator=torch.Generator().manual_seed(2))
    still = random[:, :1] + 0.1 * random
    for index, latents in enumerate(still):
        clip = LatentClip(latents=latents, space=space, fps=8.0, num_frames=9)
        save_clip(folder / "real" / f"{index}.safetensors", clip)
    config = JudgeConfig(base_model="tiny", latent_space=space, readout="moments", lora_rank=0)
    fresh = VideoJudge.from_transformer(pipe.transformer, config)
    pairs = [
        Contrast(lambda a=a: a, lambda b=b: b, (str(index), str(index)))
        for index, (a, b) in enumerate(zip(still, random, strict=True))
    ]
    save_judge(refit(fresh, FeatureCache(fresh), contrast=pairs), folder / "judge")
    return [*wan, "--reward", str(folder / "judge"), "--refit_every", "1", "--refit_clips", "4",
            "--refit_positives", str(folder / "real"), "--no_check_statistics"]  # fmt: skip


def test_a_run_with_refits_resumes_to_the_bit(refitted, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    made = run("ddpo", refitted, whole)
    assert len(re.findall(r"the judge was refitted in \d+\.\d s", capsys.readouterr().err)) == 2
    assert made.refits.done == [1, 2]
    assert len(LatentFolder(whole / "clips").infos) == 8
    scores = [
        GTSVJReward.from_pretrained(folder, transformer=made.policy.transformer).judge.head
        for folder in sorted((whole / "judges").iterdir())
    ]
    rewards = json.loads((whole / "checkpoints" / "iteration-000002" / "state.json").read_text())
    kept = rewards["extra"]["prompt_statistics"].values()  # the first judge's are forgotten
    assert sum(len(each) for each in kept) == made.arguments.clips
    first, second = (dict(head.named_buffers()) | dict(head.named_parameters()) for head in scores)
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "iteration-000002")
    shutil.rmtree(parts / "judges" / "iteration-000002")
    run("ddpo", refitted, parts)
    found, again = adapter(whole), adapter(parts)
    assert all(torch.equal(value, again[name]) for name, value in found.items())
    assert read_journal(whole / "metrics.jsonl") == read_journal(parts / "metrics.jsonl")


@pytest.mark.parametrize(("sde", "eta"), [("flow-grpo", 0.7), ("dance-grpo", 0.3)])
def test_grpo_has_ratio_1_before_the_first_update(sde, eta, wan, tmp_path):
    given = ["--iterations", "1", "--epochs", "1", "--advantages", "group", "--sde", sde]
    made = run("ddpo", wan, tmp_path, *given, "--flow_shift", "5")
    assert made.arguments.eta == eta
    assert (made.policy.family.sde, made.policy.scheduler.config.flow_shift) == (sde, 5.0)
    (entry,) = [e for e in made.journal.entries if "ratio_error" in e]
    assert entry["ratio_error"] == 0
    assert entry["kl"] == 0


@on_unix
def test_two_processes_do_what_one_does(wan, tmp_path):
    settings = {
        script: [*SMALL, *wan, *own, "--output_dir", str(tmp_path / "two" / script)]
        for script, own in OWN.items()
    }
    in_two_processes(run_scripts, json.dumps(settings), tmp_path)
    for script in OWN:
        run(script, wan, tmp_path / "one" / script)
        one, two = adapter(tmp_path / "one" / script), adapter(tmp_path / "two" / script)
        for name, value in one.items():
            torch.testing.assert_close(value, two[name], atol=2e-4, rtol=0)
