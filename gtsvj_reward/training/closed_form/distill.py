"""Cheaper moment judges, fitted to the scores of a costlier teacher on unlabelled clips.

The teacher is a judge of any readout, or a table of scores of any model. Its values are targets as
they are: not clipped to a scale, and without a rater's noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import Aspect, JudgeConfig, VideoJudge
from gtsvj_reward.judge.settings import ImageInput
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.metrics import pearson
from gtsvj_reward.training.arguments import FitConfig, JudgeArguments
from gtsvj_reward.training.closed_form.commands import (
    cache_for,
    device_for,
    measure_sensitivity,
    save_fit,
    scores_of,
)
from gtsvj_reward.training.closed_form.parts import Parts
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.data import Truncation, trained_geometry, trained_statistics
from gtsvj_reward.training.processes import alone
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import group_names, hold_out

SCORE = "score"
"""What metrics call the score as a whole."""


@dataclass(frozen=True)
class Teacher:
    """A teacher's scores of clips."""

    name: str
    """For the record: a judge, or a table."""
    clips: Sequence[ClipInfo]
    """The clips that it scored."""
    values: Float[Tensor, "clip output"]
    """Range-normalised aspects, or one score where it has no aspects, float64; NaN: none."""
    aspects: tuple[Aspect, ...] = ()
    """With their scales; empty for a scorer without."""
    preference: tuple[tuple[float, ...], float] | None = None
    """Weights of the range-normalised aspects in its score, and the constant; None: their mean."""
    under_prompts: bool | None = None
    """Whether it scored each clip under its prompt; None: not known."""
    image_input: ImageInput = "none"
    """Whether it saw each clip's reference image; a table does not say."""

    @classmethod
    def judge(
        cls,
        name: str,
        config: JudgeConfig,
        clips: Sequence[ClipInfo],
        *,
        aspects: Sequence[Mapping[str, float]],
        scores: Sequence[float],
        under_prompts: bool = False,
    ) -> "Teacher":
        """A judge, from its config and what it said of each clip.

        Args:
            name: of the judge.
            config: of the judge.
            clips: that it scored.
            aspects: of each clip, on the aspects' own scales; empty for a judge without.
            scores: raw, of each clip.
            under_prompts: whether it scored each clip under its prompt.
        """
        preference = None
        values = torch.tensor(scores, dtype=torch.float64)[:, None]
        if config.aspects:
            values = normalised(aspects, config.aspects)
            if config.aspect_weights is not None:
                preference = (config.aspect_weights, float(config.score_bias or 0.0))
        seen = under_prompts, config.image_input
        return cls(name, clips, values, config.aspects, preference, *seen)

    def of(self, clips: Sequence[ClipInfo]) -> Float[Tensor, "clip output"]:
        """Its values of some of the clips."""
        rows = {info.path: row for row, info in enumerate(self.clips)}
        return self.values[[rows[info.path] for info in clips]]

    def scores(self, values: Float[Tensor, "clip output"]) -> Float[Tensor, " clip"]:
        """Its score, from its values."""
        if self.preference is None:
            return values.mean(dim=1)
        weights, bias = self.preference
        return values @ values.new_tensor(weights) + bias


def table_teacher(
    name: str, clips: Sequence[ClipInfo], columns: Mapping[str, Sequence[float]]
) -> Teacher:
    """A table of scores: an aspect for each column, over the range of its values.

    Args:
        name: of the table.
        clips: of its rows.
        columns: name -> score of each clip, NaN where there is none; one that is called `reward` or
            `score` and stands alone is the score itself.

    Raises:
        ValueError: for a column of one value.
    """
    table = {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}
    if len(table) == 1 and next(iter(table)) in ("reward", SCORE):
        return Teacher(name, clips, torch.stack(list(table.values()), dim=1))
    aspects = []
    for column, found in table.items():
        there = found[~found.isnan()]
        if not len(there) or bool(there.min() == there.max()):
            raise ValueError(
                f"column {column!r} of {name} has {len(there.unique())} different values for "
                f"{len(there)} clips: a student cannot learn it; leave it out with `--columns`"
            )
        ends = there.min().item(), there.max().item()
        label = column.removeprefix("aspect:")
        aspects.append(Aspect(name=label, low=ends[0], high=ends[1]))
    low = torch.tensor([aspect.low for aspect in aspects], dtype=torch.float64)
    high = torch.tensor([aspect.high for aspect in aspects], dtype=torch.float64)
    values = (torch.stack(list(table.values()), dim=1) - low) / (high - low)
    return Teacher(name, clips, values, tuple(aspects))


def check_student(judge_arguments: JudgeArguments, args: FitConfig, clips: LatentFolder) -> None:
    """Reject a student that could not be fitted, before a teacher scores the clips for hours.

    Raises:
        ValueError: for settings that do not suit its base, clips that are too small or too short
            for it, and clips of which none can be held out.
        OSError: if there can be no folder for its features.
    """
    args.feature_folder().mkdir(parents=True, exist_ok=True)
    split_of(clips.infos, args)
    student = build_judge(judge_arguments, clips.space, seed=args.seed)
    for frames, _, height, width in {info.shape for info in clips.infos}:
        student.check_size((frames, height, width))


