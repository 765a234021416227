"""`gtsvj distill`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.cli.scoring import score_together
from gtsvj_reward.cli.train import report
from gtsvj_reward.dtypes import DTYPES
from gtsvj_reward.flags import with_config

if TYPE_CHECKING:
    from gtsvj_reward.judge import VideoJudge
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.training.arguments import FitConfig, JudgeArguments
    from gtsvj_reward.training.closed_form.distill import Teacher

JUDGE_FLAGS = ("teacher_base_model", "allow_untrained_geometry", "no_check_statistics", "overwrite")
TABLE_FLAGS = ("columns", "allow_missing_videos")


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = subparser("distill")
    made.add_argument("teacher", nargs="?", help="judge, as for `gtsvj score`; not with --scores")
    made.add_argument("latents", type=Path, help="folder of unlabelled latent files")
    made.add_argument("--out", type=Path, required=True, help="folder for the student")
    student = made.add_argument_group("student")
    student.add_argument("--base_model", help="base transformer; default: the teacher's")
    student.add_argument("--base_dtype", default="auto", choices=["auto", *DTYPES])
    student.add_argument("--taps", type=int, nargs="+", help="blocks to read; 0: the latents")
    student.add_argument("--depth", type=int, help="blocks in use; default: all of the base")
    student.add_argument(
        "--latent_pooling", type=int, default=1, help="average squares of this size"
    )
    student.add_argument(
        "--temporal_stride", type=int, default=1, help="read every K-th latent frame"
    )
    student.add_argument(
        "--text_input", choices=["zeros", "prompt"], help="reads prompts; default: as the teacher"
    )
    student.add_argument(
        "--image_input",
        choices=["none", "image"],
        help="reads reference images; default: as the teacher",
    )
    student.add_argument(
        "--prompt_dropout", type=float, default=0.1, help="share of clips read without a prompt"
    )
    judge = made.add_argument_group("teacher: a judge")
    judge.add_argument("--teacher_base_model", help="location of its base, if it has moved")
    judge.add_argument("--allow_untrained_geometry", action="store_true", help="as for score")
    judge.add_argument("--no_check_statistics", action="store_true", help="as for score")
    judge.add_argument("--overwrite", action="store_true", help="discard its earlier scores")
    table = made.add_argument_group("teacher: a table")
    table.add_argument("--scores", type=Path, help="scores: a column `video` and one per aspect")
    table.add_argument(
        "--columns", nargs="+", help="its columns; default `aspect:...`, else `reward`, else all"
    )
    table.add_argument("--allow_missing_videos", action="store_true", help="leave them out")
    made.add_argument(
        "--held_out_fraction", type=float, default=0.1, help="share held out for comparison"
    )
    made.add_argument("--group_by", help="keep clips together in the split; as for train-aspects")
    made.add_argument(
        "--features", type=Path, help="folder of cached moments; default: `features` beside --out"
    )
    made.add_argument("--seed", type=int, default=42, help="of the split")
    made.add_argument("--batch_size", type=int, default=8, help="clips per forward pass")
    made.add_argument("--device", help="device for reading clips; default: a GPU if available")
    return made


def distill(argv: list[str]) -> int:
    """`gtsvj distill`."""
    flags = parser()
    args = flags.parse_args(with_config(argv))
    if (args.teacher is None) == (args.scores is None):
        flags.error("give one teacher: a judge, or --scores TABLE")
    for name in JUDGE_FLAGS if args.scores else TABLE_FLAGS:
        if vars(args)[name] != flags.get_default(name):
            flags.error(f"--{name} has no use with{'' if args.scores else 'out'} --scores")
    if args.scores and not args.base_model:
        flags.error("--scores needs --base_model, the base that the student reads")

    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.training.processes import only_run

    state = processes(args.device)
    with only_run(args.out):  # the teacher's scores are stored beside it
        judge = fitted_student(args, LatentFolder(args.latents), state)
    if state.is_main_process:
        report(judge, judge.config.training["held out"], str(args.out))
    return 0


def fitted_student(args: argparse.Namespace, clips: "LatentFolder", state: Any) -> "VideoJudge":
    """Score the clips with the teacher and fit the student to its scores."""
    from gtsvj_reward.training.arguments import FitConfig
    from gtsvj_reward.training.closed_form.distill import distill as fit

    settings = FitConfig(
        output_dir=str(args.out),
        seed=args.seed,
        held_out_fraction=args.held_out_fraction,
        group_by=args.group_by,
        features=None if args.features is None else str(args.features),
        batch_size=args.batch_size,
        device=str(state.device),
    )
    if args.scores:
        teacher = table_values(args, clips)
        student = student_of(args, (args.base_model, None), inputs_of(args, None, "none"))
    else:
        teacher, student = judge_values(args, clips, settings, state)
    return fit(student, settings, teacher, clips.space)


def student_of(
    args: argparse.Namespace, base: tuple[str, str | None], inputs: tuple[str, str]
) -> "JudgeArguments":
    """What the student is; its base is the teacher's unless another is given."""
    from gtsvj_reward.training.arguments import JudgeArguments

    name, revision = (args.base_model, None) if args.base_model else base
    text_input, image_input = inputs
    return JudgeArguments(
        base_model=name,
        base_revision=revision,
        base_dtype=args.base_dtype,
        readout="moments",
        taps=args.taps,
        depth=args.depth,
        latent_pooling=args.latent_pooling,
        temporal_stride=args.temporal_stride,
        text_input=text_input,
        prompt_dropout=args.prompt_dropout,
        image_input=image_input,
        lora_rank=0,
    )


