"""A labelling session: tasks, answers, and the judge that learns from them."""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from gtsvj_reward.judge import Aspect
from gtsvj_reward.labelling.asking import Asking
from gtsvj_reward.labelling.clips import ClipSet
from gtsvj_reward.labelling.export import write_labels
from gtsvj_reward.labelling.journal import VERSION, Journal
from gtsvj_reward.labelling.labels import REASONS, Choice, Kind, Labels, Task
from gtsvj_reward.labelling.worker import FITTING, Worker

if TYPE_CHECKING:
    from gtsvj_reward.labelling.fitting import Model

JUDGE = "judge"
"""Folder of the checkpoint, beside the labels."""
FIT_EVERY = 10
"""Answers between two fits."""
QUESTIONS: dict[Kind, str] = {
    "compare": "Which clip is better?",
    "rate": "How good is this clip?",
}


class RefusedAnswerError(ValueError):
    """An answer that is not taken; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """The task, and how clips are chosen."""

    kind: Kind = "compare"
    """Two clips of a prompt, or one after the other on scales."""
    question: str = ""
    """Text above the clips; default: that of the kind."""
    aspects: tuple[str, ...] = ("overall",)
    """Aspects to rate, each from 1 to 5."""
    choice: Choice = "random"
    """`active` needs a judge; `random_share` of the tasks are drawn at random even so."""
    random_share: float = 0.25
    """Share of random tasks under `active`, over which accuracy is measured."""
    double_share: float = 0.1
    """Share of tasks that another rater has answered before, where there are such tasks."""
    seed: int = 0
    """Seed of all draws."""

    def __post_init__(self) -> None:
        for name in ("random_share", "double_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in 0..1, got {getattr(self, name)}")
        if not self.aspects or len(set(self.aspects)) < len(self.aspects):
            raise ValueError(f"aspects must be different and at least one, got {self.aspects}")

    @property
    def text(self) -> str:
        """The question that is shown."""
        return self.question or QUESTIONS[self.kind]

    @property
    def scales(self) -> tuple[Aspect, ...]:
        """The aspects with their scales."""
        return tuple(Aspect(name=name, low=1, high=5) for name in self.aspects)


class Session:
    """Everything behind the page, without HTTP; any number of threads may call it.

    Args:
        out: folder of the labels; an existing session is resumed.
        clips: to label.
        settings: the task.
        model: the judge to fit; None: a plain labelling tool.

    Raises:
        FolderInUseError: if the folder is in use.
        ValueError: if it is no folder of labels, for an active choice without a
            judge, or if there is nothing to compare.
    """

    def __init__(
        self,
        out: str | Path,
        clips: ClipSet,
        settings: SessionSettings | None = None,
        model: "Model | None" = None,
    ) -> None:
        settings = settings or SessionSettings()
        if settings.choice == "active" and model is None:
            raise ValueError("an active choice needs a judge, and latents that it can read")
        if settings.kind == "compare" and max(map(len, clips.groups.values())) < 2:
            raise ValueError(
                f"each of the {len(clips)} clips is the only one of its prompt or folder: there "
                "is nothing to compare; rate them, or group them otherwise"
            )
        self.out, self.clips, self.settings, self.model = Path(out), clips, settings, model
        self.lock = RLock()
        self.journal = Journal(self.out)
        self.labels = Labels(self.journal.events)
        self.asking = Asking(clips, settings, self.labels)
        self.event("start", version=VERSION, videos=clips.folder.name, clips=len(clips),
                   settings=asdict(settings))  # fmt: skip
        self.unfitted = 0
        self.worker = Worker(self.write, model)
        self.worker.read(self.fit if self.answered() else None)

    def event(self, kind: str, **fields: Any) -> None:
        """Write an event to disk, and then count it."""
        self.labels.apply(self.journal.append(kind, **fields))

    def answered(self) -> int:
        """Answers of this kind, without skips."""
        return len(self.labels.given(self.settings.kind))

    def task(self, rater: str) -> Task | None:
        """A rater's current task; None if there are no tasks left.

        The same until it is answered or skipped, also after a restart.
        """
        with self.lock:
            waiting = self.labels.current(rater, self.settings.kind)
            if waiting is not None and self.asking.known(waiting.clips):
                return waiting
            beliefs = None if self.model is None else self.model.beliefs
            drawn = self.asking.draw(rater, beliefs, len(self.labels.tasks))
            if drawn is None:
                return None
            ticket = secrets.token_hex(8)
            self.event("shown", ticket=ticket, rater=rater, task=self.settings.kind, **drawn)
            return self.labels.tasks[ticket]

    def answer(
        self,
        rater: str,
        ticket: str,
        *,
        label: int | None = None,
        scores: Mapping[str, float] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Take an answer; it is on disk when this returns. One that comes twice is taken once.

        Args:
            rater: name of the rater.
            ticket: of the task.
            label: of a comparison: 1 if the left clip is better, -1 if the right one is, 0 for a
                tie.
            scores: of a clip: aspect -> 1 to 5; aspects without an opinion are left out.
            seconds: time taken.

        Raises:
            RefusedAnswerError: for an unknown task, one of somebody else, one that was answered
                otherwise, or an answer that does not fit.
        """
        with self.lock:
            task = self.task_of(rater, ticket)
            said: dict[str, Any]
            if task.kind == "compare":
                if label not in (-1, 0, 1) or scores is not None:
                    raise RefusedAnswerError(f"expected a label of 1, 0 or -1, got {label!r}")
                said = {"label": label}
            else:
                said = {"scores": self.checked(scores or {})}
            before = self.labels.answers.get(ticket)
            if before is not None:
                if (before.label, before.scores) != (said.get("label"), said.get("scores")):
                    raise RefusedAnswerError("this task has another answer already: undo it first")
                return
            self.event("answer", ticket=ticket, **said, seconds=seconds)
            self.changed()

    def skip(self, rater: str, ticket: str, reason: str, broken: tuple[str, ...] = ()) -> None:
        """Skip a task; broken clips are not shown again.

        Raises:
            RefusedAnswerError: as for `answer`, and for an unknown reason.
        """
        with self.lock:
            task = self.task_of(rater, ticket)
            if reason not in REASONS or not set(broken) <= set(task.clips):
                raise RefusedAnswerError(
                    f"expected a reason of {REASONS}, and broken clips among {task.clips}, got "
                    f"{reason!r} and {broken}"
                )
            before = self.labels.answers.get(ticket)
            if before is not None and before.reason is None:
                raise RefusedAnswerError("this task has an answer already: undo it first")
            if before is None:
                self.event("skip", ticket=ticket, reason=reason, broken=list(broken))
                self.worker.write()

    def undo(self, rater: str) -> bool:
        """Undo a rater's last answer or skip, so that it is asked again; False if none is."""
        with self.lock:
            task = self.labels.undoable(rater, self.settings.kind)
            if task is None:
                return False
            self.event("undo", ticket=task.ticket)
            self.changed()
            return True

    def changed(self) -> None:
        """Rewrite the tables, and refit the judge if enough has changed."""
        self.worker.write()
        self.unfitted += 1
        if self.model is not None and self.unfitted >= FIT_EVERY:
            self.unfitted = 0
            self.worker.fit(self.fit)

    def fit(self) -> None:
        """Fit the judge to all answers; for the worker."""
        if self.model is None:
            return
        with self.lock:
            answers = self.labels.given(self.settings.kind)
        self.model.fit(self.settings.kind, answers, self.settings.scales)
        with self.lock:
            self.event("fit", **self.model.summary)

    def write(self) -> None:
        """Write the tables; for the worker."""
        with self.lock:
            answers = {kind: self.labels.given(kind) for kind in ("compare", "rate")}
        write_labels(self.out, answers["compare"], answers["rate"])

    def checkpoint(self) -> Path:
        """Fit the judge to all answers and write it; returns the folder."""
        if self.model is None:
            raise RefusedAnswerError("there is no judge: start with --latents and --judge")
        if self.worker.read_clips < len(self.clips):
            raise RefusedAnswerError("the judge is still reading the clips: try again in a while")
        self.worker.fit(self.fit)
        self.worker.wait()
        if FITTING in self.worker.failures:
            raise RefusedAnswerError(self.worker.failures[FITTING])
        self.model.save(self.out / JUDGE)
        return self.out / JUDGE

    def close(self) -> None:
        """Finish what is written and fitted, and let go of the folder."""
        self.worker.close()
        self.write()
        self.journal.close()

    def task_of(self, rater: str, ticket: str) -> Task:
        """A task of a rater."""
        task = self.labels.tasks.get(ticket)
        if task is None or task.rater != rater or task.kind != self.settings.kind:
            raise RefusedAnswerError(f"{rater!r} was not shown a task {ticket!r}")
        return task

    def checked(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Ratings on their scales."""
        outside = {
            name: score
            for name, score in scores.items()
            if name not in self.settings.aspects or score not in (1, 2, 3, 4, 5)
        }
        if not scores or outside:
            raise RefusedAnswerError(
                f"expected whole ratings from 1 to 5 of some of {self.settings.aspects}, got "
                f"{dict(outside or scores)}"
            )
        return dict(scores)

    def skip_counts(self) -> dict[str, int]:
        """Reason -> skips."""
        skips = self.labels.skipped(self.settings.kind)
        return dict(Counter(str(answer.reason) for answer in skips))
