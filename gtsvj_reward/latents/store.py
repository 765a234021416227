"""Latent clips on disk: one safetensors file each, with a record of how it was made."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, overload

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.files import UnsoundFileError, open_safetensors, write_safetensors
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
_KEY = "gtsvj_latents"
_RECORD = {"version", "space", "fps", "num_frames", "source", "source_sha256", "settings"}


class LatentFileError(ValueError):
    """A file that is not a valid latent clip; the message says how and what to do."""


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What is known of a clip besides the values of its latents."""

    space: LatentSpace
    """What the latents belong to."""
    fps: float
    """Frames per second of the video."""
    num_frames: int
    """Frames of the video; 4f + 1 for CogVideoX."""
    source: str | None = None
    """Where the clip comes from, relative to the folder that was encoded, or its name if a program
    made it; None: generated."""
    source_sha256: str | None = None
    """SHA-256 of the source; None: unknown."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was made; whatever JSON holds."""

    def record(self) -> dict[str, Any]:
        """The fields above by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(ClipRecord)}


@dataclass(frozen=True, kw_only=True)
class ClipInfo(ClipRecord):
    """What a latent file says about its clip, without the values."""

    path: Path
    """The file."""
    shape: tuple[int, int, int, int]
    """Latent time, channels, height and width."""


@dataclass(frozen=True, kw_only=True)
class LatentClip(ClipRecord):
    """Scaled, unpadded latents of one clip and where they come from."""

    latents: Float[Tensor, "time channels height width"]
    """As the generator works on them; finite."""


def save_clip(path: str | Path, clip: LatentClip) -> None:
    """Write a clip in one step: after a crash there is the whole file, or what was there before.

    Raises:
        LatentSpaceError: if the latents do not fit their space or `num_frames`, or are not finite.
    """
    _check_clip(clip)
    record = {"version": FORMAT_VERSION, **clip.record(), "space": clip.space.to_dict()}
    write_safetensors(Path(path), {"latents": clip.latents}, {_KEY: json.dumps(record)})


def load_clip(path: str | Path) -> LatentClip:
    """Read a clip, strictly.

    Raises:
        FileNotFoundError: if there is no such file.
        LatentFileError: if it is not a latent clip, damaged, or of another version.
    """
    path = Path(path)
    with _opened(path) as opened:
        info = _info(path, opened)
        latents = opened.get_tensor("latents")
    clip = LatentClip(latents=latents, **info.record())
    try:
        _check_clip(clip)
    except LatentSpaceError as error:
        raise LatentFileError(f"{path}: {error}") from error
    return clip


def clip_info(path: str | Path) -> ClipInfo:
    """What a latent file holds, from its header alone.

    Raises:
        FileNotFoundError: if there is no such file.
        LatentFileError: if it is not a latent clip, cut short, or of another version.
    """
    path = Path(path)
    with _opened(path) as opened:
        return _info(path, opened)


def unique_clips(infos: Sequence[ClipInfo]) -> list[ClipInfo]:
    """Each latent file once, in order of appearance."""
    return list({str(info.path): info for info in infos}.values())


class LatentFolder(Sequence[LatentClip]):
    """All latent clips below a folder, sorted by path, read when indexed; all of one space.

    Raises:
        ValueError: if there are none.
        LatentFileError: if a header is not valid, or two clips are of different spaces.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        files = sorted(self.path.rglob(f"*{SUFFIX}"), key=lambda f: f.relative_to(self.path).parts)
        if not files:
            raise ValueError(
                f"no latent files ({SUFFIX}) below {self.path}: make some with `gtsvj encode`"
            )
        self.infos = [clip_info(file) for file in files]
        self.space = self.infos[0].space
        for info in self.infos[1:]:
            if not info.space.same_latents(self.space):
                raise LatentFileError(
                    f"{self.path} mixes latent spaces: {files[0]} is of {self.space.title()}, "
                    f"{info.path} of {info.space.title()}; keep one folder per space"
                )

    def only(self, infos: Iterable[ClipInfo]) -> "LatentFolder":
        """The same folder with some of its clips, in its order, whatever the order of `infos`."""
        wanted = {info.path for info in infos}
        part = copy(self)
        part.infos = [info for info in self.infos if info.path in wanted]
        return part

    def __len__(self) -> int:
        return len(self.infos)

    @overload
    def __getitem__(self, index: int) -> LatentClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[LatentClip]: ...
    def __getitem__(self, index: int | slice) -> LatentClip | list[LatentClip]:
        if isinstance(index, slice):
            return [load_clip(info.path) for info in self.infos[index]]
        return load_clip(self.infos[index].path)


def _check_clip(clip: LatentClip) -> None:
    clip.space.check(clip.latents[None], check_statistics=False)
    steps = clip.space.latent_frames(clip.num_frames)
    if clip.latents.shape[0] != steps:
        raise LatentSpaceError(
            f"{clip.num_frames} frames are {steps} latent frames in `{clip.space.id}`, got "
            f"{clip.latents.shape[0]}: remove padding with `LatentSpace.unpad`"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A latent file, open for reading."""
    try:
        with open_safetensors(path) as opened:
            yield opened
    except UnsoundFileError as error:
        raise LatentFileError(f"not a latent clip: {error}") from error


def _info(path: Path, opened: Any) -> ClipInfo:
    metadata = opened.metadata() or {}
    if _KEY not in metadata:
        raise LatentFileError(
            f"{path} has no `{_KEY}` metadata, which describes its tensors: write latent files "
            "with `save_clip` or `gtsvj encode`"
        )
    record = json.loads(metadata[_KEY])
    if record.get("version") != FORMAT_VERSION or not record.keys() >= _RECORD:
        raise LatentFileError(
            f"{path} is a latent file of version {record.get('version')} with {sorted(record)}, "
            f"expected version {FORMAT_VERSION} with {sorted(_RECORD)}: install the gtsvj_reward "
            "that wrote it, or encode again"
        )
    if list(opened.keys()) != ["latents"]:
        raise LatentFileError(f"{path} must hold one tensor `latents`, it has {opened.keys()}")
    values = opened.get_slice("latents")
    shape = tuple(values.get_shape())
    try:
        space = LatentSpace.from_dict(record["space"])
    except ValueError as error:
        raise LatentFileError(f"{path}: {error}") from error
    if len(shape) != 4 or shape[1] != space.channels:
        raise LatentFileError(
            f"{path} must hold latents (time, {space.channels}, height, width) of `{space.id}`, "
            f"got shape {shape}"
        )
    values = {name: record[name] for name in _RECORD - {"version", "space"}}
    return ClipInfo(
        path=path, shape=(shape[0], shape[1], shape[2], shape[3]), space=space, **values
    )
