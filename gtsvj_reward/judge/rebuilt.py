"""A checkpoint on the backbone of a judge that is loaded already."""

from pathlib import Path

from gtsvj_reward.judge.checkpoint import CheckpointError, load_trained_weights, read_config
from gtsvj_reward.judge.model import VideoJudge


def judge_beside(folder: str | Path, judge: VideoJudge) -> VideoJudge:
    """A judge of a folder that reads the same base weights as another, which stays as it is.

    Raises:
        FileNotFoundError: if the folder holds no judge.
        CheckpointError: if it was fitted on other base weights, or one of both has LoRA.
    """
    config = read_config(folder)
    if config.lora_rank or judge.config.lora_rank:
        raise CheckpointError(
            f"{folder} and the judge beside it have LoRA of rank {config.lora_rank} and "
            f"{judge.config.lora_rank}: judges on one backbone read it as it is, and have none"
        )
    if config.base_fingerprint != judge.config.base_fingerprint:
        raise CheckpointError(
            f"{folder} was fitted on other base weights than the judge beside it: fingerprints "
            f"{str(config.base_fingerprint)[:12]}… and {str(judge.config.base_fingerprint)[:12]}…"
        )
    found = VideoJudge(judge.backbone, config, stored_text=judge.stored_text, seed=0)
    load_trained_weights(found, Path(folder))
    found.requires_grad_(False)
    device = next(judge.head.parameters()).device
    found.head.to(device)
    if found.preference is not None:
        found.preference.to(device)
    return found
