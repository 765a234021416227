"""What decides whether two latent files hold the same clip, or clips made from the same one."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch

from gtsvj_reward.files import open_safetensors
from gtsvj_reward.latents.store import ClipInfo

MADE_FROM = "made_from"
"""Setting of a clip that a generator made of a clip or a prompt: keys of those."""
BLOCKS, BLOCK = 256, 16
"""Values of a clip that `content_key` reads: so many blocks, spread evenly, of so many values."""


def content_key(info: ClipInfo) -> str:
    """Hash of a clip's shape and of values spread over it, whatever the file is called or says.

    Clips that differ in a small part alone count as the same, which is right for a split.
    """
    state = info.path.stat()
    return _content_key(info.path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1 << 20)
def _content_key(path: Path, _changed: int, _size: int) -> str:
    with open_safetensors(path) as opened:
        latents = opened.get_tensor("latents")
        values = latents.flatten()  # mapped into memory: only what is taken below is read
        if len(values) > BLOCKS * BLOCK:
            starts = torch.linspace(0, len(values) - BLOCK, BLOCKS, dtype=torch.float64).long()
            values = values[starts[:, None] + torch.arange(BLOCK)]
        raw = values.contiguous().view(torch.uint8).numpy().tobytes()
        return f"content:{sha256(repr(tuple(latents.shape)).encode() + raw).hexdigest()}"


def video_keys(info: ClipInfo) -> frozenset[str]:
    """What two clips share if they are one video: source or content."""
    return frozenset(filter(None, (info.source_sha256, content_key(info))))


def made_from(info: ClipInfo) -> tuple[str, ...]:
    """Keys of what a clip was made from: `content_key` and source hash of a clip, or a prompt's."""
    return tuple(info.settings.get(MADE_FROM, ()))
