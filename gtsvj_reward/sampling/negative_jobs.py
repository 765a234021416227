"""Which negatives a run makes: one job for each clip, with all that decides its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.annotations import find_clips
from gtsvj_reward.annotations.columns import texts
from gtsvj_reward.latents.content import MADE_FROM, content_key
from gtsvj_reward.latents.store import SUFFIX, ClipInfo, LatentFolder
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.sampling.pipelines import ClipSize
from gtsvj_reward.tables import read_table

RENOISED, PROMPTED, DRAWN_STEPS = 0, 1, 2
"""Second number of a random key, after the seed: no two of these share their draws."""


@dataclass(frozen=True, kw_only=True)
class NegativeSettings:
    """How negatives are made of real clips and of prompts."""

    strengths: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    """Noise levels that each real clip is noised to, 0..1: the timestep as a fraction of the whole,
    0.4 is t = 400 of 1000; for flow matching the share of noise."""
    renoise_steps: tuple[int, ...] = (1, 2, 3)
    """Numbers of steps, of which one is drawn for each noised clip."""
    sample_steps: tuple[int, ...] = (2, 4, 8)
    """Numbers of steps in which clips are made of each prompt, from noise."""
    per_prompt: int = 1
    """Clips of each prompt and number of steps."""
    guidance_scale: float | None = None
    """Weight of classifier-free guidance; None: the pipeline's default."""
    batch_size: int = 1
    """Clips in one call of the pipeline."""
    seed: int = 0
    """Of the noise, and of the numbers of steps."""

    def __post_init__(self) -> None:
        """Reject settings that make no clip, or the same one twice."""
        levels = [level_of(strength) for strength in self.strengths]
        if (
            not levels
            or len(set(levels)) < len(levels)
            or not 0 < min(levels) <= max(levels) <= 1000
        ):
            raise ValueError(
                "`strengths` must be different noise levels above 0 and at most 1, at least 0.001 "
                f"apart, got {self.strengths}: at 0 a clip stays as it is"
            )
        for name in ("renoise_steps", "sample_steps"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must be different whole numbers from 1, got {values}")
        if self.per_prompt < 1 or self.batch_size < 1:
            raise ValueError(
                f"`per_prompt` and `batch_size` must be at least 1, got {self.per_prompt} and "
                f"{self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """Prompts, and the size of the clips that are made of them."""

    prompts: tuple[str, ...]
    """All different."""
    size: ClipSize
    """Of each clip."""
    fps: float
    """Frames per second that the clips are recorded with."""

    def __post_init__(self) -> None:
        """Reject duplicate prompts."""
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ValueError(
                f"expected different prompts, got {len(self.prompts)}, of which "
                f"{len(set(self.prompts))} are different"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip to make."""

    name: str
    """Its path below the output folder, without the suffix of latent files."""
    prompt: str
    steps: int
    strength: float
    """1 for a clip that is made from noise."""
    size: ClipSize
    fps: float
    key: tuple[int, ...]
    """Key of all its random draws."""
    made_from: tuple[str, ...]
    """Keys of the source or the prompt; see `latents.content.made_from`."""
    source: ClipInfo | None = None
    """The real clip; None: made from noise."""

    @property
    def batch(self) -> tuple[Any, ...]:
        """What clips of one batch have in common."""
        size = (self.size.num_frames, self.size.height, self.size.width)
        return (self.source is not None, size, self.fps, self.strength, self.steps)

    def generator(self) -> torch.Generator:
        """Of the clip's noise."""
        return keyed_generator(*self.key)

    def record(self) -> dict[str, Any]:
        """The settings of the clip's file that are its own."""
        source = self.source
        return {
            "prompt": self.prompt,
            "steps": self.steps,
            "strength": self.strength,
            "source": None if source is None else source.source or source.path.name,
            "source_sha256": None if source is None else source.source_sha256,
            MADE_FROM: list(self.made_from),
        }


def read_prompts(path: Path) -> tuple[str, ...]:
    """The different prompts of a file, in its order.

    Args:
        path: `.txt` with a prompt on each line, or a table with the column `prompt`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file without prompts, or empty cells.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line]
    else:
        found = texts(read_table(path).column("prompt"))
    if not found:
        raise ValueError(f"{path} holds no prompt: write one on each line")
    return tuple(dict.fromkeys(found))


def renoising_jobs(
    infos: Sequence[ClipInfo],
    folder: Path,
    captions: Mapping[Path, str],
    settings: NegativeSettings,
) -> list[Job]:
    """One job for each clip and strength.

    Args:
        infos: the real clips, below the folder.
        folder: as it is.
        captions: path of a latent file -> its prompt; the empty one for the others.
        settings: strengths, numbers of steps, seed.
    """
    jobs = []
    for info in infos:
        content = content_key(info)
        number = _number(content)
        side = info.space.spatial_compression
        for strength in settings.strengths:
            level = level_of(strength)
            draw = keyed_generator(settings.seed, DRAWN_STEPS, number, level)
            chosen = int(torch.randint(len(settings.renoise_steps), (), generator=draw))
            name = info.path.relative_to(folder).as_posix().removesuffix(SUFFIX)
            jobs.append(
                Job(
                    name=f"{name}-t{level:04d}",
                    prompt=captions.get(info.path, ""),
                    steps=settings.renoise_steps[chosen],
                    strength=level / 1000,
                    size=ClipSize(
                        num_frames=info.num_frames,
                        height=info.shape[2] * side,
                        width=info.shape[3] * side,
                    ),
                    fps=info.fps,
                    key=(settings.seed, RENOISED, number, level),
                    made_from=(content, *([info.source_sha256] if info.source_sha256 else [])),
                    source=info,
                )
            )
    return jobs


def prompted_jobs(
    prompted: Prompted, indices: Sequence[int], settings: NegativeSettings
) -> list[Job]:
    """One job for each of some prompts, each number of steps, and each repetition."""
    jobs = []
    for prompt in (prompted.prompts[index] for index in indices):
        key = f"prompt:{sha256(prompt.encode()).hexdigest()}"
        number = _number(key)
        jobs += [
            Job(
                name=f"prompts/{key.split(':')[1][:16]}/steps-{steps}_{copy}",
                prompt=prompt,
                steps=steps,
                strength=1.0,
                size=prompted.size,
                fps=prompted.fps,
                key=(settings.seed, PROMPTED, number, steps, copy),
                made_from=(key,),
            )
            for steps in settings.sample_steps
            for copy in range(settings.per_prompt)
        ]
    return jobs


def check_targets(jobs: Sequence[Job], out: Path) -> dict[Path, Job]:
    """Path of a latent file -> the job that makes it.

    Raises:
        ValueError: if two jobs make one file.
    """
    targets = {out / f"{job.name}{SUFFIX}": job for job in jobs}
    if len(targets) < len(jobs):
        raise ValueError(f"{len(jobs)} clips have {len(targets)} different names below {out}")
    return targets


def captions_of(
    folder: LatentFolder, captions: Mapping[str, str]
) -> tuple[dict[Path, str], tuple[str, ...]]:
    """Latent file -> its prompt, by the table or else its own settings; and names that fit no file.

    Raises:
        ValueError: for names that fit several files.
    """
    known = {
        info.path: prompt
        for info in folder.infos
        if isinstance(prompt := info.settings.get("prompt"), str)
    }
    if not captions:
        return known, ()
    found = find_clips(captions, folder, allow_missing=True)
    known |= {info.path: captions[name] for name, info in found.clips.items()}
    return known, found.missing


def level_of(strength: float) -> int:
    """A strength in thousandths, as names and random keys have it."""
    return round(1000 * strength)


def _number(key: str) -> int:
    """A content or prompt key as a number for random keys."""
    return int(key.split(":")[1], 16)
