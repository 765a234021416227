"""The contract of a backbone: a video model, its blocks, and how it is called."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones.admission import SharingError
from gtsvj_reward.backbones.image import ImageCondition, ImageUse, check_image
from gtsvj_reward.backbones.sharing import LiveWeights
from gtsvj_reward.backbones.taps import Read, check_taps, watching
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
            `timestep` = 1000 sigma; for other models the scheduler defines timesteps.
        image_use: whether it generates from a reference image: never, also, or always.
        given_frames: leading latent frames that an image takes the place of: the model is given
            them, and what it predicts of them is of no account.
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
    image_use: ImageUse = "never"
    given_frames: int = 0
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

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """The arguments of the model's forward with a reference image among them.

        For models that generate from an image; others are never given one.

        Args:
            inputs: what `inputs` made of the latents.
            latents: scaled latents, in the dtype of the weights.
            image: of the size of the latents, which was checked; None is the null condition of
                models that always have an image (zeros).
        """
        del latents, image
        return inputs

    def arguments(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None,
        image: ImageCondition | None,
    ) -> dict[str, Any]:
        """What the model's forward is called with, of conditions that fit.

        Raises:
            ValueError: for latents, text or image that the model does not take.
        """
        self.check_geometry(latents)
        self.check_text(text)
        self.check_image(image, latents)
        latents = latents.to(self.dtype)
        return self.with_image(self.inputs(latents, timestep=timestep, text=text), latents, image)

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
        image: ImageCondition | None = None,
        taps: Sequence[int] | None = None,
        read: Read | None = None,
    ) -> Float[Tensor, "batch step ..."] | Mapping[int, Float[Tensor, "batch step ..."]]:
        """Video tokens that leave blocks of the model, grouped by step.

        Args:
            latents: scaled latents; converted to the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).
            image: reference images, of models that take them; None is the null condition.
            taps: numbers of blocks, counted from 1.
            read: a function of tokens, called as soon as they leave a block; its value takes their
                place. Tokens are then not kept, nor are their gradients for longer than needed.

        Returns:
            Tap -> tokens, in the order of `taps`; without `taps` the tokens of the last block in
            use: (batch, step, tokens, dim), where `step` is `steps(time)`, `tokens` the patches of
            one step.

        Raises:
            ValueError: for latents or taps that the model does not have.
            HiddenBlockError: if a block was not seen once.
        """
        wanted, blocks = check_taps(taps, self.depth), self.blocks()
        arguments = self.arguments(latents, timestep=timestep, text=text, image=image)
        steps = self.steps(latents.shape[1])

        def by_step(output: Tensor) -> Tensor:
            tokens = output.unflatten(1, (steps, -1))
            return tokens if read is None else read(tokens)

        with watching({tap: blocks[tap - 1] for tap in wanted}, by_step) as seen:
            self.model(**arguments)
        found = {tap: output for tap, (output,) in seen.items()}
        return found[self.depth] if taps is None else found

    def predict(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
    ) -> Float[Tensor, "batch time channel height width"]:
        """What the whole model says of noisy latents: noise, v, or the flow from clean to noise.

        Args:
            latents: noisy latents; converted to the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).
            image: reference images, of models that take them; None is the null condition.

        Raises:
            ValueError: for latents that the model does not take, and if blocks were left out.
        """
        self.require_whole()
        arguments = self.arguments(latents, timestep=timestep, text=text, image=image)
        return self.as_latents(self.model(**arguments, return_dict=False)[0], latents.shape)

    def require_whole(self) -> None:
        """Reject a part of a model, whose output is not what the generator predicts."""
        if not self.whole:
            raise ValueError(
                f"the backbone holds only the first {self.depth} blocks of the {self.family}; a "
                "prediction needs all of them: load it without `depth`"
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
        """Reject latents that the patch embedding cannot cut into patches."""
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
        """Reject what the text encoder of another family said.

        Several families have text of the same width, which is not interchangeable.
        """
        if text is not None and text.family not in (None, self.family):
            raise ValueError(
                f"the prompts were encoded for a {text.family}, this is a {self.family}: encode "
                "them by the pipeline of this model, `text_of(pipe, prompts)`"
            )

    def check_image(self, image: ImageCondition | None, latents: Tensor) -> None:
        """Reject an image that is not of the latents' size, or that the model has no use for."""
        check_image(image, latents, self.image_use, self.family)

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
