"""Shared parts of the commands that fit a stage in closed form."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from gtsvj_reward.files import write_text
from gtsvj_reward.judge import VideoJudge, save_judge
from gtsvj_reward.judge.card import FIDELITY, SENSITIVITY
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.reward.prompts import sensitivity_of
from gtsvj_reward.training.arguments import FitConfig, JudgeArguments
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.labelled import LabelledFit, judge_of_stage_before, write_labelled
from gtsvj_reward.training.processes import from_main
from gtsvj_reward.training.run import build_judge

METRICS_FILE = "metrics.json"
"""Metrics on held-out clips, written beside a judge."""


def device_for(args: FitConfig) -> torch.device:
    """Device that reads clips: the one in the settings, else this process's GPU, else the CPU."""
    return torch.device(args.device) if args.device else PartialState().device


def start_of(arguments: JudgeArguments, args: LabelledFit, space: LatentSpace) -> VideoJudge:
    """The judge of `from_judge`, or a fresh one, on the device that reads clips.

    Raises:
        ValueError: for a judge of the other readout.
    """
    if args.from_judge is None:
        judge = build_judge(arguments, space, seed=args.seed)
    else:
        judge = judge_of_stage_before(arguments, args)
    if judge.config.readout != "moments":
        raise ValueError(
            f"{args.from_judge} has readout {judge.config.readout!r}: go on with `--readout mlp`, "
            "or start from a judge that was fitted with `--readout moments`"
        )
    return judge.to(device_for(args))


def cache_for(judge: VideoJudge, args: FitConfig, *, spread: bool = False) -> FeatureCache:
    """Cache of moments under a judge, in the folder of the settings."""
    return FeatureCache(judge, args.feature_folder(), batch_size=args.batch_size, spread=spread)


def save_fit(
    judge: VideoJudge,
    args: FitConfig,
    metrics: Mapping[str, float],
    labelled: tuple[Sequence[ClipInfo], Sequence[ClipInfo]] | None = None,
) -> None:
    """Record the held-out metrics of a judge and save it, on the main process.

    Args:
        judge: the judge.
        args: where it goes.
        metrics: of clips held out.
        labelled: the clips whose labels it was fitted to and evaluated with, for later stages and
            evaluations to check against.
    """
    rounded = {name: round(float(value), 6) for name, value in metrics.items()}
    record = {**judge.config.training, "held out": rounded}
    judge.config = replace(judge.config, training=record)
    folder = Path(args.output_dir)

    def write() -> None:
        write_text(folder / METRICS_FILE, json.dumps(rounded, indent=1) + "\n")
        if labelled:
            write_labelled(folder, *labelled)
        save_judge(judge, folder)

    from_main(write)


def scores_of(
    judge: VideoJudge, cache: FeatureCache, clips: Sequence[Load]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Scores (clip,), aspects (clip, aspect) and leverages (clip,) of clips that may be cached."""
    names = cache.read(clips, "held-out clips")
    moments = cache.features(names)[:, None].to(next(judge.parameters()).device)
    with torch.no_grad():
        output = judge.from_moments(moments)
    aspects = None if output.aspects is None else output.aspects[:, 0].cpu()
    leverage = None if output.leverage is None else output.leverage.cpu()
    return output.scores[:, 0].cpu(), aspects, leverage


def measure_sensitivity(
    judge: VideoJudge, cache: FeatureCache, showing: Showing, clips: Sequence[ClipInfo]
) -> dict[str, float]:
    """What another clip's prompt or image does to scores of held-out clips; also for the card.

    Returns:
        For the metrics, `prompt sensitivity`, in standard deviations of the scores, and `own prompt
        higher`; `reference fidelity` and `own image higher`; nothing for what a judge ignores, and
        for clips of which all have the same.
    """
    found: dict[str, float] = {}
    if showing.reads:
        wrong = showing.under_wrong_prompts(clips)
        found |= measured(judge, cache, showing.all(clips), wrong, SENSITIVITY, "prompt")
    if showing.sees:
        wrong = showing.with_wrong_images(clips)
        found |= measured(judge, cache, showing.all(clips), wrong, FIDELITY, "image")
    return found


def measured(
    judge: VideoJudge,
    cache: FeatureCache,
    clips: Sequence[Load],
    wrong: Sequence[Load] | None,
    name: str,
    what: str,
) -> dict[str, float]:
    """What wrong conditions do to scores; see `measure_sensitivity`."""
    if wrong is None:
        found, said = {}, f"not measured: of {len(clips)} held-out clips one has no other {what}"
    else:
        own, other = (scores_of(judge, cache, lot)[0] for lot in (clips, wrong))
        result = sensitivity_of(own, other)
        found = {name: result.mean_change, f"own {what} higher": result.share_own_higher}
        said = f"{result.text(what)} ({len(clips)} held-out clips)"
    judge.config = replace(judge.config, training={**judge.config.training, name: said})
    return found
