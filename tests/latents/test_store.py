"""Latent files: what is stored comes back, and what is not sound is refused."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from gtsvj_reward.latents import (
    LatentClip,
    LatentFileError,
    LatentFolder,
    LatentSpace,
    LatentSpaceError,
    clip_info,
    load_clip,
    save_clip,
)

SPACE = LatentSpace(id="a", channels=4, scaling_factor=0.7, patch_size_t=2)


def a_clip(seed=0, **changes):
    latents = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(seed))
    fields = {"space": SPACE, "fps": 8.0, "num_frames": 9, "settings": {"height": 16}}
    return LatentClip(**{"latents": latents, **fields, **changes})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_comes_back(tmp_path, dtype):
    clip = a_clip(source="a/x.mp4", source_sha256="0" * 64)
    clip = a_clip(latents=clip.latents.to(dtype), source="a/x.mp4", source_sha256="0" * 64)
    save_clip(tmp_path / "deep" / "x.safetensors", clip)
    back = load_clip(tmp_path / "deep" / "x.safetensors")
    assert torch.equal(back.latents, clip.latents)
    assert back.latents.dtype == dtype
    assert {**vars(back), "latents": 0} == {**vars(clip), "latents": 0}
    info = clip_info(tmp_path / "deep" / "x.safetensors")
    assert info.shape == (3, 4, 2, 5)
    assert (info.space, info.fps, info.num_frames, info.source) == (SPACE, 8.0, 9, "a/x.mp4")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


def test_headers_of_any_length_are_read(tmp_path):
    # The first byte of safetensors is the low byte of a length, and 128 is how pickles start.
    starts = set()
    for length in range(0, 264, 4):
        save_clip(tmp_path / "x.safetensors", a_clip(source="x" * length))
        starts.add((tmp_path / "x.safetensors").read_bytes()[0])
        load_clip(tmp_path / "x.safetensors")
        clip_info(tmp_path / "x.safetensors")
    assert 0x80 in starts


def rewritten(path, tensors=None, **changes):
    """A sound file with parts of its record changed ("absent": taken out)."""
    save_clip(path, a_clip())
    with safe_open(path, "pt") as opened:
        record = json.loads(opened.metadata()["gtsvj_latents"])
    record = {k: v for k, v in {**record, **changes}.items() if v != "absent"}
    tensors = load_file(path) if tensors is None else tensors
    save_file(tensors, path, {"gtsvj_latents": json.dumps(record)})


GOOD = torch.randn(3, 4, 2, 5)


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        (None, {"version": 2}, "of version 2"),
        (None, {"fps": "absent"}, "expected version 1 with"),
        (None, {"space": {"id": "a"}}, "missing keys"),
        (None, {"num_frames": 13}, "13 frames are 4 latent frames"),
        ({"x": GOOD}, {}, "one tensor `latents`"),
        ({"latents": GOOD, "x": GOOD + 1}, {}, "one tensor `latents`"),
        ({"latents": GOOD[0]}, {}, r"\(time, 4, height, width\) of `a`, got shape \(4, 2, 5\)"),
        ({"latents": GOOD[:, :3].clone()}, {}, r"got shape \(3, 3, 2, 5\)"),
        ({"latents": GOOD / 0}, {}, "non-finite"),
    ],
)
def test_unsound_files_are_refused(tmp_path, tensors, changes, message):
    path = tmp_path / "x.safetensors"
    rewritten(path, tensors, **changes)
    with pytest.raises(LatentFileError, match=message) as caught:
        load_clip(path)
    assert str(path) in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors"):
        load_clip(path)
    torch.save({"latents": GOOD}, path)
    with pytest.raises(LatentFileError, match="looks like a pickle"):
        load_clip(path)
    path.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(LatentFileError, match="looks like a pickle"):
        clip_info(path)
    path.write_bytes(b"hello")
    with pytest.raises(LatentFileError, match="not a whole safetensors file"):
        load_clip(path)
    save_file({"latents": GOOD}, path)
    with pytest.raises(LatentFileError, match="no `gtsvj_latents` metadata"):
        load_clip(path)
    save_clip(path, a_clip())
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(LatentFileError, match="cut short"):
            load_clip(path)
        with pytest.raises(LatentFileError, match="cut short"):
            clip_info(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": GOOD * float("nan")}, "non-finite"),
        ({"latents": GOOD[:, :3]}, "expected 4 latent channels"),
        ({"num_frames": 13}, "remove padding with `LatentSpace.unpad`"),
    ],
)
def test_unsound_clips_are_not_written(tmp_path, changes, message):
    with pytest.raises(LatentSpaceError, match=message):
        save_clip(tmp_path / "x.safetensors", a_clip(**changes))
    assert list(tmp_path.iterdir()) == []


def test_folder_is_sorted_and_lazy(tmp_path):
    for seed, name in enumerate(("b/x", "a/y", "a/x")):
        save_clip(tmp_path / f"{name}.safetensors", a_clip(seed, source=name))
    folder = LatentFolder(tmp_path)
    assert len(folder) == 3
    assert [clip.source for clip in folder] == ["a/x", "a/y", "b/x"]
    assert [info.source for info in folder.infos] == ["a/x", "a/y", "b/x"]
    assert folder.space == SPACE
    assert torch.equal(folder[-1].latents, a_clip(0).latents)
    assert [clip.source for clip in folder[1:]] == ["a/y", "b/x"]
    save_clip(tmp_path / "a" / "x.safetensors", a_clip(7))
    assert torch.equal(folder[0].latents, a_clip(7).latents), "values were read too early"


def test_folder_of_two_spaces_or_none(tmp_path):
    with pytest.raises(ValueError, match="no latent files"):
        LatentFolder(tmp_path)
    save_clip(tmp_path / "x.safetensors", a_clip())
    other = LatentSpace(id="mine", channels=4, scaling_factor=0.7)
    save_clip(tmp_path / "y.safetensors", a_clip(space=other))
    with pytest.raises(
        LatentFileError, match=r"x\.safetensors is of `a` .*y\.safetensors of `mine`"
    ):
        LatentFolder(tmp_path)
    padded_otherwise = LatentSpace(id="b", vae="a", channels=4, scaling_factor=0.7)
    save_clip(tmp_path / "y.safetensors", a_clip(space=padded_otherwise))
    assert len(LatentFolder(tmp_path)) == 2
