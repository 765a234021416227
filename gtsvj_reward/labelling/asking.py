"""Which task a rater gets next, given all that was shown and answered."""

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch

from gtsvj_reward.labelling.beliefs import Beliefs
from gtsvj_reward.labelling.choice import CANDIDATES, Pair, draw_clips, draw_pairs, without
from gtsvj_reward.labelling.clips import ClipSet
from gtsvj_reward.labelling.labels import Labels, Task
from gtsvj_reward.random_keys import keyed_generator

if TYPE_CHECKING:
    from gtsvj_reward.labelling.session import SessionSettings


Chosen = tuple[tuple[int, ...], str]
"""Clips by number, and how they were chosen."""


class Asking:
    """Draws tasks; every draw depends only on the seed, the rater and the number of the task.

    Args:
        clips: to label.
        settings: shares and seed.
        labels: what was shown and answered.
    """

    def __init__(self, clips: ClipSet, settings: "SessionSettings", labels: Labels) -> None:
        self.clips, self.settings, self.labels = clips, settings, labels

    def known(self, names: Collection[str]) -> bool:
        """Whether clips are in the set and not marked as broken."""
        return set(names) <= self.clips.numbers.keys() - self.labels.broken()

    def draw(self, rater: str, beliefs: Beliefs | None, number: int) -> dict[str, Any] | None:
        """The next task as fields of its event; None if all is answered.

        Args:
            rater: name of the rater.
            beliefs: of the judge; None without one.
            number: of the task.
        """
        key = int.from_bytes(hashlib.sha256(rater.encode()).digest()[:6], "big")
        generator = keyed_generator(self.settings.seed, key, number)
        first, second, side = torch.rand(3, generator=generator).tolist()
        chosen: Chosen | None = None
        if first < self.settings.double_share:
            chosen = self.doubled(rater, generator)
        if chosen is None:
            active = self.settings.choice == "active" and second >= self.settings.random_share
            chosen = self.fresh(beliefs if active else None, generator)
        if chosen is None:  # nothing is left but what others have answered
            chosen = self.doubled(rater, generator) if self.settings.double_share else None
        if chosen is None:
            return None
        numbers, choice = chosen
        shown = numbers if side < 0.5 else numbers[::-1]
        return {
            "clips": [self.clips[n].name for n in shown],
            "prompt": self.clips[shown[0]].prompt,
            "choice": choice,
            "predicted": None if beliefs is None else self.predicted(beliefs, shown),
            "labels": 0 if beliefs is None else beliefs.labels,
        }

    def fresh(self, beliefs: Beliefs | None, generator: torch.Generator) -> Chosen | None:
        """Clips not shown to anyone: the most informative of a sample, or random ones."""
        taken = self.asked()
        choice = "random"
        active = beliefs is not None and beliefs.vectors is not None
        count = CANDIDATES if active else 1
        broken = {
            self.clips.numbers[name] for name in self.labels.broken() & self.clips.numbers.keys()
        }
        chosen: tuple[int, ...]
        if self.settings.kind == "compare":
            pairs = draw_pairs(without(self.clips.groups, broken), taken, count, generator)
            if not pairs:
                return None
            chosen = pairs[0]
            if active and beliefs is not None:
                chosen, choice = beliefs.most_telling(pairs), "active"
                beliefs.expect(*chosen)
        else:
            used = {number for one in taken for number in one} | broken
            free = draw_clips(range(len(self.clips)), used, len(self.clips), generator)
            if not free:
                return None
            chosen = (free[0],)
            if active and beliefs is not None:
                chosen, choice = (beliefs.least_known(free),), "active"
                beliefs.expect_rating(chosen[0])
        return chosen, choice

    def doubled(self, rater: str, generator: torch.Generator) -> Chosen | None:
        """Clips that others answered and this rater has not seen."""
        mine = {frozenset(task.clips) for task in self.labels.tasks.values() if task.rater == rater}
        others = {
            frozenset(answer.task.clips): answer.task.clips
            for answer in self.labels.given(self.settings.kind)
            if answer.task.rater != rater
        }
        free = [names for unit, names in others.items() if unit not in mine and self.known(names)]
        if not free:
            return None
        drawn = free[int(torch.randint(len(free), (), generator=generator))]
        return tuple(self.clips.numbers[name] for name in drawn), "double"

    def asked(self) -> set[Any]:
        """Clips or pairs that were shown to anyone, by number, pairs in order."""
        return {
            ordered(self.clips.numbers[name] for name in task.clips)
            for task in self.labels.tasks.values()
            if task.kind == self.settings.kind and self.in_set(task)
        }

    def in_set(self, task: Task) -> bool:
        """Whether the clips of a task are still there."""
        return all(name in self.clips.numbers for name in task.clips)

    def predicted(self, beliefs: Beliefs, shown: tuple[int, ...]) -> Any:
        """The judge's prediction for a task."""
        if self.settings.kind == "compare":
            return round(beliefs.probability(*shown), 6)
        (number,) = shown
        return {name: round(v[number].item(), 4) for name, v in beliefs.ratings.items()}


def ordered(numbers: Any) -> Pair | tuple[int, ...]:
    """Numbers, the smallest first."""
    return tuple(sorted(numbers))
