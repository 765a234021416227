"""Stage 1 in closed form: from folders of latents to a judge on disk."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal

from torch import Tensor

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.closed_form.commands import cache_for, device_for, save_fit
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.data import trained_geometry, trained_statistics
from gtsvj_reward.training.discriminator.data import ContrastivePairs, Pair
from gtsvj_reward.training.discriminator.held_out import held_out_energies, metrics_by_kind
from gtsvj_reward.training.discriminator.run import real_and_generated
from gtsvj_reward.training.discriminator.settings import DiscriminatorFit
from gtsvj_reward.training.processes import alone
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import clip_keys, connected_groups


@alone
def fit_discriminator(judge_arguments: JudgeArguments, args: DiscriminatorFit) -> VideoJudge:
    """Fit stage 1 and write the judge to `output_dir`.

    The work of `gtsvj train-discriminator --readout moments`. Clips that were read before are not
    read again, so that an interrupted run goes on where it was.
    """
    train, held_out = real_and_generated(args)
    device = device_for(args)
    judge = build_judge(judge_arguments, train.real[0].space, seed=args.seed).to(device)
    pairs = ContrastivePairs(
        train, sampler=args.sampler(), truncation=args.truncation(), seed=args.seed
    )
    judge = refit(
        judge,
        cache_for(judge, args),
        contrast=drawn(pairs, args.draws, args.group_by),
        beta=args.beta,
        geometry=trained_geometry([*train.real, *train.generated], args.truncation()),
        latent_statistics=trained_statistics([*train.real, *train.generated]),
    )
    energies: dict[str, dict[int, float]] = {}
    for kind, index, energy in held_out_energies(
        judge, held_out.real, held_out.generated, pairs.sampler, device=device
    ):
        energies.setdefault(kind, {})[index] = energy
    metrics = metrics_by_kind(energies)
    shares = pairs.sampler.probabilities(bool(train.generated))
    known = {
        "real clips": len(train.real),
        "generated clips": len(train.generated),
        "negatives": {kind: round(share, 6) for kind, share in shares.items()},
        "negatives per real clip": args.draws,
        "truncation probability": args.truncation_probability,
        "seed": args.seed,
    }
    judge.config = replace(judge.config, training={**judge.config.training, **known})
    save_fit(judge, args, metrics)
    return judge


def drawn(pairs: ContrastivePairs, draws: int, group_by: str | None = None) -> list[Contrast]:
    """The pairs of the first epochs, drawn when they are read; neighbours share a draw.

    Clips that share a video or a group, or of which one was made from the other, are of one group.
    """

    @lru_cache(maxsize=1)
    def pair(key: int) -> Pair:
        return pairs[key]

    def side(key: int, name: Literal["positive", "negative"]) -> Tensor:
        return pair(key).positive if name == "positive" else pair(key).negative

    infos = [*pairs.real, *pairs.generated]
    groups = connected_groups([clip_keys(info, group_by) for info in infos])
    group_of = {
        str(infos[index].path): str(number)
        for number, members in enumerate(groups)
        for index in members
    }
    contrast = []
    for key in range(draws * len(pairs)):
        _, *sources, _ = pairs.draw(key)
        first, second = (group_of[str(info.path)] for info in sources)
        contrast.append(
            Contrast(
                positive=partial(side, key, "positive"),
                negative=partial(side, key, "negative"),
                groups=(first, second),
            )
        )
    return contrast
