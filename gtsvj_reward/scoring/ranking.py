"""Clips of one prompt put in order of their score: best of N, and pairs to train on."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.files import write_text
from gtsvj_reward.scoring.table import check_suffix
from gtsvj_reward.tables import write_table


@dataclass(frozen=True, kw_only=True)
class RankedClip:
    """A clip and its place among those of its group: a row of the table of ranks."""

    group: str
    """The prompt, or the folder."""
    rank: int
    """1 for the best; of equal scores, the name that sorts first is first."""
    video: str
    """The clip."""
    reward: float
    """Its score."""
    margin: float | None
    """How much it scores above the next of its group, >= 0; None for the last."""


@dataclass(frozen=True, kw_only=True)
class RankedPair:
    """The best and the worst clip of a group, for DPO.

    As a row of JSONL it is also a comparison in the plain format of annotations: `prompt`,
    `video_a`, `video_b`, and `label`, which is always +1 since the first is the better one. Swap
    the two at random where a reader could learn from the order.
    """

    prompt: str
    """The group."""
    chosen: str
    """The best clip."""
    rejected: str
    """The worst clip."""
    chosen_reward: float
    """Score of the best."""
    rejected_reward: float
    """Score of the worst."""
    margin: float
    """Their difference, > 0."""
    video_a: str
    """The best clip once more."""
    video_b: str
    """The worst clip once more."""
    label: int = 1
    """+1: the first is better."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All groups in order, and what did not make a pair."""

    clips: tuple[RankedClip, ...]
    """By group, best first; groups in the order of the scores."""
    pairs: tuple[RankedPair, ...]
    """At most one for each group, in the same order."""
    groups: int
    """Number of groups; those without a pair are singletons or below the margin."""
    singletons: int
    """Groups of one clip."""
    below_margin: int
    """Groups whose best and worst clip are closer than the least margin, or equal."""

    def counts(self) -> dict[str, int]:
        """How many clips, groups, pairs, and groups without a pair by reason."""
        return {
            "clips": len(self.clips),
            "groups": self.groups,
            "pairs": len(self.pairs),
            "groups of one clip": self.singletons,
            "groups below the margin": self.below_margin,
        }


def rank_clips(
    rewards: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    min_margin: float = 0.0,
    allow_singletons: bool = False,
) -> Ranking:
    """Rank clips within their groups.

    Args:
        rewards: video -> score; higher is better.
        groups: video -> its group, for exactly the videos of `rewards`; names match as those of
            label files do.
        min_margin: minimum difference between best and worst of a group for a pair, in the units of
            `rewards`; equal scores never make a pair.
        allow_singletons: rank groups of one clip, without a pair, instead of raising an error.

    Raises:
        ValueError: for no clips, clips without a group or without a score, a group of one clip, or
            a margin that is negative or NaN; with counts and the first names.
    """
    if not min_margin >= 0:
        raise ValueError(f"--min_margin (`min_margin`) must be >= 0, got {min_margin}")
    matches = _matches(rewards, groups)
    members: dict[str, list[str]] = {}
    for video in rewards:
        members.setdefault(groups[matches[video]], []).append(video)
    single = [group for group, videos in members.items() if len(videos) == 1]
    if single and not allow_singletons:
        raise ValueError(
            f"{len(single)} of {len(members)} groups have one clip only, the first is "
            f"{single[0]!r}: there is nothing to rank. Check the groups, or pass --allow_singletons"
        )
    clips: list[RankedClip] = []
    pairs: list[RankedPair] = []
    for group, videos in members.items():
        ordered = sorted(videos, key=lambda video: (-rewards[video], video))
        clips += _ranked(group, ordered, rewards)
        pair = _pair(group, ordered[0], ordered[-1], rewards)
        if pair.margin > 0 and pair.margin >= min_margin:
            pairs.append(pair)
    return Ranking(
        clips=tuple(clips),
        pairs=tuple(pairs),
        groups=len(members),
        singletons=len(single),
        below_margin=len(members) - len(single) - len(pairs),
    )


def check_paths(out: str | Path, pairs: str | Path | None) -> None:
    """Refuse names that the tables cannot have.

    Raises:
        ValueError: for ranks that are neither CSV nor JSONL, or pairs that are not JSONL.
    """
    check_suffix(out)
    if pairs is not None and check_suffix(pairs) != ".jsonl":
        raise ValueError(f"expected a file of pairs that ends in .jsonl, got {pairs}")


def write_ranking(ranking: Ranking, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the table of ranks as CSV or JSONL by its suffix, and the counts beside it.

    Columns: `group`, `rank`, `video`, `reward`, `margin` (to the next of the group; empty for the
    last). `<stem>-summary.json` has `settings` and `Ranking.counts`.

    Args:
        ranking: what to write.
        path: the table.
        settings: how it was made, for people; JSON values.

    Raises:
        ValueError: for another suffix.
    """
    check_paths(path, None)
    rows = [asdict(clip) for clip in ranking.clips]
    write_table(path, list(rows[0]), [list(row.values()) for row in rows])
    text = json.dumps({**settings, **ranking.counts()}, indent=2) + "\n"
    write_text(Path(path).with_name(f"{Path(path).stem}-summary.json"), text)


def write_pairs(ranking: Ranking, path: str | Path) -> None:
    """Write the pairs as JSONL in one step; an empty file if there are none.

    Raises:
        ValueError: for another suffix than `.jsonl`.
    """
    check_paths(path, path)
    lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in ranking.pairs]
    write_text(Path(path), "".join(lines))


def _ranked(group: str, ordered: Sequence[str], rewards: Mapping[str, float]) -> list[RankedClip]:
    margins = [rewards[video] - rewards[below] for video, below in pairwise(ordered)]
    return [
        RankedClip(group=group, rank=rank, video=video, reward=rewards[video], margin=margin)
        for rank, (video, margin) in enumerate(zip(ordered, [*margins, None], strict=True), 1)
    ]


def _pair(prompt: str, best: str, worst: str, rewards: Mapping[str, float]) -> RankedPair:
    return RankedPair(
        prompt=prompt,
        chosen=best,
        rejected=worst,
        chosen_reward=rewards[best],
        rejected_reward=rewards[worst],
        margin=rewards[best] - rewards[worst],
        video_a=best,
        video_b=worst,
    )


def _matches(rewards: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, str]:
    """Scored video -> grouped video."""
    if not rewards:
        raise ValueError("no clips to rank")
    unsound = [video for video, reward in rewards.items() if not math.isfinite(reward)]
    if unsound:
        raise ValueError(
            f"{len(unsound)} of {len(rewards)} scores are not finite numbers{_first(unsound)}"
        )
    matches = match_videos(rewards, groups, "the table of groups")
    ungrouped = [video for video in rewards if video not in matches]
    unscored = sorted(groups.keys() - matches.values())
    if ungrouped or unscored:
        raise ValueError(
            f"scores and groups must name the same videos: {len(ungrouped)} of {len(rewards)} "
            f"scored ones have no group{_first(ungrouped)}, {len(unscored)} of {len(groups)} "
            f"grouped ones have no score{_first(unscored)}"
        )
    return matches


def _first(names: Sequence[str]) -> str:
    return f" (the first is {names[0]!r})" if names else ""
