"""What is trained on and what is held out: no video, and no group of videos, is on both sides."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from gtsvj_reward.latents.content import (
    content_key as content_key,
    made_from,
    video_keys as video_keys,
)
from gtsvj_reward.latents.store import ClipInfo, unique_clips
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.training.arguments import SplitSettings

logger = logging.getLogger(__name__)

Example = TypeVar("Example")

FOLDS = 10
"""Parts of the held-out pairs; each is answered at the tie threshold of the others."""


def group_key(info: ClipInfo, group_by: str) -> str | None:
    """The group of a clip by the setting `group_by`, None if the expression does not fit."""
    name = PurePosixPath(info.source or info.path.name)
    if group_by == "folder":
        return f"group:{name.parent}"
    found = re.match(group_by, str(name.with_suffix("")))
    return f"group:{found[1] if found.re.groups else found[0]}" if found else None


def clip_keys(info: ClipInfo, group_by: str | None = None) -> frozenset[str]:
    """What two clips share if they may not be on both sides: video, origin or group."""
    group = None if group_by is None else group_key(info, group_by)
    return video_keys(info).union(made_from(info), () if group is None else (group,))


def no_group(_: object) -> str | None:
    """The group of an example whose labels say nothing of groups."""
    return None


def hold_out(
    examples: Sequence[Example],
    given: Sequence[Example] | None,
    clips: Callable[[Example], Sequence[ClipInfo]],
    *,
    count: int,
    args: SplitSettings,
    setting: str,
    group: Callable[[Example], str | None] = no_group,
) -> tuple[list[Example], list[Example]]:
    """Examples to train on and held-out ones, with no video and no group on both sides.

    Without given ones they are drawn by a shuffle that depends on the seed alone. Examples that
    share a video or a group, directly or through others, then stay together.

    Args:
        examples: to train on, or to split.
        given: held-out examples, if there are any.
        clips: the clips of an example.
        count: how many to hold out at least, where none are given.
        args: seed, and which clips make a group.
        setting: where held-out examples can be given, for the message.
        group: what the labels say of an example's group, beside `group_by`.

    Raises:
        ValueError: if given ones are trained on as well, all examples are connected, or `group_by`
            fits no clip.
    """
    infos = unique_clips([info for example in examples for info in clips(example)])
    group_by = args.group_by
    report_duplicates(infos, group_by)
    if given is not None:
        apart = unique_clips([info for example in given for info in clips(example)])
        check_apart(infos, apart, group_by)
        _check_groups(examples, given, group)
        return list(examples), list(given)
    groups = example_groups(examples, clips, group_by, group)
    if len(groups) < 2:
        raise ValueError(
            f"cannot hold out any of {len(examples)} examples: shared videos or groups connect all "
            f"of them. Give `{setting}`"
        )
    held_out: set[int] = set()
    for number in keyed_order(len(groups), args.seed, -1)[:-1]:
        if len(held_out) >= count:
            break
        held_out.update(groups[number])
    train = [example for index, example in enumerate(examples) if index not in held_out]
    return train, [examples[index] for index in sorted(held_out)]


def deal_folds(
    examples: Sequence[Example],
    clips: Callable[[Example], Sequence[ClipInfo]],
    args: SplitSettings,
    group: Callable[[Example], str | None] = no_group,
) -> list[int]:
    """The fold of each example, up to `FOLDS`; examples that share a video or a group share one.

    Args:
        examples: to deal out, by a shuffle that depends on the seed alone.
        clips: the clips of an example.
        args: seed, and which clips make a group.
        group: as for `hold_out`.
    """
    groups = example_groups(examples, clips, args.group_by, group)
    folds = [0] * len(examples)
    for place, number in enumerate(keyed_order(len(groups), args.seed, -1)):
        for index in groups[number]:
            folds[index] = place % FOLDS
    return folds


def example_groups(
    examples: Sequence[Example],
    clips: Callable[[Example], Sequence[ClipInfo]],
    group_by: str | None,
    group: Callable[[Example], str | None] = no_group,
) -> list[list[int]]:
    """Indices of examples that share a video or a group, directly or through others."""
    infos = unique_clips([info for example in examples for info in clips(example)])
    keys = {str(info.path): clip_keys(info, group_by) for info in infos}
    labelled = [group(example) for example in examples]
    return connected_groups(
        [
            frozenset[str](() if name is None else (f"labelled group:{name}",)).union(
                *(keys[str(info.path)] for info in clips(example))
            )
            for example, name in zip(examples, labelled, strict=True)
        ]
    )


def group_names(
    examples: Sequence[Example],
    clips: Callable[[Example], Sequence[ClipInfo]],
    group_by: str | None,
    group: Callable[[Example], str | None] = no_group,
) -> list[str]:
    """A name for each example, the same for those that share a video or a group."""
    names = [""] * len(examples)
    for number, members in enumerate(example_groups(examples, clips, group_by, group)):
        for index in members:
            names[index] = str(number)
    return names


def report_duplicates(infos: Sequence[ClipInfo], group_by: str | None) -> None:
    """Say how many clips are a video that comes under another name, and how many a group has.

    Raises:
        ValueError: if `group_by` fits no clip.
    """
    videos = len(connected_groups([video_keys(info) for info in infos]))
    if videos < len(infos):
        logger.warning(
            "%d clips are %d videos, some under several names; each video stays on one side",
            len(infos),
            videos,
        )
    if group_by is None:
        return
    names = [group_key(info, group_by) for info in infos]
    fitting = [name for name in names if name is not None]
    if not fitting:
        raise ValueError(
            f"`group_by` {group_by!r} matches none of {len(infos)} clips, the first is "
            f"{infos[0].source or infos[0].path.name}: write `folder`, or an expression like "
            r"`(.+)_\d+` that matches from the start of the name"
        )
    alone = len(names) - len(fitting)
    logger.warning(
        "`group_by`: %d clips in %d groups, %d on their own", len(names), len(set(fitting)), alone
    )


def connected_groups(keys: Sequence[frozenset[str]]) -> list[list[int]]:
    """Indices of examples that share keys, directly or through others."""
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    seen: dict[str, int] = {}
    for index, own in enumerate(keys):
        for key in sorted(own):
            parent[root(index)] = root(seen.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(keys)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


def check_apart(
    train: Sequence[ClipInfo], held_out: Sequence[ClipInfo], group_by: str | None = None
) -> None:
    """Refuse clips that are both trained on and held out, under whatever name."""
    seen = {key: info for info in train for key in clip_keys(info, group_by)}
    shared = [(info, clip_keys(info, group_by) & seen.keys()) for info in held_out]
    both = [(info, keys) for info, keys in shared if keys]
    if both:
        info, keys = both[0]
        key = min(keys, key=lambda key: key.startswith("group:"))
        relation = "of the same group as" if key.startswith("group:") else "the same video as"
        if key in (*made_from(info), *made_from(seen[key])):
            relation = "made from the same clip or prompt as"
        raise ValueError(
            f"{len(both)} held-out clips are trained on as well; the first is {info.path}, "
            f"{relation} {seen[key].path}. Held-out results would not be valid"
        )


def _check_groups(
    train: Sequence[Example], given: Sequence[Example], group: Callable[[Example], str | None]
) -> None:
    """Refuse held-out examples whose labels name a group that is trained on."""
    trained = {group(example) for example in train} - {None}
    both = [name for example in given if (name := group(example)) in trained]
    if both:
        raise ValueError(
            f"{len(both)} held-out rows are of groups (column `group`) that are trained on as "
            f"well; the first is {both[0]!r}. Held-out results would not be valid"
        )


def beside(
    infos: Sequence[ClipInfo],
    train: Sequence[ClipInfo],
    held_out: Sequence[ClipInfo],
    group_by: str | None = None,
) -> tuple[list[ClipInfo], list[ClipInfo], list[ClipInfo]]:
    """Which clips belong to others that are split already, and which are free.

    Args:
        infos: clips to place; those of one video, origin or group stay together.
        train: clips to train on.
        held_out: held-out clips.
        group_by: what makes a group of `infos`.

    Returns:
        Clips of which one shares a video or an origin with `train`; those of which one does with
        `held_out`; the others.
    """
    keys = [clip_keys(info, group_by) for info in infos]
    sides = [
        frozenset[str]().union(*(clip_keys(info) for info in side)) for side in (train, held_out)
    ]
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for group in connected_groups(keys):
        shared = frozenset[str]().union(*(keys[index] for index in group))
        part = next((number for number in (1, 0) if shared & sides[number]), 2)
        parts[part].extend(group)
    trained, apart, free = ([infos[index] for index in sorted(part)] for part in parts)
    return trained, apart, free


def check_real(real: Sequence[ClipInfo], generated: Sequence[ClipInfo]) -> None:
    """Refuse clips that are given as real and as generated."""
    seen = {content_key(info): info for info in real}
    both = [(info, seen[content_key(info)]) for info in generated if content_key(info) in seen]
    if both:
        raise ValueError(
            f"{len(both)} clips are given as generated and as real; the first is "
            f"{both[0][0].path}, the same as {both[0][1].path}"
        )
