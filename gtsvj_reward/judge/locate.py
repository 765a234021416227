"""Where a judge's checkpoint is."""

from pathlib import Path

from huggingface_hub import snapshot_download

from gtsvj_reward.assets import ASSETS, folder_of
from gtsvj_reward.files import is_hub_id


def resolve_checkpoint(name: str, revision: str | None = None) -> Path:
    """A checkpoint's local folder, from a folder, a bundled name or a hub id.

    Raises:
        FileNotFoundError: if it is none of these.
    """
    folder = Path(folder_of(name))
    if folder.is_dir():
        return folder
    if not is_hub_id(name):
        raise FileNotFoundError(
            f"no judge {name!r}: not a folder here, not a bundled name "
            f"({', '.join(ASSETS)}), not a hub id (owner/name)"
        )
    patterns = ["*.json", "*.safetensors", "README.md"]
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
