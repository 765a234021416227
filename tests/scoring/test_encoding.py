"""Folders of videos on their way to a judge."""

import pytest
import torch

from gtsvj_reward.latents import LatentFileError, LatentSpace, LatentSpaceError, write_video
from gtsvj_reward.reward.encoding import Reading
from gtsvj_reward.scoring.encoding import check_complete, encode_for, folder_kind
from tests.tiny import tiny_judge
from tests.training.clips import write_clips

READING = Reading(fps=8.0, height=32, width=48, num_frames=9)


def write_videos(folder, names=("p", "q"), frames=9):
    for index, name in enumerate(names):
        clip = torch.full((frames, 32, 48, 3), 30 + 50 * index, dtype=torch.uint8)
        write_video(folder / name, clip, 8.0)


def config_for(vae, **changes):
    return tiny_judge(latent_space=LatentSpace.from_vae(vae), **changes).config


def test_a_folder_is_of_one_kind(tmp_path):
    write_clips(tmp_path / "latents", 2)
    write_videos(tmp_path / "videos")
    assert folder_kind(tmp_path / "latents") == "latents"
    assert folder_kind(tmp_path / "videos") == "videos"
    with pytest.raises(ValueError, match="holds both latent files"):
        folder_kind(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither latent files"):
        folder_kind(tmp_path / "empty")
    with pytest.raises(ValueError, match="no folder"):
        folder_kind(tmp_path / "nothing")


def test_encoding_gives_one_latent_file_per_video(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    config = config_for(tiny_vae)
    for index in range(2):
        encode_for(
            config,
            tmp_path / "videos",
            tmp_path / "latents",
            vae=tiny_vae,
            reading=READING,
            frames_fps=8.0,
            process_index=index,
            num_processes=2,
        )
    check_complete(tmp_path / "videos", tmp_path / "latents")
    write_videos(tmp_path / "videos", ["r"])
    with pytest.raises(LatentFileError, match=r"2 latent files for 3 videos .*'r'"):
        check_complete(tmp_path / "videos", tmp_path / "latents")
    write_clips(tmp_path / "latents" / "more", 1)
    with pytest.raises(LatentFileError):
        check_complete(tmp_path / "videos", tmp_path / "latents")


def test_a_latent_file_too_many_is_noticed(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    encode_for(config_for(tiny_vae), tmp_path / "videos", tmp_path / "latents", vae=tiny_vae,
               reading=READING, frames_fps=8.0)  # fmt: skip
    first = tmp_path / "latents" / "p.safetensors"
    (tmp_path / "latents" / "again.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(LatentFileError, match="3 latent files for 2 videos"):
        check_complete(tmp_path / "videos", tmp_path / "latents")


def test_a_foreign_vae_is_refused_by_name_before_anything_is_encoded(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    with pytest.raises(LatentSpaceError, match=r"scores latents of `tiny` .* makes latents of `"):
        encode_for(tiny_judge().config, tmp_path / "videos", tmp_path / "latents", vae=tiny_vae,
                   reading=READING, frames_fps=8.0)  # fmt: skip
    assert not (tmp_path / "latents").exists()


def test_latents_do_not_go_among_the_videos(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    with pytest.raises(ValueError, match="inside the folder of videos"):
        encode_for(config_for(tiny_vae), tmp_path / "videos", tmp_path / "videos" / "x-latents",
                   vae=tiny_vae, reading=READING, frames_fps=8.0)  # fmt: skip


def test_an_unreadable_video_stops_the_run(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"1 videos cannot be read .*broken\.mp4"):
        encode_for(config_for(tiny_vae), tmp_path / "videos", tmp_path / "latents", vae=tiny_vae,
                   reading=READING, frames_fps=8.0)  # fmt: skip
