"""Adapter between a policy and a pipeline: scheduler, text encoder, inputs of the transformer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.alignment.flow import (
    SDE,
    check_eta,
    flow_noise,
    flow_scheduler,
    flow_transition,
    inverted,
)
from gtsvj_reward.alignment.transition import Latents, Transition
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.texts import ENCODERS
from gtsvj_reward.sampling.pipelines import ClipSize

Timestep = float | Float[Tensor, " clip"] | Int[Tensor, " clip"]
"""Of all clips, or of each."""


class PolicyFamily:
    """A pipeline of flow matching as a policy uses it; its latents are (batch, channel, time, ...).

    Args:
        pipe: the pipeline; it is not changed.
        size: of the clips.
        sde: how noise enters a step; see `flow_transition`.
        flow_shift: of the noise levels; None: as the pipeline's scheduler has it.
        fps: frames per second, for models with such an input.
        text_length: tokens of a prompt, for CogVideoX; None: as the pipeline has it.

    Raises:
        ValueError: for a scheduler or settings that the family does not take.
    """

    told_guidance = False
    """Whether guidance is an input of the model, instead of a second pass with an empty prompt."""

    def __init__(
        self,
        pipe: Any,
        size: ClipSize,
        *,
        sde: SDE = "ddim",
        flow_shift: float | None = None,
        fps: float = 25.0,
        text_length: int | None = None,
    ) -> None:
        self.pipe, self.size, self.sde, self.fps = pipe, size, sde, fps
        self.text_length = text_length
        self.config = pipe.transformer.config
        # A policy's clips are in this package's order, not in the pipeline's.
        self.space = replace(LatentSpace.from_pipeline(pipe), layout="BTCHW")
        self.scheduler = self.make_scheduler(flow_shift)

    def make_scheduler(self, flow_shift: float | None) -> Any:
        """The policy's scheduler, whose step is a function of one output alone."""
        check_eta(0.0, self.sde)
        if self.text_length is not None:
            raise ValueError(
                f"`text_length` is CogVideoX's: a {type(self.pipe).__name__} pads prompts to a "
                f"length of its own; got {self.text_length}"
            )
        return flow_scheduler(self.pipe.scheduler, shift=flow_shift)

    @property
    def patch(self) -> int:
        """Latents that the transformer joins, in height and in width."""
        return int(self.config.patch_size)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width) of a clip, with the padding of CogVideoX 1.5."""
        steps = self.space.latent_frames(self.size.num_frames)
        steps += -steps % (self.space.patch_size_t or 1)
        stride, channels = self.space.spatial_compression, int(self.config.in_channels)
        return steps, channels, self.size.height // stride, self.size.width // stride

    @property
    def positions(self) -> int:
        """Latents of a clip over time, height and width."""
        time, _, height, width = self.latent_shape
        return time * height * width

    def encode(self, texts: Sequence[str]) -> tuple[list[TextCondition], TextCondition]:
        """Embeddings of each text and of the empty prompt, by the pipeline's text encoder."""
        encoder = ENCODERS[type(self.pipe.transformer).__name__]
        device = self.pipe.text_encoder.device
        rows = [encoder(self.pipe, text, self.config, device) for text in [*texts, ""]]
        return rows[:-1], rows[-1]

    def set_timesteps(self, steps: int) -> None:
        """Set the scheduler to a number of steps, at the pipeline's noise levels."""
        self.scheduler.set_timesteps(steps)

    def inputs(
        self, latents: Latents, timesteps: Tensor, text: TextCondition, guidance: float
    ) -> dict[str, Any]:
        """Arguments of the transformer's forward, as the pipeline passes them in float32.

        In half precision Mochi's differ: its pipeline rounds timesteps (by up to 2 in bfloat16) and
        the latents between steps, and a policy does not.

        Args:
            latents: noisy, in the dtype of the weights.
            timesteps: one per clip.
            text: of the same clips.
            guidance: w, for models with such an input.
        """
        del guidance
        mask = {} if text.mask is None else {"encoder_attention_mask": text.mask}
        return {
            "hidden_states": latents.transpose(1, 2),
            "timestep": timesteps,
            "encoder_hidden_states": text.embeds,
            **mask,
        }

    def as_latents(self, output: Tensor) -> Latents:
        """The transformer's output in the order of latents."""
        return output.transpose(1, 2)

    def transition(
        self, output: Latents, timestep: float, noisy: Latents, *, eta: float
    ) -> Transition:
        """A stochastic step; see `flow_transition`.

        Raises:
            ValueError: for a timestep that the schedule does not have.
        """
        places = (self.scheduler.timesteps == timestep).nonzero().flatten().tolist()
        if len(places) != 1:
            raise ValueError(
                f"timestep {timestep} is {len(places)} times in the schedule, expected once: call "
                "`schedule(policy, steps)` first, and take one of its timesteps"
            )
        return flow_transition(self.scheduler, output, places[0], noisy, eta=eta, sde=self.sde)

    def add_noise(
        self, clean: Latents, noise: Latents, timestep: Timestep
    ) -> tuple[Latents, Latents]:
        """x_t of the forward process, and the target of the model: the velocity."""
        return flow_noise(self.scheduler, clean, noise, timestep)

    @property
    def noise_levels(self) -> range:
        """All timesteps that the model can be trained at; none is free of noise."""
        count = int(self.scheduler.config.num_train_timesteps)
        return range(count) if inverted(self.scheduler) else range(1, count + 1)
