"""The model card that is written into every checkpoint."""

from gtsvj_reward.judge.config import JudgeConfig

PROMPT_RULE = {
    "zeros": "It sees no prompt, so it cannot tell whether a video shows what was asked for.",
    "stored": "It always sees the same stored text and ignores the prompt, so it cannot tell "
    "whether a video shows what was asked for.",
    "prompt": "It takes the prompt's embeddings with each call.",
}

SENSITIVITY = "prompt sensitivity"
"""What the record of training calls the measured effect of another clip's prompt."""

FIDELITY = "reference fidelity"
"""Likewise, of another clip's reference image."""

IMAGE_RULE = {"none": "not seen", "image": "seen, must be given with each clip"}


def config_rows(config: JudgeConfig) -> list[tuple[str, str]]:
    """What a judge is, as rows of a table."""
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
        ("sees", seen(config)),
        ("reads", reads(config)),
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
        return "0, it reads no prompt"
    return str(config.training.get(SENSITIVITY, "not measured; see `prompt_sensitivity`"))


def fidelity(config: JudgeConfig) -> str:
    """What another clip's reference image does to a score."""
    if config.image_input == "none":
        return "0, it sees no reference image"
    return str(config.training.get(FIDELITY, "not measured"))


def prompt_rule(config: JudgeConfig) -> str:
    """What else is to be said of how a judge reads prompts."""
    if config.prompt_level is None:
        return ""
    alone = "It scores clips without prompts as well." if config.prompt_dropout else ""
    return f" What a prompt changes costs two passes more, over noised latents. {alone}".rstrip()


def reads(config: JudgeConfig) -> str:
    """What turns the transformer's tokens into scores."""
    if config.readout == "mlp":
        return "the mean of the last block's tokens, by a small network"
    taps = ["the latents" if tap == 0 else f"block {tap}" for tap in config.taps or ()]
    known = " Each score has a standard deviation." if config.penalties else ""
    shares = ", ".join(f"{share:g}" for share in config.surprise or ())
    also = f", and its denoising error at noise levels {shares}" if shares else ""
    return f"moments of {', '.join(taps)}{also}, by a linear readout.{known}"


def seen(config: JudgeConfig) -> str:
    """What of a clip's latents, and of the null text, reaches the transformer."""
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
            "- It does not look at the latent frames between those it sees: faults there do not "
            "lower the score, and they get no gradient.\n"
        )
    if config.latent_pooling > 1:
        lines += (
            "- It sees averages of neighbouring latents: fine detail is lost to it, as is a rim "
            "where height or width is not a multiple of its patches.\n"
        )
    return lines


def aspect_rows(config: JudgeConfig) -> list[tuple[str, str]]:
    """What the score is made of, for a judge that has aspects."""
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


def model_card(config: JudgeConfig) -> str:
    """Markdown with the YAML header that model hubs read."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in config_rows(config))
    training = "\n".join(f"| {name} | {value} |" for name, value in config.training.items())
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
- Its attention sees the whole clip: energies per step localise a fault, they are not causal.
- It was trained on clean latents: scores of noisy latents mean nothing.
{reduction_limits(config)}- Clips outside the ranges above are refused unless you ask for them.

## Training

| | |
|---|---|
{training or "| recorded | nothing |"}
"""
