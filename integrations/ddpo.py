"""Trainers that call `reward(images, prompts, metadata) -> (rewards, info)`.

Written against kvablack/ddpo-pytorch (`ddpo_pytorch/rewards.py`, `scripts/train.py`),
yifan123/flow_grpo (`flow_grpo/rewards.py`, `scripts/train_wan2_1.py`), and `DDPOTrainer` and
`AlignPropTrainer` of trl up to 0.23, the last versions that have them. ddpo-pytorch and flow_grpo
call from a pool of threads. Nothing here imports any of them.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.space import Layout
from gtsvj_reward.locks import lock_of
from gtsvj_reward.reward import AnyReward
from gtsvj_reward.reward.inputs import AnyNumber, AnySpace, as_count, as_number, as_space
from gtsvj_reward.reward.texts import Encode, check_encode

Scorer = Callable[[Any, Sequence[str], Any], tuple[list[float], dict[str, Any]]]
"""A scorer of flow_grpo: (videos, prompts, metadata) -> (one number per video, {})."""


class DDPOReward:
    """Scores videos, or their latents, in place of images. It ignores metadata.

    A judge needs videos, so the published image pipelines of these trainers do not work.
    flow_grpo's Wan script passes decoded videos; other trainers need a video pipeline of your own.

    Calls from several threads run one at a time, and so do all users of a shared VAE.

    Example:
        ```python
        reward_function = DDPOReward(reward, images_are="latents", space=space, fps=8.0)
        rewards, info = reward_function(latents, prompts, metadata)
        ```

    Args:
        reward: a judge, or a combination of judges.
        images_are: `latents`, scaled, as `output_type="latent"` gives them; or `pixels`, colour
            values in [0, 1], which are encoded first.
        vae: for pixels, the VAE of the judge's latent space, on its device; any other is an error.
        space: for latents, their latent space; None: not checked.
        layout: order of the axes: (batch, time, channel, height, width), or with the channels
            before time.
        fps: frames per second of the videos.
        num_frames: for latents, the number of frames requested from the generator; drops the
            padding of CogVideoX 1.5.
        normalize: as for `GTSVJReward`.
        encode: encodes prompts: a `PromptEncoder` of the generator's pipeline, for a reward that
            reads prompts.
        differentiable: keep the gradient to the images, for AlignProp, if the caller has gradients
            enabled. By default there is no graph.

    Raises:
        ValueError: for arguments that do not belong together.
        LatentSpaceError: for a VAE of another family.
    """

    def __init__(
        self,
        reward: AnyReward,
        *,
        images_are: Literal["latents", "pixels"],
        vae: Any = None,
        space: AnySpace | None = None,
        layout: Layout = "BTCHW",
        fps: AnyNumber | None = None,
        num_frames: AnyNumber | None = None,
        normalize: bool = True,
        encode: Encode | None = None,
        differentiable: bool = False,
    ) -> None:
        if images_are not in ("latents", "pixels"):
            raise ValueError(f"`images_are` must be 'latents' or 'pixels', got {images_are!r}")
        if layout not in ("BTCHW", "BCTHW"):
            raise ValueError(f"`layout` must be 'BTCHW' or 'BCTHW', got {layout!r}")
        if (images_are == "pixels") != (vae is not None):
            raise ValueError("`vae` and images_are='pixels' go together: the VAE encodes pixels")
        if vae is not None and (space is not None or num_frames is not None):
            raise ValueError("`space` and `num_frames` are of latents: leave them out for pixels")
        check_encode(reward, encode)
        self.reward = reward
        self.encode = encode
        self.vae = vae
        self.space = as_space(space if vae is None else vae)
        self.layout = layout
        self.fps = as_number("fps", fps)
        self.num_frames = as_count("num_frames", num_frames)
        self.normalize = normalize
        self.differentiable = differentiable
        self.__name__ = "gtsvj_ddpo"

    def __call__(
        self, images: Any, prompts: Sequence[str], metadata: Any
    ) -> tuple[Float[Tensor, " batch"], dict[str, Any]]:
        """Scores (batch,), float32, on the judge's device; and no further information.

        Args:
            images: latents or frames of videos, a tensor in `layout`.
            prompts: one per video; read by a reward that reads prompts, else counted.
            metadata: not read.

        Raises:
            TypeError: for anything but a floating point tensor.
            ValueError: for images, frames out of [0, 1], or another number of prompts.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward.
        """
        del metadata
        videos = self.videos(images)
        if len(prompts) != len(videos):
            raise ValueError(f"got {len(prompts)} prompts for {len(videos)} videos")
        # Whether gradients are on is a property of the thread: in a pool they are, whatever the
        # trainer switched off in its own.
        with nullcontext() if self.differentiable else torch.no_grad():
            latents = videos
            if self.vae is not None and self.space is not None:
                latents = self.space.encode(videos, self.vae)
            with lock_of(self):
                text = {} if self.encode is None else {"text": self.encode(list(prompts))}
                scores = self.reward(
                    latents,
                    **text,
                    space=self.space,
                    fps=self.fps,
                    num_frames=self.num_frames,
                    normalize=self.normalize,
                )
        return scores, {}

    def videos(self, images: Any) -> Float[Tensor, "batch time channel height width"]:
        """What the trainer handed over, with time before the channels."""
        if not isinstance(images, Tensor) or not images.is_floating_point():
            what = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                f"expected a floating point tensor of videos, got {what}: let the pipeline return "
                'tensors, output_type="pt" for pixels or "latent" for latents'
            )
        shape = tuple(images.shape)
        if images.ndim != 5:
            raise ValueError(
                f"expected videos of rank 5 in {self.layout!r} order, got shape {shape}: single "
                "images cannot be scored, a judge of videos needs at least 3 latent frames (9 "
                "frames of CogVideoX)"
            )
        axis = self.layout.index("C")
        if self.vae is not None and shape[axis] != 3:
            raise ValueError(
                f"expected 3 colours on axis {axis} ({self.layout!r} order), got shape {shape}: "
                "set `layout` to their order; latents need images_are='latents'"
            )
        return images if self.layout == "BTCHW" else images.transpose(1, 2)


def flow_grpo_scorer(
    reward: AnyReward,
    *,
    images_are: Literal["latents", "pixels"],
    vae: Any = None,
    space: AnySpace | None = None,
    layout: Layout = "BTCHW",
    fps: AnyNumber | None = None,
    num_frames: AnyNumber | None = None,
    normalize: bool = True,
    encode: Encode | None = None,
) -> Callable[[], Scorer]:
    """A function for the table `score_functions` in flow_grpo's `multi_score`.

    flow_grpo reads `__code__.co_varnames` of it, so it is a plain function; it takes no device,
    since the judge is where it was loaded. Training and evaluation scorers made by it share the
    judge, and wait for one another.

    Example:
        ```python
        score_functions["gtsvj"] = flow_grpo_scorer(reward, images_are="pixels", vae=vae, fps=8.0)
        ```

    Args:
        reward: as for `DDPOReward`, like all others.
        images_are: flow_grpo's Wan script hands out pixels.
        vae: see there.
        space: see there.
        layout: see there.
        fps: see there.
        num_frames: see there.
        normalize: see there.
        encode: see there.
    """
    scores = DDPOReward(
        reward,
        images_are=images_are,
        vae=vae,
        space=space,
        layout=layout,
        fps=fps,
        num_frames=num_frames,
        normalize=normalize,
        encode=encode,
    )

    def score(
        images: Any, prompts: Sequence[str], metadata: Any
    ) -> tuple[list[float], dict[str, Any]]:
        rewards, info = scores(images, prompts, metadata)
        return rewards.tolist(), info

    def gtsvj_score() -> Scorer:
        return score

    return gtsvj_score
