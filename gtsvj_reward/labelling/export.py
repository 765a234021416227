"""The tables that training and evaluation take, from one journal or from several."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from gtsvj_reward.annotations import (
    Comparison,
    Comparisons,
    Rating,
    Ratings,
    likelier_side,
    write_comparisons,
    write_ratings,
)
from gtsvj_reward.files import write_text
from gtsvj_reward.labelling.agreement import agreement, compared_table, rated_table
from gtsvj_reward.labelling.journal import JOURNAL, Event, read_events
from gtsvj_reward.labelling.labels import Answer, Labels, mean_ratings
from gtsvj_reward.locks import folder_lock

COMPARISONS, RATINGS = "comparisons.csv", "ratings.csv"

Conflicts = Literal["keep", "votes", "majority", "drop"]


@dataclass(frozen=True)
class Exported:
    """Contents of an export."""

    comparisons: int
    """Rows of `comparisons.csv`."""
    ratings: int
    """Rows of `ratings.csv`."""
    raters: int
    """Who labelled."""
    repeated: int
    """Answers that were in several folders, and count once."""
    pair_conflicts: int
    """Pairs on which raters do not agree."""
    rating_conflicts: int
    """Clips and aspects on which raters do not agree."""


def export(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    conflicts: Conflicts = "keep",
) -> Exported:
    """Join folders of labels into one: tables, and a journal of all answers and skips.

    A rating is the mean of its raters. Undone answers are left out. An answer that is in several
    folders, since one is a copy of another, counts once; the latest counts.

    Args:
        folders: each with a `labels.jsonl`.
        out: folder to write; none of those above.
        conflicts: of raters on a pair: `keep` a row for each answer, write the share of `votes` for
            the first clip (a tie is half a vote) as the probability of one row, take the `majority`
            (equal votes are a tie), or `drop` the pair.

    Raises:
        FileNotFoundError: for a folder without labels.
        FolderInUseError: if `out` is open in a `gtsvj label`, or another run writes to it.
        ValueError: for a damaged journal, or if `out` is one of the folders.
    """
    out = Path(out)
    if any(Path(folder).resolve() == out.resolve() for folder in folders):
        raise ValueError(f"{out} is one of the folders to join: write to another one")
    answers: dict[str, Answer] = {}
    events: dict[str, tuple[Event, Event]] = {}
    repeated = 0
    for folder in folders:
        found = read_events(Path(folder) / JOURNAL)
        shown = {event["ticket"]: event for event in found if event["event"] == "shown"}
        said = {e["ticket"]: e for e in found if e["event"] in ("answer", "skip")}
        for ticket, answer in Labels(found).answers.items():
            repeated += ticket in answers
            if ticket not in answers or answers[ticket].time < answer.time:
                answers[ticket] = answer
                events[ticket] = (shown[ticket], said[ticket])
    given = [answer for answer in answers.values() if answer.reason is None]
    compared = [answer for answer in given if answer.task.kind == "compare"]
    rated = [answer for answer in given if answer.task.kind == "rate"]
    aspects = dict.fromkeys(aspect for answer in rated for aspect in answer.scores or {})
    lines = [json.dumps(event, ensure_ascii=False) for pair in events.values() for event in pair]
    with folder_lock(out):
        write_text(out / JOURNAL, "".join(f"{line}\n" for line in lines))
        shares = vote_shares(compared) if conflicts == "votes" else {}
        written = write_labels(out, resolved(compared, conflicts), rated, shares)
    return Exported(
        comparisons=written[0],
        ratings=written[1],
        raters=len({answer.task.rater for answer in given}),
        repeated=repeated,
        pair_conflicts=agreement(compared_table(compared)).conflicts,
        rating_conflicts=sum(agreement(rated_table(rated, aspect)).conflicts for aspect in aspects),
    )


def write_labels(
    out: Path,
    compared: Sequence[Answer],
    rated: Sequence[Answer],
    shares: Mapping[str, float] = MappingProxyType({}),
) -> tuple[int, int]:
    """Write `comparisons.csv` and `ratings.csv`, where there are such answers; their rows.

    A table without a row is not written; one that an answer was taken back from is removed.

    Args:
        out: folder to write.
        compared: answers about pairs, one per row.
        rated: answers about clips; a rating is the mean of its raters.
        shares: ticket -> share of votes for the first clip, written instead of the label.
    """
    comparisons = [
        Comparison(
            row=answer.task.ticket,
            video_a=answer.task.clips[0],
            video_b=answer.task.clips[1],
            labels={"overall": answer.label or 0},
            probabilities={"overall": share} if share is not None else {},
            prompt=answer.task.prompt,
        )
        for answer in compared
        for share in [shares.get(answer.task.ticket)]
    ]
    means, prompts = mean_ratings(rated), {a.task.clips[0]: a.task.prompt for a in rated}
    ratings = [
        Rating(row=name, video=name, scores=scores, prompt=prompts.get(name))
        for name, scores in means.items()
    ]
    aspects = tuple(dict.fromkeys(aspect for scores in means.values() for aspect in scores))
    if comparisons:
        table = Comparisons(name=COMPARISONS, rows=tuple(comparisons), dimensions=("overall",))
        write_comparisons(out / COMPARISONS, table)
    else:
        (out / COMPARISONS).unlink(missing_ok=True)
    if ratings:
        write_ratings(out / RATINGS, Ratings(name=RATINGS, rows=tuple(ratings), aspects=aspects))
    else:
        (out / RATINGS).unlink(missing_ok=True)
    return len(comparisons), len(ratings)


def resolved(answers: Sequence[Answer], conflicts: Conflicts) -> list[Answer]:
    """Answers about pairs to write; see `export`."""
    if conflicts == "keep":
        return list(answers)
    votes = compared_table(answers)
    first: dict[tuple[str, ...], Answer] = {}
    for answer in answers:
        first.setdefault(tuple(sorted(answer.task.clips)), answer)
    rows = []
    for unit, answer in first.items():
        said = votes[unit].values()
        if conflicts == "drop" and len(set(said)) > 1:
            continue
        turned = 1 if unit == answer.task.clips else -1
        found = majority(list(said)) if conflicts != "votes" else likelier_side(share_of(said))
        rows.append(Answer(task=answer.task, label=turned * found))
    return rows


def share_of(votes: Collection[float]) -> float:
    """Share of votes (+1, 0, -1) for +1; a tie is half a vote."""
    return sum((1 + vote) / 2 for vote in votes) / len(votes)


def vote_shares(answers: Sequence[Answer]) -> dict[str, float]:
    """Of pairs on which raters differ: ticket of the first answer -> share for its first clip."""
    votes = compared_table(answers)
    shares: dict[tuple[str, ...], tuple[str, float]] = {}
    for answer in answers:
        unit = tuple(sorted(answer.task.clips))
        said = votes[unit].values()
        if unit not in shares and len(set(said)) > 1:
            share = share_of(said)
            turned = unit != answer.task.clips
            shares[unit] = (answer.task.ticket, 1 - share if turned else share)
    return dict(shares.values())


def majority(votes: Sequence[float]) -> int:
    """The label with most votes; of several with as many, a tie."""
    counts = {label: sum(vote == label for vote in votes) for label in (1, 0, -1)}
    best = [label for label, count in counts.items() if count == max(counts.values())]
    return best[0] if len(best) == 1 else 0
