"""Scores of folders: equal to direct calls, whatever the batches, processes and interruptions."""

import csv
import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents.store import LatentClip, LatentFolder, load_clip, save_clip
from gtsvj_reward.reward import GeometryError, NonFiniteError
from gtsvj_reward.scoring.folder import (
    batches,
    collect_scores,
    named_clips,
    score_folder,
    score_shard,
)
from gtsvj_reward.scoring.shards import ScoringMismatchError, Shards, run_header
from gtsvj_reward.scoring.table import write_scores
from gtsvj_reward.tables import read_table
from tests.tiny import clips, tiny_aspect_judge, tiny_judge, tiny_space

HEADER = {"judge": "a" * 64, "dtype": "float32"}


def write_clip(folder, name, *, time=5, seed=0, fps=8.0, source=None, scale=1.0):
    space = tiny_space()
    save_clip(
        folder / f"{name}.safetensors",
        LatentClip(
            latents=clips(1, time, seed=seed)[0] * scale,
            space=space,
            fps=fps,
            num_frames=space.video_frames(time),
            source=source,
        ),
    )


def mixed_folder(folder):
    """Nine clips in two folders: two lengths, and two frame rates; the last names no source."""
    for index in range(9):
        name = f"{'ab'[index % 2]}/{index}"
        time, fps = (5 if index % 3 else 3), (8.0 if index < 6 else 16.0)
        source = None if index == 8 else f"{name}.mp4"
        write_clip(folder, name, time=time, seed=index, fps=fps, source=source)
    return LatentFolder(folder)


@pytest.fixture
def folder(tmp_path):
    return mixed_folder(tmp_path / "latents")


@pytest.fixture
def shards(tmp_path):
    return Shards(folder=tmp_path / "x-shards", header=HEADER)


def reward_for(batch_size=4, **changes):
    return GTSVJReward(tiny_judge(**changes), batch_size=batch_size)


class Counting(GTSVJReward):
    """Notes how many clips each call scores; stops as if killed when its patience is out."""

    def __init__(self, *, batch_size=4, patience=1000):
        super().__init__(tiny_judge(), batch_size=batch_size)
        self.calls = []
        self.patience = patience

    def score(self, clips, normalize=True):
        if len(self.calls) == self.patience:
            raise KeyboardInterrupt
        self.calls.append(len(clips))
        return super().score(clips, normalize)


class WithAspects(GTSVJReward):
    """Fills in two aspects made of the score."""

    def score(self, clips, normalize=True):
        out = super().score(clips, normalize)
        return replace(
            out,
            parts={"clear, sharp": 2 * out.raw, "motion": out.raw - 1},
            aspect_trajectory=[
                {"clear, sharp": 2 * steps, "motion": steps - 1} for steps in out.trajectory
            ],
        )


def values(scored):
    return np.array([clip.raw for clip in scored])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_scores_equal_direct_calls(folder, batch_size):
    scored = score_folder(reward_for(batch_size), folder, progress=False)
    assert [clip.latents for clip in scored] == [
        *(f"a/{i}.safetensors" for i in (0, 2, 4, 6, 8)),
        *(f"b/{i}.safetensors" for i in (1, 3, 5, 7)),
    ]
    direct = reward_for()
    for clip in scored:
        stored = load_clip(folder.path / clip.latents)
        out = direct.details(stored.latents[None], space=stored.space, fps=stored.fps)
        assert clip.video == (stored.source or "a/8.safetensors")
        assert clip.raw == pytest.approx(out.raw.item(), abs=1e-5)
        assert clip.reward == pytest.approx(out.rewards.item(), abs=1e-5)
        assert clip.trajectory == pytest.approx(out.trajectory[0].tolist(), abs=1e-5)
        assert len(clip.trajectory) == len(stored.latents)
        assert clip.untrained_geometry is None
        if batch_size == 1:
            assert np.float32(clip.raw) == np.float32(out.raw.item()), "float32 is kept exactly"
    assert values(scored).std() > 1e-3, "scores are all alike: the test proves nothing"