def split_of(clips: Sequence[ClipInfo], args: FitConfig) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """Clips to learn from, and those held out for comparison with the teacher."""
    return hold_out(
        clips,
        None,
        lambda info: [info],
        count=max(3, round(args.held_out_fraction * len(clips))),
        args=args,
        setting="more latents",
    )


@alone
def distill(
    judge_arguments: JudgeArguments, args: FitConfig, teacher: Teacher, space: LatentSpace
) -> VideoJudge:
    """Fit a student to a teacher's values and write it to `output_dir`.

    The work of `gtsvj distill`. The teacher's weights of the aspects in its score are kept. A
    student that reads prompts sees each clip under its stored prompt, and a share of the clips
    (`prompt_dropout`) without; what the teacher said of them stays the target. One that reads
    reference images sees each clip with its stored image.

    Args:
        judge_arguments: the student, with readout `moments`.
        args: where it goes, what is held out.
        teacher: what it learns from.
        space: of the clips.

    Raises:
        StoreError: for a student that reads prompts or images, and clips that have none stored.
    """
    train, held_out = split_of(teacher.clips, args)
    judge = build_judge(judge_arguments, space, seed=args.seed).to(device_for(args))
    cache = cache_for(judge, args)
    showing = Showing(judge.config, [*train, *held_out], seed=args.seed)
    parts = Parts(judge, cache, args.seed)
    parts.fit_targets(
        showing.some(train),
        teacher.of(train),
        group_names(train, lambda info: [info], args.group_by),
        teacher.aspects,
        what="distilled",
    )
    if teacher.preference is not None:
        weights, bias = teacher.preference
        parts.keep_preference(torch.tensor(weights, dtype=torch.float64), bias)
    parts.record["teacher"] = teacher.name
    if teacher.under_prompts is not None:
        saw = {"prompt": teacher.under_prompts, "reference image": teacher.image_input == "image"}
        names = " and ".join(name for name, there in saw.items() if there)
        parts.record["teacher saw"] = f"each clip's {names}" if names else "no prompt"
    judge = parts.judge_of(trained_geometry(train, Truncation(probability=0.0)))
    judge.config = replace(judge.config, latent_statistics=trained_statistics(train))
    said = scores_of(judge, cache, showing.all(held_out))[:2]
    metrics = held_out_metrics(judge, teacher, held_out, said)
    metrics |= measure_sensitivity(judge, cache, showing, held_out)
    save_fit(judge, args, metrics, labelled=(train, held_out))
    return judge


def held_out_metrics(
    judge: VideoJudge,
    teacher: Teacher,
    clips: Sequence[ClipInfo],
    said: tuple[Tensor, Tensor | None],
) -> dict[str, float]:
    """Agreement of a student with its teacher on held-out clips.

    Args:
        judge: the student.
        teacher: with values of the clips.
        clips: held out.
        said: by the student of them, scores and aspects.

    Returns:
        For each aspect and for the score: `correlation/<name>`, `pairs in order/<name>` (the share
        of pairs in the teacher's order, ties of the student counted half) and `mean error/<name>`
        (absolute; of aspects as a share of the scale). A correlation needs values that vary.
    """
    values, (scores, aspects) = teacher.of(clips), said
    columns = {SCORE: (scores.double(), teacher.scores(values))}
    if aspects is not None:
        for column, aspect in enumerate(judge.config.aspects):
            columns[aspect.name] = (aspects[:, column].double(), values[:, column])
    metrics: dict[str, float] = {"clips": len(clips)}
    for name, (student, wanted) in columns.items():
        known = ~wanted.isnan()
        student, wanted = student[known], wanted[known]
        if len(student.unique()) > 1 and len(wanted.unique()) > 1:
            metrics[f"correlation/{name}"] = pearson(student, wanted)
            metrics[f"pairs in order/{name}"] = share_in_order(student, wanted)
        if len(wanted):
            metrics[f"mean error/{name}"] = (student - wanted).abs().mean().item()
    return metrics


def share_in_order(student: Float[Tensor, " clip"], teacher: Float[Tensor, " clip"]) -> float:
    """Share of the pairs that a teacher orders in which a student has the same order."""
    agreed, pairs = 0.0, 0
    for row in range(len(teacher) - 1):
        wanted = (teacher[row + 1 :] - teacher[row]).sign()
        product = wanted * (student[row + 1 :] - student[row]).sign()
        agreed += ((product + 1) / 2)[wanted != 0].sum().item()
        pairs += int((wanted != 0).sum())
    return agreed / pairs


def normalised(
    rows: Sequence[Mapping[str, float]], aspects: Sequence[Aspect]
) -> Float[Tensor, "clip aspect"]:
    """Values on the aspects' own scales as range-normalised ones; they may lie outside 0..1."""
    return torch.tensor(
        [[(row[a.name] - a.low) / (a.high - a.low) for a in aspects] for row in rows],
        dtype=torch.float64,
    )
