"""The judge: a backbone with an adapter, and a head."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones import (
    Backbone,
    ImageCondition,
    SharingError,
    TextCondition,
    backbone_for,
)
from gtsvj_reward.backbones.lora import attach_lora, lora_layers, merge_lora
from gtsvj_reward.dtypes import built_in_float32
from gtsvj_reward.judge.conditions import check_image_use, image_for, text_for
from gtsvj_reward.judge.config import Aspect, JudgeConfig
from gtsvj_reward.judge.heads import EnergyHead, TimePooling, TokenPooling, float32_region
from gtsvj_reward.judge.moments import check_steps
from gtsvj_reward.judge.output import JudgeOutput
from gtsvj_reward.judge.reading import completed, step_features
from gtsvj_reward.judge.readout import MomentReadout
from gtsvj_reward.judge.reduction import check_reducible, reduce_latents
from gtsvj_reward.judge.stages import (
    NOT_MEASURED,
    Part,
    aspects_config,
    head_after,
    make_head,
    preference_layer,
    refuse_moments,
    require_stage,
)


class VideoJudge(nn.Module):
    """Scores of a clip per step: energies (section 4.1), aspects or preferences (section 4.2).

    Build one with `from_transformer`, or load one with `load_judge`; `start_aspects` and
    `start_preference` lead from one stage to the next. Only adapter, head and preference layer are
    trainable; evaluation mode is the default.

    Attributes:
        config: what it is, complete with family, depth and base fingerprint.
        backbone: the transformer's first blocks, with LoRA.
        head: the network that reads them.
        preference: the linear layer from aspects to the score; None before stage 3, when the score
            is the plain mean of the aspects.
        stored_text: prompt embedding (word, text_dim) of a judge whose `text_input` is `stored`.

    The constructor takes a backbone; `adapted` says that it has the adapter of `config` already.
    """

    stored_text: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        config: JudgeConfig,
        *,
        stored_text: Tensor | None,
        seed: int,
        scheduler: Any = None,
        adapted: bool = False,
    ) -> None:
        super().__init__()
        if (stored_text is not None) != (config.text_input == "stored"):
            raise ValueError("`stored_text` goes with `text_input='stored'`, and only with it")
        if backbone.latent_channels != config.latent_space.channels:
            raise ValueError(
                f"{backbone.family} takes {backbone.latent_channels} latent channels, the latent "
                f"space {config.latent_space.id!r} has {config.latent_space.channels}"
            )
        check_image_use(backbone, config)
        self.backbone = backbone
        self.config = completed(config, backbone, scheduler)
        backbone.requires_grad_(False)
        with built_in_float32():
            self.head = make_head(backbone, self.config, seed)
            weighted = config.stage == "preference" and config.aspects
            self.preference = preference_layer(config) if weighted else None
            if config.lora_rank and not adapted:
                attach_lora(
                    backbone,
                    rank=config.lora_rank,
                    alpha=config.lora_alpha,
                    placement=config.lora_placement,
                    seed=seed,
                )
        self.register_buffer("stored_text", stored_text)
        self.eval()

    @classmethod
    def from_transformer(
        cls,
        transformer: nn.Module,
        config: JudgeConfig,
        *,
        stored_text: Float[Tensor, "word text_dim"] | None = None,
        seed: int = 0,
        scheduler: Any = None,
    ) -> "VideoJudge":
        """A fresh judge on a transformer in memory.

        Args:
            transformer: a diffusers video transformer, which is left as it is and whose weights are
                shared, not copied; or a `Backbone` of your own, which is taken over.
            config: what to build.
            stored_text: for `text_input="stored"`, for example the embedding of the empty prompt.
            seed: seeds head and adapter without touching the global generator.
            scheduler: the pipeline's, for `config.surprise` of a CogVideoX, and for one whose
                moments read prompts or images.
        """
        backbone = backbone_for(transformer, config.depth)
        return cls(backbone, config, stored_text=stored_text, seed=seed, scheduler=scheduler)

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
    ) -> JudgeOutput:
        """Scores and aspects of each step, in float32; high is good.

        Steps are the latent frames that are looked at, all of them or one in
        `config.temporal_stride`, or groups of `patch_size_t` of these. The attention is
        bidirectional: what is said of a step depends on all frames that are looked at.

        Raises:
            ValueError: if `text` or `image` is given to a judge that ignores it, or missing from
                one that was trained with it; for a clip too short or too small for the judge.
        """
        if isinstance(self.head, MomentReadout):
            return self.from_moments(self.moments(latents, text, image))
        tokens = self.backbone(
            self.view(latents),
            timestep=self.config.timestep,
            text=self.condition(text, len(latents)),
            image=image_for(self.config, image),
        )
        if isinstance(self.head, EnergyHead):
            return JudgeOutput(-self.head(tokens), None)
        return self.from_outputs(self.head(tokens), None)

    def from_moments(self, moments: Float[Tensor, "batch step feature"]) -> JudgeOutput:
        """Scores and aspects of clips whose moments are known; for `readout="moments"`."""
        if not isinstance(self.head, MomentReadout):
            raise ValueError("this judge does not read moments: its readout is 'mlp'")
        return self.from_outputs(self.head(moments), self.head.leverage(moments))

    def from_outputs(
        self, outputs: Float[Tensor, "batch step output"], leverage: Tensor | None
    ) -> JudgeOutput:
        """Scores from the head's outputs: an energy, aspects, or a score."""
        if not self.config.aspects:
            score = outputs.squeeze(2)
            if self.config.stage == "discriminator":
                score = -score
            return JudgeOutput(score, None, leverage)
        if self.preference is None:
            return JudgeOutput(outputs.mean(dim=2), outputs, leverage)
        with float32_region(outputs):
            scores: Tensor = self.preference(outputs)
        return JudgeOutput(scores.squeeze(2), outputs, leverage)

    def moments(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
    ) -> Float[Tensor, "batch step feature"]:
        """Moments of each step at each tap, and the surprise, before any readout.

        A judge that reads prompts reads the clip under none, and then what its prompt changes; one
        that sees images, the clip with its image and then what that changes.

        Raises:
            ValueError: as `forward`, and for a clip of fewer than three steps.
        """
        condition, shown = self.condition(text, len(latents)), image_for(self.config, image)
        return step_features(self.backbone, self.view(latents), self.config, condition, shown)

    def view(
        self, latents: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "batch kept channel rows columns"]:
        """The part of a clip that the backbone sees: all of it, unless the config reduces it.

        Raises:
            ValueError: for a clip too short or too small for `temporal_stride`, `latent_pooling`.
        """
        return reduce_latents(
            latents,
            latent_pooling=self.config.latent_pooling,
            temporal_stride=self.config.temporal_stride,
            patch_size=self.backbone.patch_size,
        )

    def check_size(self, size: tuple[int, int, int]) -> None:
        """Refuse clips of which `view` would leave too little.

        Args:
            size: latent frames, height and width.

        Raises:
            ValueError: naming the size and the least that will do.
        """
        check_reducible(
            size,
            latent_pooling=self.config.latent_pooling,
            temporal_stride=self.config.temporal_stride,
            patch_size=self.backbone.patch_size,
        )
        if self.config.readout != "moments":
            return
        steps = self.backbone.steps(-(-size[0] // self.config.temporal_stride))
        check_steps(size, steps, self.config.latent_pooling * self.backbone.patch_size)

    def energies(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
    ) -> Float[Tensor, "batch step"]:
        """Minus the score of each step; for a discriminator, its energy. Low is good."""
        scores: Tensor = self(latents, text, image).scores
        return -scores

    def score_weights(self) -> tuple[Float[Tensor, " aspect"], Float[Tensor, ""]] | None:
        """Weights of the range-normalised aspects in the score, and the constant term.

        None for a discriminator, whose score is not made of aspects.
        """
        count = len(self.config.aspects)
        if not count:
            return None
        if self.preference is None:
            weight = next(self.head.parameters())
            return weight.new_full((count,), 1 / count), weight.new_zeros(())
        return self.preference.weight.detach()[0], self.preference.bias.detach()[0]

    def score_noise(self, weights: Sequence[float] | None = None) -> float | None:
        """Noise variance of the raw score that `JudgeOutput.leverage` is a multiple of.

        Args:
            weights: of the range-normalised aspects in the score; None: the judge's own.

        Returns:
            None for a judge that keeps no posterior.
        """
        if not isinstance(self.head, MomentReadout):
            return None
        own = self.score_weights()
        return self.head.noise_of(weights or ([1.0] if own is None else own[0].tolist()))

    def condition(self, text: TextCondition | None, batch: int) -> TextCondition | None:
        """The text input for a batch, by the rule of `config.text_input`."""
        return text_for(self.config, text, self.stored_text, batch)

    def unfreeze(self, parts: Collection[Part] = ("adapter", "head", "preference")) -> None:
        """Make the named parts trainable, and nothing else; a kept energy head never is."""
        base = {id(tensor) for _, tensor in self.backbone.base_tensors()}
        for name, parameter in self.named_parameters():
            part = "adapter" if name.startswith("backbone.") else name.split(".")[0]
            frozen = id(parameter) in base or name.startswith("head.energy_head.")
            parameter.requires_grad_(part in parts and not frozen)

    def start_aspects(
        self,
        aspects: Sequence[Aspect],
        *,
        head_width: int | None = None,
        token_pooling: TokenPooling = "mean",
        time_pooling: TimePooling = "mean",
        keep_energy: bool = False,
        seed: int = 0,
    ) -> None:
        """Turn a discriminator into stage 2, in place: the adapter is kept, the head replaced.

        Args:
            aspects: what the new head predicts.
            head_width: its hidden units; as many as now by default.
            token_pooling: over the tokens of a step.
            time_pooling: over time.
            keep_energy: keep the energy head, frozen, as an input to the new one.
            seed: seeds the new head.

        Raises:
            ValueError: if it is not a discriminator, or there are no aspects.
        """
        self.config = aspects_config(
            self.config,
            aspects,
            head_width=head_width,
            token_pooling=token_pooling,
            time_pooling=time_pooling,
            keep_energy=keep_energy,
        )
        self.head = head_after(self.head, make_head(self.backbone, self.config, seed))

    def start_preference(self) -> None:
        """Turn an aspect judge into stage 3, in place: a linear layer that starts as the mean.

        Raises:
            ValueError: if it is not of stage `aspects`.
        """
        require_stage(self.config, "aspects", "preference")
        refuse_moments(self.config)
        self.config = replace(self.config, stage="preference", **NOT_MEASURED)
        self.preference = preference_layer(self.config).to(next(self.head.parameters()))

    def follow_base(self) -> None:
        """Check weights shared with a transformer in use, and move to their device.

        Nothing to do for a judge with weights of its own.

        Raises:
            SharingError: if they were replaced, changed, merged or are trained since.
        """
        if self.backbone.live is None:
            return
        self.backbone.live.refresh()
        shared = {id(tensor) for _, tensor in self.backbone.base_tensors()}
        device = self.backbone.device
        for parameter in self.parameters():
            if id(parameter) not in shared and parameter.device != device:
                parameter.data = parameter.data.to(device)
        self.head.to(device)
        if self.stored_text is not None:
            self.stored_text = self.stored_text.to(device)

    def merge(self) -> None:
        """Merge the adapter into copies of the base weights: faster, but can no longer be saved.

        Energies change by rounding, since W + BA is not bitwise W x + B (A x).

        Raises:
            SharingError: for a judge that shares a transformer's weights, which stay as they are.
        """
        if self.backbone.live is not None:
            raise SharingError("a judge on shared weights cannot be merged: they are not its own")
        merge_lora(self.backbone)

    @property
    def merged(self) -> bool:
        """True after `merge`."""
        return any(layer.merged for layer in lora_layers(self.backbone))
