"""A pipeline as a policy: its transformer, with a LoRA adapter that is trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from jaxtyping import Float, UInt8
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from gtsvj_reward.alignment.families import FAMILIES
from gtsvj_reward.alignment.family import Timestep
from gtsvj_reward.alignment.flow import SDE
from gtsvj_reward.alignment.prompts import Prompts as Prompts
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.files import whole_files
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.losses.reduction import at_least_float32
from gtsvj_reward.sampling.pipelines import ClipSize as ClipSize

BLOCKS = ("transformer_blocks.", "single_transformer_blocks.", "blocks.")
"""Where the blocks of a transformer are; a token refiner of the text is not among them."""
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Projections of every attention in them that carry the adapter."""
ADAPTER = "policy"
TEXTS_AT_ONCE = 16
"""Prompts in one pass through the text encoder."""


class Policy:
    """A generator whose LoRA adapter is trained, and whose base is its own reference.

    The base stays frozen, so a judge can share its weights. The reference needs no memory: it is
    the same model with the adapter switched off.

    Args:
        pipe: a text-to-video pipeline of `FAMILIES`: CogVideoX, HunyuanVideo, LTX, Mochi, or Wan of
            one transformer, which gets an adapter. The policy makes its own scheduler, of single
            steps at the same noise levels.
        size: of the clips.
        guidance: weight w of classifier-free guidance; at 1 the empty prompt is not run.
            HunyuanVideo gets it as an input, and never runs the empty prompt.
        rank: of the adapter.
        alpha: the adapter is scaled by alpha / rank; None: as the rank.
        text_length: tokens of a prompt of CogVideoX; None: the length of its config.
        sde: how noise enters a stochastic step of a flow; see `flow_transition`.
        flow_shift: of a flow's noise levels; None: as the pipeline's scheduler has it.
        fps: frames per second, an input of LTX.
        seed: of the adapter's initial values; a fresh adapter changes nothing.
        gradient_checkpointing: recompute each block in the backward pass.
        autocast: context of every pass through the transformer, as `Accelerator.autocast`.

    Raises:
        ValueError: for another pipeline, a transformer that has adapters, or sizes that it cannot
            make.
    """

    def __init__(
        self,
        pipe: Any,
        size: ClipSize,
        *,
        guidance: float = 6.0,
        rank: int = 16,
        alpha: float | None = None,
        text_length: int | None = None,
        sde: SDE = "ddim",
        flow_shift: float | None = None,
        fps: float = 25.0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        check_pipeline(pipe)
        if rank < 1:
            raise ValueError(f"`rank` must be at least 1, got {rank}")
        self.pipe = pipe
        self.size = size
        self.guidance = guidance
        self.autocast = autocast
        self.transformer: Any = pipe.transformer
        self.family = FAMILIES[type(pipe).__name__](
            pipe, size, sde=sde, flow_shift=flow_shift, fps=fps, text_length=text_length
        )
        self.space, self.scheduler = self.family.space, self.family.scheduler
        check_size(size, self.space, self.family.patch)
        check_guidance(guidance, self.transformer, told=self.family.told_guidance)
        self.known: dict[str, TextCondition] = {}
        self.null = TextCondition(torch.empty(1, 0, 0))
        self.transformer.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.transformer.add_adapter(
                LoraConfig(
                    r=rank,
                    lora_alpha=alpha or rank,
                    target_modules=adapted_modules(self.transformer),
                ),
                adapter_name=ADAPTER,
            )
        cast_training_params(self.transformer, dtype=torch.float32)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        found: torch.device = self.transformer.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights; the adapter is in float32."""
        # Some families keep a few weights in float32, but no projection.
        named = self.transformer.named_parameters()
        found: torch.dtype = next(p.dtype for n, p in named if n.endswith("to_q.base_layer.weight"))
        return found

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width) of a clip, with the padding of CogVideoX 1.5."""
        return self.family.latent_shape

    def unpadded(
        self, latents: Float[Tensor, "clip time channel height width"]
    ) -> Float[Tensor, "clip steps channel height width"]:
        """Clean latents without the padding of CogVideoX 1.5."""
        return self.space.unpad(latents, self.size.num_frames)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name, in the order of the model."""
        return {
            name: parameter
            for name, parameter in self.transformer.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Prompts:
        """Embeddings of prompts by the pipeline's text encoder; each text is encoded once.

        They are cached on the CPU. The batch of texts affects embeddings by rounding: for runs that
        must repeat bitwise, encode all prompts first, in a fixed order.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for first in range(0, len(new), TEXTS_AT_ONCE):
            part = new[first : first + TEXTS_AT_ONCE]
            rows, null = self.family.encode(part)
            home = torch.device("cpu")
            self.known |= {text: row.to(home) for text, row in zip(part, rows, strict=True)}
            self.null = null.to(home)
        text = TextCondition.cat([self.known[text] for text in texts])
        return Prompts(tuple(texts), text, self.null).to(self.device)

    def text(self, texts: Sequence[str]) -> TextCondition:
        """Embeddings of prompts for a reward that reads them."""
        return replace(self.encode(texts).condition(), family=type(self.transformer).__name__)

    def release_text_encoder(self) -> None:
        """Move the text encoders to the CPU, where later texts are encoded."""
        for name, part in self.pipe.components.items():
            if name.startswith("text_encoder") and part is not None:
                part.to("cpu")

    def predict(
        self,
        latents: Float[Tensor, "clip time channel height width"],
        timestep: Timestep,
        prompts: Prompts,
        *,
        guided: bool = True,
    ) -> Float[Tensor, "clip time channel height width"]:
        """The model's output for noisy latents, float32, computed as its pipeline does.

        CogVideoX predicts v; the others predict the velocity of the flow, noise minus clean
        latents, Mochi with the opposite sign.

        Args:
            latents: x_t, with padding.
            timestep: of all clips, or of each.
            prompts: one per clip.
            guided: whether to use guidance.
        """
        guided = guided and self.guidance > 1 and not self.family.told_guidance
        timesteps = torch.as_tensor(timestep, device=latents.device).expand(len(latents))
        text = prompts.condition(guided=guided)
        if guided:
            # The empty prompts first, as in most pipelines: (2 clip ...).
            latents, timesteps = torch.cat([latents, latents]), torch.cat([timesteps, timesteps])
        dtype = self.dtype
        text = text.each(lambda part: part if part.dtype == torch.bool else part.to(dtype))
        with self.autocast():
            output: Tensor = self.transformer(
                **self.family.inputs(latents.to(dtype), timesteps, text, self.guidance),
                return_dict=False,
            )[0]
        output = at_least_float32(self.family.as_latents(output))
        if not guided:
            return output
        plain, conditioned = output.chunk(2)
        return plain + self.guidance * (conditioned - plain)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch off the adapter and gradients: the model before training.

        Do not enter it in the middle of a forward pass that will be differentiated.
        """
        self.transformer.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.transformer.enable_adapters()

    def save(self, folder: str | Path) -> None:
        """Write the adapter atomically, for `pipe.load_lora_weights(folder)`."""
        with whole_files(Path(folder)) as part:
            type(self.pipe).save_lora_weights(part, transformer_lora_layers=self.adapter())

    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors, by PEFT's names."""
        found: dict[str, Tensor] = get_peft_model_state_dict(self.transformer, adapter_name=ADAPTER)
        return found

    def load_adapter(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `adapter` returned.

        Raises:
            ValueError: if names are missing or left over, naming them.
        """
        missing, extra = self.adapter().keys() - tensors.keys(), tensors.keys() - self.adapter()
        if missing or extra:
            raise ValueError(
                f"an adapter of another model or placement: missing {sorted(missing)[:3]}, not "
                f"expected {sorted(extra)[:3]} ({len(missing)} and {len(extra)} tensors)"
            )
        set_peft_model_state_dict(self.transformer, tensors, adapter_name=ADAPTER)


@torch.no_grad()
def decoded(
    policy: Policy, clip: Float[Tensor, "time channel height width"]
) -> UInt8[Tensor, "frame rows columns 3"]:
    """Frames of a clean clip without padding, on the CPU."""
    frames = policy.space.decode(clip[None], policy.pipe.vae)[0]
    pixels: Tensor = (255 * frames).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return pixels.cpu()


def adapted_modules(transformer: Any) -> list[str]:
    """Names of the projections that carry the adapter, in the blocks alone."""
    return [
        name
        for name, _ in transformer.named_modules()
        if name.startswith(BLOCKS) and name.endswith(tuple(f".{target}" for target in TARGETS))
    ]


def check_pipeline(pipe: Any) -> None:
    """Reject an unknown pipeline, one that needs more than text, or one with adapters."""
    name = type(pipe).__name__
    if name not in FAMILIES:
        raise ValueError(
            f"expected a pipeline that makes clips of prompts ({', '.join(FAMILIES)}), got {name}"
        )
    if getattr(pipe.transformer, "peft_config", None):
        raise ValueError(
            "the transformer has adapters already: fuse them (`pipe.fuse_lora()`, then "
            "`pipe.unload_lora_weights()`), or load the pipeline anew"
        )


def check_size(size: ClipSize, space: LatentSpace, patch: int) -> None:
    """Reject sizes that a pipeline would round."""
    side = space.spatial_compression * patch
    if size.height % side or size.width % side or min(size.height, size.width) < side:
        raise ValueError(
            f"expected a height and width that {side} divides, got {size.height}x{size.width}"
        )
    if (size.num_frames - 1) % space.temporal_compression or size.num_frames < 1:
        raise ValueError(
            f"expected a number of frames of the form {space.temporal_compression}f + 1, got "
            f"{size.num_frames}"
        )


def check_guidance(guidance: float, transformer: Any, *, told: bool) -> None:
    """Reject guidance out of range, or for a model without an input for it."""
    if not guidance >= 1:
        raise ValueError(f"`guidance` must be at least 1, which is none, got {guidance}")
    if told and guidance > 1 and not transformer.config.guidance_embeds:
        raise ValueError(
            f"this {type(transformer).__name__} has no input for guidance (guidance_embeds=False), "
            f"got {guidance}: set it to 1"
        )
