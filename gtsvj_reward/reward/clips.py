"""`Clips`: the input of a reward; adds a clip's index or name to errors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import Geometry
from gtsvj_reward.judge.batching import buckets
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.statistics import LatentStatistics
from gtsvj_reward.reward.inputs import (
    AnyLatents,
    AnyNumber,
    AnySpace,
    as_count,
    as_image,
    as_latents,
    as_number,
    as_space,
    as_text,
)
from gtsvj_reward.reward.output import GeometryError, NonFiniteError

Latents = Float[Tensor, "..."] | Sequence[Tensor]
"""A batch (batch, time, channel, height, width), or clips without the batch axis, of any sizes."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """Clips and their common properties.

    Raises:
        ValueError: for no clips, for another number of prompts, images or names than of clips, and
            for an image of another size than its clip.
    """

    latents: Latents
    """Scaled latents; a tensor, or a sequence of clips of any sizes."""
    space: LatentSpace | None = None
    """Their latent space; None: not checked."""
    fps: float | None = None
    """Frames per second of the videos; None: not checked."""
    num_frames: int | None = None
    """Frames requested from the generator, to drop its padding."""
    text: TextCondition | None = None
    """Prompt embeddings, one row per clip."""
    texts: Sequence[str] | None = None
    """The prompts themselves, one per clip, for a reward that `reads_prompts`."""
    image: ImageCondition | None = None
    """Reference images, one row per clip; all clips must then have one size."""
    names: Sequence[str] | None = None
    """Names of the clips in messages, beside their indices."""
    unfinished: bool = False
    """Predictions from the middle of sampling, whose statistics may differ from those of clips."""
    may_be_empty: bool = False
    """For a process without clips that takes part in a joint call; see `LiveBackbone`."""

    def __post_init__(self) -> None:
        """Reject inconsistent inputs."""
        count = len(self)
        if not count and not self.may_be_empty:
            raise ValueError("no clips to score: the batch is empty")
        if self.text is not None and len(self.text.embeds) != count:
            raise ValueError(f"{len(self.text.embeds)} text embeddings for {count} clips")
        if self.texts is not None and len(self.texts) != count:
            raise ValueError(f"{len(self.texts)} prompts for {count} clips")
        if self.names is not None and len(self.names) != count:
            raise ValueError(f"{len(self.names)} names for {count} clips")
        if self.image is not None:
            self.check_images(self.image)

    def check_images(self, image: ImageCondition) -> None:
        """Reject images that do not match the clips."""
        if len(image) != len(self):
            raise ValueError(f"{len(image)} reference images for {len(self)} clips")
        size = tuple(image.latents.shape[-2:])
        for index, clip in enumerate(self.latents):
            if tuple(clip.shape[-2:]) != size:
                raise ValueError(
                    f"{self.label(index)} is {'x'.join(map(str, clip.shape[-2:]))} latents, its "
                    f"reference image {'x'.join(map(str, size))}: encode images at the size of "
                    "their clips, and score clips of different sizes in different calls"
                )

    @classmethod
    def of(
        cls,
        latents: AnyLatents,
        *,
        space: AnySpace | None = None,
        fps: AnyNumber | None = None,
        num_frames: AnyNumber | None = None,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
        names: Sequence[str] | None = None,
        may_be_empty: bool = False,
    ) -> "Clips":
        """Clips from arrays, a pipeline for the space, and numbers as text.

        Raises:
            TypeError: for unsupported types, with what to pass.
            ValueError: as the class, and for invalid numbers.
        """
        return cls(
            latents=as_latents(latents),
            space=as_space(space),
            fps=as_number("fps", fps),
            num_frames=as_count("num_frames", num_frames),
            text=as_text(text),
            image=as_image(image),
            names=names,
            may_be_empty=may_be_empty,
        )

    def __len__(self) -> int:
        return len(self.latents)

    def label(self, index: int) -> str:
        """Name of a clip in messages."""
        return clip_label(index, self.names)

    def each(self, act: Callable[[Tensor], T]) -> list[T]:
        """A function's result for each clip (1, time, ...); its errors name the clip."""
        found = []
        for index, clip in enumerate(self.latents):
            with self.about(index):
                found.append(act(clip[None]))
        return found

    @contextmanager
    def about(self, index: int) -> Iterator[None]:
        """Add the clip's name to errors of the block."""
        try:
            yield
        except ValueError as error:
            raise type(error)(f"{self.label(index)}: {error}") from error

    @contextmanager
    def named(self, *errors: type[ValueError]) -> Iterator[None]:
        """Add all names to errors of code that only has the clips' indices."""
        try:
            yield
        except errors as error:
            if self.names is None:
                raise
            raise type(error)(f"{', '.join(self.names)}, in this order: {error}") from error

    def rows(self, indices: Sequence[int]) -> "Clips":
        """Some of the clips, as a list."""
        chosen = torch.tensor(indices)
        return replace(
            self,
            latents=[self.latents[index] for index in indices],
            text=None if self.text is None else self.text.rows(chosen),
            texts=None if self.texts is None else [self.texts[index] for index in indices],
            image=None if self.image is None else self.image.rows(chosen),
            names=None if self.names is None else [self.names[index] for index in indices],
        )

    def buckets(self, size: int | None = None) -> list[list[int]]:
        """Indices of clips of one shape, type and device, at most `size` together."""
        return buckets([(clip.shape, clip.dtype, clip.device) for clip in self.latents], size)

    def checked(
        self,
        space: LatentSpace,
        *,
        check_statistics: bool = True,
        trained: LatentStatistics | None = None,
    ) -> "Clips":
        """These clips without padding, if they are latents of a judge's space.

        Args:
            space: the judge's.
            check_statistics: reject values that scaled latents cannot have.
            trained: statistics of the training clips, for the same purpose; all clips of a call are
                compared together, except `unfinished` ones.

        Raises:
            LatentSpaceError: as `LatentSpace.check` and `unpad`, with the clip's index; for clips
                whose statistics differ from those of training.
        """
        if not len(self):
            return self

        def check(latents: Tensor) -> None:
            space.check(latents, self.space, check_statistics=check_statistics)

        latents, num_frames = self.latents, self.num_frames
        try:
            if isinstance(latents, Tensor):
                check(latents)
            else:
                # Check clips of one kind together, to synchronise with the device once per kind.
                for kind in self.buckets():
                    check(torch.stack([latents[index].detach() for index in kind]))
        except ValueError:
            if self.names is None and isinstance(latents, Tensor):
                raise  # it already names the index
            self.each(check)
            raise
        if trained is not None and check_statistics and not self.unfinished:
            self.compare(trained)
        if num_frames is None:
            return self
        if isinstance(latents, Tensor):
            return replace(self, latents=space.unpad(latents, num_frames))
        return replace(self, latents=self.each(lambda clip: space.unpad(clip, num_frames)[0]))

    def compare(self, trained: LatentStatistics) -> None:
        """Reject clips whose common statistics differ from those of training."""
        complaint = trained.complaint(list(self.latents))
        if complaint is not None:
            which = "the clips" if len(self) > 1 else self.label(0)
            raise LatentSpaceError(
                f"{which} cannot be scaled latents of the judge's space: {complaint}. Pass what "
                "the generator works on, or `LatentSpace.scale` of the VAE's output; or pass "
                "`check_statistics=False` where the reward is made if the values are right"
            )

    def geometry(self, trained: Geometry | None, *, allow_untrained: bool) -> list[str | None]:
        """Per checked clip, what lies outside the trained geometry.

        Raises:
            GeometryError: for the first such clip, unless that is allowed.
        """

        def note(clip: Tensor) -> str | None:
            _, time, _, height, width = clip.shape
            if trained is None:
                return None
            complaint = trained.complaint((time, height, width), self.fps)
            if complaint and not allow_untrained:
                raise GeometryError(
                    f"{complaint} (the trained range). Crop, resample or re-encode it, or score it "
                    "all the same with --allow_untrained_geometry (`allow_untrained_geometry=True`)"
                )
            return complaint

        return self.each(note)

    def on(self, device: torch.device) -> list[Tensor]:
        """The clips one by one, on a device; a batch is moved as a whole."""
        if isinstance(self.latents, Tensor):
            return list(self.latents.to(device))
        return [clip.to(device) for clip in self.latents]

    def scored(self, scores: Tensor, name: str) -> Float[Tensor, " clip"]:
        """Scores of a reward in float32, if they are one finite number per clip.

        Raises:
            ValueError: for another shape, with the reward's name.
            NonFiniteError: for NaN and infinity, with the clip's index too.
        """
        if scores.shape != (len(self),):
            raise ValueError(
                f"reward {name!r} returned scores of shape {tuple(scores.shape)}, expected "
                f"({len(self)},): one per clip"
            )
        require_finite(scores, f"reward {name!r} gave", "the score", self.names)
        return scores.float()


REFUSALS = (LatentSpaceError, GeometryError, NonFiniteError)
"""Errors of a reward for clips that it cannot score."""


def clip_label(index: int, names: Sequence[str] | None = None) -> str:
    """Name of a clip in messages."""
    return f"clip {index}" if names is None else f"clip {index} ({names[index]})"


def require_finite(
    values: Float[Tensor, " clip"],
    before: str,
    after: str,
    names: Sequence[str] | None = None,
    hint: str = "",
) -> None:
    """Reject NaN and infinite values.

    Args:
        values: one per clip.
        before: the message up to the clip, e.g. `the score of`.
        after: the message from there to the value, e.g. `is`.
        names: of the clips.
        hint: the end of the message.

    Raises:
        NonFiniteError: with the first such clip, the value and the number of such clips.
    """
    bad = (~values.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError(
            f"{before} {clip_label(bad[0], names)} {after} {values[bad[0]].item()} "
            f"({len(bad)} of {len(values)} clips){hint}"
        )
