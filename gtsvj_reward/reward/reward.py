"""The callable that trainers use."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from gtsvj_reward.backbones import ImageCondition, LiveBackbone, SharingError, TextCondition
from gtsvj_reward.dtypes import dtype_name, dtype_of
from gtsvj_reward.judge import (
    JudgeConfig,
    JudgeOutput,
    VideoJudge,
    load_judge,
    resolve_checkpoint,
    save_judge,
    upload_judge,
)
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import placement
from gtsvj_reward.reward.assemble import assemble, check_pessimism, require_finite_scores
from gtsvj_reward.reward.base import Reward
from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.inputs import AnyFrames, AnyNumber, as_videos, encode_videos
from gtsvj_reward.reward.live import LiveCall
from gtsvj_reward.reward.output import RewardOutput
from gtsvj_reward.reward.selection import select_aspects, statistics_of


class GTSVJReward(Reward):
    """Scores latents of videos; higher is better, differentiable with respect to the latents.

    A plain callable, not an `nn.Module`. The judge inside is frozen, so gradients flow to the
    latents and nowhere else, and only if the caller records them.

    Args:
        judge: used as is and not moved; its parameters no longer require gradients.
        aspects: score with the mean of these range-normalised aspects instead of the judge's own
            score; all aspects are still reported.
        weights: the same with a weighted sum, name -> weight.
        batch_size: clips per forward pass; scores do not depend on it (to 1e-5).
        allow_untrained_geometry: score clips outside the trained range and note them in
            `RewardOutput.notes`, instead of raising `GeometryError`.
        check_statistics: reject latents whose statistics differ from those of scaled latents, or
            from those of the training clips if the checkpoint has them.
        offload_to: device to run on; between calls the judge is on the CPU. Excludes gradients.
        pessimism: k >= 0; a score is r - k u, with u the `uncertainty` that a moment judge gives.

    Raises:
        ValueError: for settings that do not fit the judge.
    """

    def __init__(
        self,
        judge: VideoJudge,
        *,
        aspects: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        batch_size: int = 8,
        allow_untrained_geometry: bool = False,
        check_statistics: bool = True,
        offload_to: str | torch.device | None = None,
        pessimism: float = 0.0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        self.judge = judge.requires_grad_(False).eval()
        self.selection = select_aspects(judge.config, aspects, weights)
        self.noise = judge.score_noise(self.selection.weights if self.selection else None)
        self.pessimism = check_pessimism(pessimism, self.noise)
        self.batch_size = batch_size
        self.allow_untrained_geometry = allow_untrained_geometry
        self.check_statistics = check_statistics
        self.offload_to = None if offload_to is None else torch.device(offload_to)
        self.__name__ = f"gtsvj_{judge.config.stage}"
        self.reads_text = self.wants_text = judge.config.text_input == "prompt"
        self.needs_text = self.reads_text and not judge.config.prompt_dropout
        self.reads_image = judge.config.image_input == "image"
        if self.offload_to is not None:
            placement.refuse_shared(self.judge, "be offloaded")
            judge.to("cpu")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        base_model: str | Path | None = None,
        backbone: nn.Module | None = None,
        transformer: nn.Module | None = None,
        live: bool = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        aspects: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        batch_size: int = 8,
        allow_untrained_geometry: bool = False,
        check_statistics: bool = True,
        offload_to: str | torch.device | None = None,
        pessimism: float = 0.0,
    ) -> "GTSVJReward":
        """Load a judge.

        Args:
            name: a checkpoint folder, a bundled name, or a hub id (owner/name).
            base_model: folder or hub id of the base transformer, instead of the checkpoint's own
                `base_model`; its weights must be the same.
            backbone: a transformer or `Backbone` in memory instead.
            transformer: the transformer of a pipeline or trainer, e.g. `pipe.transformer`: the
                judge shares its frozen weights and adds its own adapter and head, under 1 % more
                parameters. Adapters that train on the transformer are not part of the judge.
            live: call `transformer` itself with its adapters disabled, and share nothing: for
                policies that are sharded, offloaded, or compiled. Processes that hold shards of it
                must call together, including those without clips (`latents[:0]`).
            device: device of the judge; default: the CPU, or that of shared weights.
            dtype: dtype of the base weights; default: that of training. Adapter, head and scores
                are always float32.
            revision: branch, tag or commit of a hub id.
            aspects: see the class.
            weights: see the class.
            batch_size: see the class.
            allow_untrained_geometry: see the class.
            check_statistics: see the class.
            offload_to: see the class.
            pessimism: see the class.

        Raises:
            FileNotFoundError: if the checkpoint or its base model is not there.
            CheckpointError: if anything in it is damaged or does not fit.
            SharingError: if the weights of `transformer` cannot be shared as they are.
        """
        judge = load_judge(
            resolve_checkpoint(str(name), revision),
            base_model=base_model,
            backbone=backbone,
            transformer=transformer,
            live=live,
            device=device,
            dtype=dtype,
        )
        return cls(
            judge,
            aspects=aspects,
            weights=weights,
            batch_size=batch_size,
            allow_untrained_geometry=allow_untrained_geometry,
            check_statistics=check_statistics,
            offload_to=offload_to,
            pessimism=pessimism,
        )

    def __repr__(self) -> str:
        dtype = dtype_name(self.judge.backbone.dtype)
        chosen = "" if self.selection is None else ", a selection of aspects"
        return (
            f"GTSVJReward({self.config.stage} of {self.config.family}, latents of "
            f"{self.space.id}{chosen}, {dtype} on {self.device})"
        )

    @property
    def config(self) -> JudgeConfig:
        """Config of the judge."""
        return self.judge.config

    @property
    def space(self) -> LatentSpace:
        """The latent space that the judge scores."""
        return self.config.latent_space

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""
        return self.offload_to or next(self.judge.parameters()).device

    @property
    def takes_empty(self) -> bool:
        """True for a live judge, since processes with shards of its policy call together."""
        return isinstance(self.judge.backbone, LiveBackbone)

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """Scores of clips; clips of one shape share forward passes."""
        policy = self.judge.backbone
        if isinstance(policy, LiveBackbone):
            call = LiveCall(
                self.judge,
                policy,
                self.batch_size,
                prepare=partial(self.prepared, normalize=normalize),
                assemble=partial(self.assembled, normalize=normalize),
            )
            return call.score(clips)
        prepared = self.prepared(clips, normalize)
        outputs = self.outputs(prepared)
        return require_finite_scores(self.assembled(prepared, outputs, normalize), clips.names)

    def prepared(self, clips: Clips, normalize: bool) -> Clips:
        """Checked clips without padding, on the judge's device; all errors about clips are here."""
        if normalize:
            self.statistics()
        clips = clips.checked(
            self.space,
            check_statistics=self.check_statistics,
            trained=self.config.latent_statistics,
        )
        self.notes(clips)
        return replace(clips, latents=clips.on(self.device), num_frames=None)

    def assembled(
        self, clips: Clips, outputs: Sequence[JudgeOutput], normalize: bool
    ) -> RewardOutput:
        """Scores of prepared clips, from the judge's outputs."""
        return assemble(
            outputs,
            self.config.aspects,
            self.selection,
            self.statistics() if normalize else (0.0, 1.0),
            notes=self.notes(clips),
            noise=self.noise,
            pessimism=self.pessimism,
            device=self.device,
        )

    def score_frames(
        self,
        frames: AnyFrames,
        *,
        vae: nn.Module,
        fps: AnyNumber | None = None,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """Scores of decoded videos: encodes them with the judge's VAE first.

        Args:
            frames: colours in [0, 1] or bytes, (batch, time, 3, height, width), or the output of a
                pipeline, see `reward.inputs.as_videos`; 4f + 1 frames for CogVideoX.
            vae: the VAE of the judge's latent space; others are rejected.
            fps: as for `details`.
            text: as for `details`.
            image: as for `details`.
            normalize: as for `details`.
        """
        space = LatentSpace.from_vae(vae, patch_size_t=self.space.patch_size_t)
        latents = encode_videos(as_videos(frames), lambda video: space.encode(video, vae))
        return self(latents, space=space, fps=fps, text=text, image=image, normalize=normalize)

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation for normalising scores; raises if there are none."""
        return statistics_of(self.config, self.selection)

    def notes(self, clips: Clips) -> tuple[str | None, ...]:
        """Per clip, what lies outside the trained geometry; raises unless that is allowed."""
        allowed = self.allow_untrained_geometry
        return tuple(clips.geometry(self.config.geometry, allow_untrained=allowed))

    def outputs(self, clips: Clips) -> list[JudgeOutput]:
        """The judge's output for each prepared clip."""
        return placement.outputs_of(self.judge, clips, self.offload_to, self.batch_size)

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> "GTSVJReward":
        """Move the judge, and cast its base weights; adapter and head stay float32."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            placement.refuse_shared(self.judge, "be moved")
            self.judge.to(device)
        if dtype is not None:
            self.judge.backbone.cast(dtype_of(dtype))
        return self

    def shard(self, mesh: DeviceMesh) -> "GTSVJReward":
        """Shard the judge's own base weights over the processes of a mesh with `fully_shard`.

        All processes of the mesh load the judge, call this together, and afterwards call the reward
        together, each with its own clips in any number (as for a sharded policy, docs/live.md).

        Raises:
            SharingError: for a judge on shared weights, with LoRA, or offloaded.
            CheckpointError: if the base weights are not those of training.
        """
        if self.offload_to is not None:
            raise SharingError("an offloaded judge cannot be sharded: use offload_to=None")
        placement.shard(self.judge, mesh)
        return self

    def verify(self) -> None:
        """Check that the base weights are still those that the judge was trained on.

        Each call compares a sample of shared weights with their values at attach; this compares
        every element, and the fingerprint of weights of any kind.

        Raises:
            SharingError: if shared weights were replaced, changed, merged or are trained.
            CheckpointError: if the fingerprint differs.
        """
        placement.verify(self.judge)

    def merge(self) -> "GTSVJReward":
        """Merge the adapter into the base weights: faster, equal up to rounding, not savable."""
        self.judge.merge()
        return self

    def with_statistics(self, scores: Float[Tensor, " clip"], data: str) -> "GTSVJReward":
        """Set mean and standard deviation from raw scores of a named calibration set.

        Args:
            scores: at least two raw scores that differ.
            data: what they were measured on; kept in the checkpoint and its card.

        Raises:
            ValueError: for a selection of aspects, whose statistics follow from theirs.
        """
        if self.selection is not None:
            raise ValueError("a selection of aspects is normalised by the statistics of aspects")
        mean, std = scores.double().mean().item(), scores.double().std().item()
        self.judge.config = replace(
            self.judge.config, reward_mean=mean, reward_std=std, reward_data=data
        )
        return self

    def save_pretrained(self, path: str | Path) -> None:
        """Write the judge's checkpoint folder; the base weights are not part of it."""
        save_judge(self.judge, path)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the checkpoint to a model hub; returns the URL of the commit."""
        return upload_judge(self.judge, repo_id, private=private, token=token)
