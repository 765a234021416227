"""Finished scores of a run on disk, so that an interrupted run resumes."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gtsvj_reward.dtypes import dtype_name
from gtsvj_reward.files import file_sha256, full_disk_named, whole_lines
from gtsvj_reward.judge.checkpoint import CONFIG_FILE
from gtsvj_reward.reward.reward import GTSVJReward
from gtsvj_reward.reward.stored import Stored
from gtsvj_reward.scoring.table import ScoredClip, json_line

FORMAT_VERSION = 2
Append = Callable[[Sequence["FinishedClip"]], None]


class ScoringMismatchError(ValueError):
    """Finished scores that belong to another judge, other settings or other latent files."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Which content of a latent file was scored."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    sha256: str
    """SHA-256 of the content."""

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """The record of a file as it is now."""
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=file_sha256(path))

    def fits(self, path: Path) -> bool:
        """Whether a file holds this content; a copy with another time is read to find out."""
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        return status.st_size == self.size and file_sha256(path) == self.sha256


@dataclass(frozen=True, kw_only=True)
class FinishedClip:
    """A clip that was scored, and the file that it was read from."""

    file: FileRecord
    """The latent file."""
    score: ScoredClip
    """Its row of the table."""


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A folder with one JSONL file per process: a header, then one line per finished clip.

    A line that a killed run left without its end does not count: that clip is scored again.
    """

    folder: Path
    """Where the files are; made when the first is written."""
    header: Mapping[str, Any]
    """Everything that the scores depend on besides the latent files; see `run_header`."""

    def clear(self) -> None:
        """Remove all finished scores."""
        for path in self.paths():
            path.unlink()

    def paths(self) -> list[Path]:
        """The existing files, sorted."""
        return sorted(self.folder.glob("shard-*.jsonl"))

    def read(self) -> dict[str, FinishedClip]:
        """Path of the latent file -> finished clip, from all files.

        Raises:
            ScoringMismatchError: if a file was written for another judge or with other settings.
            ValueError: for a line that is not a record, or a repeated clip.
        """
        finished: dict[str, FinishedClip] = {}
        for path in self.paths():
            lines = whole_lines(path)
            self._check_header(path, lines)
            for number, line in enumerate(lines[1:], 2):
                clip = _record(path, number, line)
                if clip.score.latents in finished:
                    raise ValueError(
                        f"{path}:{number} scores {clip.score.latents} a second time: two runs "
                        "wrote to one output at once. Start again with --overwrite"
                    )
                finished[clip.score.latents] = clip
        return finished

    @contextmanager
    def appending(self, process_index: int) -> Iterator[Append]:
        """A function that adds finished clips to a process's file and waits for the disk."""
        path = self.folder / f"shard-{process_index:05d}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = whole_lines(path) if path.exists() else []
        with full_disk_named(path), path.open("ab") as opened:
            opened.truncate(sum(map(len, lines)))

            def append(clips: Sequence[FinishedClip]) -> None:
                opened.write("".join(json_line(asdict(clip)) for clip in clips).encode())
                opened.flush()
                os.fsync(opened.fileno())

            if not lines:
                opened.write(json_line(self.header).encode())
            yield append

    def _check_header(self, path: Path, lines: Sequence[bytes]) -> None:
        then = _object(path, 1, lines[0]) if lines else self.header
        differences = [
            f"{name} was {_short(then.get(name))}, is now {_short(self.header.get(name))}"
            for name in sorted(self.header.keys() | then.keys())
            if then.get(name) != self.header.get(name)
        ]
        if differences:
            raise ScoringMismatchError(
                f"{path} holds {len(lines) - 1} scores made with other settings: "
                f"{'; '.join(differences)}. Choose another --out, or start again with --overwrite"
            )


def run_header(
    checkpoint: str | Path, reward: GTSVJReward, stored: Stored | None = None
) -> dict[str, Any]:
    """Everything that scores depend on: checkpoint hashes, the reward's settings, the package.

    The base weights are part of it through the fingerprint in the checkpoint's `config.json`.

    Args:
        checkpoint: the folder that the reward was loaded from.
        reward: the reward.
        stored: prompts and images of the clips, for a judge that reads them.
    """
    folder = Path(checkpoint)
    files = [folder / CONFIG_FILE, *sorted(folder.glob("*.safetensors"))]
    _, weight = next(reward.judge.backbone.base_tensors())
    selection = reward.selection
    return {
        "format_version": FORMAT_VERSION,
        **{f"judge's {path.name}": file_sha256(path) for path in files},
        "dtype": dtype_name(weight.dtype),
        "weights of aspects": None if selection is None else list(selection.weights),
        "allow_untrained_geometry": reward.allow_untrained_geometry,
        "version of gtsvj_reward": version("gtsvj-reward"),
        **({} if stored is None else stored.digests()),
    }


def _record(path: Path, number: int, line: bytes) -> FinishedClip:
    values = _object(path, number, line)
    try:
        return FinishedClip(file=FileRecord(**values["file"]), score=ScoredClip(**values["score"]))
    except (TypeError, KeyError) as error:
        raise _damaged(path, number, error) from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (TypeError, ValueError) as error:
        raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> ValueError:
    return ValueError(
        f"{path}:{number} is not a record of this package ({error!r}): the file was damaged or "
        "edited. Remove it, or start again with --overwrite"
    )


def _short(value: Any) -> str:
    """A value for a message; of a hash, its beginning."""
    text = "absent" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
