"""Cards of the pairs on which scores and people disagree most, with both videos."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gtsvj_reward.annotations import Comparison
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.evaluation.align import ScoredComparisons
from gtsvj_reward.evaluation.result import Agreement
from gtsvj_reward.latents import list_videos
from gtsvj_reward.pages import Axis, Markup, joined, score_line, tag, tools, video

MOST = 12
"""Pairs that are shown."""
KEYS = ("difference", "higher score", "lower score", "name")
"""What cards are sorted by."""
PLAYABLE = (".mp4", ".m4v", ".webm")
"""Files that browsers play."""


def disagreement_cards(
    scored: ScoredComparisons,
    item: Agreement,
    uncertainty: Mapping[str, float],
    videos: Path | None,
    out: Path,
) -> list[Markup]:
    """The pairs on which scores and people disagree most, largest first.

    Args:
        scored: comparisons and scores.
        item: label and column.
        uncertainty: video -> standard deviation of its score, where it is known.
        videos: folder of the videos; None: the cards have names and scores only.
        out: folder of the page; videos are copied into its folder `videos`.
    """
    scores = scored.scores[item.column]
    wrong = [
        (abs(gap), row)
        for row in scored.grouped.rows
        if (label := row.labels.get(item.dimension))
        and (gap := scores[row.video_a] - scores[row.video_b]) * label < 0
    ]
    wrong.sort(key=lambda found: -found[0])
    chosen = [row for _, row in wrong[:MOST]]
    if not chosen:
        return []
    names = [name for row in chosen for name in (row.video_a, row.video_b)]
    files = copied(names, videos, out / "videos") if videos is not None else {}
    axis = Axis.around(scores.values())
    cards = [_card(row, item, scores, uncertainty, files, axis) for row in chosen]
    note = (
        f"{len(wrong)} pairs are ordered against people's {item.dimension!r}; the "
        f"{len(chosen)} with the largest difference of scores are shown."
    )
    return cards_with_tools(
        cards, KEYS, note=note, groups=sorted({_generators(row) for row in chosen}),
        group="Generators",
    )  # fmt: skip


def cards_with_tools(
    cards: Sequence[Markup], keys: Sequence[str], *, note: str, groups: Sequence[str], group: str
) -> list[Markup]:
    """The part of a page that shows where scores are wrong.

    Args:
        cards: with the attributes that `tools` asks for.
        keys: as for `tools`.
        note: which cards these are.
        groups: as for `tools`.
        group: as for `tools`.
    """
    return [
        tag("h2", {}, "Where it is most clearly wrong"),
        tag("p", {"class": "note"}, note),
        tools(keys, groups=groups, group=group),
        tag("div", {"class": "clips", "id": "clips"}, *cards),
    ]


def _generators(row: Comparison) -> str:
    return " and ".join(sorted({name for name in (row.model_a, row.model_b) if name}))


def copied(names: Iterable[str], videos: Path, folder: Path) -> dict[str, str]:
    """Video -> its path beside the page, for those that browsers can play.

    Args:
        names: of videos, as in the label file.
        videos: folder of the videos.
        folder: where they are copied to; a file's name is a hash of the video's own.
    """
    there = {path.relative_to(videos).as_posix(): path for path in list_videos(videos)}
    matches = match_videos(dict.fromkeys(names), there, str(videos))
    places: dict[str, str] = {}
    for name, found in matches.items():
        source = there[found]
        if source.suffix.lower() in PLAYABLE:
            folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(found.encode()).hexdigest()[:16]
            target = folder / f"{digest}{source.suffix.lower()}"
            shutil.copyfile(source, target)
            places[name] = f"{folder.name}/{target.name}"
    return places


def _card(
    row: Comparison,
    item: Agreement,
    scores: Mapping[str, float],
    uncertainty: Mapping[str, float],
    files: Mapping[str, str],
    axis: Axis,
) -> Markup:
    sides = sorted((row.video_a, row.video_b), key=lambda name: -scores[name])
    gap = scores[sides[0]] - scores[sides[1]]
    screens = [video(files[name], label=name) for name in sides if name in files]
    votes = row.probabilities.get(item.dimension)
    what = item.dimension if votes is None else f"{item.dimension}, {max(votes, 1 - votes):.0%}"
    said = {
        sides[0]: "scored higher",
        sides[1]: f"people preferred it ({what})",
    }
    lines = [
        joined([
            score_line(name, scores[name], axis, uncertainty=uncertainty.get(name)),
            tag("p", {"class": "now"}, said[name]),
        ])
        for name in sides
    ]  # fmt: skip
    prompt = [tag("p", {"class": "prompt"}, row.prompt)] if row.prompt else []
    about = tag("div", {"class": "about"}, *prompt, *lines)
    screen = [tag("div", {"class": "screen pair"}, *screens)] if len(screens) == len(sides) else []
    attributes = {
        "class": "clip",
        "data-values": json.dumps([gap, *(scores[name] for name in sides), sides[0]]),
        "data-text": f"{' '.join(sides)} {row.prompt or ''} {_generators(row)}",
        "data-group": _generators(row),
    }
    return tag("article", attributes, *screen, about)
