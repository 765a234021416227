"""`gtsvj score` and `gtsvj rank` from the command line."""

import csv
import json
import os
import re
import signal
from functools import partial

import pytest

from gtsvj_reward.cli import main
from gtsvj_reward.cli.score import rank, score
from gtsvj_reward.judge import Geometry, save_judge
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.scoring.folder import score_folder
from tests.ranks import on_unix, run_apart, run_ranks
from tests.scoring.test_encoding import write_videos
from tests.scoring.test_folder import mixed_folder, reward_for, write_clip
from tests.tiny import tiny_judge, tiny_transformer
from tests.training.clips import write_clips


def save_tiny_judge(folder, *, seed=0, **changes):
    """A judge on disk with its base model beside it."""
    transformer = tiny_transformer(seed=seed)
    transformer.save_pretrained(folder / "base")
    save_judge(
        tiny_judge(transformer=transformer, base_model=str(folder / "base"), **changes),
        folder / "judge",
    )
    return str(folder / "judge")


def rows_of(path):
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def judge(tmp_path):
    return save_tiny_judge(tmp_path)


@pytest.fixture
def latents(tmp_path):
    return mixed_folder(tmp_path / "latents").path


def test_the_table_is_what_the_reward_says(judge, latents, tmp_path, capsys):
    out = tmp_path / "x.csv"
    assert main(["score", judge, str(latents), "--out", str(out), "--batch_size", "2"]) == 0
    assert f"scored 9 clips, written to {out}" in capsys.readouterr().out
    direct = score_folder(reward_for(2), LatentFolder(latents))
    rows = rows_of(out)
    assert [row["latents"] for row in rows] == [clip.latents for clip in direct]
    for row, clip in zip(rows, direct, strict=True):
        assert float(row["reward"]) == pytest.approx(clip.reward, abs=1e-5)
        assert row["video"] == clip.video
        assert json.loads(row["trajectory"]) == pytest.approx(clip.trajectory, abs=1e-5)
    assert [path.name for path in (tmp_path / "x-shards").iterdir()] == ["shard-00000.jsonl"]


def test_another_judge_is_refused_until_overwrite(judge, latents, tmp_path, capsys):
    words = ["score", judge, str(latents), "--out", str(tmp_path / "x.csv")]
    assert main(words) == 0
    first = rows_of(tmp_path / "x.csv")
    save_tiny_judge(tmp_path, reward_mean=0.0)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "9 scores made with other settings: judge's config.json was" in error
    assert rows_of(tmp_path / "x.csv") == first
    assert main([*words, "--dtype", "bfloat16"]) == 1
    assert "dtype was float32, is now bfloat16" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    for old, new in zip(first, rows_of(tmp_path / "x.csv"), strict=True):
        assert float(new["reward"]) == pytest.approx(float(old["reward"]) + 0.5, abs=1e-5)


