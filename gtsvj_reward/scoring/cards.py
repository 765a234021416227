"""Cards of a report: a clip that plays, its score, and the score over time below it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gtsvj_reward.latents.store import clip_info
from gtsvj_reward.latents.writing import preview
from gtsvj_reward.pages import Axis, Markup, score_line, strip, table, tag, trajectory, video
from gtsvj_reward.plotting.trajectory import step_spans
from gtsvj_reward.scoring.pictures import Sources, has_video, source_frames
from gtsvj_reward.scoring.table import ScoredClip

SCORE = "score"
"""The curve of the raw score; others are named as the aspects."""
NO_VIDEO = (
    "No video: the latent file names none that it was encoded from (`gtsvj decode` makes one)."
)
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Common data of all cards of a page."""

    rewards: Axis
    """Range of the rewards of all clips."""
    aspects: Mapping[str, Axis]
    """Range of each aspect over all clips."""
    curves: Mapping[str, Axis]
    """Curve -> axis of the steps of all clips that are shown."""
    spread: Mapping[str, Range]
    """Curve -> mean of training clips, less and plus one standard deviation, where it is known."""

    @classmethod
    def of(
        cls,
        scored: Sequence[ScoredClip],
        shown: Sequence[ScoredClip],
        spread: Mapping[str, Range],
    ) -> "Scales":
        """Axes that hold all clips, and for curves those that are shown."""
        steps = {
            name: [value for clip in shown for value in curves_of(clip)[name]]
            for name in curves_of(scored[0])
        }
        return cls(
            rewards=Axis.around([value_of(clip) for clip in scored]),
            aspects={
                name: Axis.around([clip.aspects[name] for clip in scored])
                for name in scored[0].aspects
            },
            curves={
                name: Axis.around([*values, *spread.get(name, ())])
                for name, values in steps.items()
            },
            spread=spread,
        )


def value_of(clip: ScoredClip) -> float:
    """The reward, or the raw score where there is none."""
    return clip.raw if clip.reward is None else clip.reward


def curves_of(clip: ScoredClip) -> dict[str, list[float]]:
    """Curve -> value of each step."""
    return {SCORE: clip.trajectory, **clip.aspect_trajectory}


def group_of(clip: ScoredClip) -> str:
    """The prompt, or the folder; empty if it has neither."""
    return clip.prompt or clip.video.rpartition("/")[0]


def clip_card(clip: ScoredClip, rank: int, sources: Sources, scales: Scales) -> Markup:
    """A card.

    Args:
        clip: its scores.
        rank: 1 for the best.
        sources: where its latents and its video are.
        scales: those of the page.
    """
    attributes = {
        "class": "clip",
        "id": f"clip-{rank}",
        "data-values": json.dumps([value_of(clip), clip.raw, *_more_values(clip), clip.video]),
        "data-text": f"{clip.video} {clip.prompt or ''}",
        "data-group": group_of(clip),
        "data-untrained": clip.untrained_geometry is not None,
    }
    parts = [_heading(clip, scales)]
    if clip.prompt:
        parts.append(tag("p", {"class": "prompt"}, clip.prompt))
    if clip.untrained_geometry is not None:
        parts.append(tag("p", {"class": "warning"}, f"Not trained on: {clip.untrained_geometry}"))
    parts += _curves(clip, sources, scales)
    if clip.aspects:
        parts.append(_aspects(clip, scales))
    screen = _screen(clip, rank, sources)
    return tag("article", attributes, screen, tag("div", {"class": "about"}, *parts))


def _more_values(clip: ScoredClip) -> list[float]:
    """Sort keys of cards, after reward and raw score."""
    known = [] if clip.uncertainty is None else [clip.uncertainty]
    return [*known, *clip.aspects.values()]


def _screen(clip: ScoredClip, rank: int, sources: Sources) -> Markup:
    """The video with the rank on it."""
    badge = tag("span", {"class": "rank"}, str(rank))
    info = clip_info(sources.latents / clip.latents)
    if not has_video(info, sources.videos):
        return tag("p", {"class": "unscreened"}, f"{rank}. {NO_VIDEO}")
    frames = source_frames(info, sources.videos, clip.video)
    shown = video(preview(frames, info.fps), label=clip.video)
    return tag("div", {"class": "screen"}, shown, badge)


def _heading(clip: ScoredClip, scales: Scales) -> Markup:
    value = value_of(clip)
    band = (-1.0, 1.0) if clip.reward is not None else scales.spread.get(SCORE)
    return score_line(clip.video, value, scales.rewards, uncertainty=clip.uncertainty, band=band)


def _curves(clip: ScoredClip, sources: Sources, scales: Scales) -> list[Markup]:
    """The curves, of which the page shows one, and a line for the current value."""
    info = clip_info(sources.latents / clip.latents)
    spans = [
        (start / info.fps, end / info.fps)
        for start, end in step_spans(
            info.num_frames,
            temporal_compression=info.space.temporal_compression,
            temporal_patch=sources.temporal_patch,
            temporal_stride=sources.temporal_stride,
        )
    ]
    drawn = [
        tag(
            "div",
            {"data-curve": name, "hidden": name != SCORE},
            trajectory(
                values, spans, axis=scales.curves[name], what=name, band=scales.spread.get(name)
            ),
        )
        for name, values in curves_of(clip).items()
    ]
    return [*drawn, tag("p", {"class": "now"})]


def _aspects(clip: ScoredClip, scales: Scales) -> Markup:
    """Aspects with a line each, from the lowest to the highest score of all clips."""
    rows = [
        (name, strip(scales.aspects[name], value), f"{value:.2f}")
        for name, value in clip.aspects.items()
    ]
    return table([("aspect", "", ""), *rows], numbers=1)
