"""The data of the page."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from gtsvj_reward.labelling.agreement import agreement, compared_table, rated_table
from gtsvj_reward.labelling.clips import Clip
from gtsvj_reward.labelling.labels import Task
from gtsvj_reward.labelling.progress import accuracy, curve, last_point, rating_error, trials
from gtsvj_reward.labelling.session import Session

EXTREMES = 3
"""Best and worst clips that are shown."""
MOST_ROWS = 200
"""Clips in one part of the list."""


def settings(session: Session) -> dict[str, Any]:
    """The constant data of a page."""
    chosen = session.settings
    return {
        "kind": chosen.kind,
        "question": chosen.text,
        "aspects": list(chosen.aspects),
        "clips": len(session.clips),
        "groups": len(session.clips.groups),
        "left_out": session.clips.left_out,
        "judge": session.model is not None,
        "choice": chosen.choice,
        "random_share": chosen.random_share,
    }


def desk(session: Session, rater: str) -> dict[str, Any]:
    """The task of a rater, and how far they are."""
    task = session.task(rater)
    with session.lock:
        kind = session.settings.kind
        given = session.labels.given(kind)
        return {
            "task": None if task is None else shown(session, task),
            "mine": sum(answer.task.rater == rater for answer in given),
            "all": len(given),
            "skipped": len(session.labels.skipped(kind)),
            "can_undo": session.labels.undoable(rater, kind) is not None,
        }


def shown(session: Session, task: Task) -> dict[str, Any]:
    """A task, without what the judge thinks of it."""
    clips = [session.clips[session.clips.numbers[name]] for name in task.clips]
    return {
        "ticket": task.ticket,
        "clips": [{**row(clip), "fps": frame_rate(clip.path)} for clip in clips],
        "prompt": clips[0].prompt,
        "group": clips[0].group,
    }


def row(clip: Clip) -> dict[str, Any]:
    """A clip."""
    return {"number": clip.number, "name": clip.name, "prompt": clip.prompt or clip.group}


@lru_cache(maxsize=4096)
def frame_rate(path: Path) -> float | None:
    """Frames per second of a video; None for a file that is no video."""
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
    except (av.FFmpegError, OSError, IndexError):
        return None
    return None if rate is None else float(rate)


def progress(session: Session) -> dict[str, Any]:
    """Progress of the judge and of background work."""
    with session.lock:
        kind = session.settings.kind
        given = session.labels.given(kind)
        skips = session.skip_counts()
        broken = len(session.labels.broken())
    found: dict[str, Any] = {}
    if kind == "compare":
        tried = trials(given)
        found["accuracy"] = accuracy(tried)
        found["curve"] = curve(tried)
        found["last_point"] = last_point(tried, len(given))
        tables = {"": compared_table(given)}
    else:
        found["rating_error"] = rating_error(given)
        tables = {aspect: rated_table(given, aspect) for aspect in session.settings.aspects}
    raters: dict[str, int] = {}
    for answer in given:
        raters[answer.task.rater] = raters.get(answer.task.rater, 0) + 1
    return {
        **found,
        "labels": len(given),
        "skips": skips,
        "broken": broken,
        "raters": raters,
        "agreement": {
            name: vars(agreement(table, mirrored=kind == "compare"))
            for name, table in tables.items()
        },
        "judge": judge_state(session),
    }


def judge_state(session: Session) -> dict[str, Any] | None:
    """State and accuracy of the judge, and its ranking of the clips; None without one."""
    if session.model is None:
        return None
    worker, beliefs = session.worker, session.model.beliefs
    state: dict[str, Any] = {
        "busy": worker.busy,
        "read": worker.read_clips,
        "failures": dict(worker.failures),
        "fit": session.model.summary,
        "sure": beliefs is not None and beliefs.vectors is not None,
        "best": [],
        "worst": [],
    }
    if beliefs is not None:
        order = beliefs.scores.argsort().tolist()
        count = min(EXTREMES, len(order) // 2)
        state["worst"] = [row(session.clips[n]) for n in order[:count]]
        state["best"] = [row(session.clips[n]) for n in order[::-1][:count]]
    return state


def listing(session: Session, query: Mapping[str, str]) -> dict[str, Any]:
    """A part of the list of clips.

    Args:
        session: with the clips.
        query: `search` (part of a name or prompt), `order` (`name`, `best` or `worst`), `offset`.

    Raises:
        ValueError: for an offset that is no number, or another order.
    """
    search, order = query.get("search", "").casefold(), query.get("order", "name")
    offset = max(0, int(query.get("offset", "0")))
    beliefs = None if session.model is None else session.model.beliefs
    numbers = list(range(len(session.clips)))
    if order in ("best", "worst"):
        if beliefs is not None:
            numbers = beliefs.scores.argsort(descending=order == "best").tolist()
    elif order != "name":
        raise ValueError(f"expected the order name, best or worst, got {order!r}")
    if search:
        numbers = [
            n
            for n in numbers
            if search in session.clips[n].name.casefold()
            or search in (session.clips[n].prompt or "").casefold()
        ]
    with session.lock:
        counts: dict[str, int] = {}
        for answer in session.labels.given(session.settings.kind):
            for name in answer.task.clips:
                counts[name] = counts.get(name, 0) + 1
    rows = []
    for n in numbers[offset : offset + MOST_ROWS]:
        clip = session.clips[n]
        score = None if beliefs is None else round(beliefs.scores[n].item(), 3)
        rows.append({**row(clip), "labels": counts.get(clip.name, 0), "score": score})
    return {"found": len(numbers), "offset": offset, "rows": rows}
