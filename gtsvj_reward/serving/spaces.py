"""Latent spaces that arrive over the network: read strictly, and compared with the judge's."""

from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.serving.bodies import MalformedError, read_json

LARGEST = 1 << 31
"""What sizes must stay below."""
LONGEST = 200
"""Letters of a name."""


def read_space(text: str) -> LatentSpace:
    """The space in what `LatentSpace.to_dict` gave as JSON.

    Raises:
        MalformedError: if it is none.
    """
    values = read_json(text, "`latent_space`")
    if not isinstance(values, dict):
        raise MalformedError(f"`latent_space` must be a JSON object, got {type(values).__name__}")
    try:
        space = LatentSpace.from_dict(values)
    except ValueError as error:
        raise MalformedError(f"`latent_space` is invalid: {error}") from error
    sizes = space.channels, space.spatial_compression, space.temporal_compression
    names = space.id, space.vae or ""
    if max(*sizes, space.patch_size_t or 1) >= LARGEST or max(map(len, names)) > LONGEST:
        raise MalformedError(f"`latent_space` has sizes {sizes}, or names of more than {LONGEST}")
    return space


def check_name(judge: LatentSpace, space_id: str) -> None:
    """Refuse latents whose space is only named, by another name than the judge's."""
    if space_id != judge.id:
        raise LatentSpaceError(
            f"expected latents of {judge.title()}, got latents of {space_id[:80]!r}: use latents "
            "of the expected VAE. If both are one space under two names, send the whole space as "
            "`latent_space`"
        )
