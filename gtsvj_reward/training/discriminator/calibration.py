"""Sampling probabilities of the perturbations from how hard each is to learn (Appendix A.1)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from gtsvj_reward.files import write_text
from gtsvj_reward.flags import documented
from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.losses import contrastive_loss
from gtsvj_reward.perturbations import GENERATED, PERTURBATIONS, PerturbationSampler
from gtsvj_reward.progress import Progress
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training.discriminator.data import check_lengths
from gtsvj_reward.training.outputs import ClipScores, mean_scores

Method = Literal["decay_time", "inverse_gradient"]

INITIAL_STEPS = 20
"""Steps whose mean gradient norm stands for |∇L_p| in Eq. A.1."""


@documented
@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How each single-perturbation run is made, and how a probability follows from it."""

    steps: int = 300
    """Optimisation steps of each run."""
    batch_size: int = 8
    """Pairs per step."""
    learning_rate: float = 1e-4
    """Of the adapter."""
    head_learning_rate: float = 1e-3
    """Of the head."""
    beta: float = 0.2
    """Of the contrastive loss."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to it; norms are recorded before."""
    method: Method = "decay_time"
    """P proportional to the decay time (A.2, as the paper did), or to 1/|gradient| (A.1)."""
    epsilon: float | None = None
    """Absolute threshold of Eq. A.2; the paper's is 1500, of an unknown scale. None: relative."""
    epsilon_fraction: float = 0.2
    """Threshold as a share of the run's peak gradient norm."""
    window: int = 10
    """Steps of the running mean that is compared with the threshold."""
    generated_share: float = 0.30
    """Share of the real column kept for generated clips (Table A.1)."""
    seed: int = 0
    """Of judge, clips and perturbations."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Outcome of `calibrate_perturbations`; kinds are names of `PERTURBATIONS`."""

    settings: CalibrationSettings
    gradient_norms: dict[str, list[float]]
    """Norm of the gradient over all trainable parameters, before clipping, per step."""
    losses: dict[str, list[float]]
    """Contrastive loss per step."""
    epsilons: dict[str, float]
    """Threshold of each run."""
    decay_times: dict[str, int | None]
    """First step at or below the threshold after the peak; None: never, the run is censored."""
    probabilities: dict[str, float]
    """Share of each perturbation among perturbed negatives; sums to 1."""

    @property
    def censored(self) -> list[str]:
        """Kinds whose gradient never decayed: their decay time counts as the number of steps."""
        return [kind for kind, time in self.decay_times.items() if time is None]

    def sampler(self) -> PerturbationSampler:
        """The probabilities as both columns of Table A.1."""
        share = self.settings.generated_share
        real = {kind: (1 - share) * p for kind, p in self.probabilities.items()}
        return PerturbationSampler(real={**real, GENERATED: share}, generated=self.probabilities)

    def save(self, path: str | Path) -> None:
        """Write JSON that `gtsvj train-discriminator --perturbations` reads."""
        values = {"sampler": self.sampler().to_dict(), "calibration": asdict(self)}
        write_text(Path(path), json.dumps(values, indent=2, allow_nan=False) + "\n")


