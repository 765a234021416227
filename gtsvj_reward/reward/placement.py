"""A judge's weights: on a device for a call, sharded over processes, or verified."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import DeviceMesh

from gtsvj_reward.backbones import SharingError, sharded_backbone
from gtsvj_reward.judge import CheckpointError, JudgeOutput, VideoJudge, judge_clips
from gtsvj_reward.reward.clips import Clips


@contextmanager
def brought_to(judge: VideoJudge, device: torch.device | None, needs_grad: bool) -> Iterator[None]:
    """Move an offloaded judge to its device for a call; None: it stays.

    Raises:
        ValueError: if gradients are needed, since the backward pass follows the call.
    """
    if device is None:
        yield
        return
    if needs_grad and torch.is_grad_enabled():
        raise ValueError(
            "an offloaded judge cannot be differentiated through: its weights leave the device "
            "before the backward pass. Use offload_to=None, or torch.no_grad()"
        )
    judge.to(device)
    try:
        with torch.no_grad():
            yield
    finally:
        judge.to("cpu")


def outputs_of(
    judge: VideoJudge, clips: Clips, device: torch.device | None, batch_size: int
) -> list[JudgeOutput]:
    """A judge's output for each clip, on its current device or after moving it.

    Args:
        judge: the judge.
        clips: as `GTSVJReward.prepared` leaves them.
        device: for an offloaded judge.
        batch_size: clips per forward pass.
    """
    judge.follow_base()
    latents = list(clips.latents)
    needs_grad = any(clip.requires_grad for clip in latents)
    with brought_to(judge, device, needs_grad):
        return judge_clips(
            judge, latents, text=clips.text, image=clips.image, batch_size=batch_size
        )


def shard(judge: VideoJudge, mesh: DeviceMesh) -> None:
    """Shard a judge's own base weights over a mesh; see `GTSVJReward.shard`.

    Raises:
        SharingError: for a judge on a transformer's weights, or with LoRA.
        CheckpointError: for base weights that are not those of training.
    """
    verify(judge)
    predicts = bool(judge.config.surprise)
    judge.backbone = sharded_backbone(judge.backbone, mesh, predicts=predicts)


def verify(judge: VideoJudge) -> None:
    """Check that the base weights are still those of training; see `GTSVJReward.verify`.

    Raises:
        SharingError: if shared weights were replaced, changed, merged or are trained.
        CheckpointError: if the fingerprint differs.
    """
    backbone = judge.backbone
    with backbone.together():
        judge.follow_base()
        if backbone.live is not None:
            backbone.live.verify()
    found, expected = backbone.fingerprint(), str(judge.config.base_fingerprint)
    if found != expected:
        raise CheckpointError(
            "the base weights have changed since the judge was trained: fingerprint "
            f"{expected[:12]}… expected, {found[:12]}… found"
        )


def refuse_shared(judge: VideoJudge, what: str) -> None:
    """Reject operations that would change shared weights."""
    if judge.backbone.live is not None:
        raise SharingError(f"a judge on shared weights cannot {what}: move the transformer instead")
