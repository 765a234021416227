"""The judge: a backbone with an adapter, and a head."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones import Backbone, TextCondition, backbone_for
from gtsvj_reward.backbones.lora import attach_lora, lora_layers
from gtsvj_reward.judge.config import JudgeConfig
from gtsvj_reward.judge.heads import EnergyHead


class VideoJudge(nn.Module):
    """Energy of a clip per step (paper section 4.1).

    Build one with `from_transformer`, or load one with `load_judge`. Only the adapter and the head
    are trainable; evaluation mode is the default.

    Attributes:
        config: what it is, complete with family, depth and base fingerprint.
        backbone: the transformer's first blocks, with LoRA.
        head: the network that reads them.
        stored_text: prompt embedding (word, text_dim) of a judge whose `text_input` is `stored`.
    """

    stored_text: Tensor | None

    def __init__(
        self, backbone: Backbone, config: JudgeConfig, *, stored_text: Tensor | None, seed: int
    ) -> None:
        super().__init__()
        if config.stage != "discriminator":
            raise ValueError(f"no head for stage {config.stage!r} in this release")
        if (stored_text is not None) != (config.text_input == "stored"):
            raise ValueError("`stored_text` goes with `text_input='stored'`, and only with it")
        if backbone.latent_channels != config.latent_space.channels:
            raise ValueError(
                f"{backbone.family} takes {backbone.latent_channels} latent channels, the latent "
                f"space {config.latent_space.id!r} has {config.latent_space.channels}"
            )
        self.backbone = backbone
        weight = next(backbone.base_tensors())[1]
        self.config = replace(
            config,
            family=backbone.family,
            depth=backbone.depth,
            base_dtype=str(weight.dtype).removeprefix("torch."),
            # On the meta device, where costs are counted, there is nothing to fingerprint.
            base_fingerprint=None if weight.is_meta else backbone.fingerprint(),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = EnergyHead(backbone.dim, config.head_width)
        backbone.requires_grad_(False)
        if config.lora_rank:
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
    ) -> "VideoJudge":
        """A fresh judge on a transformer in memory.

        Args:
            transformer: a diffusers video transformer, which is left as it is and whose weights are
                shared, not copied; or a `Backbone` of your own, which is taken over.
            config: what to build.
            stored_text: for `text_input="stored"`, for example the embedding of the empty prompt.
            seed: seeds head and adapter without touching the global generator.
        """
        backbone = backbone_for(transformer, config.depth)
        return cls(backbone, config, stored_text=stored_text, seed=seed)

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step"]:
        """Energy of each step, in float32; low is good.

        Steps are latent frames, or groups of `patch_size_t` of them. The attention is
        bidirectional: a step's energy depends on the whole clip.

        Raises:
            ValueError: if `text` is given to a judge that ignores prompts, or missing from one
                that was trained with them.
        """
        tokens = self.backbone(
            latents, timestep=self.config.timestep, text=self.condition(text, len(latents))
        )
        energy: Tensor = self.head(tokens)
        return energy

    def condition(self, text: TextCondition | None, batch: int) -> TextCondition | None:
        """The text input for a batch, by the rule of `config.text_input`."""
        rule = self.config.text_input
        if rule == "prompt":
            if text is None:
                raise ValueError("this judge was trained with prompts: pass `text`")
            return text
        if text is not None:
            raise ValueError(
                f"this judge ignores prompts (text_input={rule!r}): `text` would change nothing, "
                "leave it out"
            )
        if self.stored_text is None:
            return None
        return TextCondition(self.stored_text.expand(batch, -1, -1))

    def unfreeze(self) -> None:
        """Make adapter and head trainable, and nothing else."""
        base = {id(tensor) for _, tensor in self.backbone.base_tensors()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) not in base)

    def merge(self) -> None:
        """Fold the adapter into copies of the base weights: faster, no longer savable.

        Energies change by rounding, since W + BA is not bitwise W x + B (A x). A transformer that
        shares its weights is not touched.
        """
        for layer in lora_layers(self.backbone):
            base = layer.get_base_layer()
            base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
            layer.merge()

    @property
    def merged(self) -> bool:
        """True after `merge`."""
        return any(layer.merged for layer in lora_layers(self.backbone))
