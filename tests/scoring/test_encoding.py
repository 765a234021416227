"""Folders of videos on their way to a judge."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.latents import (
    LatentFileError,
    LatentFolder,
    LatentSpace,
    LatentSpaceError,
    clip_info,
    encode_folder,
    read_video,
    write_video,
)
from gtsvj_reward.reward.encoding import Reading
from gtsvj_reward.scoring.encoding import (
    check_complete,
    encode_for,
    folder_kind,
    refuse_left_out,
)
from gtsvj_reward.scoring.folder import score_folder
from gtsvj_reward.scoring.groups import folder_groups
from gtsvj_reward.scoring.pictures import source_frames
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
    with pytest.raises(ValueError, match="not a folder"):
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


def test_each_video_must_be_readable_and_long_enough(tmp_path, tiny_vae):
    write_videos(tmp_path / "videos")
    write_videos(tmp_path / "videos", ["short"], frames=5)

    def report(reading=READING):
        out = tmp_path / f"latents-{reading.at_most}"
        return encode_for(config_for(tiny_vae), tmp_path / "videos", out, vae=tiny_vae,
                          reading=reading, frames_fps=8.0)  # fmt: skip

    with pytest.raises(ValueError, match=r"1 videos .* the first is \S+short: .* needed 9"):
        refuse_left_out([report()])
    refuse_left_out([report(replace(READING, at_most=True))])
    frames = {
        info.source: info.num_frames for info in LatentFolder(tmp_path / "latents-True").infos
    }
    assert frames == {"p": 9, "q": 9, "short": 5}
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"2 videos cannot be read, .*broken\.mp4"):
        refuse_left_out([report()])


def test_clips_of_two_folders_are_told_apart_and_shown(tmp_path, tiny_vae):
    """`latents/real` and `latents/generated`, each encoded on its own, as the README does."""
    for index, kind in enumerate(("real", "generated")):
        names = ["p", "only"] if index else ["only", "p"]  # `p` differs in brightness
        write_videos(tmp_path / "videos" / kind, names)
        encode_folder(tmp_path / "videos" / kind, tmp_path / "latents" / kind, vae=tiny_vae,
                      space=LatentSpace.from_vae(tiny_vae), fps=8, height=32, width=48,
                      frames_fps=8, progress=False)  # fmt: skip
    judge = tiny_judge(latent_space=LatentSpace.from_vae(tiny_vae), geometry=None)
    reward = GTSVJReward(judge, allow_untrained_geometry=True)
    scored = score_folder(reward, LatentFolder(tmp_path / "latents"), progress=False)
    videos = [clip.video for clip in scored]
    assert videos == ["generated/only", "generated/p", "real/only", "real/p"]
    assert set(folder_groups(videos).values()) == {"real", "generated"}
    for clip in scored:
        info = clip_info(tmp_path / "latents" / clip.latents)
        frames = source_frames(info, tmp_path / "videos", clip.video)
        assert frames.float().mean() == read_video(
            tmp_path / "videos" / clip.video, fps=8, height=32, width=48, frames_fps=8
        ).frames.float().mean()  # fmt: skip
    # The very folder that was encoded, and one that has a video of that name on both levels.
    info = clip_info(tmp_path / "latents" / "real" / "p.safetensors")
    right = source_frames(info, tmp_path / "videos" / "real", "real/p")
    write_videos(tmp_path / "videos", ["p"])
    assert torch.equal(source_frames(info, tmp_path / "videos", "real/p"), right)
    write_videos(tmp_path / "videos" / "real" / "real", ["p"])
    assert torch.equal(source_frames(info, tmp_path / "videos" / "real", "real/p"), right)
