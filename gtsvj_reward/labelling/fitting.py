"""The judge that is fitted while people label."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import Aspect, VideoJudge, save_judge
from gtsvj_reward.judge.readout import MomentReadout
from gtsvj_reward.labelling.beliefs import Beliefs, beliefs_of
from gtsvj_reward.labelling.clips import Clip, ClipSet
from gtsvj_reward.labelling.labels import Answer, Kind, mean_ratings
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.losses import rao_kupper_loss
from gtsvj_reward.training.closed_form import Compared, FeatureCache, Rated, refit
from gtsvj_reward.training.closed_form.features import Load
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.data import Truncation, trained_geometry

TIE_THRESHOLD = math.log(2)
"""Tie threshold of Rao and Kupper's model, in logits: equal clips tie one time in three."""

AT_ONCE = 256
"""Clips between two reports of progress, and whose features are held in float64."""


class KnownClips(FeatureCache):
    """Features by clip: one that was read before is not loaded again to find out what it is."""

    def __init__(self, judge: VideoJudge, folder: Path | None, *, batch_size: int) -> None:
        super().__init__(judge, folder, batch_size=batch_size)
        self.names: dict[Load, str] = {}

    def read(self, clips: Sequence[Load], what: str) -> list[str]:
        """As for any `FeatureCache`; a clip is identified by its `Load` object."""
        new = [clip for clip in dict.fromkeys(clips) if clip not in self.names]
        if new:
            self.names.update(zip(new, super().read(new, what), strict=True))
        return [self.names[clip] for clip in clips]


class Model:
    """A judge, the features of all clips, and what the judge thinks of them.

    Attributes:
        judge: as fitted last.
        beliefs: what it thinks; None before clips are read, or without any fit.
        summary: summary of the last fit.

    Args:
        start: the judge to begin with, of readout `moments`; fresh, or fitted before.
        clips: with latents.
        features: folder that keeps the moments of clips; None: memory only.
        batch_size: clips of one shape per forward pass.
        seed: of the projection in which the uncertainty is kept.

    Raises:
        ValueError: for a judge of the other readout.
        PromptStoreError: for a judge that reads prompts, and clips without stored ones.
    """

    def __init__(
        self,
        start: VideoJudge,
        clips: ClipSet,
        *,
        features: Path | None = None,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        if start.config.readout != "moments":
            raise ValueError(
                f"the judge has readout {start.config.readout!r}, which cannot be refitted live: "
                "give one with `--readout moments`"
            )
        self.start, self.judge, self.seed = start, start, seed
        self.clips = clips
        self.cache = KnownClips(start, features, batch_size=batch_size)
        infos = [latent_file(clip) for clip in clips]
        self.loads = Showing(start.config, infos, seed=seed).all(infos)
        self.geometry = trained_geometry(infos, Truncation(probability=0.0))
        self.beliefs: Beliefs | None = None
        self.summary: dict[str, Any] = {}

    def read(self, report: Callable[[int], None]) -> None:
        """Read all clips in parts; then compute the starting judge's posterior.

        Args:
            report: called with the number of clips that are read.
        """
        for first in range(0, len(self.loads), AT_ONCE):
            self.cache.read(self.loads[first : first + AT_ONCE], "clips")
            report(min(first + AT_ONCE, len(self.loads)))
        head = self.start.head
        if isinstance(head, MomentReadout) and bool(head.output.weight.any()):
            self.beliefs = beliefs_of(self.start, self.features(), 0)

    def features(self) -> Iterator[Float[Tensor, "_ feature"]]:
        """Features of all clips, in parts."""
        for first in range(0, len(self.loads), AT_ONCE):
            yield self.cache.features(self.cache.read(self.loads[first : first + AT_ONCE], "clips"))

    def fit(self, kind: Kind, answers: Sequence[Answer], aspects: Sequence[Aspect]) -> None:
        """Fit the starting judge to all answers of a kind.

        Answers about clips that are not in the set any more do not count.

        Raises:
            ValueError: if the answers are not enough for a fit.
            RuntimeError: if they leave the judge undetermined.
        """
        began = time.monotonic()
        known = [a for a in answers if all(name in self.clips.numbers for name in a.task.clips)]
        common: dict[str, Any] = {"geometry": self.geometry, "seed": self.seed}
        if kind == "compare":
            compared = self.compared(known)
            loss = partial(rao_kupper_loss, threshold=TIE_THRESHOLD)
            judge = refit(self.start, self.cache, comparisons=compared, loss=loss, **common)
        else:
            ratings = self.rated(known)
            judge = refit(self.start, self.cache, ratings=ratings, aspects=aspects, **common)
        self.beliefs = beliefs_of(judge, self.features(), len(answers))
        self.judge = judge
        self.summary = {
            "labels": len(answers),
            "seconds": round(time.monotonic() - began, 3),
            "left_out_error": judge.config.training.get(
                f"{'preference' if kind == 'compare' else 'aspects'}: left-out error"
            ),
        }

    def compared(self, answers: Sequence[Answer]) -> list[Compared]:
        """Answers about pairs, for `refit`.

        Pairs of one prompt are left out together when penalties are chosen. If all are of one
        prompt, pairs are left out one by one.
        """
        rows = []
        numbers = [[self.clips.numbers[name] for name in a.task.clips] for a in answers]
        groups = {self.clips[first].group for first, _ in numbers}
        for index, (answer, (first, second)) in enumerate(zip(answers, numbers, strict=True)):
            group = self.clips[first].group if len(groups) > 1 else str(index)
            rows.append(
                Compared(self.loads[first], self.loads[second], answer.label or 0, (group, group))
            )
        return rows

    def rated(self, answers: Sequence[Answer]) -> list[Rated]:
        """Ratings of clips, each the mean of its raters', for `refit`."""
        scores = mean_ratings(answers)
        numbers = {name: self.clips.numbers[name] for name in scores}
        groups = {self.clips[number].group for number in numbers.values()}
        return [
            Rated(
                self.loads[number],
                scores[name],
                self.clips[number].group if len(groups) > 1 else name,
            )
            for name, number in numbers.items()
        ]

    def save(self, folder: Path) -> None:
        """Write the judge as a checkpoint."""
        save_judge(self.judge, folder)


def latent_file(clip: Clip) -> ClipInfo:
    """The latent file of a clip that has one."""
    if clip.latents is None:
        raise ValueError(f"{clip.name} has no latent file, which the judge would read")
    return clip.latents
