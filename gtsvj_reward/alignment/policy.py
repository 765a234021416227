"""A CogVideoX pipeline as a policy: its transformer, with a LoRA adapter that is trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from jaxtyping import Float, Int, UInt8
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from gtsvj_reward.alignment.transition import ddim_scheduler
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.files import whole_files
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.losses.reduction import at_least_float32
from gtsvj_reward.sampling.pipelines import ClipSize as ClipSize

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Projections of every block that carry the adapter."""
ADAPTER = "policy"
TEXTS_AT_ONCE = 16
"""Prompts in one pass through the text encoder."""


@dataclass(frozen=True)
class Prompts:
    """Prompts and their embeddings."""

    texts: tuple[str, ...]
    embeds: Float[Tensor, "clip token dim"]
    """Of the texts."""
    null: Float[Tensor, "1 token dim"]
    """Of the empty prompt, for guidance."""

    def __len__(self) -> int:
        return len(self.texts)

    def twice(self) -> "Prompts":
        """The same prompts once more behind themselves."""
        return Prompts(self.texts * 2, torch.cat([self.embeds, self.embeds]), self.null)


class Policy:
    """A generator whose LoRA adapter is trained, and whose base is its own reference.

    The base stays frozen, so that a judge may share its weights and the reference costs no memory:
    it is the same model with the adapter switched off.

    Args:
        pipe: a `CogVideoXPipeline`; its transformer gets an adapter, its scheduler stays.
        size: of the clips.
        guidance: weight w of classifier-free guidance; at 1 the empty prompt is not run.
        rank: of the adapter.
        alpha: the adapter is scaled by alpha / rank; None: as the rank.
        text_length: tokens of a prompt; None: as many as the transformer was made for.
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
        seed: int = 0,
        gradient_checkpointing: bool = False,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        check_pipeline(pipe, size)
        if not guidance >= 1:
            raise ValueError(f"`guidance` must be at least 1, which is none, got {guidance}")
        if rank < 1:
            raise ValueError(f"`rank` must be at least 1, got {rank}")
        self.pipe = pipe
        self.size = size
        self.guidance = guidance
        self.autocast = autocast
        self.transformer: Any = pipe.transformer
        self.space = LatentSpace.from_pipeline(pipe)
        self.text_length = text_length or int(self.transformer.config.max_text_seq_length)
        self.scheduler = ddim_scheduler(pipe.scheduler)
        self.known: dict[str, Tensor] = {}
        self.null = torch.empty(0)
        self.transformer.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.transformer.add_adapter(
                LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=list(TARGETS)),
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
        found: torch.dtype = self.transformer.patch_embed.proj.weight.dtype
        return found

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width) of a clip, with the padding of CogVideoX 1.5."""
        steps = self.space.latent_frames(self.size.num_frames)
        steps += -steps % (self.transformer.config.patch_size_t or 1)
        stride = self.space.spatial_compression
        channels = int(self.transformer.config.in_channels)
        return steps, channels, self.size.height // stride, self.size.width // stride

    def unpadded(
        self, latents: Float[Tensor, "clip time channel height width"]
    ) -> Float[Tensor, "clip steps channel height width"]:
        """Clean latents without the padding of CogVideoX 1.5."""
        return self.space.unpad(latents, self.size.num_frames)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name, in the order of the model."""
        return {
            name: parameter
            for name, parameter in self.transformer.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Prompts:
        """Embeddings of prompts, by the pipeline's own text encoder, which sees each text once.

        They are kept on the CPU. What a batch of new texts is made of changes embeddings by
        rounding: encode all prompts first, in one order, where runs are to repeat bitwise.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for first in range(0, len(new), TEXTS_AT_ONCE):
            part = new[first : first + TEXTS_AT_ONCE]
            embeds, null = self.pipe.encode_prompt(
                part,
                do_classifier_free_guidance=True,
                max_sequence_length=self.text_length,
                device=self.pipe.text_encoder.device,
            )
            self.known |= dict(zip(part, embeds.cpu(), strict=True))
            self.null = null[:1].cpu()
        rows = torch.stack([self.known[text] for text in texts])
        return Prompts(tuple(texts), rows.to(self.device), self.null.to(self.device))

    def text(self, texts: Sequence[str]) -> TextCondition:
        """What the text encoder says of prompts, for a reward that reads them."""
        return TextCondition(self.encode(texts).embeds, family=type(self.transformer).__name__)

    def release_text_encoder(self) -> None:
        """Move the text encoder off the device; new texts are encoded on the CPU from now on."""
        self.pipe.text_encoder.to("cpu")

    def predict(
        self,
        latents: Float[Tensor, "clip time channel height width"],
        timestep: int | Int[Tensor, " clip"],
        prompts: Prompts,
        *,
        guided: bool = True,
    ) -> Float[Tensor, "clip time channel height width"]:
        """What the model says of noisy latents, float32; as `CogVideoXPipeline` computes it.

        Args:
            latents: x_t, with padding.
            timestep: of all clips, or of each.
            prompts: one per clip.
            guided: whether to use guidance.
        """
        guided = guided and self.guidance > 1
        timesteps = torch.as_tensor(timestep, device=latents.device).expand(len(latents))
        texts = prompts.embeds
        if guided:
            # The empty prompt first, as in the pipeline: (2 clip token dim).
            texts = torch.cat([prompts.null.expand_as(texts), texts])
            latents = torch.cat([latents, latents])
            timesteps = torch.cat([timesteps, timesteps])
        with self.autocast():
            output: Tensor = self.transformer(
                hidden_states=latents.to(self.dtype),
                encoder_hidden_states=texts.to(self.dtype),
                timestep=timesteps,
                image_rotary_emb=self.rotary,
                return_dict=False,
            )[0]
        output = at_least_float32(output)
        if not guided:
            return output
        plain, conditioned = output.chunk(2)
        return plain + self.guidance * (conditioned - plain)

    @cached_property
    def rotary(self) -> Any:
        """Positions of a model with rotary embeddings, from the pipeline, made once; else None."""
        if not self.transformer.config.use_rotary_positional_embeddings:
            return None
        return self.pipe._prepare_rotary_positional_embeddings(
            self.size.height, self.size.width, self.latent_shape[0], self.device
        )

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch the adapter off, and gradients with it: the model as it was before training.

        Nothing that is to be differentiated may be half way through its forward pass.
        """
        self.transformer.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.transformer.enable_adapters()

    def save(self, folder: str | Path) -> None:
        """Write the adapter, whole or not at all, for `pipe.load_lora_weights(folder)`."""
        with whole_files(Path(folder)) as part:
            type(self.pipe).save_lora_weights(part, transformer_lora_layers=self.adapter())

    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors, by PEFT's names."""
        found: dict[str, Tensor] = get_peft_model_state_dict(self.transformer, adapter_name=ADAPTER)
        return found

    def load_adapter(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `adapter` gave.

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


def check_pipeline(pipe: Any, size: ClipSize) -> None:
    """Refuse a pipeline that is not CogVideoX from text, and sizes that it would round.

    Raises:
        ValueError: saying which.
    """
    name = type(pipe).__name__
    if name != "CogVideoXPipeline":
        raise ValueError(f"expected a CogVideoXPipeline, which makes clips of prompts, got {name}")
    if getattr(pipe.transformer, "peft_config", None):
        raise ValueError(
            "the transformer has adapters already: fuse them (`pipe.fuse_lora()`, then "
            "`pipe.unload_lora_weights()`), or load the pipeline anew"
        )
    space = LatentSpace.from_pipeline(pipe)
    patch = space.spatial_compression * pipe.transformer.config.patch_size
    if size.height % patch or size.width % patch or min(size.height, size.width) < patch:
        raise ValueError(
            f"expected a height and width that {patch} divides, got {size.height}x{size.width}"
        )
    if (size.num_frames - 1) % space.temporal_compression or size.num_frames < 1:
        raise ValueError(
            f"expected a number of frames of the form {space.temporal_compression}f + 1, got "
            f"{size.num_frames}"
        )
