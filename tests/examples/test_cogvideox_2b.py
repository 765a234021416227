"""The page of examples/cogvideox-2b runs from top to bottom, on tiny models and made-up files."""

import csv
import json
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser

from gtsvj_reward import GTSVJReward
from gtsvj_reward.evaluation import EvaluationResult
from gtsvj_reward.judge.checkpoint import read_config
from gtsvj_reward.latents import LatentFolder
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.training.outputs import ClipScores
from tests.annotations.rows import aspect_names
from tests.docs.commands import ROOT
from tests.examples.recipe_data import OWN, write_data
from tests.examples.running import BASE, LAUNCH, run_page, write_settings
from tests.tiny import tiny_transformer

RECIPE = ROOT / "examples" / "cogvideox-2b"
PAGE = (RECIPE / "README.md").read_text(encoding="utf-8")

COUNTS = {
    "encode": 9,
    "calibrate-perturbations": 1,
    "train-discriminator": 2,
    "train-aspects": 3,
    "train-preference": 3,
    "inspect": 2,
    "evaluate": 10,
    "score": 1,
    "rank": 1,
    "python": 1,
    "recomputing": 8,
}
"""Commands of the page, loops counted out, all of which are run; and judges in training that
`gradient_checkpointing` reached."""

NOT_RUN = [
    f"hf download {BASE} --include transformer/*",
    f"hf download {BASE} --include vae/*",
    "hf download zai-org/VisionRewardDB-Video --repo-type dataset "
    "--local-dir labels/VisionRewardDB-Video",
    "hf download TIGER-Lab/GenAI-Bench --repo-type dataset --include video_generation/* "
    "--local-dir labels/GenAI-Bench",
    "hf download KlingTeam/VideoGen-RewardBench --repo-type dataset "
    "--local-dir labels/VideoGen-RewardBench",
    "unzip -q labels/VideoGen-RewardBench/videos.zip -d videos/videogen-rewardbench",
]
"""What the test's own files stand for."""

PAIRS = {"genai-bench": 3, "monetbench": 4, "videogen-rewardbench": 2}
JUDGES = ("gt-svj", "no-dm", "p0")


class Hub:
    """Stands for `HfApi`; keeps what was uploaded."""

    def __init__(self, uploads):
        self.uploads = uploads

    def create_repo(self, repo_id, *, private, exist_ok):
        assert private
        assert exist_ok

    def upload_folder(self, *, repo_id, folder_path):
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.uploads[repo_id] = files
        return type("Commit", (), {"commit_url": f"hub/{repo_id}"})


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny_vae):
    """The folder after the page, counts of commands, those not run, uploads, number of videos."""
    work = tmp_path_factory.mktemp("recipe")
    tiny_transformer(sample_frames=17, sample_height=4, sample_width=6).save_pretrained(
        work / "base" / "transformer"
    )
    tiny_vae.save_pretrained(work / "base" / "vae")
    sets, uploads = write_data(work), {}
    write_settings(RECIPE, work)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr("gtsvj_reward.judge.locate.HfApi", lambda token: Hub(uploads))
        enable, recomputing = ClipScores.activation_checkpointing_enable, []

        def enabled(scores, *settings, **more):
            recomputing.append(scores)
            enable(scores, *settings, **more)

        patch.setattr(ClipScores, "activation_checkpointing_enable", enabled)
        counts, skipped = run_page(PAGE, work)
    counts["recomputing"] = len(recomputing)
    return work, counts, skipped, uploads, sets


def rows_of(path):
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
def test_every_command_was_run(ran):
    _, counts, skipped, _, _ = ran
    assert counts == COUNTS
    assert skipped == NOT_RUN


@pytest.mark.slow
def test_latents_of_every_video(ran):
    work, _, _, _, sets = ran
    for name in sets.keys() - {"samples"}:
        folder = LatentFolder(work / "latents" / name)
        assert len(folder) == sets[name]
        assert folder[0].latents.dtype == torch.float32
        for info in folder.infos:
            assert info.shape == (5, 4, 4, 6)
            assert (info.fps, info.num_frames) == (8.0, 17)
            assert info.settings["vae_dtype"] == "bfloat16"
            assert info.settings["num_frames"] == (17 if name in OWN else None)


