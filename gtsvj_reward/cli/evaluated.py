"""What `gtsvj evaluate` evaluates: a table of scores, or those that a judge makes first."""

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
    """Of the files of results."""
    note: str | None = None
    """What results say of it."""


WITHOUT = "-without-prompts"
"""Suffix of what a judge that reads prompts says without them."""


def notes_of(scored: Scored, seen: int, rows: int, what: str) -> list[str]:
    """What results say of a table, and of rows with clips that the judge was trained on."""
    notes = [] if scored.note is None else [scored.note]
    if not seen:
        return notes
    return [
        *notes,
        f"{seen} of {rows} {what} a clip whose labels the judge was trained on: its numbers on "
        "them say nothing of new clips. Evaluate held-out ones (`gtsvj split`)",
    ]


def tables(args: argparse.Namespace, videos: tuple[str, ...]) -> list[Scored]:
    """The table that is there, or those that the judge makes; each video is scored once in each.

    A judge that reads prompts, and takes clips without, is asked for both.
    """
    if args.scores:
        return [Scored(args.scores)]

    from gtsvj_reward.annotations import find_clips
    from gtsvj_reward.judge import resolve_checkpoint
    from gtsvj_reward.judge.seen import trained_on
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.scoring import score_clips
    from gtsvj_reward.scoring.folder import prompts_for

    folder = LatentFolder(args.latents)
    found = find_clips(videos, folder, allow_missing=args.allow_missing_videos)
    checkpoint = resolve_checkpoint(args.judge)
    reward = load_reward(args, checkpoint, processes(args.device).device)
    clips = folder.only(found.clips.values())
    ways: dict[str, str | None] = {"": None}
    if prompts_for(reward, clips) is not None:
        ways[""] = "each clip was scored under its prompt"
        if reward.config.prompt_dropout:
            ways[WITHOUT] = "no clip was scored under its prompt"
    elif reward.reads_text:
        ways[""] = (
            "this judge reads prompts, and none are stored beside the latents: no clip was scored "
            "under its prompt (`gtsvj encode --prompts`)"
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
        print(f"scores written to {table}; use them again with --scores")
        scored.append(Scored(table, trained, suffix, note))
    return scored
