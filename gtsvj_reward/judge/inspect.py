"""What a checkpoint is, and whether a pipeline fits it."""

import json
from pathlib import Path

from gtsvj_reward.backbones import backbone_for, load_transformer
from gtsvj_reward.judge.card import config_rows, training_rows
from gtsvj_reward.judge.checkpoint import read_config
from gtsvj_reward.latents.generators import generators_of
from gtsvj_reward.latents.space import LatentSpace


def describe_checkpoint(path: str | Path) -> str:
    """Plain text: what the judge is, what it was trained on, and which pipelines it fits.

    Raises:
        FileNotFoundError: if there is no judge.
        CheckpointError: if its `config.json` is not valid.
    """
    config = read_config(path)
    space = config.latent_space
    rows = dict(config_rows(config))
    rows["fits"] = (
        f"pipelines whose transformer is a {config.family} with the base weights above in its "
        f"first {config.depth} blocks, and whose latents are of {space.title()}"
    )
    others = [generator.pipeline for generator in generators_of(space)]
    if others:
        rows["can score"] = f"latents of {', '.join(others)}, where their VAE is that of {space.id}"
    for name, value in training_rows(config):
        rows[f"training: {name}"] = value if isinstance(value, str) else json.dumps(value)
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def pipeline_complaints(path: str | Path, pipeline: str | Path) -> list[str]:
    """Reasons why the latents of a pipeline cannot be scored by a judge; empty if they can.

    The latents must be of the judge's space. Another base model does not prevent scoring, since
    the judge brings its own, so it is only reported by `same_base`.

    Args:
        path: checkpoint folder.
        pipeline: folder of a diffusers pipeline with a `vae` folder inside.
    """
    from gtsvj_reward.assets.vae import load_vae

    config = read_config(path)
    transformer_config = Path(pipeline) / "transformer" / "config.json"
    patch_size_t = None
    if transformer_config.is_file():
        patch_size_t = json.loads(transformer_config.read_text()).get("patch_size_t")
    space = LatentSpace.from_vae(load_vae(str(pipeline)), patch_size_t)
    if space.same_latents(config.latent_space):
        return []
    return [f"the judge scores {config.latent_space.title()}, the pipeline makes {space.title()}"]


def same_base(path: str | Path, pipeline: str | Path) -> bool:
    """Whether the pipeline's transformer holds the judge's base weights."""
    config = read_config(path)
    transformer = load_transformer(pipeline, depth=config.depth)
    return backbone_for(transformer).fingerprint() == config.base_fingerprint
