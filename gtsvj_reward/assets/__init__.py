"""Models that come with the package: names to folders, checked by hash.

Each folder holds a model card (`README.md`) that describes its training and its abilities.
"""

import json
from pathlib import Path

from gtsvj_reward.files import file_sha256

ROOT = Path(__file__).parent
MANIFEST = "sha256.json"
"""In each asset's folder: path of a file inside it -> SHA-256 of its content."""

ASSETS: dict[str, str] = {
    "gtsvj-demo-base": "demo_base",
    "gtsvj-demo-codec": "demo_codec",
    "gtsvj-toy": "toy_moments",
    "gtsvj-toy-aspects": "toy_aspects",
    "gtsvj-toy-detector": "toy_detector",
    "gtsvj-toy-discriminator": "toy_discriminator",
    "gtsvj-toy-flow-pipeline": "toy_flow_pipeline",
    "gtsvj-toy-flow-unsteady": "toy_flow_unsteady",
    "gtsvj-toy-lora": "toy_judge",
    "gtsvj-toy-pipeline": "toy_pipeline",
    "gtsvj-toy-unsteady": "toy_unsteady",
}
"""Bundled name -> folder inside this package."""


def folder_of(name: str | Path) -> str | Path:
    """The folder of a bundled model, or the name as it is if it is none."""
    return asset_path(str(name)) if str(name) in ASSETS else name


def lasting_name(name: str | Path) -> str:
    """The name of a model as another folder finds it: that of a local folder made absolute."""
    folder = Path(name)
    return str(folder.resolve()) if str(name) not in ASSETS and folder.is_dir() else str(name)


def asset_path(name: str) -> Path:
    """The folder of a bundled model, after its files were compared with their hashes.

    Raises:
        KeyError: for an unknown name, listing the known ones.
        ValueError: if a file is missing or was changed.
    """
    if name not in ASSETS:
        raise KeyError(f"no bundled model {name!r}; there are: {', '.join(ASSETS)}")
    folder = ROOT / ASSETS[name]
    for file, expected in json.loads((folder / MANIFEST).read_text()).items():
        path = folder / file
        found = file_sha256(path) if path.is_file() else "no such file"
        if found != expected:
            raise ValueError(
                f"bundled model {name!r}: {path} is damaged (SHA-256 {expected[:12]}… expected, "
                f"{found[:12]} found): install the package again"
            )
    return folder
