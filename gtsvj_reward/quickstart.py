"""From a pipeline and a folder of real videos to a judge: the commands and an estimate.

Each step is a command of `gtsvj` that can be repeated by hand; each resumes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gtsvj_reward.judge.moments import default_taps
from gtsvj_reward.judge.readout import tap_widths
from gtsvj_reward.latents.decode import PROMPTS
from gtsvj_reward.latents.store import SUFFIX
from gtsvj_reward.sampling.pipelines import ClipSize, check_scored, latent_space
from gtsvj_reward.sampling.renoising import sampled
from gtsvj_reward.training import DiscriminatorFit

TIMED_STEPS = 2
"""Denoising steps of the call that is timed; it encodes the prompt as well."""
QUICK = 0.3
"""Seconds. A call that takes less is timed three times."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    title: str
    argv: list[str]
    """Its words, without `gtsvj`."""
    done: Path | None = None
    """A file that exists when the step is finished, for a step that does not check this itself."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The plan."""

    pipeline: str
    """Bundled name, folder or hub id."""
    vae: str
    """Where its VAE is: the same, but for a toy generator without one of its own."""
    real: Path
    """Folder of real videos."""
    prompts: Path
    """File of prompts for the generated clips."""
    out: Path
    """Folder for the judge."""
    work: Path
    """Folder for everything else."""
    size: ClipSize
    fps: float
    per_prompt: int
    """Clips of each prompt."""
    steps: int
    """Denoising steps of these clips."""
    batch_size: int
    """Clips in one call of the pipeline."""
    dtype: str
    device: str

    @property
    def sampled(self) -> Path:
        """Latents of the clips generated from prompts."""
        return self.work / "latents" / "generated" / "sampled"

    @property
    def videos(self) -> Path:
        """The same clips, decoded."""
        return self.work / "videos"

    def commands(self) -> list[Step]:
        """The steps, in order."""
        latents, videos, sampled_clips = self.work / "latents", self.videos, self.sampled
        size = [
            *("--num_frames", str(self.size.num_frames), "--height", str(self.size.height)),
            *("--width", str(self.size.width), "--fps", f"{self.fps:g}"),
        ]
        where = ["--dtype", self.dtype, "--device", self.device]
        sampling = ["--sample_steps", str(self.steps), "--per_prompt", str(self.per_prompt)]
        fit = [
            *("train-discriminator", "--base_model", self.pipeline, "--base_dtype", self.dtype),
            *("--device", self.device),
            *("--real", str(latents / "real"), "--generated", str(sampled_clips)),
            *("--features", str(self.work / "features"), "--output_dir", str(self.out)),
        ]
        return [
            Step(
                title="encode the real videos",
                argv=["encode", str(self.real), str(latents / "real"), "--vae", self.vae, *size,
                      *where],
            ),
            Step(
                title="generate clips of the prompts",
                argv=["negatives", self.pipeline, *where, "--batch_size", str(self.batch_size),
                      "--out", str(sampled_clips), "--prompts", str(self.prompts), *sampling,
                      *size],
            ),
            Step(title="fit the judge", argv=fit, done=self.out / "config.json"),
            Step(
                title="decode the generated clips",
                argv=["decode", str(sampled_clips), str(videos), "--vae", self.vae, *where],
            ),
            Step(
                title="score them",
                argv=["score", str(self.out), str(sampled_clips), "--out",
                      str(self.work / "scores.csv"), "--videos", str(videos), "--report",
                      str(self.work / "report"), "--device", self.device],
            ),
        ]  # fmt: skip

    def next_commands(self) -> list[str]:
        """The next commands."""
        return [
            f"gtsvj label {self.videos} --latents {self.sampled} --judge {self.out} --prompts "
            f"{self.videos / PROMPTS} --out labels",
            f"gtsvj train-preference --from_judge {self.out} --comparisons labels/comparisons.csv "
            f"--latents {self.sampled} --output_dir {self.out}-labelled",
        ]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds that a clip takes on this machine."""

    encode: float
    step: float
    """Of denoising, with the pipeline's guidance."""
    read: float
    """By a judge."""
    decode: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time and disk space of the steps, in their order."""

    seconds: list[float]
    latent_bytes: int
    moment_bytes: int


def size_of(pipe: Any, given: dict[str, int | None]) -> ClipSize:
    """The size of clips: the given one, else the training size of a CogVideoX transformer.

    Raises:
        ValueError: naming missing values.
    """
    check_scored(pipe)
    config, space = pipe.transformer.config, latent_space(pipe)
    side = space.spatial_compression
    own = {
        "num_frames": config.get("sample_frames"),
        "height": config.get("sample_height") and config["sample_height"] * side,
        "width": config.get("sample_width") and config["sample_width"] * side,
    }
    values = {name: value or own[name] for name, value in given.items()}
    if missing := [f"--{name}" for name, value in values.items() if value is None]:
        raise ValueError(
            f"{type(pipe).__name__} does not state its clip size in training: give "
            f"{' '.join(missing)}"
        )
    return ClipSize(**{name: int(value) for name, value in values.items() if value is not None})


def measure(plan: Quickstart, pipe: Any) -> Times:
    """Time what the steps do, with their numbers of clips at a time, in this process's threads."""
    space, device, size = latent_space(pipe), torch.device(plan.device), plan.size
    shape = (1, size.num_frames, 3, size.height, size.width)
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)

    def denoise(clips: int, guidance_scale: float | None) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in range(clips)]
        sampled(pipe, [""] * clips, steps=TIMED_STEPS, generators=generators, size=size,
                guidance_scale=guidance_scale)  # fmt: skip

    made, read = plan.batch_size, DiscriminatorFit.batch_size
    with torch.no_grad():
        latents = space.encode(frames, pipe.vae)
        return Times(
            encode=seconds_of(lambda: space.encode(frames, pipe.vae), device),
            step=seconds_of(lambda: denoise(made, None), device) / (TIMED_STEPS * made),
            # A judge reads a clip in one pass, as a step does without guidance.
            read=seconds_of(lambda: denoise(read, 1.0), device) / (TIMED_STEPS * read),
            decode=seconds_of(lambda: space.decode(latents, pipe.vae), device),
        )


