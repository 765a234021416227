"""Negatives that a generator makes: latent files of clips below its best quality."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.dtypes import dtype_name
from gtsvj_reward.latents.encode import mismatch, remove_torn, settings_differences
from gtsvj_reward.latents.fingerprint import weights_fingerprint
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.latents.store import (
    ClipInfo,
    LatentClip,
    LatentFileError,
    LatentFolder,
    clip_info,
    load_clip,
    save_clip,
)
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.progress import Progress
from gtsvj_reward.sampling.clean import check_scheduler
from gtsvj_reward.sampling.negative_jobs import (
    Job,
    NegativeSettings,
    Prompted,
    captions_of,
    check_targets,
    prompted_jobs,
    renoising_jobs,
)
from gtsvj_reward.sampling.pipelines import (
    check_reproducible,
    check_steps,
    latent_space,
    pipeline_kind,
)
from gtsvj_reward.sampling.renoising import check_strength, renoised, sampled


@dataclass
class NegativesReport:
    """Counts of the clips of one process."""

    made: list[Path] = field(default_factory=list)
    """Latent files that were written now."""
    already_done: list[Path] = field(default_factory=list)
    """Latent files that existed, made from the same source with the same settings."""
    without_caption: list[Path] = field(default_factory=list)
    """Real clips without a caption, denoised under the empty prompt."""
    captions_unused: tuple[str, ...] = ()
    """Videos with a caption that are not among the real clips."""


def make_negatives(
    pipe: Any,
    out: str | Path,
    *,
    real: str | Path | None = None,
    captions: Mapping[str, str] | None = None,
    prompted: Prompted | None = None,
    settings: NegativeSettings | None = None,
    overwrite: bool = False,
    process_index: int = 0,
    num_processes: int = 1,
    progress: bool = True,
) -> NegativesReport:
    """Write clips that a pipeline makes of noised real clips, or of prompts in few steps.

    A real clip `a/x.safetensors` becomes `a/x-t0400.safetensors` and so on, one for each strength,
    denoised under its caption: that of `captions`, else the `prompt` of its settings, else the
    empty one. A clip depends on its seed, its source or prompt, strength and steps alone; on batch
    and number of processes only by rounding. Files appear whole or not at all, so a run that was
    killed is resumed by calling this again.

    What a clip was made from stands in its settings, `made_from`, so that splits keep it with its
    source.

    Args:
        pipe: a pipeline of CogVideoX, HunyuanVideo, LTX, Mochi or Wan.
        out: folder for the latent files.
        real: folder of real clips in the pipeline's own latent space.
        captions: video -> prompt; videos are found by the source that latent files record.
        prompted: prompts to make clips of.
        settings: None: the defaults.
        overwrite: replace files that were made otherwise, instead of refusing; those that match are
            kept all the same.
        process_index: this process takes real clips and prompts `process_index::num_processes`.
        num_processes: processes that share the work.
        progress: show a progress bar, on process 0.

    Raises:
        EncodeMismatchError: for a file made otherwise, before anything is made.
        LatentSpaceError: for real clips of another space.
        ValueError: for nothing to do, a pipeline or scheduler that is not known, or clips of a size
            that the pipeline cannot make.
    """
    settings = settings or NegativeSettings()
    if real is None and prompted is None:
        raise ValueError("nothing to make negatives of: give `real`, `prompts` or both")
    if not 0 <= process_index < num_processes:
        raise ValueError(f"expected process_index in 0..{num_processes - 1}, got {process_index}")
    share = slice(process_index, None, num_processes)
    maker = _Maker(pipe, settings, overwrite)
    report, jobs = NegativesReport(), []
    if real is not None:
        folder = maker.checked(LatentFolder(real))
        known, report.captions_unused = captions_of(folder, captions or {})
        check_steps(pipe, min(settings.renoise_steps), from_noise=False)
        infos = folder.infos[share]
        report.without_caption = [info.path for info in infos if info.path not in known]
        jobs += renoising_jobs(infos, folder.path, known, settings)
    if prompted is not None:
        size = prompted.size
        check_steps(pipe, min(settings.sample_steps))
        maker.space.latent_frames(size.num_frames)
        maker.check_pixels("clips of prompts", size.height, size.width)
        jobs += prompted_jobs(prompted, range(len(prompted.prompts))[share], settings)
    targets = check_targets(jobs, Path(out))
    with folder_lock(out) if num_processes == 1 else nullcontext():
        if num_processes == 1:
            remove_torn(Path(out))
        maker.run(targets, report, progress and process_index == 0)
    return report


class _Maker:
    """How a run makes its clips, and how it recognises finished ones."""

    def __init__(self, pipe: Any, settings: NegativeSettings, overwrite: bool) -> None:
        self.space = latent_space(pipe)
        check_scheduler(pipe.scheduler)
        check_reproducible(pipe)
        for strength in settings.strengths:
            check_strength(pipe.scheduler, strength, max(settings.renoise_steps))
        self.pipe, self.overwrite, self.settings = pipe, overwrite, settings
        scheduler = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
        self.made_by = {
            "pipeline": type(pipe).__name__,
            "generator": weights_fingerprint(
                pipe.transformer.named_parameters(),
                json.dumps(scheduler, sort_keys=True, default=str),
            ),
            "scheduler": type(pipe.scheduler).__name__,
            "dtype": dtype_name(pipe.transformer.dtype),
            "guidance_scale": settings.guidance_scale,
            "seed": settings.seed,
        }

    def checked(self, folder: LatentFolder) -> LatentFolder:
        """The folder, if the pipeline can make clips like those in it."""
        if not folder.space.same_latents(self.space):
            raise LatentSpaceError(
                f"`real` ({folder.path}) holds latents of {folder.space.title()}, the pipeline "
                f"works on {self.space.title()}: encode the videos with the pipeline's VAE"
            )
        side = self.space.spatial_compression
        for info in folder.infos:
            self.check_pixels(str(info.path), side * info.shape[2], side * info.shape[3])
        return folder

    def check_pixels(self, name: str, height: int, width: int) -> None:
        """Reject a size that the pipeline cannot make."""
        side = pipeline_kind(self.pipe).patch(self.pipe) * self.space.spatial_compression
        if height % side or width % side or min(height, width) < side:
            raise ValueError(
                f"{name}: expected a height and width in multiples of {side} pixels, which the "
                f"pipeline makes clips of, got {height}x{width}"
            )

    def run(self, jobs: Mapping[Path, Job], report: NegativesReport, progress: bool) -> None:
        """Make what is missing, in batches of clips that share size, strength and steps."""
        missing = [target for target, job in jobs.items() if not self.is_done(target, job)]
        report.already_done = [target for target in jobs if target not in set(missing)]
        missing.sort(key=lambda target: jobs[target].batch)
        work = sum(jobs[target].steps for target in missing)
        with Progress(len(missing), "negatives", shown=progress, work=work) as bar:
            for _, alike in groupby(missing, key=lambda target: jobs[target].batch):
                targets = list(alike)
                for first in range(0, len(targets), self.settings.batch_size):
                    part = targets[first : first + self.settings.batch_size]
                    self.make(part, [jobs[target] for target in part])
                    report.made.extend(part)
                    bar.update(len(part), work=sum(jobs[target].steps for target in part))

    def make(self, targets: Sequence[Path], jobs: Sequence[Job]) -> None:
        """Make and write a batch."""
        for target, job, latents in zip(targets, jobs, self.latents(jobs), strict=True):
            clip = LatentClip(
                latents=latents.cpu(),
                space=self.space,
                fps=job.fps,
                num_frames=job.size.num_frames,
                source=job.name,
                settings=self.record(job),
            )
            try:
                save_clip(target, clip)
            except LatentSpaceError as error:
                raise LatentSpaceError(f"{target} cannot be written: {error}") from error

    def latents(self, jobs: Sequence[Job]) -> torch.Tensor:
        """Latents (clip, time, channel, height, width) of jobs that are alike."""
        first, prompts = jobs[0], [job.prompt for job in jobs]
        generators = [job.generator() for job in jobs]
        sources = [job.source for job in jobs if job.source is not None]
        guidance = self.settings.guidance_scale
        if not sources:
            return sampled(
                self.pipe,
                prompts,
                steps=first.steps,
                generators=generators,
                size=first.size,
                fps=first.fps,
                guidance_scale=guidance,
            )
        return renoised(
            self.pipe,
            torch.stack([load_clip(info.path).latents for info in sources]),
            prompts,
            strength=first.strength,
            steps=first.steps,
            generators=generators,
            size=first.size,
            fps=first.fps,
            guidance_scale=guidance,
        )

    def record(self, job: Job) -> dict[str, Any]:
        """The settings that a clip's file holds: all that its values depend on."""
        told = {"frame_rate": job.fps} if pipeline_kind(self.pipe).told_fps else {}
        return {**self.made_by, **job.record(), **told}

    def is_done(self, target: Path, job: Job) -> bool:
        """Whether a file exists and was made in the same way; a damaged one is made again."""
        if not target.exists():
            return False
        try:
            info: ClipInfo = clip_info(target)
        except LatentFileError:
            return False
        differences = settings_differences(info, self.record(job), self.space)
        if differences and not self.overwrite:
            raise mismatch(target, differences)
        return not differences
