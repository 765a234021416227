"""Stage 2 in closed form: from ratings and latents to a judge on disk."""

import torch

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.aspects.data import normalised_targets
from gtsvj_reward.training.aspects.run import rated_and_held_out
from gtsvj_reward.training.aspects.settings import AspectFit
from gtsvj_reward.training.aspects.trainer import aspect_metrics
from gtsvj_reward.training.closed_form.commands import (
    cache_for,
    measure_sensitivity,
    save_fit,
    scores_of,
    start_of,
)
from gtsvj_reward.training.closed_form.examples import Rated
from gtsvj_reward.training.closed_form.record import GROUP_SHARE
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.data import Truncation, trained_geometry, trained_statistics
from gtsvj_reward.training.processes import alone
from gtsvj_reward.training.splits import group_names

LEVELS = {"50%": 0.6745, "80%": 1.2816, "95%": 1.96}
"""Share that an interval should cover -> its half width in standard deviations."""


@alone
def fit_aspects(judge_arguments: JudgeArguments, args: AspectFit) -> VideoJudge:
    """Fit stage 2 and write the judge to `output_dir`.

    The work of `gtsvj train-aspects --readout moments`. Without `from_judge` there is no energy.
    """
    train, held_out, aspects, space = rated_and_held_out(args)
    judge = start_of(judge_arguments, args, space)
    cache = cache_for(judge, args, spread=args.projection_width is not None)
    infos, apart = ([clip.info for clip in lot] for lot in (train, held_out))
    showing = Showing(judge.config, [*infos, *apart], seed=args.seed)
    groups = group_names(train, lambda clip: [clip.info], args.group_by, lambda clip: clip.group)
    judge = refit(
        judge,
        cache,
        ratings=[
            Rated(load, clip.scores, group)
            for load, clip, group in zip(showing.some(infos), train, groups, strict=True)
        ],
        aspects=aspects,
        geometry=trained_geometry(infos, Truncation(probability=0.0)),
        latent_statistics=trained_statistics(infos),
        seed=args.seed,
        projection_width=args.projection_width,
    )
    _, predicted, leverage = scores_of(judge, cache, showing.all(apart))
    targets = normalised_targets(held_out, aspects)
    if predicted is None or leverage is None:
        raise RuntimeError("a judge of aspects gave none")
    metrics = aspect_metrics(predicted, targets, [aspect.name for aspect in aspects])
    noise = torch.tensor([judge.score_noise(row) for row in torch.eye(len(aspects)).tolist()])
    # Not estimated in a projection.
    shared = float(judge.config.training.get(f"aspects: {GROUP_SHARE}", 0.0))
    spread = (noise[None] * (1 + shared + leverage[:, None])).sqrt()
    off = ((predicted - targets).abs() / spread)[~targets.isnan()]
    for name, width in LEVELS.items():
        metrics[f"covered by {name}"] = (off < width).float().mean().item()
    metrics |= measure_sensitivity(judge, cache, showing, apart)
    save_fit(judge, args, metrics, labelled=(infos, apart))
    return judge