def test_batches_hold_one_shape_and_rate_and_every_clip_once(folder):
    infos = named_clips(folder)
    formed = list(batches(infos, 2))
    assert sorted(name for batch in formed for name in batch) == sorted(infos)
    for batch in formed:
        assert 1 <= len(batch) <= 2
        assert len({(info.shape, info.fps) for info in batch.values()}) == 1
    assert any(len(batch) == 2 for batch in formed)


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 4), (2, 1), (2, 4), (3, 2), (12, 4)])
def test_several_processes_equal_one(folder, shards, processes, batch_size):
    scored = score_folder(reward_for(batch_size), folder, progress=False)
    counts = [
        score_shard(
            reward_for(batch_size), folder, shards, process_index=k, num_processes=processes
        )
        for k in range(processes)
    ]
    assert sum(counts) == 9
    assert counts == [len(range(k, 9, processes)) for k in range(processes)]
    together = collect_scores(folder, shards)
    if batch_size == 1 or processes == 1:
        assert together == scored
    assert [clip.latents for clip in together] == [clip.latents for clip in scored]
    np.testing.assert_allclose(values(together), values(scored), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_run_that_stopped_goes_on_and_gives_the_same_bits(folder, shards, batch_size, patience):
    stopped = Counting(batch_size=batch_size, patience=patience)
    with pytest.raises(KeyboardInterrupt):
        score_shard(stopped, folder, shards)
    assert len(shards.read()) == sum(stopped.calls)
    resumed = Counting(batch_size=batch_size)
    assert score_shard(resumed, folder, shards) == 9 - sum(stopped.calls)
    assert sum(resumed.calls) == 9 - sum(stopped.calls), "finished clips are not scored again"
    assert collect_scores(folder, shards) == score_folder(reward_for(batch_size), folder)


def test_another_number_of_processes_may_resume(folder, shards):
    with pytest.raises(KeyboardInterrupt):
        score_shard(Counting(batch_size=1, patience=4), folder, shards)
    rest = [
        score_shard(reward_for(1), folder, shards, process_index=k, num_processes=2)
        for k in range(2)
    ]
    assert sum(rest) == 5
    assert collect_scores(folder, shards) == score_folder(reward_for(1), folder)


def test_a_torn_last_line_is_dropped_and_its_clip_scored_again(folder, shards):
    score_shard(reward_for(1), folder, shards)
    whole = shards.paths()[0].read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    header = whole.find(b"\n") + 1
    for length, left in (
        (last + 1, 1),
        (len(whole) - 1, 1),
        (last, 1),
        (header, 9),
        (5, 9),
        (0, 9),
    ):
        shards.paths()[0].write_bytes(whole[:length])
        counting = Counting(batch_size=1)
        assert score_shard(counting, folder, shards) == left, length
        assert sum(counting.calls) == left
        assert shards.paths()[0].read_bytes() != whole[:length]
        assert collect_scores(folder, shards) == score_folder(reward_for(1), folder)


def test_a_torn_shard_of_more_processes_is_read_around(folder, shards):
    for k in range(3):
        score_shard(reward_for(1), folder, shards, process_index=k, num_processes=3)
    path = shards.paths()[2]
    path.write_bytes(path.read_bytes()[:-2])
    assert score_shard(reward_for(1), folder, shards) == 1
    assert len(collect_scores(folder, shards)) == 9


def test_a_finished_run_scores_nothing_and_changes_no_byte(folder, shards):
    score_shard(reward_for(), folder, shards)
    before = shards.paths()[0].read_bytes()
    idle = Counting()
    assert score_shard(idle, folder, shards) == 0
    assert idle.calls == []
    assert shards.paths()[0].read_bytes() == before


def test_scores_of_another_judge_are_refused_until_cleared(folder, shards):
    score_shard(reward_for(), folder, shards)
    other = Shards(folder=shards.folder, header={**HEADER, "judge": "b" * 64, "new": None})
    for use in (lambda: score_shard(reward_for(), folder, other),
                lambda: collect_scores(folder, other)):  # fmt: skip
        with pytest.raises(ScoringMismatchError, match=r"9 scores .* judge was a{12}…, is now b"):
            use()
    other.clear()
    assert score_shard(reward_for(), folder, other) == 9


def test_the_header_tells_judges_and_settings_apart(tmp_path):
    save_judge(tiny_judge(), tmp_path / "one")
    save_judge(tiny_judge(reward_mean=0.3), tmp_path / "mean")
    trained = tiny_judge()
    next(p for name, p in trained.named_parameters() if ".lora_B." in name).data.add_(0.1)
    save_judge(trained, tmp_path / "adapter")
    first = run_header(tmp_path / "one", reward_for())
    assert first == run_header(tmp_path / "one", reward_for(batch_size=1))
    others = {
        "judge's config.json": run_header(tmp_path / "mean", reward_for()),
        "judge's adapter_model.safetensors": run_header(tmp_path / "adapter", reward_for()),
        "dtype": run_header(tmp_path / "one", reward_for().to(dtype=torch.bfloat16)),
        "allow_untrained_geometry": run_header(
            tmp_path / "one", GTSVJReward(tiny_judge(), allow_untrained_geometry=True)
        ),
    }
    for name, other in others.items():
        assert [key for key in first if first[key] != other[key]] == [name]
    assert json.loads(json.dumps(first)) == first


def test_the_header_tells_weights_of_aspects_apart(tmp_path):
    judge = tiny_aspect_judge(stage="preference")
    save_judge(judge, tmp_path / "judge")
    rewards = [
        GTSVJReward(judge, weights=weights)
        for weights in (None, {"clear": 1.0}, {"clear": 2.0}, {"focus": 1.0})
    ]
    headers = [run_header(tmp_path / "judge", reward) for reward in rewards]
    for first, second in itertools.combinations(headers, 2):
        differing = [key for key in first if first[key] != second[key]]
        assert differing == ["weights of aspects"]


def test_changed_latents_are_refused_and_touched_ones_are_not(folder, shards, tmp_path):
    score_shard(reward_for(), folder, shards)
    path = folder.infos[2].path
    os.utime(path, ns=(1, 1))
    assert score_shard(reward_for(), folder, shards) == 0
    write_clip(folder.path, "a/4", time=3, seed=77, source="a/4.mp4")
    with pytest.raises(ScoringMismatchError, match=r"1 latent files .* a/4\.safetensors"):
        score_shard(reward_for(), LatentFolder(folder.path), shards)


def test_latents_of_the_same_size_and_another_content_are_refused(folder, shards):
    score_shard(reward_for(), folder, shards)
    path = folder.infos[2].path
    size, content = path.stat().st_size, path.read_bytes()
    path.write_bytes(content[:-4] + bytes(4))
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    with pytest.raises(ScoringMismatchError, match="1 latent files"):
        score_shard(reward_for(), LatentFolder(folder.path), shards)


def test_new_clips_are_added_and_missing_ones_refused(folder, shards):
    score_shard(reward_for(), folder, shards)
    write_clip(folder.path, "a/1new", seed=50)
    grown = LatentFolder(folder.path)
    assert score_shard(reward_for(), grown, shards) == 1
    assert [clip.latents for clip in collect_scores(grown, shards)][1] == "a/1new.safetensors"
    folder.infos[0].path.unlink()
    with pytest.raises(ScoringMismatchError, match=r"1 finished scores .* a/0\.safetensors"):
        score_shard(reward_for(), LatentFolder(folder.path), shards)


def test_a_process_that_did_not_finish_is_missed(folder, shards):
    score_shard(reward_for(), folder, shards, process_index=1, num_processes=3)
    with pytest.raises(ValueError, match=r"6 of 9 clips .* a/0\.safetensors"):
        collect_scores(folder, shards)
    with pytest.raises(ValueError, match=r"process_index in 0\.\.2, got 3"):
        score_shard(reward_for(), folder, shards, process_index=3, num_processes=3)


def test_damaged_and_double_lines_are_refused_by_number(folder, shards):
    score_shard(reward_for(1), folder, shards)
    path = shards.paths()[0]
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (b"{}\n", b"[1]\n", b"no JSON\n", lines[2].replace(b'"raw"', b'"rav"')):
        path.write_bytes(b"".join([*lines[:2], damaged, *lines[3:]]))
        with pytest.raises(ValueError, match=r"shard-00000\.jsonl:3 is not a record"):
            shards.read()
    path.write_bytes(b"".join([*lines, lines[4]]))
    with pytest.raises(ValueError, match=r"jsonl:11 scores .* a second time"):
        shards.read()


def test_refused_clips_stop_the_run_by_name(folder, shards):
    write_clip(folder.path, "c/long", time=8, seed=1)
    grown = LatentFolder(folder.path)
    with pytest.raises(
        GeometryError, match=r"\(c/long\.safetensors\): latent frames 8 outside 3\.\.7"
    ):
        score_shard(reward_for(), grown, shards)
    allowed = GTSVJReward(tiny_judge(), allow_untrained_geometry=True)
    notes = [clip.untrained_geometry for clip in score_folder(allowed, grown)]
    assert notes == [None] * 9 + ["latent frames 8 outside 3..7"]


def test_the_frame_rate_of_each_clip_is_checked(folder):
    write_clip(folder.path, "c/fast", fps=60.0)
    with pytest.raises(GeometryError, match=r"\(c/fast\.safetensors\): fps 60 outside 8\.\.30"):
        score_folder(reward_for(), LatentFolder(folder.path))


def test_aspects_that_are_no_numbers_are_refused(folder):
    class Broken(WithAspects):
        def score(self, clips, normalize=True):
            out = super().score(clips, normalize)
            out.aspects["motion"][-1] = torch.nan
            return out

    with pytest.raises(NonFiniteError, match=r"b/3\.safetensors: .*nan"):
        score_folder(Broken(tiny_judge()), folder)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_table_holds_what_was_scored(folder, shards, tmp_path, suffix):
    reward = WithAspects(tiny_judge())
    score_shard(reward, folder, shards)
    scored = collect_scores(folder, shards)
    path = tmp_path / f"x{suffix}"
    write_scores(scored, path)
    columns = ["video", "latents", "reward", "raw", "aspect:clear, sharp", "aspect:motion",
               "trajectory", "untrained_geometry"]  # fmt: skip
    table = read_table(path)
    assert list(table.cells) == [*columns, *(["aspect_trajectory"] if suffix == ".jsonl" else [])]
    assert list(table.cells["video"]) == [clip.video for clip in scored]
    for number, clip in enumerate(scored):
        row = {name: cells[number] for name, cells in table.cells.items()}
        assert float(row["raw"]) == clip.raw
        assert float(row["aspect:motion"]) == clip.aspects["motion"] == pytest.approx(clip.raw - 1)
        steps = row["trajectory"] if suffix == ".jsonl" else json.loads(row["trajectory"])
        assert steps == clip.trajectory
        if suffix == ".jsonl":
            doubled = row["aspect_trajectory"]["clear, sharp"]
            assert doubled == pytest.approx([2 * step for step in steps], rel=1e-6)


def test_a_judge_without_statistics_leaves_the_reward_empty(folder, tmp_path):
    scored = score_folder(reward_for(reward_mean=None, reward_std=None), folder)
    write_scores(scored, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert {row["reward"] for row in rows} == {""}
    assert all(row["raw"] for row in rows)


def test_tables_of_other_kinds_or_without_rows_are_refused(folder, tmp_path):
    scored = score_folder(reward_for(), folder)
    with pytest.raises(ValueError, match=r"ends in \.csv or \.jsonl, got .*x\.parquet"):
        write_scores(scored, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="got 0 clips"):
        write_scores([], tmp_path / "x.csv")
    with pytest.raises(ValueError, match="one judge"):
        write_scores([scored[0], replace(scored[1], aspects={"motion": 1.0})], tmp_path / "x.csv")
