"""Features of frozen blocks on disk: runs that read them are the runs that do not."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents.files import UnsoundFileError, read_safetensors
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.training import DiscriminatorConfig, JudgeArguments, run
from gtsvj_reward.training.features import ClipFeatures, content_key, feature_folder
from tests.conftest import clips, tiny_judge, tiny_transformer
from tests.training.conftest import write_clips
from tests.training.stages import COMMON, aspect_args, train_aspects, train_preference

ONE = {"per_device_train_batch_size": 1}


@pytest.fixture
def calls(monkeypatch):
    """Number of times that each of a tiny judge's blocks was run, by index."""
    counts = {}
    plain = torch.nn.Module.__call__

    def counting(self, *args, **kwargs):
        if type(self).__name__ == "CogVideoXBlock":
            counts[id(self)] = counts.get(id(self), 0) + 1
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", counting)
    return lambda judge: [counts.get(id(b), 0) for b in judge.backbone.transformer_blocks]


def weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.judge.named_parameters() if p.requires_grad}


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    torch.testing.assert_close(first, second, **(tolerance or {"rtol": 0, "atol": 0}))


def stored(cache):
    return sorted(file.stem for file in Path(cache).rglob("*.safetensors"))


def keys_of(infos):
    return sorted({content_key(load_clip(info.path).latents) for info in infos})


def assert_right(cache, judge, infos):
    """What is stored of each clip is what leaves its own frozen blocks; how many there are."""
    folder = feature_folder(Path(cache), judge, None)
    found = 0
    for info in infos:
        latents = load_clip(info.path).latents
        stored_now = folder.of(latents).tensors
        if stored_now is not None:
            with torch.no_grad(), judge.backbone.at_boundary(folder.frozen) as boundary:
                judge(latents[None])
            for ours, stream in zip(stored_now, boundary.seen, strict=True):
                torch.testing.assert_close(ours, stream[0], rtol=1e-3, atol=1e-4)
            found += 1
    return found


def test_clip_by_clip_nothing_changes_to_the_bit(world, tmp_path, calls):
    """Twelve clips to train on and four held out, two epochs and a half."""
    settings = {**ONE, "max_steps": 30}
    plain = train_aspects(world, output_dir=str(tmp_path / "a"), **settings)
    cache = str(tmp_path / "cache")
    filling = train_aspects(world, output_dir=str(tmp_path / "b"), feature_cache=cache, **settings)
    assert_same(weights(plain), weights(filling))
    assert stored(cache) == keys_of(LatentFolder(world / "rated").infos)
    reading = train_aspects(world, output_dir=str(tmp_path / "c"), feature_cache=cache, **settings)
    assert_same(weights(plain), weights(reading))
    logs = [trainer.state.log_history for trainer in (plain, filling, reading)]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1] == losses[2]
    assert plain.judge.config.reward_mean == reading.judge.config.reward_mean
    # 4 blocks, LoRA on the last: 30 steps, 4 clips evaluated, the same 4 for the score's scale.
    assert calls(plain.judge) == [38] * 4
    # One more for the disk cost; each clip's frozen blocks once.
    assert calls(filling.judge) == [1 + 16] * 3 + [39]
    assert calls(reading.judge) == [1] * 3 + [39]


def test_batches_differ_by_rounding_and_cut_clips_are_not_kept(world, tmp_path):
    settings = {"max_steps": 9, "truncation_probability": 0.5, "dataloader_num_workers": 2}
    plain = train_aspects(world, output_dir=str(tmp_path / "a"), **settings)
    cache = str(tmp_path / "cache")
    for name in ("b", "c"):
        cached = train_aspects(
            world, output_dir=str(tmp_path / name), feature_cache=cache, **settings
        )
        assert_same(weights(plain), weights(cached), rtol=1e-4, atol=1e-5)
    infos = LatentFolder(world / "rated").infos
    assert set(stored(cache)) <= set(keys_of(infos))
    assert 8 < assert_right(cache, cached.judge, infos) == len(stored(cache))


def test_comparisons_read_them_too(world, tmp_path, calls):
    train_aspects(world)
    cache, settings = str(tmp_path / "cache"), {**ONE, "truncation_probability": 0.4}
    plain = train_preference(world, output_dir=str(tmp_path / "a"), max_steps=12, **settings)
    for name in ("b", "c"):
        cached = train_preference(
            world,
            output_dir=str(tmp_path / name),
            feature_cache=cache,
            max_steps=12,
            **settings,
        )
        # A pair whose clips are stored both, or neither, is a batch of two either way; others
        # differ by rounding.
        assert_same(weights(plain), weights(cached), rtol=1e-4, atol=1e-6)
    frozen, own = calls(cached.judge)[0], calls(cached.judge)[-1]
    assert 1 < frozen < own / 2, "cut pairs alone run all blocks"
    infos = LatentFolder(world / "compared").infos
    assert set(stored(cache)) <= set(keys_of(infos))
    assert 8 < assert_right(cache, cached.judge, infos) == len(stored(cache))


