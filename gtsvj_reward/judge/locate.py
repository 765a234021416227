"""Where a judge's checkpoint is, and where it goes."""

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, snapshot_download

from gtsvj_reward.assets import ASSETS, folder_of
from gtsvj_reward.files import is_hub_id
from gtsvj_reward.judge.checkpoint import save_judge
from gtsvj_reward.judge.model import VideoJudge


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
            f"no judge {name!r}: not a local folder, a bundled name "
            f"({', '.join(ASSETS)}) or a hub id (owner/name)"
        )
    patterns = ["*.json", "*.safetensors", "README.md"]
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def upload_judge(judge: VideoJudge, repo_id: str, *, private: bool, token: str | None) -> str:
    """Save a checkpoint and upload it to a model hub; returns the URL of the commit."""
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with TemporaryDirectory() as folder:
        save_judge(judge, folder)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder)
    return str(commit.commit_url)
