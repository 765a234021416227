"""The demo's table, in the terminal and as an HTML page with pictures."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gtsvj_reward.demo.clips import COMPRESSED, FPS, PAIR, SIZE
from gtsvj_reward.demo.compare import Comparison
from gtsvj_reward.demo.toy import FEWER_STEPS, JUDGE, Candidates
from gtsvj_reward.files import write_text
from gtsvj_reward.latents import read_video
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.plotting import plot_film_strips
from gtsvj_reward.toy.pipeline import STEPS

CAN = (
    "The whole path works on this machine: videos were encoded, a judge was trained with the "
    "paper's contrastive objective without any label, saved, loaded, and it scored footage that "
    "neither it nor the codec had seen."
)
CANNOT = (
    "It says nothing about the quality of a judge on CogVideoX: the base transformer is tiny and "
    "was trained on the same few scenes, and no generator took part, so the 0.30 of generated "
    "negatives in Table A.1 was shared out among the perturbations. The pairs below come from very "
    "few scenes and share clips: the counts are not statistics, and one compressed video shows "
    "nothing about others. Faults marked 'never trained on' were in no training negative; where "
    "the judge fails on them, it fails."
)
TOY = (
    "A CogVideoXPipeline of 1.8 million parameters made {count} clips of the prompt {prompt!r}, "
    "every second one with {few} denoising steps in place of {many}. The judge `{judge}` scored "
    "their latents on the generator's own weights; only the clips shown were decoded, afterwards. "
    "Of all pairs of a clip with many steps and one with few, it preferred the one with many in "
    "{wins:g} of {pairs}. The judge was trained on ratings of faults that were put into clean "
    "clips, so that how a clip was sampled is nothing that it was told about."
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>GT-SVJ demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem; text-align: right }}
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) {{ text-align: left }}
tr:nth-child(even) {{ background: #f3f3f3 }} img {{ max-width: 100%; margin: 1rem 0 }}
</style></head><body><h1>Generated clips, ranked before any was decoded</h1>
<p>{toy}</p>{toy_table}
<img src="toy/candidates.png" alt="film strips of the best and the worst clips with rewards">
<h2>Where the score comes from</h2><img src="toy/best.png" alt="score of the best clip against
time"><img src="toy/worst.png" alt="score of the worst clip against time">
<h1>A small video judge, trained on this machine</h1>
<p>{can}</p><p><strong>What it cannot show.</strong> {cannot}</p><p>{facts}</p>{table}
<h2>Unseen clips</h2><img src="unseen.png" alt="film strips with scores">
<h2>Energy against time</h2><img src="perturbed.png" alt="energy of a clip and of perturbed
versions of it against time">{pictures}
<h2>Training</h2><img src="judge/training.png" alt="training curves"></body></html>
"""


def table_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Header and one row per fault."""
    rows = [["fault", "in training", "clean clip scored higher", "clean energy", "faulty energy"]]
    for item in comparisons:
        clean, faulty = torch.tensor(item.clean), torch.tensor(item.faulty)
        result = pairwise_accuracy(clean, faulty)
        wins = result.accuracy * result.pairs
        rows.append(
            [
                item.kind.replace("_", " "),
                "perturbation" if item.trained else "never trained on",
                f"{wins:g} of {result.pairs}",
                f"{-clean.mean():.3f}",
                f"{-faulty.mean():.3f}",
            ]
        )
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def toy_text(found: Candidates) -> str:
    """What happened to the generated clips, in a paragraph."""
    many = [r for r, steps in zip(found.rewards, found.steps, strict=True) if steps == STEPS]
    few = [r for r, steps in zip(found.rewards, found.steps, strict=True) if steps != STEPS]
    result = pairwise_accuracy(
        torch.tensor([a for a in many for _ in few]), torch.tensor([b for _ in many for b in few])
    )
    return TOY.format(
        count=len(found.rewards),
        prompt=found.prompt,
        few=FEWER_STEPS,
        many=STEPS,
        judge=JUDGE,
        wins=result.accuracy * result.pairs,
        pairs=result.pairs,
    )


def toy_rows(found: Candidates) -> list[list[str]]:
    """Header and one row per generated clip, best first."""
    rows = [["rank", "seed", "denoising steps", "reward", *found.aspects]]
    for rank, index in enumerate(found.ranking(), start=1):
        aspects = [f"{values[index]:.1f}" for values in found.aspects.values()]
        rows.append(
            [
                str(rank),
                str(found.seeds[index]),
                str(found.steps[index]),
                f"{found.rewards[index]:+.2f}",
                *aspects,
            ]
        )
    return rows


def as_html(rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that need no trust."""
    lines = (
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{''.join(lines)}</table>"


def write_report(
    out: Path,
    ranked: Candidates,
    comparisons: Sequence[Comparison],
    facts: Mapping[str, int],
    *,
    own: bool,
) -> Path:
    """Print the tables and write `index.html` with its pictures; returns the page."""
    print(f"\n{as_text(toy_rows(ranked))}\n\n{toy_text(ranked)}", flush=True)
    rows = table_rows(comparisons)
    print(f"\n{as_text(rows)}\n\nLow energy is good. {CAN}\n{CANNOT}", flush=True)
    draw_unseen(out, comparisons)
    names = sorted(path.name for path in (out / "clips" / "unseen" / "clean").iterdir())
    shown = names[:1] if own else [name for name in names if Path(PAIR[0]).stem in name][:1]
    pictures = [
        f'<h3>{kind}: {html.escape(name)}</h3><img src="trajectories/{kind}/{name}'
        f'.safetensors.png" alt="energy against time above a film strip">'
        for name in shown
        for kind in ("clean", COMPRESSED, "freeze", "flicker")
        if (out / "trajectories" / kind / f"{name}.safetensors.png").is_file()
    ]
    page = PAGE.format(
        toy=html.escape(toy_text(ranked)),
        toy_table=as_html(toy_rows(ranked)),
        can=CAN,
        cannot=CANNOT,
        facts=", ".join(f"{name}: {value}" for name, value in facts.items()),
        table=as_html(rows),
        pictures="".join(pictures),
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def draw_unseen(out: Path, comparisons: Sequence[Comparison]) -> None:
    """One unseen clip with each fault, best score first."""
    unseen = out / "clips" / "unseen"
    name = max(path.name for path in (unseen / "clean").iterdir())
    scores: dict[str, float] = {}
    for item in comparisons:
        if not item.trained and (unseen / item.kind / name).is_dir():
            position = sorted(path.name for path in (unseen / item.kind).iterdir()).index(name)
            scores[item.kind] = item.faulty[position]
            scores["clean"] = item.clean[position]
    ranked = sorted(scores, key=lambda kind: -scores[kind])
    clips = [
        read_video(unseen / kind / name, fps=FPS, frames_fps=FPS, height=SIZE, width=SIZE).frames
        for kind in ranked
    ]
    plot_film_strips(
        clips,
        labels=ranked,
        scores=[scores[kind] for kind in ranked],
        title=f"{name}: raw score, higher is better",
        path=out / "unseen.png",
    )