def test_the_discriminator_keeps_whole_reals_and_generated_clips(base, tmp_path):
    write_clips(tmp_path / "real", 8)
    write_clips(tmp_path / "generated", 8, seed=50)

    def train(name, **changes):
        args = DiscriminatorConfig(
            **{**COMMON, "max_steps": 12, "per_device_train_batch_size": 1},
            real=str(tmp_path / "real"),
            generated=str(tmp_path / "generated"),
            output_dir=str(tmp_path / name),
            truncation_probability=0.3,
            **changes,
        )
        arguments = JudgeArguments(base_model=str(base), head_width=16)
        return run.train_discriminator(arguments, args)

    plain, cache = train("a"), str(tmp_path / "cache")
    for name in ("b", "c"):
        cached = train(name, feature_cache=cache)
        assert_same(weights(plain), weights(cached), rtol=1e-4, atol=1e-6)
    whole = [*LatentFolder(tmp_path / "real").infos, *LatentFolder(tmp_path / "generated").infos]
    kept = set(stored(cache))
    assert kept <= set(keys_of(whole))
    assert assert_right(cache, cached.judge, whole) == len(kept)
    for part in (whole[:8], whole[8:]):
        assert kept & set(keys_of(part)), "reals and generated clips are kept"


def test_resumed_runs_go_on_with_the_folder(world, tmp_path):
    settings = {**ONE, "max_steps": 12, "save_strategy": "steps", "save_steps": 5}
    plain = train_aspects(world, output_dir=str(tmp_path / "a"), **settings)
    cache = str(tmp_path / "cache")
    resumed = train_aspects(
        world,
        output_dir=str(tmp_path / "b"),
        feature_cache=cache,
        resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"),
        **settings,
    )
    assert_same(weights(plain), weights(resumed))


def test_half_precision_has_features_of_its_own(world, tmp_path):
    settings = {**ONE, "max_steps": 14, "bf16": True}
    plain = train_aspects(world, output_dir=str(tmp_path / "a"), **settings)
    cache = tmp_path / "cache"
    for name in ("b", "c"):
        cached = train_aspects(
            world, output_dir=str(tmp_path / name), feature_cache=str(cache), **settings
        )
        assert_same(weights(plain), weights(cached))
    regions = {json.loads(f.read_text())["autocast"] for f in cache.glob("*/key.json")}
    assert regions == {"torch.bfloat16", "None"}


def test_the_cost_is_said_first_and_is_what_is_written(world, tmp_path, caplog):
    cache = tmp_path / "cache"
    with caplog.at_level(logging.WARNING):
        train_aspects(world, feature_cache=str(cache), **ONE, max_steps=12)
    said = next(m for m in caplog.messages if "feature_cache" in m)
    files = list(cache.rglob("*.safetensors"))
    written = sum(t.nbytes for f in files for t in read_safetensors(f)[0].values())
    assert f"features of up to 16 clips take {written / 1e6:.2f} MB " in said
    latents = sum(torch.Size(i.shape).numel() * 4 for i in LatentFolder(world / "rated").infos)
    assert f"({written / latents:.0f} times their latents)" in said


def test_a_disk_that_is_too_small_is_refused_before_training(world, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"0\.00 MB are free at .*choose a larger disk"):
        train_aspects(world, feature_cache=str(tmp_path / "cache"))


def test_damaged_features_are_refused_by_name(world, tmp_path):
    cache = tmp_path / "cache"
    train_aspects(world, feature_cache=str(cache), **ONE, max_steps=12)
    for file in cache.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UnsoundFileError, match="not a whole safetensors file"):
        train_aspects(world, output_dir=str(tmp_path / "b"), feature_cache=str(cache), **ONE)


def test_judges_whose_first_block_has_an_adapter_are_refused(world, tmp_path, base):
    judge = tiny_judge(base_model=str(base), head_width=16, lora_placement="all")
    save_judge(judge, tmp_path / "everywhere")
    with pytest.raises(ValueError, match=r"lora_placement='all'.*nothing frozen"):
        train_aspects(
            world,
            from_judge=str(tmp_path / "everywhere"),
            feature_cache=str(tmp_path / "cache"),
        )


def test_compiled_judges_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="exclude each other"):
        aspect_args(world, feature_cache=str(tmp_path / "cache"), torch_compile=True)


def test_dropout_is_refused(tmp_path):
    judge = tiny_judge()
    judge.backbone.transformer_blocks[0].ff.net[1].p = 0.1
    with pytest.raises(ValueError, match=r"transformer_blocks\.0\.ff\.net\.1 .* is a dropout"):
        feature_folder(tmp_path, judge, None)


def test_judges_share_a_folder_only_if_their_frozen_blocks_say_the_same(tmp_path):
    def path(judge, autocast=None):
        return feature_folder(tmp_path, judge, autocast).path

    first = path(tiny_judge())
    same = tiny_judge(head_width=32, lora_rank=4)
    assert path(same) == first, "head and adapter stand above the boundary"
    changes = [
        {"timestep": 100.0},
        {"depth": 3},
        {"latent_pooling": 2},
        {"temporal_stride": 2},
        {"text_tokens": 3},
        {"lora_placement": "middle"},
        {"kind": "5b"},
    ]
    others = [path(tiny_judge(**change)) for change in changes]
    others.append(path(tiny_judge(), torch.bfloat16))
    others.append(path(tiny_judge(transformer=tiny_transformer().bfloat16())))
    assert len({first, *others}) == 1 + len(others)


def test_a_clip_is_known_by_its_content(tmp_path):
    judge = tiny_judge()
    folder = feature_folder(tmp_path, judge, None)
    first, second = clips(2)
    known = folder.of(first)
    assert known.tensors is None
    with torch.no_grad():
        folder.judge(judge, [first, second], [known, ClipFeatures()])
    assert stored(tmp_path) == [known.key]
    assert folder.of(first.clone()).tensors is not None
    other = first.clone()
    other[-1, -1, -1, -1] += 1e-6
    assert folder.of(other).tensors is None
    assert content_key(first) != content_key(first.flatten(0, 1)), "the shape counts"