def inputs_of(
    args: argparse.Namespace, under_prompts: bool | None, image_input: str
) -> tuple[str, str]:
    """The student's `text_input` and `image_input`: by default what its teacher saw."""
    text_input = args.text_input or ("prompt" if under_prompts else "zeros")
    return text_input, args.image_input or image_input


def require_stored(student: "JudgeArguments", clips: "LatentFolder") -> None:
    """Reject clips without the prompts or images that the student reads, before they are scored.

    Raises:
        StoreError: if they are not stored, or another family's pipeline encoded them.
    """
    from gtsvj_reward.assets import folder_of
    from gtsvj_reward.backbones import family_of
    from gtsvj_reward.reward.image_store import ImageStore
    from gtsvj_reward.reward.text_store import TextStore

    family = family_of(folder_of(student.base_model), revision=student.base_revision)
    if student.text_input == "prompt":
        TextStore.of_clips(clips.infos, family)
    if student.image_input == "image":
        ImageStore.of_clips(clips.infos, family)


def judge_values(
    args: argparse.Namespace, clips: "LatentFolder", settings: "FitConfig", state: Any
) -> tuple["Teacher", "JudgeArguments"]:
    """A judge's scores of all clips, and its student, which is checked before they are scored.

    Finished scores are stored beside --out, so an interrupted run resumes.
    """
    from gtsvj_reward import GTSVJReward
    from gtsvj_reward.judge import read_config, resolve_checkpoint
    from gtsvj_reward.judge.checkpoint import base_beside
    from gtsvj_reward.reward.stored import Stored
    from gtsvj_reward.scoring import folder, shards
    from gtsvj_reward.training.closed_form.distill import Teacher, check_student

    checkpoint = resolve_checkpoint(args.teacher)
    config = read_config(checkpoint)
    stored = Stored.beside(config, clips.path)
    base = args.teacher_base_model or str(base_beside(checkpoint, config))
    inputs = inputs_of(args, stored.texts is not None, config.image_input)
    student = student_of(args, (base, config.base_revision), inputs)
    require_stored(student, clips)
    check_student(student, settings, clips)
    # Loaded only now: the student that was checked is out of memory again.
    reward = GTSVJReward.from_pretrained(
        checkpoint,
        base_model=args.teacher_base_model,
        device=state.device,
        batch_size=args.batch_size,
        allow_untrained_geometry=args.allow_untrained_geometry,
        check_statistics=not args.no_check_statistics,
    )
    finished = shards.Shards(
        folder=args.out.with_name(f"{args.out.name}-teacher"),
        header=shards.run_header(checkpoint, reward, stored),
    )
    score_together(reward, clips, finished, state, overwrite=args.overwrite)
    scored = folder.collect_scores(clips, finished)
    teacher = Teacher.judge(
        args.teacher,
        config,
        clips.infos,
        aspects=[clip.aspects for clip in scored],
        scores=[clip.raw for clip in scored],
        under_prompts=stored.texts is not None,
    )
    return teacher, student


def table_values(args: argparse.Namespace, clips: "LatentFolder") -> "Teacher":
    """A table's scores of the clips that it has."""
    from gtsvj_reward.annotations import find_clips
    from gtsvj_reward.evaluation import read_scores
    from gtsvj_reward.training.closed_form.distill import table_teacher
    from gtsvj_reward.training.labelled import report_left_out

    table = read_scores(args.scores)
    names = args.columns or table.aspects
    if not names:
        there = [*table.columns, *table.unreadable]
        names = ["reward"] if "reward" in there else there
    for name in names:
        if name in table.unreadable:
            raise ValueError(
                f"{args.scores}: {table.unreadable[name]}. Fix the column, or choose others with "
                "`--columns`"
            )
    columns = {name: table.scores(name) for name in names}
    videos = list(dict.fromkeys(video for column in columns.values() for video in column))
    found = find_clips(videos, clips, allow_missing=args.allow_missing_videos).clips
    report_left_out(str(args.scores), len(found), len(videos) - len(found), {})
    return table_teacher(
        str(args.scores),
        list(found.values()),
        {name: [column.get(v, float("nan")) for v in found] for name, column in columns.items()},
    )
