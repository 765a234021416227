"""The callable that trainers use."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from huggingface_hub import HfApi
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones import SharingError, TextCondition
from gtsvj_reward.judge import (
    CheckpointError,
    JudgeConfig,
    JudgeOutput,
    VideoJudge,
    judge_clips,
    load_judge,
    resolve_checkpoint,
    save_judge,
)
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.assemble import assemble
from gtsvj_reward.reward.output import GeometryError, RewardOutput
from gtsvj_reward.reward.selection import select_aspects

Clips = Float[Tensor, "..."] | Sequence[Tensor]


class GTSVJReward:
    """Scores latents of videos; higher is better, differentiable with respect to the latents.

    A plain callable, not an `nn.Module`. The judge inside is frozen, so gradients flow to the
    latents and nowhere else, and only if the caller records them.

    Args:
        judge: scored with as it is, moved nowhere; its parameters stop requiring gradients.
        aspects: score with the mean of these range-normalised aspects, in place of the judge's own
            score; all aspects are reported all the same.
        weights: likewise with a weighted sum, name -> weight.
        batch_size: clips per forward pass; scores do not depend on it (to 1e-5).
        allow_untrained_geometry: score clips outside the trained range, and say so in
            `RewardOutput.untrained_geometry`, instead of raising `GeometryError`.
        check_statistics: refuse latents whose spread says that they are not scaled.
        offload_to: device to run on; the judge waits on the CPU between calls. No gradients then.
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
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        self.judge = judge.requires_grad_(False).eval()
        self.selection = select_aspects(judge.config, aspects, weights)
        self.batch_size = batch_size
        self.allow_untrained_geometry = allow_untrained_geometry
        self.check_statistics = check_statistics
        self.offload_to = None if offload_to is None else torch.device(offload_to)
        self.__name__ = f"gtsvj_{judge.config.stage}"
        if self.offload_to is not None:
            self.refuse_shared("be offloaded")
            judge.to("cpu")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        base_model: str | Path | None = None,
        backbone: nn.Module | None = None,
        transformer: nn.Module | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        aspects: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        batch_size: int = 8,
        allow_untrained_geometry: bool = False,
        check_statistics: bool = True,
        offload_to: str | torch.device | None = None,
    ) -> "GTSVJReward":
        """Load a judge.

        Args:
            name: a checkpoint folder, a bundled name, or a hub id (owner/name).
            base_model: folder or hub id of the base transformer, in place of the checkpoint's own
                `base_model`; its weights must be the same.
            backbone: a transformer or `Backbone` in memory instead.
            transformer: the transformer of a pipeline or trainer, e.g. `pipe.transformer`: the
                judge shares its frozen weights and adds its own adapter and head, under 1 % more
                parameters. Adapters that train on the transformer are no part of the judge.
            device: where the judge goes; the CPU by default, with the weights if they are shared.
            dtype: dtype of the base weights, that of training by default. Adapter, head and
                scores are float32 always.
            revision: branch, tag or commit of a hub id.
            aspects: see the class.
            weights: see the class.
            batch_size: see the class.
            allow_untrained_geometry: see the class.
            check_statistics: see the class.
            offload_to: see the class.

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
        )

    @property
    def config(self) -> JudgeConfig:
        """What the judge is."""
        return self.judge.config

    @property
    def space(self) -> LatentSpace:
        """The latent space that the judge scores."""
        return self.judge.config.latent_space

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""
        return self.offload_to or next(self.judge.parameters()).device

    def __call__(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """Scores of clips, one each, float32; see `details` for the arguments."""
        return self.details(
            latents, space=space, fps=fps, num_frames=num_frames, text=text, normalize=normalize
        ).rewards

    def details(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> RewardOutput:
        """Scores with their trajectories.

        Args:
            latents: scaled latents (batch, time, channel, height, width), or a sequence of clips
                (time, channel, height, width) of any sizes. Moved to the judge's device.
            space: which latent space they are of; refused if it is not the judge's. None: the
                caller vouches for it.
            fps: frames per second of the video, checked against the trained range if given.
            num_frames: frames that the generator was asked for; needed to drop the padding that
                CogVideoX 1.5 leaves in front.
            text: prompt embeddings, for a judge that was trained with them.
            normalize: subtract the checkpoint's mean and divide by its standard deviation.

        Raises:
            LatentSpaceError: foreign space, wrong layout or channels, unscaled or non-finite input;
                the message has the clip's index.
            GeometryError: a clip outside the trained range.
            NonFiniteError: a score that is NaN or infinite; the message has the clip's index.
            ValueError: `normalize` without statistics in the checkpoint; `text` that does not fit.
        """
        mean, std = self.statistics() if normalize else (0.0, 1.0)
        clips = self.prepare(latents, space, num_frames)
        if text is not None and len(text.embeds) != len(clips):
            raise ValueError(f"{len(text.embeds)} text embeddings for {len(clips)} clips")
        notes = tuple(self.complaint(index, clip, fps) for index, clip in enumerate(clips))
        outputs = self.outputs(clips, text)
        return assemble(outputs, self.config.aspects, self.selection, (mean, std), notes)

    def score_frames(
        self,
        frames: Float[Tensor, "batch time 3 height width"],
        *,
        vae: nn.Module,
        fps: float | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """Scores of decoded videos: encodes them with the judge's VAE first.

        Args:
            frames: colour values in [0, 1]; 4f + 1 of them for CogVideoX.
            vae: the VAE of the judge's latent space; another one is refused.
            fps: as for `details`.
            text: as for `details`.
            normalize: as for `details`.
        """
        space = LatentSpace.from_vae(vae, patch_size_t=self.space.patch_size_t)
        latents = space.encode(frames, vae)
        return self(latents, space=space, fps=fps, text=text, normalize=normalize)

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation that scores are normalised by.

        Raises:
            ValueError: if the checkpoint has none.
        """
        if self.selection is not None:
            return self.selection.statistics(self.config)
        mean, std = self.config.reward_mean, self.config.reward_std
        if mean is None or std is None:
            raise ValueError(
                "this judge has no `reward_mean` and `reward_std` to normalise by: "
                "pass normalize=False, or train it with a trainer, which measures them"
            )
        return mean, std

    def prepare(
        self, latents: Clips, space: LatentSpace | None, num_frames: int | None
    ) -> list[Tensor]:
        """Checked, unpadded clips (time, channel, height, width) on the judge's device."""
        batches = [latents] if isinstance(latents, Tensor) else [clip[None] for clip in latents]
        if not batches or not len(batches[0]):
            raise ValueError("no clips to score: the batch is empty")
        if isinstance(latents, Tensor):
            self.space.check(latents, space, check_statistics=self.check_statistics)
        else:
            self.check_clips(latents, space)
        clips: list[Tensor] = []
        for batch in batches:
            if num_frames is not None:
                batch = self.space.unpad(batch, num_frames)
            clips.extend(batch.to(self.device))
        return clips

    def check_clips(self, clips: Sequence[Tensor], space: LatentSpace | None) -> None:
        """Check a list, all clips of one kind at once: the device is waited for once per kind.

        Raises:
            ValueError: as for `details`, naming the first clip that is refused.
        """
        kinds: dict[tuple[object, ...], list[Tensor]] = {}
        for clip in clips:
            kinds.setdefault((clip.shape, clip.dtype, clip.device), []).append(clip.detach())
        try:
            for alike in kinds.values():
                batch = torch.stack(alike)
                self.space.check(batch, space, check_statistics=self.check_statistics)
        except ValueError:
            self.check_one_by_one(clips, space)
            raise

    def check_one_by_one(self, clips: Sequence[Tensor], space: LatentSpace | None) -> None:
        """Raise for the first clip that is refused, with its place in the list."""
        for index, clip in enumerate(clips):
            self.check_clip(index, clip, space)

    def check_clip(self, index: int, clip: Tensor, space: LatentSpace | None) -> None:
        """Check one clip of a list."""
        try:
            self.space.check(clip[None], space, check_statistics=self.check_statistics)
        except ValueError as error:
            raise type(error)(f"clip {index} of the list: {error}") from error

    def complaint(self, index: int, clip: Tensor, fps: float | None) -> str | None:
        """What of a clip's geometry was not trained on; raises unless that is allowed."""
        trained = self.config.geometry
        if trained is None:
            return None
        time, _, height, width = clip.shape
        complaint = trained.complaint((time, height, width), fps)
        if complaint and not self.allow_untrained_geometry:
            raise GeometryError(
                f"clip {index}: {complaint} (the trained range). Crop, resample or re-encode it, "
                "or score it all the same with allow_untrained_geometry=True"
            )
        return complaint

    def outputs(self, clips: list[Tensor], text: TextCondition | None) -> list[JudgeOutput]:
        """What the judge says of each clip; clips of one shape share forward passes."""
        self.judge.follow_base()
        with self.on_device(any(clip.requires_grad for clip in clips)):
            return judge_clips(self.judge, clips, text=text, batch_size=self.batch_size)

    @contextmanager
    def on_device(self, needs_grad: bool) -> Iterator[None]:
        """Bring an offloaded judge to its device for the duration of a call."""
        if self.offload_to is None:
            yield
            return
        if needs_grad and torch.is_grad_enabled():
            raise ValueError(
                "an offloaded judge cannot be differentiated through: its weights leave the device "
                "before the backward pass. Use offload_to=None, or torch.no_grad()"
            )
        self.judge.to(self.offload_to)
        try:
            with torch.no_grad():
                yield
        finally:
            self.judge.to("cpu")

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "GTSVJReward":
        """Move the judge, and cast its base weights; adapter and head stay float32."""
        if device is not None:
            self.refuse_shared("be moved")
            self.judge.to(device)
        if dtype is not None:
            self.judge.backbone.cast(dtype)
        return self

    def refuse_shared(self, what: str) -> None:
        """Refuse what would change weights that are a transformer's own."""
        if self.judge.backbone.live is not None:
            raise SharingError(
                f"a judge on shared weights cannot {what}: it goes where the transformer goes"
            )

    def verify(self) -> None:
        """Check that the base weights still are those that the judge was trained on.

        Each call sees whether shared weights were replaced, merged or made trainable; this also
        sees changes of their values, by the fingerprint.

        Raises:
            SharingError: if shared weights were replaced, merged or are trained.
            CheckpointError: if the fingerprint differs.
        """
        self.judge.follow_base()
        found = self.judge.backbone.fingerprint()
        if found != self.config.base_fingerprint:
            raise CheckpointError(
                "the base weights have changed since the judge was trained: fingerprint "
                f"{str(self.config.base_fingerprint)[:12]}… expected, {found[:12]}… found"
            )

    def merge(self) -> "GTSVJReward":
        """Fold the adapter into the base weights: faster, equal to rounding, no longer savable."""
        self.judge.merge()
        return self

    def with_statistics(self, scores: Float[Tensor, " clip"], data: str) -> "GTSVJReward":
        """Set mean and standard deviation from raw scores of a named calibration set.

        Args:
            scores: at least two raw scores that differ.
            data: what they were measured on; kept in the checkpoint and its card.

        Raises:
            ValueError: for a reward with `aspects` or `weights`, whose statistics follow from those
                of the aspects.
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
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder)
        return str(commit.commit_url)
