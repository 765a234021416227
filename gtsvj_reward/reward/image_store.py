"""What a pipeline feeds of the reference images of a folder of latent clips, kept beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from gtsvj_reward.backbones import ImageCondition
from gtsvj_reward.files import file_sha256, read_safetensors, write_safetensors, write_text
from gtsvj_reward.latents.sources import PICTURE_SUFFIXES
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.stills import PICTURE_ERRORS, rgb_of
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.latents.video import READING, read_video
from gtsvj_reward.progress import Progress
from gtsvj_reward.reward.images import ImageEncoder
from gtsvj_reward.reward.store import ConditionStore, StoreError

SUFFIX = ".image"
"""Of the file (safetensors) of an image at the size of a clip."""
PICTURE_RULE = 1
"""How pictures are read: upright, on black where not opaque. Files of another rule are not kept."""


class ImageStoreError(StoreError):
    """Stored reference images that are missing, damaged or do not fit the clips."""


@dataclass(frozen=True)
class Picture:
    """A reference image that is read when it is needed."""

    name: str
    """What messages and the file of the image call it."""
    digest: str
    """Hash of what decides its pixels."""
    load: partial[Image.Image]


def picture_of(path: Path) -> Picture:
    """The picture in a file; see `read_picture`."""
    made = json.dumps([file_sha256(path), PICTURE_RULE])
    return Picture(path.name, sha256(made.encode()).hexdigest(), partial(read_picture, path))


def read_picture(path: Path) -> Image.Image:
    """The picture in a file, upright and in RGB, on black where it is not opaque.

    Raises:
        ImageStoreError: if it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            return Image.fromarray(rgb_of(opened))
    except PICTURE_ERRORS as error:
        raise ImageStoreError(f"the image {path} cannot be read: {error}") from error


def pictures_in(table: Mapping[str, Path]) -> dict[str, Picture]:
    """Video -> picture, of a table of files.

    Raises:
        ImageStoreError: for files that are not there, with their number and the first.
    """
    missing = [path for path in table.values() if not path.is_file()]
    if missing:
        raise ImageStoreError(
            f"{len(missing)} of {len(table)} images are not there, the first is {missing[0]}: "
            "paths in the table are relative to its folder"
        )
    return {video: picture_of(path) for video, path in table.items()}


