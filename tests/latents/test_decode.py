import json

import pytest
import torch

from gtsvj_reward.latents import LatentClip, decode_folder, load_clip, read_video, save_clip
from gtsvj_reward.latents.decode import video_path
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.locks import FolderInUseError, folder_lock
from gtsvj_reward.tables import read_table


def write(folder, vae, name, seed, **settings):
    space = LatentSpace.from_vae(vae)
    latents = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(seed))
    clip = LatentClip(
        latents=latents, space=space, fps=8.0, num_frames=9, source=name, settings=settings
    )
    save_clip(folder / f"{name}.safetensors", clip)
    return latents, space


def test_videos_show_what_the_latents_hold(tmp_path, tiny_vae):
    latents, space = write(tmp_path / "l", tiny_vae, "a/x", 0, prompt="a dog")
    write(tmp_path / "l", tiny_vae, "y.mov", 1)
    report = decode_folder(tmp_path / "l", tmp_path / "v", vae=tiny_vae, progress=False)
    assert [path.relative_to(tmp_path / "v").as_posix() for path in report.decoded] == [
        "a/x.mp4",
        "y.mp4",
    ]
    with torch.no_grad():
        frames = space.decode(latents[None], tiny_vae)[0]  # (time, channel, height, width)
    shown = read_video(tmp_path / "v" / "a/x.mp4", fps=8, height=32, width=48, num_frames=9).frames
    expected = 255 * frames.permute(0, 2, 3, 1)
    assert expected.std() > 5, "a flat clip would prove nothing"
    # H.264 halves the colour's resolution; noise has all of it at the finest scale.
    grey, wanted = shown.float().mean(-1), expected.mean(-1)
    assert (grey - wanted).abs().mean() < 0.25 * wanted.std()
    table = read_table(tmp_path / "v" / "prompts.csv")
    assert dict(zip(table.column("video").cells, table.column("prompt").cells, strict=True)) == {
        "a/x.mp4": "a dog"
    }


def test_a_second_run_decodes_what_changed_alone(tmp_path, tiny_vae):
    write(tmp_path / "l", tiny_vae, "x", 0)
    write(tmp_path / "l", tiny_vae, "y", 1)
    decode_folder(tmp_path / "l", tmp_path / "v", vae=tiny_vae, progress=False)
    write(tmp_path / "l", tiny_vae, "y", 2)
    again = decode_folder(tmp_path / "l", tmp_path / "v", vae=tiny_vae, progress=False)
    assert [path.name for path in again.decoded] == ["y.mp4"]
    assert [path.name for path in again.already_done] == ["x.mp4"]
    assert set(json.loads((tmp_path / "v" / "decoded.json").read_text())) == {"x.mp4", "y.mp4"}


def test_names_that_would_collide_are_refused(tmp_path, tiny_vae):
    write(tmp_path / "l", tiny_vae, "x.mov", 0)
    write(tmp_path / "l", tiny_vae, "x.avi", 1)
    with pytest.raises(ValueError, match=r"2 latent files .* would become 1 videos"):
        decode_folder(tmp_path / "l", tmp_path / "v", vae=tiny_vae, progress=False)
    assert video_path(tmp_path, tmp_path / "b.c.safetensors").name == "b.c.mp4"


def test_another_run_and_another_vae_are_refused(tmp_path, tiny_vae):
    write(tmp_path / "l", tiny_vae, "x", 0)
    path = tmp_path / "l" / "x.safetensors"
    with folder_lock(tmp_path / "v"), pytest.raises(FolderInUseError):
        decode_elsewhere(tmp_path, tiny_vae)
    clip = load_clip(path)
    other = LatentSpace.from_dict({**clip.space.to_dict(), "scaling_factor": 3.0})
    save_clip(path, LatentClip(latents=clip.latents, space=other, fps=8.0, num_frames=9))
    with pytest.raises(LatentSpaceError, match="load the VAE of this space"):
        decode_folder(tmp_path / "l", tmp_path / "v", vae=tiny_vae, progress=False)


def decode_elsewhere(folder, vae):
    """In another thread: the one that holds a lock may take it again."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(decode_folder, folder / "l", folder / "v", vae=vae, progress=False).result()
