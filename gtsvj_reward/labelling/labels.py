"""The labels that a journal amounts to: tasks, answers, and what each rater may take back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gtsvj_reward.labelling.journal import Event

Kind = Literal["compare", "rate"]
Choice = Literal["random", "active"]
"""How new tasks are chosen."""

REASONS = ("broken", "too alike", "no opinion")
"""Why a task is skipped."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task shown to a rater."""

    ticket: str
    """Its name, unlike that of any other task in any folder."""
    rater: str
    kind: Kind
    clips: tuple[str, ...]
    """Left and right, or the one to rate."""
    choice: Choice | Literal["double"]
    """How it was chosen; `double`: another rater has answered it."""
    prompt: str | None = None
    """Prompt of the clips, if known."""
    predicted: Any = None
    """Before the label was known: probability that the left clip is better, or aspect -> rating;
    None without a judge."""
    labels: int = 0
    """Labels that the judge knew then."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A rater's answer to a task."""

    task: Task
    label: int | None = None
    """1: left is better; -1: right; 0: the same; None: rated or skipped."""
    scores: Mapping[str, float] | None = None
    """Aspect -> rating."""
    reason: str | None = None
    """Why it was skipped."""
    broken: tuple[str, ...] = ()
    """Clips that could not be judged at all."""
    seconds: float | None = None
    """From when it was shown."""
    time: float = 0.0
    """When, in seconds since 1970."""


class Labels:
    """State that events add up to; `apply` takes them one by one.

    Attributes:
        tasks: ticket -> task.
        answers: ticket -> answer or skip, in order, without those that were undone.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.tasks: dict[str, Task] = {}
        self.answers: dict[str, Answer] = {}
        self.open: dict[str, list[str]] = {}
        self.done: dict[str, list[str]] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take an event.

        Raises:
            ValueError: for one that does not follow from those before.
        """
        kind = event["event"]
        if kind == "shown":
            task = task_of(event)
            self.tasks[task.ticket] = task
            self.open.setdefault(task.rater, []).append(task.ticket)
        elif kind in ("answer", "skip", "undo"):
            task = self.tasks.get(event["ticket"])  # type: ignore[assignment]
            if task is None or (kind == "undo") != (event["ticket"] in self.answers):
                raise ValueError(
                    f"the journal has {kind!r} of {event['ticket']!r}, which contradicts earlier "
                    "events: was it edited?"
                )
            if kind == "undo":
                del self.answers[task.ticket]
                self.done[task.rater].remove(task.ticket)
                self.open.setdefault(task.rater, []).append(task.ticket)
            else:
                self.answers[task.ticket] = answer_of(task, event)
                self.open[task.rater].remove(task.ticket)
                self.done.setdefault(task.rater, []).append(task.ticket)

    def current(self, rater: str, kind: Kind) -> Task | None:
        """The task that a rater was shown last and has not answered."""
        return self.last(self.open, rater, kind)

    def undoable(self, rater: str, kind: Kind) -> Task | None:
        """The task that a rater answered last."""
        return self.last(self.done, rater, kind)

    def last(self, of: Mapping[str, list[str]], rater: str, kind: Kind) -> Task | None:
        """The last task of a kind in a list of tickets."""
        tickets = of.get(rater, [])
        return next((self.tasks[t] for t in reversed(tickets) if self.tasks[t].kind == kind), None)

    def waiting(self, kind: Kind) -> Iterator[Task]:
        """Tasks that were shown and not answered yet."""
        for tickets in self.open.values():
            yield from (self.tasks[ticket] for ticket in tickets if self.tasks[ticket].kind == kind)

    def given(self, kind: Kind) -> list[Answer]:
        """Answers of a kind, without skips."""
        return [
            answer
            for answer in self.answers.values()
            if answer.task.kind == kind and answer.reason is None
        ]

    def skipped(self, kind: Kind) -> list[Answer]:
        """Skips of a kind."""
        return [
            answer
            for answer in self.answers.values()
            if answer.task.kind == kind and answer.reason is not None
        ]

    def broken(self) -> set[str]:
        """Clips that somebody could not judge at all."""
        return {name for answer in self.answers.values() for name in answer.broken}


def task_of(event: Event) -> Task:
    """The task of a `shown` event."""
    return Task(
        ticket=event["ticket"],
        rater=event["rater"],
        kind=event["task"],
        clips=tuple(event["clips"]),
        choice=event["choice"],
        prompt=event["prompt"],
        predicted=event["predicted"],
        labels=event["labels"],
    )


def answer_of(task: Task, event: Event) -> Answer:
    """The answer of an `answer` or `skip` event."""
    return Answer(
        task=task,
        label=event.get("label"),
        scores=event.get("scores"),
        reason=event.get("reason"),
        broken=tuple(event.get("broken", ())),
        seconds=event.get("seconds"),
        time=event["time"],
    )


def mean_ratings(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Clip -> aspect -> mean over its raters; aspects that nobody rated are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for answer in answers:
        (name,) = answer.task.clips
        for aspect, score in (answer.scores or {}).items():
            found.setdefault(name, {}).setdefault(aspect, []).append(score)
    return {
        name: {aspect: sum(scores) / len(scores) for aspect, scores in aspects.items()}
        for name, aspects in found.items()
    }
