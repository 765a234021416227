"""Refits the judge during training, to new clips of the policy and to new labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gtsvj_reward.alignment.own_clips import OwnClips, contents
from gtsvj_reward.alignment.refit_labels import Labels, check_files, read_labels
from gtsvj_reward.alignment.rewards import refuse_images
from gtsvj_reward.alignment.sampler import Sampler
from gtsvj_reward.backbones import LiveBackbone
from gtsvj_reward.files import whole_folder, write_text
from gtsvj_reward.judge import VideoJudge, save_judge
from gtsvj_reward.judge.checkpoint import trained_digest
from gtsvj_reward.judge.rebuilt import judge_beside
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.reward import AnyReward, GTSVJReward
from gtsvj_reward.training.closed_form import Contrast, FeatureCache, refit
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.data import Truncation
from gtsvj_reward.training.discriminator.data import (
    ContrastivePairs,
    RealAndGenerated,
    check_lengths,
)
from gtsvj_reward.training.discriminator.fit import contrast_of, groups_of
from gtsvj_reward.training.labelled import STAGES
from gtsvj_reward.training.processes import from_main

JUDGES, FEATURES = "judges", "features"
"""Folders of a run: refitted judges, and moments of clips."""
RECORD = "refit.json"
"""Beside a refitted judge: its training data."""
PERTURBED = 3
"""Perturbations of each positive clip."""
SWAPPED = 4
"""Wrong prompts of each positive clip, as in `gtsvj train-discriminator`."""
OLDER, PAIRED = 9, 10
"""Second numbers of keys: which older clips a refit draws, and which positives they meet."""


class Refits:
    """Refits a moment judge during training; every refit starts from the first judge.

    Every `refit_every` iterations the policy makes `refit_clips` clips, sampled without noise. Each
    is a negative of stage 1 once. Further negatives are clips of earlier refits, drawn at random
    without repetition, at most one per positive, and three perturbations of each positive (Table
    A.1 with blur and ghosting). The later stages use all labels that exist at that time. A judge
    that reads prompts sees each clip under the prompt stored beside it, as in the training
    commands; positives under other prompts are further negatives. The run stores the prompts of the
    policy's clips.

    Each refit is a checkpoint in `judges/` of the run, whose `refit.json` names its positives and
    the policy's clips in the fit by file and content. All clips of the policy are in `clips/`,
    where people can label them. An existing refit of the same clips is reused, so a resumed run
    repeats what it did before, even if labels were added.

    Args:
        sampler: of the run.
        judge: the first one, with readout `moments`.
        rebuild: makes the training reward from a refitted judge.

    Raises:
        ValueError: for a judge of the other readout, one that reads reference images, a live one,
            clips that processes cannot share, or sources that cannot make a judge of its stage.
        FileNotFoundError: for a table or folder that is not there.
        LatentSpaceError: for positives or labelled clips of another space.
        PromptStoreError: for a judge that reads prompts, and clips that have none stored.
    """

    def __init__(
        self,
        sampler: Sampler,
        judge: VideoJudge,
        *,
        rebuild: Callable[[VideoJudge], AnyReward],
    ) -> None:
        arguments = sampler.arguments
        if judge.config.readout != "moments":
            raise ValueError(
                "`refit_every` needs a judge with readout='moments', which is refitted in seconds; "
                f"the judge of {arguments.reward} has readout {judge.config.readout!r}"
            )
        refuse_images(judge.config, f"the judge of {arguments.reward}")
        if isinstance(judge.backbone, LiveBackbone):
            raise ValueError(
                "`refit_every` does not support a live judge: all processes must make its passes "
                "together, but each reads a different number of clips. Use `judge_weights` "
                "shared or own"
            )
        check_files(arguments)
        self.arguments, self.start = arguments, judge
        self.rebuild = rebuild
        self.clips = OwnClips(sampler, keep_prompts=judge.config.text_input == "prompt")
        self.positives: list[ClipInfo] = []
        if arguments.refit_positives is not None:
            folder = LatentFolder(arguments.refit_positives)
            GTSVJReward(judge).refuse_foreign(folder.space, "the clips of `refit_positives`")
            self.positives = folder.infos
            check_lengths(self.positives)
            Showing(judge.config, self.positives, seed=arguments.seed)
        self.check(read_labels(arguments, judge.config))
        features = arguments.folder / FEATURES
        self.cache = FeatureCache(judge, features, batch_size=arguments.batch_size)
        self.done: list[int] = []
        """Iterations that were followed by a refit."""

    def due(self, iteration: int) -> bool:
        """Whether to refit after so many iterations."""
        return iteration % self.arguments.refit_every == 0

    def refit(self, iteration: int) -> dict[str, float]:
        """Refit after an iteration, unless the run has done so before; metrics for the log."""
        self.done.append(iteration)
        self.clips.make(self.done)
        own = self.negatives()
        same = from_main(lambda: self.data(own))
        record = from_main(lambda: self.record(iteration))
        if record is None or any(record.get(name) != value for name, value in same.items()):
            labels = read_labels(self.arguments, self.start.config)
            self.check(labels)
            judge = self.fitted(own, labels)
            made: dict[str, Any] = {**same, **labels.record()}
            from_main(lambda: self.write(iteration, judge, made))
            record = made
        return {
            "refit_clips": len(own),
            "refit_labels": record["comparisons"] + record["ratings"],
        }

    def negatives(self) -> list[ClipInfo]:
        """Clips of the policy in the current fit, the newest first; none without positives."""
        if not self.positives:
            return []
        *earlier, last = self.done
        older = self.clips.infos(earlier)
        order = keyed_order(len(older), self.arguments.seed, OLDER, last)
        drawn = [older[index] for index in order[: len(self.positives)]]
        return [*self.clips.infos([last]), *drawn]

    def data(self, own: Sequence[ClipInfo]) -> dict[str, Any]:
        """What a refit is of, except its labels: an existing one of the same data is reused."""
        newest = self.clips.infos(self.done[-1:])
        return {
            "settings": self.arguments.fingerprint(),
            "first judge": trained_digest(self.start),
            "clips": contents(self.clips.folder, own),
            "clips not in the fit": contents(self.clips.folder, newest if not own else []),
            "positives": contents(self.arguments.refit_positives or "", self.positives),
        }

    def fitted(self, own: Sequence[ClipInfo], labels: Labels) -> VideoJudge:
        """The judge of these clips and labels.

        Raises:
            ValueError: if there is nothing to learn from.
        """
        return refit(
            self.start,
            self.cache,
            contrast=self.contrast(own),
            ratings=labels.ratings,
            aspects=self.start.config.aspects,
            comparisons=labels.comparisons,
            loss=labels.loss,
            seed=self.arguments.seed,
        )

    def check(self, labels: Labels) -> None:
        """Reject labels that do not make a judge like the first one.

        Raises:
            ValueError: if the judge would be of an earlier stage, or lose the aspects that are
                trained on.
        """
        before, after = self.start.config.stage, labels.stage
        if STAGES.index(after) < STAGES.index(before):
            raise ValueError(
                f"the judge is of stage {before!r}, and {len(labels.comparisons)} comparisons and "
                f"{len(labels.ratings)} ratings make one of stage {after!r}: a checkpoint does not "
                "keep its labels, give them with `refit_comparisons` or `refit_ratings` (for "
                "`aspects`), and `refit_latents`"
            )
        if self.arguments.aspects and self.positives and not labels.ratings:
            raise ValueError(
                f"the reward is of `aspects` {self.arguments.aspects}, which the judge loses if "
                "stage 1 is fitted again to `refit_positives` without ratings: give "
                "`refit_ratings` as well"
            )

    def contrast(self, own: Sequence[ClipInfo]) -> list[Contrast]:
        """Positives against perturbations of them and the policy's clips; none without positives.

        Args:
            own: clips of the policy, each a negative once.

        Raises:
            PromptStoreError: for a judge that reads prompts, and positives that have none stored.
        """
        if not self.positives:
            return []
        pairs = ContrastivePairs(
            RealAndGenerated(self.positives),
            sampler=PerturbationSampler.extended(),
            truncation=Truncation(probability=0.0),
            seed=self.arguments.seed,
        )
        showing = Showing(self.start.config, [*self.positives, *own], seed=self.arguments.seed)
        found = contrast_of(pairs, showing, draws=PERTURBED, swapped=SWAPPED)
        groups, count = groups_of(pairs, None), len(pairs)
        order = keyed_order(count, self.arguments.seed, PAIRED, self.done[-1])
        for index, clip in enumerate(own):
            positive = self.positives[order[index % count]]
            loads = showing.pair(PERTURBED * count + index, positive, clip)
            found.append(Contrast(*loads, (groups[str(positive.path)], f"own {clip.path.stem}")))
        return found

    def judge_path(self, iteration: int) -> Path:
        """Where the judge that was refitted after an iteration is."""
        return self.arguments.folder / JUDGES / f"iteration-{iteration:06d}"

    def record(self, iteration: int) -> dict[str, Any] | None:
        """Training data of the judge of an iteration; None if there is none."""
        file = self.judge_path(iteration) / RECORD
        return json.loads(file.read_text()) if file.exists() else None

    def write(self, iteration: int, judge: VideoJudge, record: Mapping[str, Any]) -> None:
        """Write a refitted judge with its record, atomically."""
        with whole_folder(self.judge_path(iteration)) as part:
            save_judge(judge, part)
            write_text(part / RECORD, json.dumps({**record, "iteration": iteration}, indent=1))

    def reward(self) -> AnyReward:
        """The current training reward, with the judge of the last refit from disk."""
        if not self.done:
            return self.rebuild(self.start)
        return self.rebuild(judge_beside(self.judge_path(self.done[-1]), self.start))

    def state(self) -> list[int]:
        """What `load` takes, for JSON."""
        return list(self.done)

    def load(self, state: Sequence[int]) -> None:
        """Restore a state."""
        self.done = list(state)
