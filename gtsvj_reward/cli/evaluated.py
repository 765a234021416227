"""The scores that `gtsvj evaluate` evaluates: a given table, or tables written by a judge."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.cli.processes import processes
from gtsvj_reward.cli.scoring import load_reward


@dataclass(frozen=True)
class Scored:
    """A table of scores to evaluate."""

    path: Path
    trained: frozenset[str] = frozenset()
    """Videos whose labels the judge was trained on."""
    suffix: str = ""
    """Suffix of the result files."""
    note: str | None = None
    """Note for the results."""


WITHOUT = "-without-prompts"
"""Suffix for scores without prompts of a judge that reads prompts."""


def notes_of(scored: Scored, seen: int, rows: int, what: str) -> list[str]:
    """Notes for the results: on the table, and on rows with clips that the judge was trained on."""
    notes = [] if scored.note is None else [scored.note]
    if not seen:
        return notes
    return [
        *notes,
        f"{seen} of {rows} {what} a clip whose labels the judge was trained on: metrics on these "
        "do not apply to new clips. Evaluate held-out clips (`gtsvj split`)",
    ]


def tables(args: argparse.Namespace, videos: tuple[str, ...]) -> list[Scored]:
    """The given table, or those that the judge writes, with one score per video.

    A judge that scores clips with and without prompts writes both.
    """
    if args.scores:
        return [Scored(args.scores)]

    from gtsvj_reward.annotations import find_clips
    from gtsvj_reward.judge import resolve_checkpoint
    from gtsvj_reward.judge.seen import trained_on
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.reward.stored import Stored
    from gtsvj_reward.scoring import score_clips

    folder = LatentFolder(args.latents)
    found = find_clips(videos, folder, allow_missing=args.allow_missing_videos)
    checkpoint = resolve_checkpoint(args.judge)
    reward = load_reward(args, checkpoint, processes(args.device).device)
    clips = folder.only(found.clips.values())
    ways: dict[str, str | None] = {"": None}
    if Stored.beside(reward.config, clips.path).texts is not None:
        ways[""] = "each clip was scored with its prompt"
        if reward.config.prompt_dropout:
            ways[WITHOUT] = "clips were scored without prompts"
    elif reward.reads_text:
        ways[""] = (
            "this judge reads prompts, but none are stored beside the latents: clips were scored "
            "without prompts (`gtsvj encode --prompts` stores them)"
        )
    seen = trained_on(Path(checkpoint), list(found.clips.values())) or []
    paths = {info.path for info in seen}
    trained = frozenset(video for video, info in found.clips.items() if info.path in paths)
    scored = []
    for suffix, note in ways.items():
        out = args.out / f"scores{suffix}.csv"
        table = score_clips(
            reward, clips, out, checkpoint=checkpoint, under_prompts=suffix != WITHOUT
        )
        print(f"scores written to {table}; reuse them with --scores")
        scored.append(Scored(table, trained, suffix, note))
    return scored