def estimate(plan: Quickstart, pipe: Any, times: Times, real: int, prompts: int) -> Estimate:
    """What the steps will take, from the time of one clip; what is there already takes none.

    Args:
        plan: what will be done.
        pipe: the pipeline.
        times: what `measure` found.
        real: number of real videos.
        prompts: number of prompts.
    """
    space, size, config = latent_space(pipe), plan.size, pipe.transformer.config
    made = prompts * plan.per_prompt
    reads = real * (1 + DiscriminatorFit.draws)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    moments = tap_widths(default_taps(config["num_layers"]), space.channels, width)
    side = space.spatial_compression
    pixels = (size.height // side) * (size.width // side)
    latents = space.latent_frames(size.num_frames) * space.channels * pixels
    return Estimate(
        seconds=[
            missing(real, plan.work / "latents" / "real") * times.encode,
            missing(made, plan.sampled) * plan.steps * times.step,
            0.0 if (plan.out / "config.json").exists() else reads * times.read,
            missing(made, plan.videos, ".mp4") * times.decode,
            made * times.read,
        ],
        latent_bytes=(real + made) * latents * 4,
        moment_bytes=reads * sum(moments) * 4,
    )


def missing(count: int, folder: Path, suffix: str = SUFFIX) -> int:
    """How many of so many files are not in a folder yet."""
    return max(0, count - sum(1 for _ in folder.rglob(f"*{suffix}")))


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """How long a call takes, the device's queue included: the second one, since the first warms up.

    A quick one is repeated, and the middle time taken.
    """
    times: list[float] = []
    while len(times) < 2 or (len(times) < 4 and times[-1] < QUICK):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])
