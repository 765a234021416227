"""The model card that is written into every checkpoint."""

from typing import Any

from gtsvj_reward.judge.config import JudgeConfig

PROMPT_RULE = {
    "zeros": "It ignores the prompt: it cannot tell whether a video matches it.",
    "stored": "It always reads the same stored text and ignores the prompt: it cannot tell "
    "whether a video matches it.",
    "prompt": "It takes the prompt's embeddings with each call.",
}

SENSITIVITY = "prompt sensitivity"
"""Key of the measured effect of another clip's prompt in the training record."""

FIDELITY = "reference fidelity"
"""The same for another clip's reference image."""

CONTENT = "content"
"""Last word of keys of the training record that list clips by their content."""

IMAGE_RULE = {"none": "ignored", "image": "required with each clip"}


def config_rows(config: JudgeConfig) -> list[tuple[str, str]]:
    """Rows of the table of a judge's properties."""
    scale = "not set; call it with normalize=False"
    if config.reward_mean is not None and config.reward_std is not None:
        scale = (
            f"(raw - {config.reward_mean:.6g}) / {config.reward_std:.6g}, "
            f"measured on {config.reward_data}"
        )
    geometry = "not recorded"
    if config.geometry is not None:
        ranges = config.geometry
        geometry = (
            f"{ranges.latent_frames[0]}-{ranges.latent_frames[1]} latent frames of "
            f"{ranges.height[0]}-{ranges.height[1]} x {ranges.width[0]}-{ranges.width[1]}, "
            f"{ranges.fps[0]:g}-{ranges.fps[1]:g} fps"
        )
    lora = "none"
    if config.lora_rank:
        lora = f"rank {config.lora_rank}, alpha {config.lora_alpha:g}, {config.lora_placement}"
    return [
        ("stage", config.stage),
        (
            "base model",
            f"{config.base_model} ({config.family}, first {config.depth} blocks)",
        ),
        ("base fingerprint", str(config.base_fingerprint)),
        ("latent space", config.latent_space.title()),
        ("input", seen(config)),
        ("readout", reads(config)),
        ("LoRA", lora),
        ("timestep, text", f"{config.timestep:g}, {config.text_input}"),
        (SENSITIVITY, sensitivity(config)),
        ("reference image", IMAGE_RULE[config.image_input]),
        (FIDELITY, fidelity(config)),
        ("trained on clips of", geometry),
        ("normalised score", scale),
        *aspect_rows(config),
    ]


def sensitivity(config: JudgeConfig) -> str:
    """Measured effect of another clip's prompt."""
    if config.text_input != "prompt":
        return "0, it ignores prompts"
    return str(config.training.get(SENSITIVITY, "not measured; see `prompt_sensitivity`"))


def fidelity(config: JudgeConfig) -> str:
    """Measured effect of another clip's reference image."""
    if config.image_input == "none":
        return "0, it ignores reference images"
    return str(config.training.get(FIDELITY, "not measured"))


def prompt_rule(config: JudgeConfig) -> str:
    """Cost of prompts, and whether they may be left out."""
    if config.prompt_level is None:
        return ""
    alone = "It also scores clips without prompts." if config.prompt_dropout else ""
    return f" Prompts cost two more passes, over noised latents. {alone}".rstrip()


def reads(config: JudgeConfig) -> str:
    """How scores are computed from the transformer's tokens."""
    if config.readout == "mlp":
        return "the mean of the last block's tokens, by a small network"
    taps = ["the latents" if tap == 0 else f"block {tap}" for tap in config.taps or ()]
    known = " Each score has a standard deviation." if config.penalties else ""
    shares = ", ".join(f"{share:g}" for share in config.surprise or ())
    also = f", and its denoising error at noise levels {shares}" if shares else ""
    return f"moments of {', '.join(taps)}{also}, by a linear readout.{known}"


def seen(config: JudgeConfig) -> str:
    """Latents of a clip that reach the transformer."""
    parts = ["every latent frame"]
    if config.temporal_stride > 1:
        parts = [f"one latent frame in {config.temporal_stride}, from the first on"]
    if config.latent_pooling > 1:
        parts.append(f"means of {config.latent_pooling}x{config.latent_pooling} latents")
    return ", ".join(parts)


def reduction_limits(config: JudgeConfig) -> str:
    """Limits of a judge that sees part of a clip, as lines of a list."""
    lines = ""
    if config.temporal_stride > 1:
        lines += (
            "- It skips latent frames: faults in them do not lower the score, and they get no "
            "gradient.\n"
        )
    if config.latent_pooling > 1:
        lines += (
            "- It reads averages of neighbouring latents: fine detail is lost, as is a rim "
            "where height or width is not a multiple of its patches.\n"
        )
    return lines


def aspect_rows(config: JudgeConfig) -> list[tuple[str, str]]:
    """Aspects and their weights in the score."""
    if not config.aspects:
        return []
    aspects = config.aspects
    scales = ", ".join(f"{item.name} {item.low:g}-{item.high:g}" for item in aspects)
    weights = "the plain mean of the aspects, each scaled to 0..1"
    if config.aspect_weights is not None:
        terms = zip(config.aspect_weights, aspects, strict=True)
        weights = " ".join(f"{weight:+.4g} {item.name}" for weight, item in terms)
        weights = f"{config.score_bias:.4g} {weights}, each aspect scaled to 0..1"
    return [("aspects and their scales", scales), ("score", weights)]


def training_rows(config: JudgeConfig) -> list[tuple[str, Any]]:
    """The training record; of lists of clips only their length."""
    return [
        (name, f"{len(value)} entries in `config.json`" if name.endswith(CONTENT) else value)
        for name, value in config.training.items()
    ]


def model_card(config: JudgeConfig) -> str:
    """Markdown with the YAML header that model hubs read."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in config_rows(config))
    training = "\n".join(f"| {name} | {value} |" for name, value in training_rows(config))
    return f"""---
library_name: gtsvj-reward
tags:
- video
- reward-model
- energy-based-model
base_model: {config.base_model}
---
# GT-SVJ video judge, stage {config.stage}

Scores the latents of a video, without decoding them. Higher is better.

| | |
|---|---|
{rows}

```python
from gtsvj_reward import GTSVJReward

reward = GTSVJReward.from_pretrained("PATH_OR_ID_OF_THIS_CHECKPOINT")
scores = reward(latents, space=space, fps=fps)  # latents (batch, time, channels, height, width)
```

## Limits

- {PROMPT_RULE[config.text_input]}{prompt_rule(config)}
- Attention covers the whole clip: energies per step localise a fault, but are not causal.
- It was trained on clean latents: scores of noisy latents are not valid.
{reduction_limits(config)}- Clips outside the ranges above are rejected unless you allow them.

## Training

| | |
|---|---|
{training or "| recorded | nothing |"}
"""