def pictures_of_folder(folder: Path) -> dict[str, Path]:
    """Name of a video without its suffix -> the picture of that name below a folder.

    Raises:
        ImageStoreError: for a folder without pictures, and two pictures of one name.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURE_SUFFIXES]
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    if not files or len(found) != len(files):
        raise ImageStoreError(
            f"expected a folder with one png or jpg for each video, by the video's name, got "
            f"{len(files)} pictures with {len(found)} names below {folder}"
        )
    return found


def first_frames(videos: Path, infos: Sequence[ClipInfo]) -> dict[str, Picture]:
    """Source -> the first frame of the clip, read from its video as the clip was.

    Raises:
        ImageStoreError: for clips that were not encoded from a video, such as generated ones.
    """
    made_otherwise = [info for info in infos if not info.settings.keys() >= set(READING)]
    if made_otherwise:
        raise ImageStoreError(
            f"{len(made_otherwise)} of {len(infos)} clips were not encoded from a video, the first "
            f"is {made_otherwise[0].path}: --first_frame has no video to read. Keep them in "
            "another folder, or give --images with a picture for each clip"
        )
    found = {}
    for info in infos:
        reading = {name: info.settings[name] for name in READING}
        made = json.dumps([info.source_sha256, info.settings], sort_keys=True)
        found[str(info.source)] = Picture(
            f"first frame of {info.source}",
            sha256(made.encode()).hexdigest(),
            partial(read_first_frame, videos / str(info.source), reading),
        )
    return found


def read_first_frame(video: Path, reading: Mapping[str, Any]) -> Image.Image:
    """The first frame of a clip."""
    return Image.fromarray(read_video(video, num_frames=1, **reading).frames[0].numpy())


def write_images(
    latents: str | Path, pictures: Mapping[str, Picture], encoder: ImageEncoder
) -> int:
    """Keep what a pipeline feeds of the reference images of clips, beside their latents.

    An image is encoded at the size, and for the length, of its clip.

    Args:
        latents: folder of latent files.
        pictures: video -> picture; names match as those of label files do.
        encoder: that of the generator.

    Returns:
        Images that were encoded; those that are there already are not encoded again.

    Raises:
        ImageStoreError: for clips without an image, images of another family in the folder, and an
            encoder with another VAE than the clips'.
        ValueError: for names that match several videos.
    """
    clips, folder = LatentFolder(latents), Path(latents) / ImageStore.kind
    index = folder / ImageStore.index_name()
    if index.is_file():
        ImageStore(folder).require_family(encoder.family, "these are for")
    space = LatentSpace.from_vae(encoder.pipe.vae)
    if not space.same_latents(clips.space):
        raise ImageStoreError(
            f"the clips are latents of {clips.space.title()}, the VAE of the image encoder is that "
            f"of {space.title()}: give --image_encoder the pipeline that goes with --vae"
        )
    chosen = ImageStore.matched([str(info.source) for info in clips.infos], pictures)
    files = {
        str(info.source): image_file(chosen[str(info.source)], info, encoder)
        for info in clips.infos
    }
    # First: what a run leaves that was stopped is of this family too.
    says = {"version": 1, "family": encoder.family, "images": files}
    write_text(index, json.dumps(says, ensure_ascii=False, indent=1) + "\n")
    new = 0
    with Progress(len(clips.infos), "encode images") as bar:
        for info in clips.infos:
            picture, name = chosen[str(info.source)], files[str(info.source)]
            if (folder / name).exists():
                bar.skip()
                continue
            side = space.spatial_compression
            size = {"height": info.shape[2] * side, "width": info.shape[3] * side}
            image = encoder([picture.load()], **size, num_frames=info.num_frames)
            tensors = {"latents": image.latents, "embeds": image.embeds}
            kept = {name: value for name, value in tensors.items() if value is not None}
            about = {"image": picture.name, "factor": repr(image.factor)}
            write_safetensors(folder / name, kept, about)
            new += 1
            bar.update()
    return new


def image_file(picture: Picture, info: ClipInfo, encoder: ImageEncoder) -> str:
    """Name of the file of a picture at the size of a clip, as an encoder encodes it."""
    made = json.dumps([picture.digest, *info.shape[2:], info.num_frames, encoder.variant])
    return sha256(made.encode()).hexdigest()[:16] + SUFFIX


class ImageStore(ConditionStore):
    """The reference images that `write_images` kept."""

    kind = "images"
    reader = "reads reference images (image_input='image')"
    cure = "encode them with `gtsvj encode --images`, or `--first_frame` for the clips' own"
    flag = "--images"
    encoder_flag = "--image_encoder"
    error = ImageStoreError

    def read_index(self, values: Mapping[str, Any]) -> None:
        """See `ConditionStore.read_index`."""
        self.images: dict[str, str] = values["images"]

    def image_of(self, infos: Sequence[ClipInfo]) -> ImageCondition:
        """What is fed of the reference images of clips of one size, one row each.

        Raises:
            ImageStoreError: for a clip without an image, and an image of another size.
        """
        return ImageCondition.cat([self.read(info) for info in infos])

    def file_of(self, info: ClipInfo) -> Path:
        """The file of the image of one clip; clips of one size with one image have the same."""
        if str(info.source) not in self.images:
            raise ImageStoreError(
                f"{info.path} is of {info.source}, of which {self.index} has no image "
                f"({len(self.images)} others): encode again with a table that names it"
            )
        file = self.folder / self.images[str(info.source)]
        if not file.is_file():
            raise ImageStoreError(f"no {file}, the image of {info.path}: encode again")
        return file

    def read(self, info: ClipInfo) -> ImageCondition:
        """What is fed of the reference image of one clip."""
        file = self.file_of(info)
        tensors, metadata = read_safetensors(file)
        if "latents" not in tensors or "factor" not in metadata:
            raise ImageStoreError(f"{file} is not a reference image: encode again")
        latents, size = tensors["latents"], info.shape[1:]
        if latents.shape[2:] != size:
            raise ImageStoreError(
                f"the image of {info.path} ({metadata.get('image')}) is {tuple(latents.shape[2:])} "
                f"(channels, height, width in latents), its clip {size}: encode again"
            )
        factor = float(metadata["factor"])
        return ImageCondition(latents, tensors.get("embeds"), factor, self.family)
