"""Which clips a judge has seen labels of, kept beside it."""

import json
from collections.abc import Sequence
from pathlib import Path

from gtsvj_reward.files import write_text
from gtsvj_reward.latents.content import video_keys
from gtsvj_reward.latents.store import ClipInfo

TRAINED_FILE = "trained_clips.json"
"""Beside a judge: hashes of the clips whose labels its last stage was trained on."""


def write_trained(folder: Path, trained: Sequence[ClipInfo]) -> None:
    """Write beside a judge which clips it was trained on."""
    hashes = sorted({key for info in trained for key in video_keys(info)})
    write_text(folder / TRAINED_FILE, json.dumps(hashes) + "\n")


def trained_on(folder: Path, infos: Sequence[ClipInfo]) -> list[ClipInfo] | None:
    """The clips whose labels a judge was trained on, under whatever name; None: it does not say."""
    file = folder / TRAINED_FILE
    if not file.is_file():
        return None
    seen = set(json.loads(file.read_text()))
    return [info for info in infos if not seen.isdisjoint(video_keys(info))]