@pytest.mark.slow
def test_calibration_is_what_training_reads(ran):
    work, *_ = ran
    values = json.loads((work / "calibration" / "perturbations.json").read_text())
    assert PerturbationSampler.from_dict(values["sampler"]).real["generated"] == 0.30
    assert (work / "calibration" / "calibration.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", JUDGES)
def test_judges_of_all_stages(ran, name):
    work, *_ = ran
    stages = ("discriminator", "aspects", "preference")[name == "no-dm" :]
    for stage in stages:
        folder = work / "judges" / name / stage
        config = read_config(folder)
        assert config.stage == stage
        assert (config.lora_rank, config.lora_alpha, config.lora_placement) == (8, 8, "last")
        assert config.base_dtype == "bfloat16"
        assert (config.timestep, config.text_input, config.depth) == (0.0, "zeros", 4)
        assert config.training["steps"] == 2
        assert config.training["examples per step"] == 2
        assert {path.name for path in folder.iterdir()} >= {
            *("adapter_model.safetensors", "head.safetensors", "README.md", "training.png"),
            *("checkpoint-2", "runs"),
        }
        if stage == "aspects":
            assert [aspect.name for aspect in config.aspects] == aspect_names()
            assert config.training["truncation probability"] == 0.0
    assert not (work / "judges" / "no-dm" / "discriminator").exists()


@pytest.mark.slow
def test_ablations_differ_as_they_should(ran):
    work, *_ = ran
    last = {name: read_config(work / "judges" / name / "preference") for name in JUDGES}
    truncated = {name: config.training["truncation probability"] for name, config in last.items()}
    assert truncated == {"gt-svj": 0.2, "no-dm": 0.2, "p0": 0.0}
    first = {name: last[name].training.get("discriminator: truncation probability")
             for name in JUDGES}  # fmt: skip
    assert first == {"gt-svj": 0.25, "no-dm": None, "p0": 0.0}
    assert "No DM" in last["no-dm"].training["aspects: started from"]
    assert "bradley_terry_with_ties" in last["gt-svj"].training["objective"]


@pytest.mark.slow
def test_results_on_every_benchmark(ran):
    work, *_ = ran
    for judge in JUDGES:
        for benchmark, pairs in PAIRS.items():
            folder = work / "results" / judge / benchmark
            result = EvaluationResult.from_json((folder / "result.json").read_text())
            assert (result.scorer, result.benchmark) == (judge, benchmark)
            assert result.evaluated == result.comparisons == pairs
            assert len(rows_of(folder / "scores.csv")) == 2 * pairs
            assert (folder / "index.html").is_file() or judge != "gt-svj"
    table = (work / "results" / "comparison.md").read_text()
    assert "quoted from the paper" in table
    for judge in JUDGES:
        assert f"| {judge} | measured |" in table


@pytest.mark.slow
def test_samples_are_scored_ranked_and_paired(ran):
    work, *_ = ran
    scores = rows_of(work / "scores" / "samples.csv")
    assert [row["video"] for row in scores] == ["fox/0.mp4", "fox/1.mp4", "sea/0.mp4", "sea/1.mp4"]
    assert len([name for name in scores[0] if name.startswith("aspect:")]) == 21
    assert "fox/0.mp4" in (work / "reports" / "samples" / "index.html").read_text()
    assert [row["rank"] for row in rows_of(work / "scores" / "ranking.csv")] == ["1", "2"] * 2
    assert (work / "scores" / "pairs.jsonl").is_file()


@pytest.mark.slow
def test_what_is_published_is_a_whole_judge(ran, tmp_path):
    work, _, _, uploads, _ = ran
    assert list(uploads) == ["your-name/gt-svj-cogvideox-2b"]
    files = uploads["your-name/gt-svj-cogvideox-2b"]
    assert not any("clips" in name or "optimizer" in name for name in files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    again = GTSVJReward.from_pretrained(tmp_path, base_model=work / "base")
    latents = LatentFolder(work / "latents" / "monetbench")[0].latents[None]
    own = GTSVJReward.from_pretrained(
        work / "judges" / "gt-svj" / "preference", base_model=work / "base"
    )
    assert torch.equal(again(latents), own(latents))


def test_accelerate_takes_the_page_s_launcher():
    parser = launch_command_parser()
    args = parser.parse_args([*LAUNCH[2:], "encode", "a", "b", "--fps", "8"])
    assert args.module
    assert args.training_script == LAUNCH[-1]
    assert args.training_script_args == ["encode", "a", "b", "--fps", "8"]
