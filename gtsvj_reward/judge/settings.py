"""Settings of a new judge."""

from dataclasses import dataclass
from typing import Literal

from gtsvj_reward.backbones.lora import Placement
from gtsvj_reward.judge.heads import TokenPooling

Stage = Literal["discriminator", "aspects", "preference"]
Readout = Literal["moments", "mlp"]
TextInput = Literal["zeros", "stored", "prompt"]
ImageInput = Literal["none", "image"]


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Settings of a new judge, for all its stages."""

    base_model: str
    """Bundled name, folder or hub id of the diffusers transformer or pipeline, e.g.
    `"zai-org/CogVideoX-2b"`."""
    base_revision: str | None = None
    """Commit, tag or branch of a hub id."""
    depth: int | None = None
    """Number of blocks in use; the last block's output is read. None: all blocks."""
    readout: Readout = "mlp"
    """What turns tokens into scores. `moments`: a linear readout of moments of several blocks of
    the base, fitted in closed form; beyond the paper. `mlp`: the paper's head on the mean of the
    last block's tokens, trained with LoRA."""
    taps: list[int] | None = None
    """For `moments`: blocks whose outputs are read, counted from 1; 0 is the latents themselves.
    None: 0 and three blocks spread over the depth in use."""
    surprise: list[float] | None = None
    """For `moments`: noise levels between 0 and 1, such as 0.2 0.5, at which the generator's
    denoising error is read as well: how far a clip is from what the generator expects. Each level
    takes one more pass through the whole model. None: no surprise."""
    latent_pooling: int = 1
    """Edge of the squares of latents that are averaged before the transformer sees them, as if the
    clip were smaller. If height or width is not a multiple of this times the patch size, the
    remainder is cropped on both sides. 1: all latents. Beyond the paper."""
    temporal_stride: int = 1
    """Use every k-th latent frame, starting with the first: step i of a trajectory stands for
    latent frames i k to i k + k - 1, of which it saw the first (for two such groups if the model
    patches time in twos). 1: all. Beyond the paper."""
    lora_rank: int = 8
    """Rank r of LoRA (paper section 5.1); 0 trains the head alone. For `moments` a command adds
    LoRA only where this is given."""
    lora_alpha: float = 8.0
    """The adapter is scaled by alpha / r (paper section 5.1)."""
    lora_placement: Placement = "last"
    """Third of the blocks in use that carries LoRA (paper section 4.1)."""
    head_width: int = 256
    """Hidden units of the head's MLP. The paper says "lightweight" and no more."""
    token_pooling: TokenPooling = "mean"
    """How the head pools the tokens of a step: their mean, or learned attention. The paper says
    "aggregate" and no more."""
    timestep: float = 0.0
    """Noise level given to the transformer; the latents are clean. The paper does not say."""
