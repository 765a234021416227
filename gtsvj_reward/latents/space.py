"""`LatentSpace`: which VAE latents belong to, and how they are laid out, scaled and padded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isclose
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.checks import (
    LatentSpaceError as LatentSpaceError,
    check_layout,
    check_size,
    check_values,
    latent_frames,
)
from gtsvj_reward.latents.json_types import from_values
from gtsvj_reward.latents.ltx_vae import unpack_tokens
from gtsvj_reward.latents.scaling import per_channel
from gtsvj_reward.latents.vae_family import TileChoice, VAEFamily
from gtsvj_reward.latents.vaes import vae_family

Layout = Literal["BTCHW", "BCTHW"]
ClipBatch = Float[Tensor, "batch time channels height width"]


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The space that latents live in; stored as JSON beside judges and latent files.

    Scaled latents, the ones a generator works on, are `(z - shift_factor) * scaling_factor` of
    the VAE's output z, or `(z - mean) / std` per channel. Two spaces hold the same latents if
    VAE, compression and scaling agree (`same_latents`); `layout` and `patch_size_t` only say
    how a generator arranges and pads them, so CogVideoX 5B and 1.5 are interchangeable.
    """

    id: str
    """Name of the space, e.g. `cogvideox-2b`."""
    channels: int
    """Latent channels."""
    spatial_compression: int = 8
    """Pixels per latent, in height and width."""
    temporal_compression: int = 4
    """Frames per latent after the first one: 4f + 1 frames give f + 1 latents."""
    layout: Layout = "BTCHW"
    """Order of the axes in the generator's own latents; inside this package always BTCHW."""
    scaling_factor: float = 1.0
    """Multiplies the VAE's output."""
    shift_factor: float | None = None
    """Subtracted from the VAE's output before scaling."""
    mean: tuple[float, ...] | None = None
    """Mean per channel of the VAE's output, instead of `shift_factor`."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel of the VAE's output, instead of `scaling_factor`."""
    patch_size_t: int | None = None
    """Latent frames that the generator joins, padding at the front; 2 for CogVideoX 1.5."""
    vae: str | None = None
    """Name of the VAE where several spaces share it; None: `id` names it."""
    expected_std: tuple[float, float] | None = (0.2, 3.0)
    """Accepted overall standard deviation of one clip's scaled latents; None: any."""

    def __post_init__(self) -> None:
        """Reject fields that contradict each other."""
        whole = (self.channels, self.spatial_compression, self.temporal_compression)
        if min(*whole, self.patch_size_t or 1) < 1:
            raise ValueError(f"channels, compressions and patch_size_t must be >= 1, got {self}")
        if self.layout not in ("BTCHW", "BCTHW"):
            raise ValueError(f"`layout` must be 'BTCHW' or 'BCTHW', got {self.layout!r}")
        if not self.id:
            raise ValueError("`id` must not be empty: it names the VAE that the latents belong to")
        if (self.mean is None) != (self.std is None):
            raise ValueError("`mean` and `std` belong together: give both or neither")
        if self.mean is None or self.std is None:
            return
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"`mean` and `std` must have {self.channels} numbers, got {self}")
        if self.scaling_factor != 1.0 or self.shift_factor is not None:
            raise ValueError("with `mean` and `std`, leave `scaling_factor` and `shift_factor` out")

    @classmethod
    def from_vae(
        cls, vae: Any, patch_size_t: int | None = None, id: str | None = None
    ) -> "LatentSpace":
        """Space of a diffusers VAE of `VAE_FAMILIES`, read from its config.

        A published architecture with the published scaling has a name of its own: `cogvideox-2b`,
        `cogvideox-5b` or, with `patch_size_t=2`, `cogvideox-1.5`, and so on. A fine-tuned VAE with
        an unchanged config looks the same: give it an `id`. Every other VAE is named after its
        weights (see `weights_fingerprint`). The config's `invert_scale_latents` of CogVideoX plays
        no part: it concerns the conditioning image of image-to-video pipelines, which all unscale
        what they generate by dividing by `scaling_factor`.

        Args:
            vae: the VAE; may be on the meta device if it is a published one or `id` is given.
            patch_size_t: `transformer.config.patch_size_t` of the generator.
            id: name of the space; taken as it is.

        Raises:
            LatentSpaceError: for a VAE of another family.
        """
        family = vae_family(vae)
        name = family.name() if id is None else id
        shared = None
        if id is None and name == "cogvideox-5b" and patch_size_t == 2:
            name, shared = "cogvideox-1.5", name
        patches = None if patch_size_t == 1 else patch_size_t
        return cls(id=name, vae=shared, patch_size_t=patches, **family.fields)

    @classmethod
    def from_pipeline(cls, pipe: Any, id: str | None = None) -> "LatentSpace":
        """Space of what a diffusers video pipeline generates, from its VAE and transformer.

        Raises:
            LatentSpaceError: for a pipeline with a VAE of another family.
        """
        vae_family(pipe.vae)
        return cls.from_vae(pipe.vae, pipe.transformer.config.get("patch_size_t"), id)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LatentSpace":
        """Space from what `to_dict` returned, e.g. after a trip through JSON.

        Raises:
            ValueError: for unknown or missing keys, or values of another type.
        """
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - names), sorted(names - set(values))
        if unknown or missing:
            raise ValueError(
                f"not a latent space of this version: unknown keys {unknown}, missing keys "
                f"{missing}; it was written by another version of gtsvj_reward"
            )
        return from_values(cls, dict(values))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them (lists for tuples)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def same_latents(self, other: "LatentSpace") -> bool:
        """Whether latents of both spaces mean the same, apart from layout and padding."""
        return self._identity() == other._identity() and self._same_statistics(other)

    def _identity(self) -> tuple[object, ...]:
        compression = (self.spatial_compression, self.temporal_compression)
        scale = (self.scaling_factor, self.shift_factor, self.mean is None)
        return (self.vae or self.id, self.channels, compression, scale)

    def _same_statistics(self, other: "LatentSpace") -> bool:
        """Whether mean and std agree as far as bfloat16 holds them: LTX VAEs cast them along."""
        ours, theirs = ((*(space.mean or ()), *(space.std or ())) for space in (self, other))
        return all(isclose(a, b, rel_tol=2**-7) for a, b in zip(ours, theirs, strict=True))

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of a clip of `num_frames` frames, without padding.

        Raises:
            ValueError: if `num_frames` is not `temporal_compression` * f + 1.
        """
        return latent_frames(num_frames, self.temporal_compression)

    def video_frames(self, latent_frames: int) -> int:
        """Frames that `latent_frames` unpadded latent frames decode to."""
        if latent_frames < 1:
            raise ValueError(f"expected at least one latent frame, got {latent_frames}")
        return (latent_frames - 1) * self.temporal_compression + 1

    def to_btchw(self, latents: Tensor, layout: Layout | None = None) -> Tensor:
        """Latents in this package's order, from `layout` (None: the generator's own).

        Raises:
            LatentSpaceError: if the channels are not where `layout` has them.
        """
        order = layout or self.layout
        check_layout(latents, self.channels, order)
        return latents if order == "BTCHW" else latents.transpose(1, 2)

    def from_btchw(self, latents: Tensor, layout: Layout | None = None) -> Tensor:
        """Latents in `layout` (None: the generator's own), from this package's order.

        Raises:
            LatentSpaceError: if the channels are not on axis 2.
        """
        check_layout(latents, self.channels, "BTCHW")
        return latents if (layout or self.layout) == "BTCHW" else latents.transpose(1, 2)

    def unpack(
        self,
        tokens: Float[Tensor, "batch token channels"],
        num_frames: int,
        height: int,
        width: int,
    ) -> ClipBatch:
        """Latents of a generator that returns them packed into tokens, in BTCHW order.

        `LTXPipeline(output_type="latent")` does.

        Args:
            tokens: what the pipeline returned.
            num_frames: frames of the video that was asked for, like the next two.
            height: in pixels.
            width: in pixels.

        Raises:
            LatentSpaceError: if the tokens are not those of such a video.
            ValueError: for a size that the VAE cannot have made.
        """
        check_size(self.spatial_compression, height, width)
        side = self.spatial_compression
        size = (self.latent_frames(num_frames), height // side, width // side)
        return unpack_tokens(tokens, size, self.channels)

    def unpad(
        self, latents: Float[Tensor, "batch padded channels height width"], num_frames: int
    ) -> Float[Tensor, "batch time channels height width"]:
        """Latents without the frames that a generator with `patch_size_t` pads at the front.

        CogVideoX 1.5 leaves them in `output_type="latent"`. Latents that are not padded are
        returned as they are.

        Args:
            latents: in BTCHW order.
            num_frames: frames of the video that was asked for.

        Raises:
            LatentSpaceError: if the number of latent frames fits neither form.
        """
        steps = self.latent_frames(num_frames)
        padded = steps + -steps % (self.patch_size_t or 1)
        if latents.shape[1] not in (steps, padded):
            allowed = f"{steps}" if steps == padded else f"{steps}, or {padded} with padding,"
            raise LatentSpaceError(
                f"{num_frames} frames are {allowed} latent frames in `{self.id}`, got "
                f"{latents.shape[1]}: `num_frames` must be what the pipeline was called with"
            )
        return latents[:, latents.shape[1] - steps :]

    def check(
        self, latents: Tensor, space: "LatentSpace | None" = None, *, check_statistics: bool = True
    ) -> None:
        """Reject what cannot be scaled BTCHW latents of this space.

        The statistics check compares the overall standard deviation of each clip with
        `expected_std`. It catches pixels in 0...255, zeros, and scaling that is wrong by a large
        factor. It cannot tell raw CogVideoX latents from scaled ones: the factors (1.15 and 0.7)
        change the standard deviation less than the content of a clip does. Judges compare with
        their training clips, which tells more (`LatentStatistics`).

        Args:
            latents: what to check; also NaN and infinity are rejected, whatever the options.
            space: the space that the latents are said to be of; None: not checked.
            check_statistics: False skips the comparison with `expected_std`.

        Raises:
            LatentSpaceError: with what was expected, what was given and what to do.
        """
        if space is not None and not self.same_latents(space):
            raise LatentSpaceError(
                f"expected latents of {self.title()}, got latents of {space.title()}: use "
                "latents of the expected VAE, or decode the clip and encode it anew with that one"
            )
        check_layout(latents, self.channels, "BTCHW")
        check_values(latents, self.expected_std if check_statistics else None)

    def title(self) -> str:
        """The space in a few words, for messages."""
        scale = "per-channel scaling" if self.mean else f"scaling factor {self.scaling_factor:g}"
        return f"`{self.id}` ({self.channels} channels, {scale}, VAE `{self.vae or self.id}`)"

    def scale(self, latents: ClipBatch) -> ClipBatch:
        """Scaled latents of the VAE's output, both in BTCHW order."""
        if self.mean is None or self.std is None:
            return (latents - (self.shift_factor or 0.0)) * self.scaling_factor
        return (latents - per_channel(self.mean, latents)) / per_channel(self.std, latents)

    def unscale(self, latents: ClipBatch) -> ClipBatch:
        """The VAE's output that scaled latents came from, both in BTCHW order."""
        if self.mean is None or self.std is None:
            return latents / self.scaling_factor + (self.shift_factor or 0.0)
        return latents * per_channel(self.std, latents) + per_channel(self.mean, latents)

    def encode(
        self,
        frames: Float[Tensor, "batch time 3 height width"],
        vae: Any,
        *,
        generator: torch.Generator | None = None,
        tile: TileChoice = "auto",
    ) -> Float[Tensor, "batch steps channels rows columns"]:
        """Scaled latents of clips, float32, on the VAE's device.

        Memory stays bounded: one clip and one tile at a time, a few frames of it where the VAE can
        (CogVideoX, Wan). Tiles overlap and are blended as diffusers does, which changes values
        slightly. Differentiable if gradients are on.

        Args:
            frames: in [0, 1]; 4f + 1 of them (`temporal_compression` f + 1), height and width in
                multiples of `spatial_compression`.
            vae: the VAE of this space; its settings are put back, threads take turns (`vae_lock`).
            generator: draws latents from the posterior; None takes its mode (deterministic).
            tile: height and width of a tile in pixels (CogVideoX: multiples of 48 and 40); smaller
                frames are encoded whole. `auto`: as diffusers takes for the family; None: never.

        Raises:
            LatentSpaceError: for a VAE of another geometry or scaling factor.
            ValueError: for frames of a wrong length, size or range.
        """
        family = self.family(vae)
        return self.scale(family.encode(frames, generator, family.chosen_tile(tile)))

    def decode(
        self,
        latents: Float[Tensor, "batch steps channels rows columns"],
        vae: Any,
        *,
        tile: TileChoice = "auto",
    ) -> Float[Tensor, "batch time 3 height width"]:
        """Frames of scaled latents, float32 in [0, 1], on the VAE's device.

        T latents always give 4(T - 1) + 1 frames, also for an even T, which the VAE by itself
        decodes to three frames more. Differentiable if gradients are on, where it is not clipped.

        Raises:
            LatentSpaceError: for latents or a VAE of another geometry.
        """
        family = self.family(vae)
        self.check(latents, check_statistics=False)
        return family.decode(self.unscale(latents), family.chosen_tile(tile))

    def family(self, vae: Any) -> VAEFamily:
        """The family of a VAE that could be this space's; weights are not compared.

        Raises:
            LatentSpaceError: for one of another geometry or scaling, naming both.
        """
        family = vae_family(vae)
        given = family.fields
        expected = {name: getattr(self, name) for name in given}
        # Under this space's own name: weights are not compared.
        if not self.same_latents(LatentSpace(id=self.vae or self.id, **given)):
            raise LatentSpaceError(
                f"expected a VAE with {expected}, got one with {given}: load the VAE of this space"
            )
        return family