def calibrate_perturbations(
    make_judge: Callable[[], VideoJudge],
    clips: Sequence[ClipInfo],
    settings: CalibrationSettings,
    *,
    work: str | Path,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Calibration:
    """Train on one perturbation at a time and turn gradient decay into probabilities.

    Each run starts from the same fresh judge and sees the same clips in the same order. Finished
    runs are kept in `work` and not repeated, so that an interrupted calibration goes on.

    Args:
        make_judge: builds a fresh judge, the same one every time.
        clips: real clips.
        settings: see the class.
        work: folder for the runs; one JSON file each.
        device: where to train.
        progress: show a progress bar; it says after the first steps how long the rest will take.

    Raises:
        ValueError: for clips too short, or a `work` folder of other settings or clips.
    """
    check_lengths(clips)
    if len(clips) < settings.batch_size:
        raise ValueError(f"{len(clips)} clips do not fill a batch of {settings.batch_size}")
    runs, files = {}, {kind: Path(work) / f"{kind}.json" for kind in PERTURBATIONS}
    left = [kind for kind, file in files.items() if not file.is_file()]
    with Progress(len(left) * settings.steps, "calibrate", shown=progress) as bar:
        for kind, file in files.items():
            runs[kind] = cached_run(
                file,
                {**run_key(settings), "clips": [str(info.path.name) for info in clips]},
                lambda kind=kind: single_run(  # type: ignore[misc]
                    make_judge().to(device), kind, clips, settings, bar
                ),
            )
    norms = {kind: run["gradient_norms"] for kind, run in runs.items()}
    epsilons = {kind: threshold(values, settings) for kind, values in norms.items()}
    times = {
        kind: decay_time(values, epsilons[kind], settings.window) for kind, values in norms.items()
    }
    return Calibration(
        settings=settings,
        gradient_norms=norms,
        losses={kind: run["losses"] for kind, run in runs.items()},
        epsilons=epsilons,
        decay_times=times,
        probabilities=probabilities(norms, times, settings),
    )


def run_key(settings: CalibrationSettings) -> dict[str, object]:
    """The settings that a single run depends on."""
    later = ("method", "epsilon", "epsilon_fraction", "window", "generated_share")
    return {name: value for name, value in asdict(settings).items() if name not in later}


def cached_run(
    path: Path, key: dict[str, object], run: Callable[[], dict[str, list[float]]]
) -> dict[str, list[float]]:
    """The outcome of a run, from its file if it was finished before.

    Raises:
        ValueError: if the file is of a run with another key.
    """
    if not path.is_file():
        write_text(path, json.dumps({"key": key, "run": run()}, allow_nan=False))
    content = json.loads(path.read_text())
    if content["key"] != key:
        raise ValueError(f"{path} is of a run with other settings or clips: use another folder")
    outcome: dict[str, list[float]] = content["run"]
    return outcome


def single_run(
    judge: VideoJudge,
    kind: str,
    clips: Sequence[ClipInfo],
    settings: CalibrationSettings,
    bar: Progress,
) -> dict[str, list[float]]:
    """Gradient norms and losses of a training run whose negatives are all of one kind."""
    judge.unfreeze()
    model, sampler = ClipScores(judge).train(), PerturbationSampler()
    adapter = [p for n, p in judge.named_parameters() if p.requires_grad and "head." not in n]
    head = list(judge.head.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": adapter, "lr": settings.learning_rate},
            {"params": head, "lr": settings.head_learning_rate},
        ],
        weight_decay=0.0,
    )
    device = next(judge.parameters()).device
    norms, losses = [], []
    bar.skip(0)
    for step in range(settings.steps):
        generator = keyed_generator(settings.seed, step)
        chosen = torch.randperm(len(clips), generator=generator)[: settings.batch_size].tolist()
        positive = [load_clip(clips[index].path).latents for index in chosen]
        negative = [sampler.apply(kind, clip[None], generator)[0] for clip in positive]
        energies = -mean_scores(model([clip.to(device) for clip in positive + negative]))
        first, second = energies[: len(chosen)], energies[len(chosen) :]
        loss = contrastive_loss(first, second, settings.beta).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([*adapter, *head], settings.max_grad_norm)
        optimizer.step()
        norms.append(norm.item())
        losses.append(loss.item())
        bar.update()
    return {"gradient_norms": norms, "losses": losses}


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of up to `window` values that end at each position."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def threshold(norms: Sequence[float], settings: CalibrationSettings) -> float:
    """ε of Eq. A.2 for one run, on the scale of the running mean."""
    if settings.epsilon is not None:
        return settings.epsilon
    return settings.epsilon_fraction * max(running_mean(norms, settings.window))


def decay_time(norms: Sequence[float], epsilon: float, window: int) -> int | None:
    """First step, counted from 1, at which the running mean is at most ε after its peak (A.2).

    The paper takes the first step of all; a run whose gradient starts small and grows would then
    count as decayed before it began, so the search starts at the peak.
    """
    smooth = running_mean(norms, window)
    peak = smooth.index(max(smooth))
    return next((step + 1 for step in range(peak, len(smooth)) if smooth[step] <= epsilon), None)


def probabilities(
    norms: Mapping[str, Sequence[float]],
    times: Mapping[str, int | None],
    settings: CalibrationSettings,
) -> dict[str, float]:
    """Probabilities proportional to decay time, or inversely to the initial gradient norm."""
    if settings.method == "decay_time":
        weights = {kind: float(time or settings.steps) for kind, time in times.items()}
    elif settings.method == "inverse_gradient":
        starts = {kind: values[:INITIAL_STEPS] for kind, values in norms.items()}
        weights = {kind: len(start) / sum(start) for kind, start in starts.items()}
    else:
        raise ValueError(
            f"`method` must be 'decay_time' or 'inverse_gradient', got {settings.method!r}"
        )
    total = sum(weights.values())
    return {kind: weight / total for kind, weight in weights.items()}
