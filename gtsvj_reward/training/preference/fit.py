"""Stage 3 in closed form: from comparisons and latents to a judge on disk."""

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.closed_form.commands import (
    cache_for,
    measure_sensitivity,
    save_fit,
    scores_of,
    start_of,
)
from gtsvj_reward.training.closed_form.examples import Compared
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.data import Truncation, trained_geometry, trained_statistics
from gtsvj_reward.training.preference.data import clips_of
from gtsvj_reward.training.preference.run import compared_and_held_out, warn_of_reuse
from gtsvj_reward.training.preference.settings import PreferenceFit
from gtsvj_reward.training.preference.trainer import pair_metrics, preference_loss, trainable
from gtsvj_reward.training.processes import alone
from gtsvj_reward.training.splits import group_names


@alone
def fit_preference(judge_arguments: JudgeArguments, args: PreferenceFit) -> VideoJudge:
    """Fit stage 3 and write the judge to `output_dir`.

    The work of `gtsvj train-preference --readout moments`. Without aspects in `from_judge`, or
    without it, the score comes from the moments themselves.
    """
    train, held_out = compared_and_held_out(args)
    train = trainable(train, args)
    infos = clips_of(train)
    judge = start_of(judge_arguments, args, infos[0].space)
    if judge.config.aspects:
        warn_of_reuse(str(args.from_judge), train, held_out)
    apart = clips_of(held_out)
    showing = Showing(judge.config, [*infos, *apart], seed=args.seed)
    cache = cache_for(judge, args)
    groups = group_names(
        train, lambda pair: (pair.first, pair.second), args.group_by, lambda pair: pair.group
    )
    judge = refit(
        judge,
        cache,
        comparisons=[
            Compared(
                *showing.pair(number, pair.first, pair.second),
                pair.label,
                (group, group),
                pair.probability,
                pair.weight,
            )
            for number, (pair, group) in enumerate(zip(train, groups, strict=True))
        ],
        loss=lambda first, second, labels: preference_loss(first, second, labels, args),
        geometry=trained_geometry(infos, Truncation(probability=0.0)),
        latent_statistics=trained_statistics(infos),
        seed=args.seed,
    )
    scores, _, _ = scores_of(judge, cache, showing.all(apart))
    by_path = {str(info.path): score for info, score in zip(apart, scores.tolist(), strict=True)}
    metrics = pair_metrics(held_out, by_path, args)
    metrics |= measure_sensitivity(judge, cache, showing, apart)
    save_fit(judge, args, metrics, labelled=(infos, apart))
    return judge
