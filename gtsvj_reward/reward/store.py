"""What encoders said of the prompts, or the images, of a folder of clips, kept beside the clips."""

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.latents.store import ClipInfo

T = TypeVar("T")
Store = TypeVar("Store", bound="ConditionStore")


class StoreError(ValueError):
    """What is stored beside clips is missing, damaged or does not fit them."""


class ConditionStore:
    """A folder beside latent files: an index (JSON), and a file for each thing that was encoded.

    A subclass is the store of one kind of thing.

    Attributes:
        family: class name of the transformer whose pipeline encoded them.

    Args:
        folder: the folder.

    Raises:
        StoreError: of the kind, if there is no index, or it is none.
    """

    kind: ClassVar[str]
    """What the folder is called, and what messages call the things."""
    reader: ClassVar[str]
    """What a judge does that needs them, and by which setting."""
    cure: ClassVar[str]
    """How they come to be stored."""
    flag: ClassVar[str]
    """Of `gtsvj encode`, which stores them."""
    encoder_flag: ClassVar[str]
    """Of the same command, which names the encoder."""
    error: ClassVar[type[StoreError]]

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = self.folder / self.index_name()
        try:
            self.text = self.index.read_text()
            values = json.loads(self.text)
            self.family: str = values["family"]
            self.read_index(values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.error(
                f"{self.index} does not list the {self.kind} of the clips: write it with "
                f"`gtsvj encode {self.flag}` ({error!r})"
            ) from error

    @classmethod
    def index_name(cls) -> str:
        """Name of the index in the folder."""
        return f"{cls.kind}.json"

    def read_index(self, values: Mapping[str, Any]) -> None:
        """Take what the index says of each clip."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """SHA-256 of what the index says."""
        return sha256(self.text.encode()).hexdigest()

    def require_family(self, family: str | None, what: str) -> None:
        """Refuse what another family's pipeline encoded.

        Args:
            family: class name of a transformer.
            what: is of this family, with its verb, for the message.

        Raises:
            StoreError: naming both families.
        """
        if family != self.family:
            raise self.error(
                f"{self.folder} holds {self.kind} encoded for a {self.family}, {what} a {family}: "
                f"remove the folder and encode again with {self.encoder_flag} of that model, or "
                "keep latents of another model elsewhere"
            )

    @classmethod
    def beside(cls: type[Store], folder: Path) -> Store | None:
        """The store of latent files, in this folder or one above; None if there is none."""
        for above in (folder, *folder.parents):
            index = above / cls.kind / cls.index_name()
            if index.is_file():
                changed = index.stat().st_mtime_ns
                store: Store = opened(cast(Hashable, cls), index.parent, changed)
                return store
        return None

    @classmethod
    def of_clips(cls: type[Store], clips: Sequence[ClipInfo], family: str | None) -> list[Store]:
        """The store of each clip, for a judge that needs it.

        Args:
            clips: their latent files, in any folders.
            family: of the judge.

        Raises:
            StoreError: for clips without a store, and one of another family.
        """
        found = [cls.beside(info.path.parent) for info in clips]
        stores = [store for store in found if store is not None]
        if len(stores) < len(clips):
            bare = clips[found.index(None)]
            raise cls.error(
                f"this judge {cls.reader}, and {len(clips) - len(stores)} of {len(clips)} clips "
                f"have none stored beside them, the first is {bare.path}: {cls.cure}"
            )
        for store in stores:
            store.require_family(family, "this judge is of")
        return stores

    @classmethod
    def of_folder(cls: type[Store], folder: Path, family: str | None) -> Store:
        """The store of all clips of a folder, for a judge that needs it.

        Raises:
            StoreError: if there is none, and for one of another family.
        """
        store = cls.beside(folder)
        if store is None:
            raise cls.error(
                f"this judge {cls.reader}, but none are stored beside the latents below {folder}: "
                f"{cls.cure}"
            )
        store.require_family(family, "this judge is of")
        return store

    @classmethod
    def matched(cls, sources: Sequence[str], table: Mapping[str, T]) -> dict[str, T]:
        """Source -> what a table says of it; names match as those of label files do.

        Raises:
            StoreError: for clips without a row.
            ValueError: for names that match several videos.
        """
        matches = match_videos(sources, table, f"the {cls.kind}")
        missing = [source for source in sources if source not in matches]
        if missing:
            one = cls.kind.removesuffix("s")
            raise cls.error(
                f"{len(missing)} of {len(sources)} clips have no {one}, the first is "
                f"{missing[0]}: give the table a row for each (`video,{one}`), or encode those "
                "videos elsewhere"
            )
        return {source: table[matches[source]] for source in sources}

    @classmethod
    def unmatched(cls, sources: Sequence[str], table: Mapping[str, Any]) -> list[str]:
        """Names of a table that are of no source."""
        used = set(match_videos(sources, table, f"the {cls.kind}").values())
        return [name for name in table if name not in used]


@lru_cache(maxsize=16)
def opened(kind: Hashable, folder: Path, changed: int) -> Any:
    """The store in a folder as it was at a time; `kind` is its class."""
    del changed
    return cast(type[ConditionStore], kind)(folder)
