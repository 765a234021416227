"""A benchmark's videos scored by a judge, each once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from gtsvj_reward import GTSVJReward
from gtsvj_reward.evaluation import read_scores
from gtsvj_reward.files import whole_lines
from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents import LatentClip, LatentFolder, load_clip, save_clip
from gtsvj_reward.locks import FolderInUseError, folder_lock
from gtsvj_reward.reward import GeometryError, PromptEncoder
from gtsvj_reward.reward.text_store import write_texts
from gtsvj_reward.scoring import score_clips
from gtsvj_reward.scoring.groups import read_groups
from gtsvj_reward.scoring.shards import ScoringMismatchError
from tests.pipelines import cogvideox, frozen
from tests.test_files import full_disk
from tests.tiny import clips, tiny_judge, tiny_space
from tests.training.clips import write_clips


@pytest.fixture
def folder(tmp_path):
    """Three lengths, two frame rates."""
    for index, (time, fps) in enumerate([(5, 8.0), (7, 8.0), (5, 16.0), (5, 8.0), (3, 8.0)]):
        clip = LatentClip(
            latents=clips(1, time, seed=index)[0],
            space=tiny_space(),
            fps=fps,
            num_frames=tiny_space().video_frames(time),
            source=f"model/{4 - index}.mp4",
        )
        save_clip(tmp_path / "latents" / f"{index}.safetensors", clip)
    return LatentFolder(tmp_path / "latents")


def score(reward, folder, out):
    """As the command does, with the judge's own checkpoint."""
    save_judge(reward.judge, out.parent / "judge")
    return score_clips(reward, folder, out, checkpoint=out.parent / "judge", progress=False)


def direct(reward, info, **options):
    clip = load_clip(info.path)
    return reward.details(clip.latents[None], space=clip.space, fps=clip.fps, **options)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_table_holds_what_the_judge_says(tmp_path, folder, batch_size):
    reward = GTSVJReward(tiny_judge(), batch_size=batch_size)
    path = score(reward, folder, tmp_path / "s.csv")
    table = read_scores(path)
    assert list(table.columns["reward"]) == [f"model/{4 - i}.mp4" for i in range(5)], "each once"
    for info in folder.infos:
        out = direct(reward, info)
        assert table.columns["reward"][info.source] == pytest.approx(out.rewards.item(), abs=1e-5)
        assert table.columns["raw"][info.source] == pytest.approx(out.raw.item(), abs=1e-5)
    assert len(set(table.columns["raw"].values())) == 5, "all alike: the test proves nothing"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["judge", "latents", "s-shards", "s.csv"]


def test_one_run_at_a_time_and_a_full_disk_loses_nothing(tmp_path, folder):
    reward, out = GTSVJReward(tiny_judge(), batch_size=1), tmp_path / "s.csv"
    with (
        ThreadPoolExecutor(1) as other,
        folder_lock(tmp_path / "s-shards"),
        pytest.raises(FolderInUseError, match="s-shards"),
    ):
        other.submit(score, reward, folder, out).result()
    save_judge(reward.judge, tmp_path / "judge")
    with full_disk(1500), pytest.raises(OSError, match=r"shard-00000\.jsonl could not be written"):
        score_clips(reward, folder, out, checkpoint=tmp_path / "judge", progress=False)
    (shard,) = (tmp_path / "s-shards").iterdir()
    before = whole_lines(shard)
    assert 1 < len(before) < 6, "a header and some clips: the test proves nothing otherwise"
    score_clips(reward, folder, out, checkpoint=tmp_path / "judge", progress=False)
    assert whole_lines(shard)[: len(before)] == before
    assert len(read_scores(out).columns["raw"]) == 5


def test_a_judge_without_statistics_has_raw_scores_only(tmp_path, folder):
    reward = GTSVJReward(tiny_judge(reward_mean=None, reward_std=None))
    table = read_scores(score(reward, folder, tmp_path / "s.jsonl"))
    assert list(table.columns) == ["raw"]
    assert table.default_column() == "raw"


class StopError(Exception):
    pass


def test_a_stopped_run_goes_on_where_it_was(tmp_path, folder, monkeypatch):
    reward = GTSVJReward(tiny_judge(), batch_size=1)
    calls = []

    def score_of(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise StopError
        return GTSVJReward.score(reward, *args, **options)

    monkeypatch.setattr(reward, "score", score_of)
    with pytest.raises(StopError):
        score(reward, folder, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()
    score(reward, folder, tmp_path / "s.csv")
    assert len(calls) == 3 + 3, "two of five were done"
    whole = score(GTSVJReward(tiny_judge(), batch_size=1), folder, tmp_path / "whole.csv")
    assert (tmp_path / "s.csv").read_bytes() == whole.read_bytes()


def test_a_refused_clip_is_named(tmp_path):
    write_clips(tmp_path / "latents", 1, time=9)
    folder = LatentFolder(tmp_path / "latents")
    reward = GTSVJReward(tiny_judge())
    with pytest.raises(GeometryError, match=r"clip 0 \(00\.safetensors\): latent frames"):
        score(reward, folder, tmp_path / "s.csv")
    allowed = GTSVJReward(tiny_judge(), allow_untrained_geometry=True)
    path = score(allowed, folder, tmp_path / "allowed.jsonl")
    row = json.loads(path.read_text())
    assert "latent frames 9 outside 3..7" in row["untrained_geometry"]


def test_no_clips_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="expected latent files that name their source video"):
        score(GTSVJReward(tiny_judge()), folder.only([]), tmp_path / "s.csv")


def test_a_judge_that_reads_prompts_needs_them_beside_the_latents(tmp_path, folder):
    reward = GTSVJReward(tiny_judge(text_input="prompt"))
    with pytest.raises(ValueError, match=r"\(text_input='prompt'\), but none are stored beside"):
        score(reward, folder, tmp_path / "s.csv")
    said = {f"model/{index}.mp4": ("a dog", "a red square")[index % 2] for index in range(5)}
    encoder = PromptEncoder(frozen(cogvideox))
    sources = [info.source for info in folder.infos]
    assert write_texts(folder.path, sources, said, encoder) == 2
    path = score(reward, folder, tmp_path / "s.csv")
    table, prompts = read_scores(path), read_groups(path)
    assert prompts == said
    for info in folder.infos:
        out = direct(reward, info, text=encoder([said[info.source]]))
        assert table.columns["raw"][info.source] == pytest.approx(out.raw.item(), abs=1e-5)
    write_texts(folder.path, sources, dict.fromkeys(sources, "a dog"), encoder)
    with pytest.raises(ScoringMismatchError, match="prompts was"):
        score(reward, folder, tmp_path / "s.csv")
