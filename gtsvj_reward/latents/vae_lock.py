"""One lock per VAE: settings, and Wan's features of earlier frames, are kept on the object."""

from typing import Any

from gtsvj_reward.locks import lock_of


def vae_lock(vae: Any) -> Any:
    """The lock to hold while a VAE encodes, decodes or moves, by whatever objects share it.

    `LatentSpace.encode` and `decode` hold it; around calls of the VAE itself hold it yourself:
    `with vae_lock(vae): vae.decode(latents)`. A thread may take it again while it holds it, and a
    forked process has a lock of its own.
    """
    return lock_of(vae)
