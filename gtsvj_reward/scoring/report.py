"""One HTML page on scored clips: how scores are spread, and clips that play above their scores."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev, quantiles

from gtsvj_reward.judge.config import JudgeConfig
from gtsvj_reward.pages import (
    Markup,
    card,
    figures,
    histogram,
    joined,
    table,
    tag,
    tools,
    write_page,
)
from gtsvj_reward.progress import Progress
from gtsvj_reward.scoring.cards import (
    SCORE,
    Range,
    Scales,
    clip_card,
    curves_of,
    group_of,
    value_of,
)
from gtsvj_reward.scoring.pictures import Sources
from gtsvj_reward.scoring.table import ScoredClip

TOP = 12
"""Default number of best and of worst clips in a report."""
MOST_GROUPS = 60
"""More groups than this are neither listed nor offered as a choice."""


def write_report(
    scored: Sequence[ScoredClip],
    sources: Sources,
    out: str | Path,
    *,
    title: str,
    top: int = TOP,
    spread: Mapping[str, Range] | None = None,
    progress: bool = True,
) -> Path:
    """Write `index.html` with the best and the worst clips, best first; it needs no other file.

    A clip that a generator made, and that has no video, is shown without one.

    Args:
        scored: all clips.
        sources: where their videos come from.
        out: folder for the page.
        title: heading of the page; plain text, like all names of clips.
        top: best and worst clips to show; the page states how many are not shown.
        spread: curve -> range of values to shade; see `training_spread`.
        progress: show a progress bar.

    Returns:
        The page.

    Raises:
        ValueError: for no clips, `top` below 1, or a latent file without reading settings.
        UnreadableVideoError: if a video is not there or cannot be read.
    """
    if top < 1 or not scored:
        raise ValueError(f"expected clips and `top` >= 1, got {len(scored)} clips and {top}")
    ordered = best_first(scored)
    ranks = shown_ranks(len(ordered), top)
    scales = Scales.of(ordered, [ordered[rank - 1] for rank in ranks], spread or {})
    cards = []
    with Progress(len(ranks), "report", shown=progress) as bar:
        for rank in ranks:
            cards.append(clip_card(ordered[rank - 1], rank, sources, scales))
            bar.update()
    body = [_figures(ordered), _distribution(ordered, scales), *_groups(ordered, ranks)]
    body += [_tools(ordered), tag("div", {"class": "clips", "id": "clips"}, *cards)]
    path = Path(out) / "index.html"
    lead = _summary(ordered, len(ranks), scales)
    return write_page(path, kind="Scores", title=title, lead=lead, body=joined(body))


def training_spread(config: JudgeConfig) -> dict[str, Range]:
    """Mean less and plus one standard deviation over the clips that a judge is normalised by.

    For the raw score (as `score`) and each aspect; empty if the judge does not have them.
    """
    found: dict[str, Range] = {}
    if config.reward_mean is not None and config.reward_std is not None:
        found[SCORE] = (
            config.reward_mean - config.reward_std,
            config.reward_mean + config.reward_std,
        )
    if config.aspect_mean is not None and config.aspect_covariance is not None:
        for place, aspect in enumerate(config.aspects):
            mean, std = config.aspect_mean[place], math.sqrt(config.aspect_covariance[place][place])
            width = aspect.high - aspect.low
            found[aspect.name] = (
                aspect.low + width * (mean - std),
                aspect.low + width * (mean + std),
            )
    return found


def best_first(scored: Sequence[ScoredClip]) -> list[ScoredClip]:
    """Clips by decreasing raw score, which is also the order of rewards; equal ones by name."""
    return sorted(scored, key=lambda clip: (-clip.raw, clip.video, clip.latents))


def shown_ranks(count: int, top: int) -> list[int]:
    """The first and the last `top` of ranks 1 to `count`, each once."""
    return sorted({*range(1, min(top, count) + 1), *range(max(1, count - top + 1), count + 1)})


def _summary(ordered: Sequence[ScoredClip], shown: int, scales: Scales) -> str:
    hidden = len(ordered) - shown
    rest = (
        f"The {shown} best and worst are below; {hidden} in between are not shown (the table has "
        "all)."
        if hidden
        else "All are shown below."
    )
    shade = (
        " Green marks the mean of the judge's training clips, plus and minus one standard "
        "deviation."
        if scales.spread
        else ""
    )
    return (
        f"{len(ordered)} clips, best first. {rest} Higher is better everywhere.{shade} All curves "
        "have one scale. The judge reads the whole clip for each step: a low step says where "
        "something is wrong, not that everything before it is correct."
    )


def _figures(ordered: Sequence[ScoredClip]) -> Markup:
    values = [value_of(clip) for clip in ordered]
    name = _name(ordered[0])
    items = [
        ("clips", f"{len(ordered):,}"),
        (f"mean {name}", f"{fmean(values):+.2f}"),
        ("best", f"{max(values):+.2f}"),
        ("worst", f"{min(values):+.2f}"),
    ]
    known = [clip.uncertainty for clip in ordered if clip.uncertainty is not None]
    if known:
        items.append(("mean uncertainty", f"± {fmean(known):.2f}"))
    untrained = sum(clip.untrained_geometry is not None for clip in ordered)
    if untrained:
        items.append(("outside what was trained on: do not rely on these", f"{untrained:,}"))
    return figures(*items)


def _distribution(ordered: Sequence[ScoredClip], scales: Scales) -> Markup:
    """A histogram, and a line of numbers for everything that clips have a score in."""
    values = [value_of(clip) for clip in ordered]
    normalized = ordered[0].reward is not None
    band = (-1.0, 1.0) if normalized else scales.spread.get(SCORE)
    drawn = [histogram(values, what=_name(ordered[0]), band=band)] if len(set(values)) > 1 else []
    columns = {_name(ordered[0]): values}
    if normalized:
        columns["raw score"] = [clip.raw for clip in ordered]
    columns |= {name: [clip.aspects[name] for clip in ordered] for name in ordered[0].aspects}
    rows = [(name, *_statistics(numbers)) for name, numbers in columns.items()]
    head = ("", "mean", "std", "lowest", "25%", "median", "75%", "highest")
    note = (
        "A reward of 0 is the mean of the clips that the judge is normalised by; 1 is their "
        "standard deviation."
        if normalized
        else "The judge has no statistics to normalise by, so this is its raw score."
    )
    return card(*drawn, table([head, *rows], numbers=7), title="How scores are spread", note=note)


def _statistics(numbers: Sequence[float]) -> list[str]:
    quarters = quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else [numbers[0]] * 3
    found = [fmean(numbers), pstdev(numbers), min(numbers), *quarters, max(numbers)]
    return [f"{value:.3f}" for value in found]


def _groups(ordered: Sequence[ScoredClip], ranks: Sequence[int]) -> list[Markup]:
    """A line for each prompt or folder, if there are some; best mean first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for rank, clip in enumerate(ordered, 1):
        groups[group_of(clip)].append(rank)
    if not 1 < len(groups) <= MOST_GROUPS:
        return []
    rows = []
    for name, places in groups.items():
        values = [value_of(ordered[rank - 1]) for rank in places]
        best = ordered[places[0] - 1].video
        linked = tag("a", {"href": f"#clip-{places[0]}"}, best) if places[0] in ranks else best
        mean = fmean(values)
        numbers = (f"{mean:+.3f}", f"{max(values):+.3f}", f"{min(values):+.3f}")
        rows.append((mean, (name or "(none)", linked, f"{len(values)}", *numbers)))
    rows.sort(key=lambda row: -row[0])
    head = ("group", "best clip", "clips", "mean", "best", "worst")
    return [card(table([head, *(row for _, row in rows)], numbers=4), title="By group",
                 note="A group is a prompt, or else a folder.")]  # fmt: skip


def _tools(ordered: Sequence[ScoredClip]) -> Markup:
    """Data for sorting and filtering cards, read by the script."""
    first = ordered[0]
    known = ["uncertainty"] if first.uncertainty is not None else []
    keys = ["reward", "raw", *known, *first.aspects, "name"]
    groups = sorted({group_of(clip) for clip in ordered})
    untrained = any(clip.untrained_geometry is not None for clip in ordered)
    return tools(
        keys,
        groups=groups if len(groups) <= MOST_GROUPS else (),
        curves=list(curves_of(first)),
        only="those outside what was trained on" if untrained else "",
    )


def _name(clip: ScoredClip) -> str:
    return "raw score" if clip.reward is None else "reward"
