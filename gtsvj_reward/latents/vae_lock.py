"""One lock per VAE: settings, and Wan's features of earlier frames, are kept on the object."""

import os
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

_LOCKS: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
"""VAE -> process id -> lock. Beside the VAEs, so that copying and pickling them carry no lock."""


def vae_lock(vae: Any) -> Any:
    """The lock to hold while a VAE encodes, decodes or moves, by whatever objects share it.

    `LatentSpace.encode` and `decode` hold it; around calls of the VAE itself hold it yourself:
    `with vae_lock(vae): vae.decode(latents)`. A thread may take it again while it holds it. A
    forked process has a lock of its own, which is free whatever its parent's threads held.
    """
    # Each `setdefault` is one step for other threads, so that all of them get the same lock.
    return _LOCKS.setdefault(vae, {}).setdefault(os.getpid(), RLock())