def test_untrained_geometry_is_refused_or_written_down(judge, latents, tmp_path, capsys):
    write_clip(latents, "c/long", time=8)
    words = ["score", judge, str(latents), "--out", str(tmp_path / "x.jsonl")]
    assert main(words) == 1
    assert "c/long.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()
    words[-1] = str(tmp_path / "y.jsonl")
    assert main([*words, "--allow_untrained_geometry"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert [row["untrained_geometry"] for row in rows if row["untrained_geometry"]] == [
        "latent frames 8 outside 3..7"
    ]
    assert rows[0]["aspect_trajectory"] == {}


def test_latents_of_another_spread_are_refused_unless_a_flag_says_so(
    judge, latents, tmp_path, capsys
):
    write_clip(latents, "c/loud", scale=9.0)
    words = ["score", judge, str(latents), "--out", str(tmp_path / "x.jsonl")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "c/loud" in error
    assert "pass --no_check_statistics" in error
    assert main([*words, "--no_check_statistics"]) == 0
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 10


def test_videos_are_encoded_once_scored_and_shown(tmp_path, tiny_vae, capsys, monkeypatch):
    tiny_vae.save_pretrained(tmp_path / "vae")
    write_videos(tmp_path / "videos", ("p", "q", "r"))
    fixed = Geometry(latent_frames=(1, 3), height=(4, 4), width=(6, 6), fps=(8.0, 8.0))
    judge = save_tiny_judge(tmp_path, latent_space=LatentSpace.from_vae(tiny_vae), geometry=fixed)
    out = tmp_path / "out" / "x.csv"
    words = ["score", judge, str(tmp_path / "videos"), "--out", str(out), "--vae",
             str(tmp_path / "vae"), "--frames_fps", "8", "--device", "cpu"]  # fmt: skip
    assert main([*words, "--report", str(tmp_path / "report"), "--report_top", "1"]) == 0
    assert [row["video"] for row in rows_of(out)] == ["p", "q", "r"]
    text = (tmp_path / "report" / "index.html").read_text()
    assert "1 in between are not shown" in text
    assert text.count("data:video/mp4") == 2
    encoded = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "x-latents").iterdir()}
    assert len(encoded) == 3
    table = out.read_bytes()
    out.unlink()
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in encoded} == encoded, "encoded twice"
    assert out.read_bytes() == table

    capsys.readouterr()
    tiny_vae.__class__.from_config({**tiny_vae.config, "scaling_factor": 0.9}).save_pretrained(
        tmp_path / "other"
    )
    words[words.index("--vae") + 1] = str(tmp_path / "other")
    assert main(words) == 1
    assert "this VAE makes latents of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["latents", "--vae", "x"], r"vae is for videos, but \S+ holds latent files"),
        (["latents", "--num_frames", "9"], "num_frames is for videos"),
        (["videos"], "holds videos: they need --vae"),
        (["videos", "--vae", "x", "--videos", "y"], "videos is not needed: .* holds the videos"),
        (["latents", "--report", "r"], "--report needs --videos"),
        (["latents", "--report", "r", "--videos", "videos", "--report_top", "0"], "at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(judge, tmp_path, capsys, words, message):
    write_clips(tmp_path / "latents", 1)
    write_videos(tmp_path / "videos", ["p"])
    words = [str(tmp_path / word) if word in ("latents", "videos", "r") else word for word in words]
    with pytest.raises(SystemExit) as stopped:
        score([judge, *words, "--out", str(tmp_path / "x.csv")])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "x-shards").exists()


def test_wrong_tables_and_mixed_folders_cost_nothing(judge, tmp_path, capsys):
    write_clips(tmp_path / "all" / "latents", 1)
    assert main(["score", judge, str(tmp_path / "all"), "--out", str(tmp_path / "x.txt")]) == 1
    assert "ends in .csv or .jsonl" in capsys.readouterr().err
    write_videos(tmp_path / "all" / "videos", ["p"])
    assert main(["score", judge, str(tmp_path / "all"), "--out", str(tmp_path / "x.csv")]) == 1
    assert "holds both latent files" in capsys.readouterr().err


def test_rank_scores_and_ranks_by_folder(judge, latents, tmp_path, capsys):
    out, pairs = tmp_path / "ranks.csv", tmp_path / "pairs.jsonl"
    (latents / "a" / "8.safetensors").unlink()  # names no source, so its name ends otherwise
    words = ["--group_by", "folder", "--out", str(out), "--pairs", str(pairs)]
    assert rank([judge, str(latents), *words]) == 0
    printed = "clips: 8, groups: 2, pairs: 2, groups of one clip: 0, groups below the margin: 0"
    assert printed in capsys.readouterr().out
    scores = {row["video"]: float(row["reward"]) for row in rows_of(tmp_path / "ranks-scores.csv")}
    rows = rows_of(out)
    for group in "ab":
        best = sorted((v for v in scores if v.startswith(group)), key=lambda v: -scores[v])
        assert [row["video"] for row in rows if row["group"] == group] == best
        assert [row["rank"] for row in rows if row["group"] == group] == ["1", "2", "3", "4"]
    made = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert [(pair["prompt"], pair["label"]) for pair in made] == [("a", 1), ("b", 1)]
    for pair in made:
        assert pair["margin"] == scores[pair["chosen"]] - scores[pair["rejected"]] > 0

    least = sorted(pair["margin"] for pair in made)[1]
    words = ["--scores", str(tmp_path / "ranks-scores.csv"), *words, "--min_margin", str(least)]
    assert rank(words) == 0
    assert len(pairs.read_text().splitlines()) == 1
    summary = json.loads((tmp_path / "ranks-summary.json").read_text())
    assert (summary["pairs"], summary["groups below the margin"]) == (1, 1)
    assert (summary["min_margin"], summary["column"]) == (least, "reward")


