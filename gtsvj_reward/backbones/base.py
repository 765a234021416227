"""The contract of a backbone: a video model, its blocks, and how it is called."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones.admission import SharingError
from gtsvj_reward.backbones.sharing import LiveWeights, take_weights
from gtsvj_reward.backbones.taps import make_visible, watching
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.latents.fingerprint import weights_fingerprint


class Backbone(nn.Module, ABC):
    """A video diffusion transformer whose blocks are watched while its own forward runs.

    Subclass it and pass the object wherever a transformer is accepted to use a model of your own:
    set the attributes, and say what its blocks are, how it is called, and where LoRA sits.

    Attributes:
        family: class name of the transformer, stored in checkpoints.
        model: what is called. Its parameters are fingerprinted under the names they have in it.
        depth: number of blocks in use.
        dim: width of a token.
        latent_channels: channels that the patch embedding takes.
        patch_size: spatial patch edge, in latent pixels.
        patch_size_t: latent frames in one step, 1 where the model does not patch time.
        settings: what of the model's config decides its output besides the weights (positions,
            heads, ...), as text; part of the fingerprint.
        kept_in_float32: names of parts whose weights half precision leaves in float32.
        output_parts: names of what the model does behind its last block, whose weights are buffers
            here: they run, but no hidden state depends on them.
        live: what ties the weights to a transformer in use; None for weights of its own.
        whole: whether all blocks of the model are in use, so that its output is the generator's.
        flow_matching: whether it was trained on x = (1 - sigma) clean + sigma noise, told
            `timestep` = 1000 sigma; of other models the scheduler knows what a timestep means.
    """

    family: str
    model: nn.Module
    depth: int
    dim: int
    latent_channels: int
    patch_size: int
    patch_size_t: int = 1
    settings: str = ""
    kept_in_float32: frozenset[str] = frozenset()
    output_parts: tuple[str, ...] = ()
    live: LiveWeights | None = None
    whole: bool = True
    flow_matching: bool = True
    recomputes: bool = False

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in use, in order. Each returns its video tokens, alone or first of a tuple."""

    @abstractmethod
    def inputs(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None,
    ) -> dict[str, Any]:
        """The arguments of the model's forward.

        Args:
            latents: scaled latents, in the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).
        """

    @abstractmethod
    def lora_targets(self, block: int) -> list[str]:
        """Names in the model of the q, k, v and out projections of one block, counted from 0."""

    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
        taps: Sequence[int] | None = None,
    ) -> (
        Float[Tensor, "batch step tokens dim"]
        | Mapping[int, Float[Tensor, "batch step tokens dim"]]
    ):
        """Video tokens that leave blocks of the model, grouped by step.

        Args:
            latents: scaled latents; converted to the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).
            taps: numbers of blocks, counted from 1.

        Returns:
            Tap -> tokens, in the order of `taps`; without `taps` the tokens of the last block in
            use. `step` is `steps(time)`, `tokens` the patches of one step.

        Raises:
            ValueError: for latents or taps that the model does not have.
            HiddenBlockError: if a block was not seen once.
        """
        self.check_geometry(latents)
        self.check_text(text)
        wanted, blocks = check_taps(taps, self.depth), self.blocks()
        latents = latents.to(self.dtype)
        with watching({tap: blocks[tap - 1] for tap in wanted}) as seen:
            self.model(**self.inputs(latents, timestep=timestep, text=text))
        steps = self.steps(latents.shape[1])
        tokens = {tap: output.unflatten(1, (steps, -1)) for tap, (output,) in seen.items()}
        return tokens[self.depth] if taps is None else tokens

    def predict(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch time channel height width"]:
        """What the whole model says of noisy latents: noise, v, or the flow from clean to noise.

        Args:
            latents: noisy latents; converted to the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).

        Raises:
            ValueError: for latents that the model does not take, and if blocks were left out.
        """
        self.require_whole()
        self.check_geometry(latents)
        self.check_text(text)
        latents = latents.to(self.dtype)
        inputs = self.inputs(latents, timestep=timestep, text=text)
        return self.as_latents(self.model(**inputs, return_dict=False)[0], latents.shape)

    def require_whole(self) -> None:
        """Refuse a part of a model, whose output is not what the generator predicts.

        Raises:
            ValueError: with its number of blocks.
        """
        if not self.whole:
            raise ValueError(
                f"the backbone holds {self.depth} blocks of a longer {self.family}: what a "
                "generator predicts takes all of them, so load it without `depth`"
            )

    def as_latents(
        self, output: Tensor, shape: torch.Size
    ) -> Float[Tensor, "batch time channel height width"]:
        """The model's output in the order of latents; it is (batch, channel, time, ...) for most.

        Args:
            output: what the model returned.
            shape: of the latents that it was given, before any padding.
        """
        del shape
        return output.transpose(1, 2)

    def steps(self, latent_frames: int) -> int:
        """Steps that a clip of `latent_frames` latent frames has: ceil(T / patch_size_t)."""
        return -(-latent_frames // self.patch_size_t)

    def step_of_frame(self, latent_frames: int) -> list[int]:
        """The step that each latent frame is part of; what does not fill a step comes first."""
        padding = self.steps(latent_frames) * self.patch_size_t - latent_frames
        return [(frame + padding) // self.patch_size_t for frame in range(latent_frames)]

    def check_geometry(self, latents: Tensor) -> None:
        """Refuse latents that the patch embedding cannot cut into patches.

        Raises:
            ValueError: naming the shape, what was expected and the cure.
        """
        if latents.ndim != 5 or latents.shape[2] != self.latent_channels:
            raise ValueError(
                f"{self.family} takes latents (batch, time, {self.latent_channels}, height, "
                f"width), got {tuple(latents.shape)}"
            )
        height, width = latents.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"latent height and width must be multiples of the patch size {self.patch_size}, "
                f"got {height}x{width}: crop the video before encoding it"
            )

    def check_text(self, text: TextCondition | None) -> None:
        """Refuse what the text encoder of another family said.

        Several families have text of the same width, which they do not understand of one another.

        Raises:
            ValueError: naming both families.
        """
        if text is not None and text.family not in (None, self.family):
            raise ValueError(
                f"the prompts were encoded for a {text.family}, this is a {self.family}: encode "
                "them by the pipeline of this model, `text_of(pipe, prompts)`"
            )

    @property
    def dtype(self) -> torch.dtype:
        """That of the base weights; some of them may be kept in float32."""
        return next(self.base_tensors())[1].dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.base_tensors())[1].device

    def together(self) -> AbstractContextManager[None]:
        """What one process raises within it, all raise that hold a part of the weights."""
        return nullcontext()

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass instead of stored."""
        return self.recomputes

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        if on != self.recomputes:
            model: Any = self.model  # these are the methods of diffusers' models
            if on:
                model.enable_gradient_checkpointing()
            else:
                model.disable_gradient_checkpointing()
        self.recomputes = on

    def base_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen weights in use with their diffusers names, whatever adapter is attached."""
        for name, parameter in self.model.named_parameters():
            if ".lora_" not in name:
                yield name.replace(".base_layer.", "."), parameter

    def fingerprint(self) -> str:
        """SHA-256 that tells this base model, at this depth, from any other."""
        return weights_fingerprint(self.base_tensors(), self.settings)

    def cast(self, dtype: torch.dtype) -> None:
        """Change the dtype of the base weights alone; an adapter keeps its own.

        In half precision those of `kept_in_float32` are in float32, as when diffusers loads a model
        in that dtype.

        Raises:
            SharingError: if the weights are somebody else's, in another dtype.
        """
        kept = self.kept_in_float32 if dtype in (torch.float16, torch.bfloat16) else frozenset()
        named = [(not kept.isdisjoint(name.split(".")), t) for name, t in self.base_tensors()]
        behind = [(n.split("."), b) for n, b in self.model.named_buffers()]
        if self.live is not None:
            if all(tensor.dtype == dtype for is_kept, tensor in named if not is_kept):
                return
            raise SharingError(
                f"shared weights cannot be cast to {dtype}: they are the transformer's own, in "
                f"{self.dtype}"
            )
        named += [(not kept.isdisjoint(n), b) for n, b in behind if n[0] in self.output_parts]
        for is_kept, tensor in named:
            tensor.data = tensor.data.to(torch.float32 if is_kept else dtype)


class TransformerBackbone(Backbone):
    """A backbone of a known diffusers class, which can be built from one and loaded in part.

    The model is one of our own, of that class, over the weights of the given transformer: its
    hooks, mode, adapters and attention processors are left behind.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to use, all of them by default.
        live: follow the transformer, whose parameters the model then has; see `LiveWeights`.

    Raises:
        ValueError: for a depth out of range, or a model for another task than text to video.
        SharingError: for weights that cannot be shared.
    """

    config: Any
    output_parts: tuple[str, ...] = ("norm_out", "proj_out")

    def __init__(self, transformer: Any, depth: int | None = None, *, live: bool = False) -> None:
        super().__init__()
        config = transformer.config
        self.configure(config)
        available = len(self.blocks_of(transformer))
        self.depth = check_depth(depth, available)
        self.whole = self.depth == available
        # Buffers are made; weights, some of which draw random numbers, take no memory.
        with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
            self.model = self.skeleton(config, self.depth)
        self.kept_in_float32 = frozenset(
            getattr(diffusers, self.family)._keep_in_fp32_modules or ()
        )
        self.live = take_weights(self.model, transformer, self.output_parts, live=live)
        for block in self.blocks():
            make_visible(block)
        self.eval()

    @abstractmethod
    def configure(self, config: Any) -> None:
        """Set the attributes that follow from the model's config, and refuse other tasks."""

    @staticmethod
    def blocks_of(model: Any) -> list[nn.Module]:
        """The blocks of a diffusers model, in order."""
        return list(model.transformer_blocks)

    def blocks(self) -> list[nn.Module]:
        """The blocks in use, in order."""
        return self.blocks_of(self.model)

    def lora_targets(self, block: int) -> list[str]:
        """Names of to_q, to_k, to_v and to_out.0 of a block's self-attention on the video."""
        prefix = f"transformer_blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    @classmethod
    def block_count(cls, config: Mapping[str, Any]) -> int:
        """Blocks of a model, from its config."""
        return int(config["num_layers"])

    @classmethod
    def truncated(cls, config: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The config of a model that has the first `depth` blocks only."""
        return {**config, "num_layers": depth}

    @classmethod
    def skeleton(cls, config: Mapping[str, Any], depth: int) -> Any:
        """A model with the first `depth` blocks; called where new weights take no memory."""
        shorter = cls.truncated(config, depth)
        # diffusers drops the values that it names as defaults, the number of layers among them.
        shorter.pop("_use_default_values", None)
        return getattr(diffusers, cls.family).from_config(shorter)


def check_depth(depth: int | None, available: int) -> int:
    """The number of blocks to use: all of them for None.

    Raises:
        ValueError: if `depth` is not in 1..available.
    """
    if depth is None:
        return available
    if not 1 <= depth <= available:
        raise ValueError(f"`depth` must be in 1..{available} (the model's blocks), got {depth}")
    return depth


def check_taps(taps: Sequence[int] | None, depth: int) -> list[int]:
    """The taps of a call: the last block for None.

    Raises:
        ValueError: without taps, or if they are not different numbers in 1..depth.
    """
    wanted = [depth] if taps is None else list(taps)
    if not wanted or len(set(wanted)) < len(wanted) or not all(1 <= t <= depth for t in wanted):
        raise ValueError(
            f"`taps` must be different numbers of blocks in 1..{depth}, one at least, got {wanted}"
        )
    return wanted
