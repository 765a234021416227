"""Reference images kept beside latent clips."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gtsvj_reward.cli import main
from gtsvj_reward.latents import LatentFolder, read_video, write_video
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import LatentClip, save_clip
from gtsvj_reward.reward.image_store import (
    ImageStore,
    ImageStoreError,
    first_frames,
    pictures_in,
    pictures_of_folder,
    read_picture,
    write_images,
)
from gtsvj_reward.reward.images import ImageEncoder
from tests.pipelines import cogvideox_image, frozen, wan_image

SIZE = {"height": 32, "width": 48}


def picture(seed, height=32, width=48):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def write_shown(folder, pipe, count=3, steps=3):
    """Clips of noise, and a picture for each in a folder beside theirs."""
    space = LatentSpace.from_vae(pipe.vae)
    pictures = folder.parent / f"{folder.name}-pictures"
    pictures.mkdir(parents=True)
    for index in range(count):
        latents = torch.randn(
            steps, space.channels, 4, 6, generator=torch.Generator().manual_seed(index)
        )
        save_clip(
            folder / f"{index}.mp4.safetensors",
            LatentClip(latents=latents, space=space, fps=8.0, source=f"{index}.mp4",
                       num_frames=space.video_frames(steps), source_sha256=str(index)),
        )  # fmt: skip
        picture(index).save(pictures / f"{index}.png")
    return LatentFolder(folder), pictures_in(pictures_of_folder(pictures))


@pytest.mark.parametrize("make", [cogvideox_image, wan_image])
def test_what_is_fed_comes_back_bitwise(tmp_path, make):
    pipe = frozen(make)
    folder, pictures = write_shown(tmp_path / "latents", pipe)
    encoder = ImageEncoder(pipe)
    assert write_images(folder.path, pictures, encoder) == 3
    assert write_images(folder.path, pictures, encoder) == 0, "they are there already"
    found = ImageStore.beside(folder.path).image_of(folder.infos)
    expected = encoder([picture(index) for index in range(3)], **SIZE, num_frames=9)
    assert found.kind == expected.kind
    assert torch.equal(found.latents, expected.latents)
    assert found.embeds is expected.embeds is None or torch.equal(found.embeds, expected.embeds)
    assert len(LatentFolder(folder.path)) == 3, "images are no latent files"


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path):
    pipe = frozen(cogvideox_image)
    folder, pictures = write_shown(tmp_path / "latents", pipe)
    encoder = ImageEncoder(pipe)
    assert ImageStore.beside(folder.path) is None
    two = {name: pictures[name] for name in ("0", "1")}
    with pytest.raises(ImageStoreError, match=r"1 of 3 clips have no image, the first is 2\.mp4"):
        write_images(folder.path, two, encoder)
    with pytest.raises(ImageStoreError, match="the VAE of the image encoder is that of"):
        write_images(folder.path, pictures, ImageEncoder(frozen(wan_image)))
    write_images(folder.path, pictures, encoder)
    encoder.family = "Other"
    with pytest.raises(ImageStoreError, match=r"for a CogVideoX.*, these are for a Other"):
        write_images(folder.path, pictures, encoder)
    kept = folder.path / "images"
    store = ImageStore(kept)
    first, second = folder.infos[:2]
    small = torch.zeros(3, first.shape[1], 4, 4)
    save_clip(first.path, LatentClip(latents=small, space=first.space, fps=8.0, num_frames=9,
                                     source="0.mp4", source_sha256="0"))  # fmt: skip
    with pytest.raises(ImageStoreError, match=r"0\.png\) is \(4, 4, 6\) .*, its clip \(4, 4, 4\)"):
        store.read(LatentFolder(folder.path).infos[0])
    store.file_of(second).unlink()
    with pytest.raises(ImageStoreError, match=r"the image of .*1\.mp4\.safetensors: encode again"):
        store.read(second)
    index = json.loads((kept / "images.json").read_text())
    del index["images"]["1.mp4"]
    (kept / "images.json").write_text(json.dumps(index))
    with pytest.raises(ImageStoreError, match=r"has no image \(2 others\)"):
        ImageStore(kept).read(second)


def test_images_that_another_pipeline_of_the_family_encoded_are_not_kept(tmp_path):
    """Of CogVideoX 1.5 the VAE and the family are those of 5B, and the factor is not."""
    folder, pictures = write_shown(tmp_path / "latents", frozen(cogvideox_image), count=1)
    later = ImageEncoder(frozen(lambda: cogvideox_image("1.5")))
    assert write_images(folder.path, pictures, ImageEncoder(frozen(cogvideox_image))) == 1
    assert write_images(folder.path, pictures, later) == 1
    expected = later([picture(0)], **SIZE, num_frames=9)
    assert expected.factor != 1.0
    assert ImageStore.beside(folder.path).image_of(folder.infos).factor == expected.factor


def test_images_that_a_stopped_run_left_are_of_its_family(tmp_path):
    folder, pictures = write_shown(tmp_path / "latents", frozen(cogvideox_image))
    (tmp_path / "latents-pictures" / "1.png").write_bytes(b"torn")
    encoder = ImageEncoder(frozen(cogvideox_image))
    with pytest.raises(ImageStoreError, match=r"the image .*1\.png cannot be read"):
        write_images(folder.path, pictures, encoder)
    encoder.family = "Other"
    with pytest.raises(ImageStoreError, match=r"for a CogVideoX.*, these are for a Other"):
        write_images(folder.path, pictures, encoder)


def test_a_transparent_picture_is_what_a_folder_of_it_shows(tmp_path):
    rgba = picture(0)
    rgba.putalpha(picture(1).convert("L"))
    (tmp_path / "clip").mkdir()
    rgba.save(tmp_path / "clip" / "0.png")
    shown = read_video(tmp_path / "clip", fps=8.0, frames_fps=8.0, num_frames=1, **SIZE).frames[0]
    alone = torch.from_numpy(np.array(read_picture(tmp_path / "clip" / "0.png")))
    assert torch.equal(alone, shown)
    assert not torch.equal(alone, torch.from_numpy(np.array(rgba.convert("RGB"))))


def test_clips_that_are_of_no_video_have_no_first_frame(tmp_path):
    folder, _ = write_shown(tmp_path / "latents", frozen(cogvideox_image))
    with pytest.raises(ImageStoreError, match=r"3 of 3 clips were not .*0\.mp4.* give --images"):
        first_frames(tmp_path, folder.infos)


def test_images_of_files_and_first_frames_by_the_command(tmp_path, capsys):
    """A clip's own first frame is what a picture of that frame is."""
    frozen(cogvideox_image).save_pretrained(tmp_path / "pipe")
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(256, (9, 32, 48, 3), dtype=torch.uint8, generator=generator)
        write_video(tmp_path / "videos" / f"clip{index}", frames, 8.0)
        Image.fromarray(frames[0].numpy()).save(tmp_path / "pictures" / f"clip{index}.png")
    words = ["encode", str(tmp_path / "videos"), str(tmp_path / "latents"), "--vae",
             str(tmp_path / "pipe"), "--fps", "8", "--frames_fps", "8", "--height", "32", "--width",
             "48", "--device", "cpu"]  # fmt: skip

    def kept():
        return ImageStore.beside(tmp_path / "latents").image_of(
            LatentFolder(tmp_path / "latents").infos
        )

    assert main([*words, "--first_frame"]) == 0, capsys.readouterr().err
    assert "images encoded 2; 2 videos in" in capsys.readouterr().out
    own = kept()
    assert main([*words, "--images", str(tmp_path / "pictures")]) == 0
    torch.testing.assert_close(kept().latents, own.latents)
    table = tmp_path / "images.csv"
    table.write_text("video,image\nclip0,pictures/clip1.png\nclip1,pictures/clip0.png\n")
    assert main([*words, "--images", str(table)]) == 0
    assert torch.equal(kept().latents, own.latents.flip(0))
    assert "left out" not in capsys.readouterr().err
    with table.open("a") as rows:
        rows.write("gone,pictures/clip0.png\nlost,pictures/clip1.png\n")
    assert main([*words, "--images", str(table)]) == 0
    said = capsys.readouterr()
    assert f"images encoded 0; 4 videos in {table}, 2 clips" in said.out
    assert f"left out: 2 of 4 videos in {table} have no latents" in said.err
    assert "the first is gone" in said.err
    table.write_text("video,image\nclip0,pictures/clip1.png\nclip1,elsewhere.png\n")
    assert main([*words, "--images", str(table)]) == 1
    assert "1 of 2 images are not there" in capsys.readouterr().err
    table.write_text("video,image\nclip0,pictures/clip1.png\nclip0,pictures/clip0.png\n")
    assert main([*words, "--images", str(table)]) == 1
    assert "repeat a video" in capsys.readouterr().err
