"""`gtsvj quickstart`, `gtsvj models`."""

import csv

import pytest

from gtsvj_reward.assets import ASSETS
from gtsvj_reward.cli import main
from gtsvj_reward.cli.quickstart import busy
from gtsvj_reward.judge import read_config
from gtsvj_reward.latents import LatentFolder, write_video
from gtsvj_reward.quickstart import Quickstart, Times, estimate, measure, size_of
from gtsvj_reward.sampling import ClipSize
from gtsvj_reward.toy.corpus import ClipSpec
from gtsvj_reward.toy.pipeline import load_pipeline
from gtsvj_reward.training import DiscriminatorFit
from tests.sampling.tiny import wan

PROMPTS = ["one blue circle falling", "two red squares bouncing"]


@pytest.fixture
def sources(tmp_path):
    """Real clips of the toy world and prompts."""
    for number in range(6):
        clip = ClipSpec(str(number), (9, number), {}).draw()
        write_video(tmp_path / "real" / f"{number}.mp4", clip, 8.0)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return tmp_path


def flags(folder, pipeline="gtsvj-toy-pipeline"):
    return [
        *("quickstart", "--pipeline", pipeline, "--real", str(folder / "real")),
        *("--prompts", str(folder / "prompts.txt"), "--out", str(folder / "judge")),
        *("--steps", "2", "--per_prompt", "1", "--batch_size", "8", "--device", "cpu"),
    ]


def test_a_pipeline_and_videos_become_a_judge(sources, capsys):
    work, words = sources / "judge-work", flags(sources, "gtsvj-toy-flow-pipeline")
    assert main([*words, "--dry_run"]) == 0
    assert not work.exists()
    assert capsys.readouterr().out.count("     gtsvj ") == 5

    assert main(words) == 0
    config = read_config(sources / "judge")
    assert (config.readout, config.stage) == ("moments", "discriminator")
    assert len(LatentFolder(work / "latents/generated").infos) == 2
    with (work / "scores.csv").open() as opened:
        scored = {row["video"]: float(row["reward"]) for row in csv.DictReader(opened)}
    assert len(set(scored.values())) == 2
    page = (work / "report/index.html").read_text()
    assert page.count("data:video/mp4") == 2
    with (work / "videos/prompts.csv").open() as opened:
        shown = {row["video"]: row["prompt"] for row in csv.DictReader(opened)}
    assert sorted(shown.values()) == PROMPTS
    assert all((work / "videos" / video).is_file() for video in shown)

    # Again: nothing is made twice, and the judge stays as it is.
    judge = (sources / "judge/head.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    for said in ("encoded 0, already done 6", "made 0, already done 2",
                 "already done: ", "decoded 0, already done 2"):  # fmt: skip
        assert said in printed
    assert (sources / "judge/head.safetensors").stat().st_mtime_ns == judge


def test_a_step_that_fails_stops_it(sources, capsys):
    (sources / "real/broken.mp4").write_bytes(b"no video")
    assert main(flags(sources)) == 1
    printed = capsys.readouterr()
    assert "stopped in step 1" in printed.out
    assert "broken.mp4" in printed.err
    assert not (sources / "judge").exists()


def test_what_is_missing_is_named(tmp_path, capsys):
    words = ["quickstart", "--pipeline", str(tmp_path), "--out", str(tmp_path / "judge")]
    assert main([*words, "--real", str(tmp_path)]) == 1
    assert "--prompts is needed" in capsys.readouterr().err
    words[2] = "gtsvj-toy-unsteady"
    assert main(words) == 1
    assert "takes gtsvj-toy-pipeline and gtsvj-toy-flow-pipeline" in capsys.readouterr().err


def test_sizes_come_from_the_pipeline_or_from_flags():
    nothing = {"num_frames": None, "height": None, "width": None}
    own = size_of(load_pipeline(), nothing)
    assert own == ClipSize(num_frames=17, height=64, width=64)
    assert size_of(load_pipeline(), {**nothing, "height": 32}).height == 32
    with pytest.raises(ValueError, match=r"WanPipeline does not state .* --num_frames --width"):
        size_of(wan(), {**nothing, "height": 32})


def plan_of(folder, **changes):
    values = {
        "pipeline": "a", "vae": "b", "real": folder, "prompts": folder, "out": folder,
        "work": folder, "size": ClipSize(num_frames=9, height=32, width=32), "fps": 8.0,
        "batch_size": 1, "dtype": "float32", "device": "cpu", "per_prompt": 3, "steps": 10,
    }  # fmt: skip
    return Quickstart(**{**values, **changes})


def test_estimates_multiply_what_was_measured(tmp_path):
    plan, pipe = plan_of(tmp_path), load_pipeline()
    times = Times(encode=1.0, step=0.1, read=0.01, decode=3.0)
    found = estimate(plan, pipe, times, real=5, prompts=2)
    clip = 3 * 16 * 4 * 4 * 4  # latents of 9 frames of 32x32, float32
    assert found.latent_bytes == (5 + 2 * 3) * clip
    # Three blocks of 128 and 16 channels, seven moments of each, float32.
    assert found.moment_bytes == 5 * (1 + DiscriminatorFit.draws) * 4 * 7 * (3 * 128 + 16)
    # 5 clips encoded, 6 clips of 10 steps, 5 clips and what is drawn of them read, 6 decoded, 6
    # scored.
    read = 5 * (1 + DiscriminatorFit.draws) * 0.01
    assert found.seconds == pytest.approx([5.0, 6.0, read, 18.0, 0.06])
    assert len(found.seconds) == len(plan.commands())
    for number in range(4):
        (plan.sampled / f"{number}.safetensors").parent.mkdir(parents=True, exist_ok=True)
        (plan.sampled / f"{number}.safetensors").touch()
    assert estimate(plan, pipe, times, real=5, prompts=2).seconds[1] == pytest.approx(2.0)


def test_clips_are_timed_as_many_at_a_time_as_the_steps_take(tmp_path, monkeypatch):
    asked = []

    def counted(pipe, prompts, *, guidance_scale, **rest):
        asked.append((len(prompts), guidance_scale))

    monkeypatch.setattr("gtsvj_reward.quickstart.sampled", counted)
    times = measure(plan_of(tmp_path, batch_size=3), load_pipeline())
    assert set(asked) == {(3, None), (DiscriminatorFit.batch_size, 1.0)}
    assert min(vars(times).values()) > 0


def test_a_busy_machine_is_named():
    assert busy(2.0, 2) == ""
    assert "load 14 on 2 cores" in busy(14.2, 2)


def test_models_are_listed_and_their_cards_shown(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ASSETS)
    assert "judge, stage preference, readout moments" in lines[list(ASSETS).index("gtsvj-toy")]
    assert main(["models", "gtsvj-toy-pipeline"]) == 0
    assert capsys.readouterr().out.startswith("# gtsvj-toy-pipeline")
    assert main(["models", "nothing"]) == 1
