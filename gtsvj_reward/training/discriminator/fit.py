"""Stage 1 in closed form: from folders of latents to a judge on disk."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal

from accelerate import PartialState
from torch import Tensor

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.closed_form.commands import (
    cache_for,
    device_for,
    measure_sensitivity,
    save_fit,
    scores_of,
)
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.features import Load
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.closed_form.showing import Showing, WrongPrompts
from gtsvj_reward.training.data import trained_geometry, trained_statistics
from gtsvj_reward.training.discriminator.data import ContrastivePairs, Pair
from gtsvj_reward.training.discriminator.held_out import held_out_energies, metrics_by_kind
from gtsvj_reward.training.discriminator.run import real_and_generated
from gtsvj_reward.training.discriminator.settings import DiscriminatorFit
from gtsvj_reward.training.processes import alone
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import clip_keys, connected_groups

WRONG_PROMPT = "wrong prompt"
"""In metrics, the kind of a held-out real clip under the prompt of another one."""

WRONG_IMAGE = "wrong image"
"""Likewise, with the reference image of another one."""


@alone
def fit_discriminator(judge_arguments: JudgeArguments, args: DiscriminatorFit) -> VideoJudge:
    """Fit stage 1 and write the judge to `output_dir`.

    The work of `gtsvj train-discriminator --readout moments`. Clips that were read before are not
    read again, so that an interrupted run goes on where it was.
    """
    train, held_out = real_and_generated(args)
    device = device_for(args)
    judge = build_judge(judge_arguments, train.real[0].space, seed=args.seed).to(device)
    infos = [*train.real, *train.generated]
    showing = Showing(judge.config, [*infos, *held_out.real, *held_out.generated], seed=args.seed)
    pairs = ContrastivePairs(
        train, sampler=args.sampler(), truncation=args.truncation(), seed=args.seed
    )
    cache = cache_for(judge, args, spread=args.projection_width is not None)
    judge = refit(
        judge,
        cache,
        contrast=contrast_of(
            pairs,
            showing,
            draws=args.draws,
            swapped=args.swapped,
            wrong_prompts=args.wrong_prompts,
            group_by=args.group_by,
        ),
        beta=args.beta,
        geometry=trained_geometry(infos, args.truncation()),
        latent_statistics=trained_statistics(infos),
        projection_width=args.projection_width,
    )
    energies: dict[str, dict[int, float]] = {}
    for kind, index, energy in held_out_energies(
        judge,
        held_out.real,
        held_out.generated,
        pairs.sampler,
        device=device,
        conditions=showing.conditions,
        shown=PartialState().is_local_main_process,
    ):
        energies.setdefault(kind, {})[index] = energy
    wrong = {
        WRONG_PROMPT: showing.under_wrong_prompts(held_out.real) if showing.reads else None,
        WRONG_IMAGE: showing.with_wrong_images(held_out.real) if showing.sees else None,
    }
    for kind, clips in wrong.items():
        if clips is not None:
            scores = scores_of(judge, cache, clips)[0]
            energies[kind] = dict(enumerate((-scores).tolist()))
    metrics = metrics_by_kind(energies)
    metrics |= measure_sensitivity(judge, cache, showing, held_out.real)
    shares = pairs.sampler.probabilities(bool(train.generated))
    known = {
        "real clips": len(train.real),
        "generated clips": len(train.generated),
        "negatives": {kind: round(share, 6) for kind, share in shares.items()},
        "negatives per real clip": args.draws,
        **({"wrong prompts": f"{args.wrong_prompts}, {args.swapped}"} if showing.reads else {}),
        **({"wrong images": args.swapped} if showing.sees else {}),
        "truncation probability": args.truncation_probability,
        "seed": args.seed,
    }
    judge.config = replace(judge.config, training={**judge.config.training, **known})
    save_fit(judge, args, metrics)
    return judge


def contrast_of(
    pairs: ContrastivePairs,
    showing: Showing,
    *,
    draws: int,
    swapped: int,
    wrong_prompts: WrongPrompts = "others",
    group_by: str | None = None,
) -> list[Contrast]:
    """All positives and negatives of a fit, with wrong prompts and images for a judge of them.

    The arguments are the settings of `DiscriminatorFit`.

    Raises:
        ValueError: if there are no negatives.
    """
    contrast = drawn(pairs, draws, group_by, showing)
    if (showing.reads or showing.sees) and swapped:
        groups = groups_of(pairs, group_by)
        own = [groups[str(info.path)] for info in pairs.real]
        if showing.reads:
            contrast += showing.swapped(pairs.real, own, swapped, wrong_prompts)
        if showing.sees:
            contrast += showing.images_swapped(pairs.real, own, swapped)
    if not contrast:
        raise ValueError(
            "`draws` must be at least 1 for a judge that reads no prompts and sees no images"
        )
    return contrast


def groups_of(pairs: ContrastivePairs, group_by: str | None) -> dict[str, str]:
    """Path of a clip -> its group.

    Clips that share a video or a group, or of which one was made from the other, are of one group.
    """
    infos = [*pairs.real, *pairs.generated]
    groups = connected_groups([clip_keys(info, group_by) for info in infos])
    return {
        str(infos[index].path): str(number)
        for number, members in enumerate(groups)
        for index in members
    }


def drawn(
    pairs: ContrastivePairs,
    draws: int,
    group_by: str | None = None,
    showing: Showing | None = None,
) -> list[Contrast]:
    """The pairs of the first epochs, drawn when they are read; neighbours share a draw.

    Both clips of a pair have their prompts, or both are without: that one has a prompt must not
    tell them apart. What was made of a clip has the clip's prompt and image.
    """

    @lru_cache(maxsize=1)
    def pair(key: int) -> Pair:
        return pairs[key]

    def side(key: int, name: Literal["positive", "negative"]) -> Tensor:
        return pair(key).positive if name == "positive" else pair(key).negative

    groups, contrast = groups_of(pairs, group_by), []
    for key in range(draws * len(pairs)):
        _, first, second, _ = pairs.draw(key)
        loads: tuple[Load, Load] = partial(side, key, "positive"), partial(side, key, "negative")
        if showing is not None:
            prompted = showing.kept(key)
            loads = (
                showing.one(first, loads[0], prompted=prompted),
                showing.one(second, loads[1], prompted=prompted),
            )
        own = (groups[str(first.path)], groups[str(second.path)])
        contrast.append(Contrast(*loads, own))
    return contrast
