"""One HTML page on scored clips, with pictures inside and nothing to load from elsewhere."""

import html
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gtsvj_reward.files import write_text
from gtsvj_reward.latents.store import clip_info
from gtsvj_reward.scoring.pictures import Sources, has_video, plot_clip
from gtsvj_reward.scoring.table import ScoredClip

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto }}
article {{ border-top: 1px solid #ccc; padding: 1rem 0 }} h2 {{ font-size: 1.1rem; margin: 0 }}
h2, p {{ overflow-wrap: anywhere }} img {{ max-width: 100% }}
td, th {{ padding: 0 .8rem 0 0; text-align: left; font-weight: normal }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
</style></head><body><h1>{title}</h1>
<p>{summary}</p>
<p><label>Sort by <select id="key">{options}</select></label>
<label><input type="checkbox" id="up"> lowest first</label></p>
<main id="clips">
{cards}
</main>
<script>
const clips = document.getElementById("clips");
const key = document.getElementById("key"), up = document.getElementById("up");
function sort() {{
  const values = card => JSON.parse(card.dataset.values)[key.selectedIndex];
  const order = (a, b) => values(a) < values(b) ? -1 : values(a) > values(b) ? 1 : 0;
  const cards = [...clips.children].sort((a, b) => up.checked ? order(a, b) : order(b, a));
  clips.append(...cards);
}}
key.onchange = up.onchange = sort;
</script></body></html>
"""
CARD = """<article data-values="{values}"><h2>{rank}. {video}</h2>
<p>{numbers}</p>{warning}{aspects}
{picture}</article>"""
PICTURE = '<img src="data:image/png;base64,{png}" alt="{alt}">'
NO_PICTURE = "<p>No picture: its file names no video that it was encoded from.</p>"
TOP = 12
"""Clips that a report shows of each end, unless told otherwise."""


def write_report(
    scored: Sequence[ScoredClip],
    sources: Sources,
    out: str | Path,
    *,
    title: str,
    top: int = TOP,
) -> Path:
    """Write `index.html` with the best and the worst clips, best first, and their pictures.

    A clip that a generator made, and that has no video, is shown without a picture.

    Args:
        scored: all clips.
        sources: where their pictures come from.
        out: folder for the page.
        title: heading of the page; plain text, like all names of clips.
        top: clips to show of each end; the page says how many are not shown.

    Returns:
        The page.

    Raises:
        ValueError: for no clips, `top` below 1, or what `plot_clip` refuses.
    """
    if top < 1 or not scored:
        raise ValueError(f"expected clips and `top` >= 1, got {len(scored)} clips and {top}")
    ordered = best_first(scored)
    ranks = shown_ranks(len(ordered), top)
    ends = _ends_of_scales(ordered)
    cards = []
    with TemporaryDirectory() as folder:
        for rank in ranks:
            clip = ordered[rank - 1]
            picture = _picture(clip, sources, Path(folder) / "clip.png")
            cards.append(_card(clip, rank, ends, picture))
    page = PAGE.format(
        title=html.escape(title),
        summary=html.escape(_summary(ordered, len(ranks))),
        options="".join(f"<option>{html.escape(name)}</option>" for name in _keys(ordered[0])),
        cards="\n".join(cards),
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def best_first(scored: Sequence[ScoredClip]) -> list[ScoredClip]:
    """Clips by falling raw score, in which order the rewards fall too; equal ones by name."""
    return sorted(scored, key=lambda clip: (-clip.raw, clip.video, clip.latents))


def shown_ranks(count: int, top: int) -> list[int]:
    """The first and the last `top` of ranks 1 to `count`, each once."""
    return sorted({*range(1, min(top, count) + 1), *range(max(1, count - top + 1), count + 1)})


def _summary(ordered: Sequence[ScoredClip], shown: int) -> str:
    hidden = len(ordered) - shown
    rest = (
        f"the {shown} of both ends are shown, {hidden} in between are not shown (the table has all)"
        if hidden
        else "all are shown"
    )
    untrained = sum(clip.untrained_geometry is not None for clip in ordered)
    warning = (
        f" {untrained} clips are of a geometry that the judge was not trained on: do not rely on "
        "their scores."
        if untrained
        else ""
    )
    curve = "the score: high is good" if ordered[0].aspects else "the energy: low is good"
    return (
        f"{len(ordered)} clips, ordered by reward, best first; {rest}. Higher is better. Each "
        f"curve is {curve}. The judge reads the whole clip for each step: a bad step says where "
        f"something is wrong, not that what comes before it is fine.{warning}"
    )


def _keys(clip: ScoredClip) -> list[str]:
    """What cards can be sorted by."""
    return ["reward", "raw", *clip.aspects, "name"]


def _ends_of_scales(clips: Sequence[ScoredClip]) -> dict[str, tuple[float, float]]:
    """Lowest and highest score of each aspect over all clips."""
    values = {name: [clip.aspects[name] for clip in clips] for name in clips[0].aspects}
    return {name: (min(scores), max(scores)) for name, scores in values.items()}


def _card(
    clip: ScoredClip, rank: int, ends: Mapping[str, tuple[float, float]], picture: str
) -> str:
    reward = clip.raw if clip.reward is None else clip.reward
    values = [reward, clip.raw, *clip.aspects.values(), clip.video]
    shown = "" if clip.reward is None else f"reward {clip.reward:+.3f}, "
    note = clip.untrained_geometry
    return CARD.format(
        values=html.escape(json.dumps(values)),
        rank=rank,
        video=html.escape(clip.video),
        numbers=f"{shown}raw {clip.raw:+.3f}",
        warning="" if note is None else f"<p>Not trained on: {html.escape(note)}</p>",
        aspects=_aspect_table(clip, ends),
        picture=picture,
    )


def _picture(clip: ScoredClip, sources: Sources, path: Path) -> str:
    """The picture of a clip, drawn by way of a file."""
    if not has_video(clip_info(sources.latents / clip.latents), sources.videos):
        return NO_PICTURE
    png = b64encode(plot_clip(clip, sources, path).read_bytes()).decode()
    alt = html.escape(f"{clip.video}: score over time above frames of the clip")
    return PICTURE.format(png=png, alt=alt)


def _aspect_table(clip: ScoredClip, ends: Mapping[str, tuple[float, float]]) -> str:
    """Aspects with a bar each, from the lowest to the highest score of all clips."""
    rows = [
        f"<tr><th>{html.escape(name)}</th><td class='number'>{value:.3f}</td>"
        f"<td><meter min='{ends[name][0]}' max='{ends[name][1]}' value='{value}'></meter></td></tr>"
        for name, value in clip.aspects.items()
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""
