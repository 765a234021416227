"""One adapter for each family of pipelines."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.alignment.family import PolicyFamily, Timestep
from gtsvj_reward.alignment.transition import (
    Latents,
    Transition,
    add_noise,
    ddim_scheduler,
    ddim_transition,
)
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.sampling.schedules import (
    hunyuan_video_timesteps,
    ltx_timesteps,
    mochi_timesteps,
)


class CogVideoXFamily(PolicyFamily):
    """CogVideoX: DDIM instead of a flow, latents in this package's order."""

    def make_scheduler(self, flow_shift: float | None) -> Any:
        """DDIM's.

        Raises:
            ValueError: for settings of flows.
        """
        if flow_shift is not None or self.sde != "ddim":
            raise ValueError(
                "CogVideoX is not trained by flow matching: leave `flow_shift` out, and `sde` at "
                f"'ddim'; got {flow_shift} and {self.sde!r}"
            )
        return ddim_scheduler(self.pipe.scheduler)

    def encode(self, texts: Sequence[str]) -> tuple[list[TextCondition], TextCondition]:
        """All texts in one pass, padded to the length that the model expects."""
        embeds, null = self.pipe.encode_prompt(
            list(texts),
            do_classifier_free_guidance=True,
            max_sequence_length=self.text_length or int(self.config.max_text_seq_length),
            device=self.pipe.text_encoder.device,
        )
        return [TextCondition(row) for row in embeds.split(1)], TextCondition(null[:1])

    def inputs(
        self, latents: Latents, timesteps: Tensor, text: TextCondition, guidance: float
    ) -> dict[str, Any]:
        """See `PolicyFamily.inputs`."""
        found = super().inputs(latents, timesteps, text, guidance)
        return {**found, "hidden_states": latents, "image_rotary_emb": self.rotary}

    @cached_property
    def rotary(self) -> Any:
        """Rotary embeddings by the pipeline, computed once; None for models without them."""
        if not self.config.use_rotary_positional_embeddings:
            return None
        return self.pipe._prepare_rotary_positional_embeddings(
            self.size.height, self.size.width, self.latent_shape[0], self.pipe.transformer.device
        )

    def as_latents(self, output: Tensor) -> Latents:
        """The output itself."""
        return output

    def transition(
        self, output: Latents, timestep: float, noisy: Latents, *, eta: float
    ) -> Transition:
        """A step of stochastic DDIM; see `ddim_transition`."""
        return ddim_transition(self.scheduler, output, int(timestep), noisy, eta=eta)

    def add_noise(
        self, clean: Latents, noise: Latents, timestep: Timestep
    ) -> tuple[Latents, Latents]:
        """x_t of the forward process, and the target of the model: v."""
        chosen = torch.as_tensor(timestep).long().expand(len(clean))
        return add_noise(self.scheduler, clean, noise, chosen)

    @property
    def noise_levels(self) -> range:
        """All timesteps of the forward process."""
        return range(int(self.scheduler.config.num_train_timesteps))


class WanFamily(PolicyFamily):
    """Wan 2.1, and Wan 2.2 with one transformer; one timestep for the whole clip."""

    @property
    def patch(self) -> int:
        """See `PolicyFamily.patch`."""
        return int(self.config.patch_size[1])

    def make_scheduler(self, flow_shift: float | None) -> Any:
        """See `PolicyFamily.make_scheduler`.

        Raises:
            ValueError: for Wan 2.2's two experts.
        """
        boundary = self.pipe.config.get("boundary_ratio")
        if boundary is not None or self.pipe.components.get("transformer_2") is not None:
            raise ValueError(
                "expected a WanPipeline with one transformer, got Wan 2.2's two experts "
                f"(boundary_ratio={boundary}), of which one adapter would train only half of the "
                "steps: take Wan 2.1, or Wan 2.2's 5B"
            )
        return super().make_scheduler(flow_shift)


class MochiFamily(PolicyFamily):
    """Mochi: levels are shares of clean latents, and the schedule has two parts."""

    def set_timesteps(self, steps: int) -> None:
        """See `PolicyFamily.set_timesteps`."""
        mochi_timesteps(self.scheduler, steps, self.positions)


class HunyuanVideoFamily(PolicyFamily):
    """HunyuanVideo: guidance is an input, and so is pooled text."""

    told_guidance = True

    def set_timesteps(self, steps: int) -> None:
        """See `PolicyFamily.set_timesteps`."""
        hunyuan_video_timesteps(self.scheduler, steps, self.positions)

    def inputs(
        self, latents: Latents, timesteps: Tensor, text: TextCondition, guidance: float
    ) -> dict[str, Any]:
        """See `PolicyFamily.inputs`."""
        told = torch.full((len(latents),), guidance, dtype=latents.dtype, device=latents.device)
        found = super().inputs(latents, timesteps, text, guidance)
        return {**found, "pooled_projections": text.pooled, "guidance": told * 1000.0}


class LTXFamily(PolicyFamily):
    """LTX: one token per latent, positions in seconds, a shift computed from the clip's size."""

    def set_timesteps(self, steps: int) -> None:
        """See `PolicyFamily.set_timesteps`."""
        ltx_timesteps(self.scheduler, steps, self.positions)

    def inputs(
        self, latents: Latents, timesteps: Tensor, text: TextCondition, guidance: float
    ) -> dict[str, Any]:
        """See `PolicyFamily.inputs`."""
        _, time, _, height, width = latents.shape
        side = self.space.spatial_compression
        return {
            **super().inputs(latents, timesteps, text, guidance),
            "hidden_states": latents.movedim(2, -1).flatten(1, 3),
            "num_frames": time,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (self.space.temporal_compression / self.fps, side, side),
        }

    def as_latents(self, output: Tensor) -> Latents:
        """See `PolicyFamily.as_latents`; tokens are single latents."""
        time, _, height, width = self.latent_shape
        latents: Tensor = output.unflatten(1, (time, height, width)).movedim(-1, 2)
        return latents


FAMILIES: dict[str, type[PolicyFamily]] = {
    "CogVideoXPipeline": CogVideoXFamily,
    "HunyuanVideoPipeline": HunyuanVideoFamily,
    "LTXPipeline": LTXFamily,
    "MochiPipeline": MochiFamily,
    "WanPipeline": WanFamily,
}
"""diffusers class name -> adapter."""
