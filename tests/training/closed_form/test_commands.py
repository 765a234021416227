"""`gtsvj train-...` in closed form: from folders and label files to judges on disk."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.annotations import read_comparisons
from gtsvj_reward.cli import main
from gtsvj_reward.judge import load_judge
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.training import DiscriminatorConfig, DiscriminatorTrainer, FeatureCache
from gtsvj_reward.training.data import Truncation
from gtsvj_reward.training.discriminator.data import ContrastivePairs, RealAndGenerated
from gtsvj_reward.training.discriminator.fit import drawn
from tests.judge.test_moment_judge import moment_judge
from tests.training.stages import write_csv, write_rated

SETTINGS = ["--held_out_fraction", "0.25", "--device", "cpu"]
COMMON = [*SETTINGS, "--base_model"]


def run(command, *words, status=0):
    assert main([command, *map(str, words)]) == status


@pytest.fixture
def folders(tmp_path, base):
    """Real and generated clips, rated ones, compared ones, and their label files."""
    write_rated(tmp_path / "real", 12, seed=5)
    write_rated(tmp_path / "generated", 8, seed=6)
    rated = write_rated(tmp_path / "rated", 40)
    write_csv(tmp_path / "ratings.csv", ["video", "clear", "focus"], rated)
    compared = write_rated(tmp_path / "compared", 60, seed=1)
    pairs = [
        (a, b, (clear > other) - (clear < other))
        for (a, clear, _), (b, other, _) in zip(compared[::2], compared[1::2], strict=True)
    ]
    write_csv(tmp_path / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    return tmp_path


def fit_energy(folders, base, *words, status=0):
    run(
        "train-discriminator", *COMMON, base, "--real", folders / "real", "--generated",
        folders / "generated", "--output_dir", folders / "judge-1", "--truncation_min_seconds",
        "0.5", "--draws", 2, *words, status=status,
    )  # fmt: skip


def test_three_stages_make_a_judge(folders, base, capsys):
    fit_energy(folders, base)
    aspects = ["--aspects", "clear=0:4", "focus=0:4"]
    run(
        "train-aspects", *SETTINGS, "--from_judge", folders / "judge-1", "--ratings",
        folders / "ratings.csv", *aspects, "--latents", folders / "rated", "--output_dir",
        folders / "judge-2",
    )  # fmt: skip
    run(
        "train-preference", *SETTINGS, "--from_judge", folders / "judge-2", "--comparisons",
        folders / "pairs.csv", "--latents", folders / "compared", "--output_dir",
        folders / "judge-3", "--preference_loss", "rao_kupper",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert f"judge: {folders / 'judge-3'}" in printed
    first, second, third = (load_judge(folders / f"judge-{stage}") for stage in (1, 2, 3))
    assert [j.config.stage for j in (first, second, third)] == [
        "discriminator", "aspects", "preference",
    ]  # fmt: skip
    assert second.config.latent_statistics is None, "30 clips say too little"
    assert third.config.latent_statistics.clips == 44
    metrics = json.loads((folders / "judge-2" / "metrics.json").read_text())
    assert metrics["spearman/clear"] > 0.8  # the brightness of a channel is what was rated
    assert {"covered by 50%", "covered by 80%", "covered by 95%"} <= metrics.keys()
    assert "accuracy/generated" in json.loads((folders / "judge-1" / "metrics.json").read_text())
    assert third.preference.weight[0, 0] > third.preference.weight[0, 1]  # `clear` decides
    assert torch.equal(third.head.output.weight, second.head.output.weight)
    out = GTSVJReward(third, pessimism=0.5).details(
        [load_clip(info.path).latents for info in LatentFolder(folders / "compared").infos[:4]],
        fps=8.0,
    )
    assert (out.uncertainty > 0).all()
    assert list(out.aspects) == ["clear", "focus"]


def test_what_was_read_is_kept_for_the_next_run(folders, base, monkeypatch):
    fit_energy(folders, base)
    files = {path: path.stat().st_mtime_ns for path in (folders / "features").rglob("*.safe*")}
    assert files
    before = load_judge(folders / "judge-1").head.output.weight.clone()
    fit_energy(folders, base)
    again = {path: path.stat().st_mtime_ns for path in (folders / "features").rglob("*.safe*")}
    assert again == files
    assert torch.equal(load_judge(folders / "judge-1").head.output.weight, before)


def test_comparisons_alone_are_enough_and_held_out_ones_are_told_from_them(folders, base, capsys):
    latents = ["--latents", folders / "compared"]
    parts = [folders / "split" / name for name in ("train.csv", "held_out.csv")]
    run("split", "--comparisons", folders / "pairs.csv", *latents, "--out", folders / "split",
        "--held_out_fraction", 0.3)  # fmt: skip
    assert f"21 rows: {parts[0]}" in capsys.readouterr().out
    rows = [read_comparisons(part).rows for part in parts]
    videos = [{video for row in part for video in (row.video_a, row.video_b)} for part in rows]
    assert [len(part) for part in rows] == [21, 9]
    assert not videos[0] & videos[1]
    run(
        "train-preference", *COMMON, base, "--comparisons", parts[0], "--held_out_comparisons",
        parts[1], *latents, "--output_dir", folders / "judge", "--preference_loss", "rao_kupper",
    )  # fmt: skip
    for data, seen in ((folders / "pairs.csv", True), (parts[1], False)):
        capsys.readouterr()
        run(
            "evaluate", "--benchmark", "pairs", "--data", data, "--judge", folders / "judge",
            *latents, "--out", folders / f"seen-{seen}", "--resamples", 1,
        )  # fmt: skip
        note = "note: 21 of 30 comparisons have a clip whose labels the judge was trained on"
        assert (note in capsys.readouterr().out) == seen
        assert ("whose labels" in (folders / f"seen-{seen}" / "result.md").read_text()) == seen
    judge = load_judge(folders / "judge")
    assert judge.config.stage == "preference"
    assert not judge.config.aspects
    metrics = json.loads((folders / "judge" / "metrics.json").read_text())
    assert metrics["accuracy_without_ties"] > 0.7


def test_clips_of_one_group_are_left_out_together(tmp_path, base, capsys):
    """Two groups are too few to choose a penalty on what is left out, and so is one of pairs."""
    rated = write_rated(tmp_path / "rated", 10)
    header = ["video", "clear", "focus", "group"]
    named = [(*row, index % 2) for index, row in enumerate(rated)]
    common = [*COMMON, base, "--latents", tmp_path / "rated", "--output_dir", tmp_path / "judge"]
    words = ["--ratings", write_csv(tmp_path / "r.csv", header, named[:6]), "--held_out_ratings",
             write_csv(tmp_path / "h.csv", header[:3], rated[6:])]  # fmt: skip
    run("train-aspects", *common, *words, "--aspects", "clear=0:4", "focus=0:4", status=1)
    assert "'clear' of rated clips: labels in 2 groups, at least 3" in capsys.readouterr().err
    header = ["video_a", "video_b", "label", "group"]
    pairs = [(f"{i:03d}.mp4", f"{i + 1:03d}.mp4", "AB"[i // 2 % 2], "g") for i in (0, 2, 4)]
    words = ["--comparisons", write_csv(tmp_path / "p.csv", header, pairs),
             "--held_out_comparisons",
             write_csv(tmp_path / "q.csv", header[:3], [("006.mp4", "007.mp4", "B")])]  # fmt: skip
    run("train-preference", *common, *words, "--preference_loss", "rao_kupper", status=1)
    assert "all 3 comparisons are connected" in capsys.readouterr().err


def test_pairs_are_those_of_the_sampler_and_grouped_by_source(folders):
    clips = RealAndGenerated(
        LatentFolder(folders / "real").infos, LatentFolder(folders / "generated").infos
    )
    pairs = ContrastivePairs(
        clips, sampler=PerturbationSampler(), truncation=Truncation(probability=0.0), seed=3
    )
    contrast = drawn(pairs, 2)
    assert len(contrast) == 2 * len(pairs)
    kinds = set()
    for key, item in enumerate(contrast):
        pair = pairs[key]
        kinds.add(pair.kind)
        assert torch.equal(item.positive(), pair.positive)
        assert torch.equal(item.negative(), pair.negative)
        assert (item.groups[0] == item.groups[1]) == (pair.kind != "generated")
    assert len(kinds) > 3


def tune(folders, base, *words, status=0):
    """LoRA on moments, into the folder that an earlier call may have begun."""
    run(
        "train-discriminator", "--base_model", base, "--readout", "moments", "--lora_rank", 4,
        "--lora_placement", "all", "--held_out_fraction", 0.25, "--use_cpu", "True", "--real",
        folders / "real", "--generated", folders / "generated", "--output_dir", folders / "tuned",
        "--truncation_min_seconds", 0.5, "--draws", 2, "--per_device_train_batch_size", 3,
        "--save_steps", 2, "--features", folders / "features", *words, status=status,
    )  # fmt: skip


def test_lora_on_moments_starts_from_the_closed_form(folders, base):
    fit_energy(folders, base)
    closed = load_judge(folders / "judge-1")
    latents = torch.stack([load_clip(i.path).latents for i in LatentFolder(folders / "real").infos])
    tune(folders, base, "--max_steps", 2, "--learning_rate", 1e-12, "--head_learning_rate", 0)
    tuned = load_judge(folders / "tuned")
    torch.testing.assert_close(tuned(latents).scores, closed(latents).scores)
    assert (tuned.config.lora_rank, tuned.config.readout) == (4, "moments")
    assert tuned.config.training["energy: beta"] == 0.2


def test_later_stages_of_lora_on_moments_read_the_adapted_base(folders, base, capsys):
    """Trained, stopped and gone on with, then rated: features of the frozen base are not taken."""
    fit_energy(folders, base)
    tune(folders, base, "--max_steps", 4, "--learning_rate", 0.01)
    whole = load_judge(folders / "tuned")
    latents = load_clip(LatentFolder(folders / "rated").infos[0].path).latents[None]
    tune(folders, base, "--max_steps", 6, "--learning_rate", 0.01)
    more = load_judge(folders / "tuned")
    assert (more.config.training["steps"], whole.config.training["steps"]) == (6, 4)
    assert (more(latents).scores - whole(latents).scores).abs().max() > 1e-4
    words = [
        "train-aspects", *SETTINGS, "--from_judge", folders / "tuned", "--ratings",
        folders / "ratings.csv", "--aspects", "clear=0:4", "focus=0:4", "--latents",
        folders / "rated", "--output_dir", folders / "judge-2",
    ]  # fmt: skip
    run(*words)
    rated = load_judge(folders / "judge-2")
    moments = rated.moments(latents)
    torch.testing.assert_close(moments, more.moments(latents))
    assert (moments - load_judge(folders / "judge-1").moments(latents)).abs().max() > 1e-3
    torch.testing.assert_close(rated.head.energy.weight, more.head.output.weight)
    assert json.loads((folders / "judge-2" / "metrics.json").read_text())["spearman/clear"] > 0.8
    capsys.readouterr()
    run(*words, "--lora_rank", 8, status=1)
    assert "leave --lora_rank out, and start from such a judge" in capsys.readouterr().err


def test_lora_that_no_tap_reads_is_refused_before_clips_are_read(folders, base, capsys):
    tune(folders, base, "--max_steps", 2, "--taps", 0, 1, status=1)
    assert "LoRA reaches up to block 4, --taps [0, 1] do not" in capsys.readouterr().err
    assert not (folders / "features").exists()


def test_lora_that_was_never_trained_is_not_fitted():
    with pytest.raises(ValueError, match="LoRA of rank 4 that was never trained: set `lora_rank`"):
        FeatureCache(moment_judge(lora_rank=4, trained=False))


def test_settings_of_the_other_readout_are_refused(folders, base, capsys):
    fit_energy(folders, base, "--head_width", 4, status=1)
    assert "['head_width'] are settings of `--readout mlp`" in capsys.readouterr().err
    fit_energy(folders, base, "--lora_rank", 4, status=1)
    assert "--readout moments with --lora_rank has no settings" in capsys.readouterr().err
    fit_energy(folders, base, "--max_steps", 4, status=1)
    printed = capsys.readouterr().err
    assert "--readout moments has no settings ['--max_steps', '4']" in printed


def test_a_judge_of_the_other_readout_is_no_start(world, capsys):
    words = [
        "train-aspects", *SETTINGS, "--from_judge", world / "discriminator", "--ratings",
        world / "ratings.csv", "--aspects", "clear=0:4", "focus=0:4", "--latents",
        world / "rated", "--output_dir", world / "judge-2",
    ]  # fmt: skip
    run(*words, "--readout", "moments", status=1)
    assert "has readout 'mlp': go on with `--readout mlp`" in capsys.readouterr().err
    # Unless another is asked for, the readout is that of the judge: `--device` is none of its.
    run(*words, status=1)
    assert "--readout mlp has no settings ['--device', 'cpu']" in capsys.readouterr().err


def test_trainers_refuse_a_judge_of_moments(folders):
    clips = RealAndGenerated(LatentFolder(folders / "real").infos)
    args = DiscriminatorConfig(
        real="-", output_dir=str(folders / "out"), use_cpu=True, truncation_min_seconds=0.5
    )
    with pytest.raises(ValueError, match="is not trained step by step"):
        DiscriminatorTrainer(
            moment_judge(filled=False), args, train_dataset=clips, eval_dataset=clips
        )