def test_rank_by_a_file_of_prompts_and_another_column(tmp_path):
    (tmp_path / "s.csv").write_text("video,reward,motion\np,1,3\nq,2,2\nr,3,1\n")
    (tmp_path / "g.csv").write_text('video,prompt\nr,"a, b"\nq,"a, b"\np,c\n')
    words = ["--scores", str(tmp_path / "s.csv"), "--groups", str(tmp_path / "g.csv"),
             "--out", str(tmp_path / "x.jsonl"), "--column", "motion"]  # fmt: skip
    with pytest.raises(ValueError, match="1 of 2 groups have one clip only"):
        rank(words)
    assert rank([*words, "--allow_singletons"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(row["group"], row["video"], row["margin"]) for row in rows] == [
        ("c", "p", None),
        ("a, b", "q", 1.0),
        ("a, b", "r", None),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scores", "s.csv"], "give --groups FILE, --group_by folder or"),
        (["--scores", "s.csv", "--groups", "g.csv", "--group_by", "folder"], "give --groups FILE"),
        (["--group_by", "folder"], "a judge and a folder, or --scores"),
        (["judge", "--group_by", "folder"], "a judge and a folder, or --scores"),
        (["judge", "x", "--scores", "s.csv", "--group_by", "folder"], "checkpoint has no use"),
        (["--scores", "s.csv", "--group_by", "folder", "--batch_size", "2"], "batch_size has no"),
        (["--scores", "s.csv", "--group_by", "folder", "--vae", "x"], "vae has no use with"),
    ],
)
def test_rank_refuses_flags_that_do_not_go_together(capsys, words, message):
    with pytest.raises(SystemExit):
        rank([*words, "--out", "x.csv"])
    assert message in capsys.readouterr().err


def test_processes_that_do_not_see_one_another_are_refused(
    judge, latents, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["score", judge, str(latents), "--out", str(tmp_path / "x.csv")]) == 1
    assert "2 processes were launched, but accelerate sees 1" in capsys.readouterr().err
    assert not (tmp_path / "x-shards").exists()


def score_and_die(words):
    """Score, and die by SIGKILL in the middle of a line when the third batch is on disk."""
    sync, synced = os.fsync, []

    def sync_or_die(file):
        sync(file)
        synced.append(file)
        if len(synced) == 3:
            os.write(file, b'{"file": {"size": 1')
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = sync_or_die
    main(words)


@on_unix
def test_a_killed_run_is_resumed_to_the_same_bytes(judge, tmp_path):
    """SIGKILL in the middle of a line; the table then equals that of a run left alone."""
    write_clips(tmp_path / "latents", 10)
    words = ["score", judge, str(tmp_path / "latents"), "--batch_size", "2", "--device", "cpu"]
    killed = [*words, "--out", str(tmp_path / "killed.csv")]
    assert run_apart([partial(score_and_die, killed)]) == [-signal.SIGKILL]
    shard = tmp_path / "killed-shards" / "shard-00000.jsonl"
    kept, end, cut = shard.read_bytes().rpartition(b"\n")
    assert (kept + end).count(b"\n") == 1 + 3 * 2, "a header and three batches"
    assert cut
    assert not (tmp_path / "killed.csv").exists()
    assert main(killed) == 0
    assert shard.read_bytes().startswith(kept + end), "finished clips are kept as they are"
    assert main([*words, "--out", str(tmp_path / "alone.csv")]) == 0
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


@on_unix
def test_two_processes_write_what_one_writes(judge, latents, tmp_path):
    words = ["score", judge, str(latents), "--batch_size", "1", "--out"]
    status, logs = run_ranks(2, lambda rank: [*words, tmp_path / "two.csv"], tmp_path)
    assert status == [0, 0], logs
    names = sorted(path.name for path in (tmp_path / "two-shards").iterdir())
    assert names == ["shard-00000.jsonl", "shard-00001.jsonl"]
    assert main([*words, str(tmp_path / "one.csv")]) == 0
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
