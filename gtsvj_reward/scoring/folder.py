"""Scores of all latent files below a folder: in batches, by several processes, resumable."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch

from gtsvj_reward.judge.batching import buckets
from gtsvj_reward.latents.store import SUFFIX, ClipInfo, LatentFolder, load_clip
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.progress import Progress
from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.reward import GTSVJReward
from gtsvj_reward.reward.stored import Stored
from gtsvj_reward.scoring.shards import (
    FileRecord,
    FinishedClip,
    ScoringMismatchError,
    Shards,
    run_header,
)
from gtsvj_reward.scoring.table import ScoredClip, write_scores


def named_clips(clips: LatentFolder) -> dict[str, ClipInfo]:
    """Path below the folder -> latent file, in the order of the paths."""
    return {info.path.relative_to(clips.path).as_posix(): info for info in clips.infos}


def score_folder(
    reward: GTSVJReward, clips: LatentFolder, *, progress: bool = True
) -> list[ScoredClip]:
    """Score every latent file below a folder, in the order of their paths, and keep nothing.

    Raises:
        ValueError: for any clip that `GTSVJReward` rejects; no clip is left out.
    """
    infos, stored = named_clips(clips), Stored.beside(reward.config, clips.path)
    scored: dict[str, ScoredClip] = {}
    with Progress(len(infos), "score", shown=progress) as bar:
        for batch in batches(infos, reward.batch_size):
            for clip in score_batch(reward, batch, stored):
                scored[clip.latents] = clip
            bar.update(len(batch))
    return [scored[name] for name in infos]


def score_shard(
    reward: GTSVJReward,
    clips: LatentFolder,
    shards: Shards,
    *,
    process_index: int = 0,
    num_processes: int = 1,
    progress: bool = True,
    under_prompts: bool = True,
) -> int:
    """Score this process's share of a folder, and append each batch to its shard.

    Clips in any shard are not scored again, also if another number of processes wrote them. A batch
    is written at once. So a run that is killed between two batches and restarted with the same
    number of processes forms the same batches as an uninterrupted one: its scores are bitwise
    equal. With other batches they agree to 1e-5.

    Args:
        reward: how to score; `batch_size` clips of one shape and frame rate share a forward pass.
        clips: the folder.
        shards: finished scores.
        process_index: this process takes clips `process_index::num_processes`.
        num_processes: processes that share the work.
        progress: show a progress bar, on process 0.
        under_prompts: as for `Stored.beside`.

    Returns:
        Number of clips scored now.

    Raises:
        ScoringMismatchError: for finished scores of another judge, other settings, clips that are
            not in the folder, or latent files that have changed since.
        ValueError: for any clip that `GTSVJReward` rejects; no clip is left out.
    """
    if not 0 <= process_index < num_processes:
        raise ValueError(f"expected process_index in 0..{num_processes - 1}, got {process_index}")
    infos = named_clips(clips)
    stored = Stored.beside(reward.config, clips.path, under_prompts=under_prompts)
    finished = shards.read()
    own = list(infos)[process_index::num_processes]
    check_finished(clips, infos, finished, own)
    left = {name: infos[name] for name in own if name not in finished}
    show = progress and process_index == 0
    with (
        shards.appending(process_index) as append,
        Progress(len(own), "score", shown=show, initial=len(own) - len(left)) as bar,
    ):
        for batch in batches(left, reward.batch_size):
            files = {name: FileRecord.of(info.path) for name, info in batch.items()}
            scored = score_batch(reward, batch, stored)
            append([FinishedClip(file=files[clip.latents], score=clip) for clip in scored])
            bar.update(len(batch))
    return len(left)


def collect_scores(clips: LatentFolder, shards: Shards) -> list[ScoredClip]:
    """The finished scores of a folder, one per latent file, in the order of the paths.

    Raises:
        ScoringMismatchError: as `score_shard`.
        ValueError: if a clip has no score, with the number of such clips.
    """
    infos = named_clips(clips)
    finished = shards.read()
    check_finished(clips, infos, finished, ())
    missing = [name for name in infos if name not in finished]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(infos)} clips below {clips.path} have no score in "
            f"{shards.folder}, the first is {missing[0]}: a process did not finish. Run the same "
            "command again"
        )
    return [finished[name].score for name in infos]


def score_clips(
    reward: GTSVJReward,
    clips: LatentFolder,
    out: str | Path,
    *,
    checkpoint: str | Path,
    progress: bool = True,
    under_prompts: bool = True,
) -> Path:
    """Score latent files and write a table that `read_scores` reads.

    Finished batches are written at once, to `<stem>-shards`, so an interrupted run resumes; `gtsvj
    score` does the same with several processes.

    Args:
        reward: the judge; its `batch_size` clips of one shape and frame rate share a pass.
        clips: with sources; see `LatentFolder.only`.
        out: a path ending in `.csv` or `.jsonl`.
        checkpoint: the folder that the judge was loaded from.
        progress: show a progress bar.
        under_prompts: as for `Stored.beside`.

    Returns:
        The path of the table.

    Raises:
        ScoringMismatchError: for finished scores of another judge or of files that have changed.
        ValueError: for a clip without a source, or without a prompt that the judge needs, and what
            `GTSVJReward.details` refuses, with the files of the batch.
    """
    nameless = [str(info.path) for info in clips.infos if info.source is None]
    if not clips.infos or nameless:
        raise ValueError(f"expected latent files that name their source video, got {nameless}")
    out = Path(out)
    stored = Stored.beside(reward.config, clips.path, under_prompts=under_prompts)
    shards = Shards(
        folder=out.with_name(f"{out.stem}-shards"),
        header=run_header(checkpoint, reward, stored),
    )
    with folder_lock(shards.folder):
        score_shard(reward, clips, shards, progress=progress, under_prompts=under_prompts)
    write_scores(collect_scores(clips, shards), out)
    return out


def check_finished(
    clips: LatentFolder,
    infos: Mapping[str, ClipInfo],
    finished: Mapping[str, FinishedClip],
    names: Sequence[str],
) -> None:
    """Refuse finished scores of clips that are gone, and of those of `names` that have changed."""
    gone = sorted(finished.keys() - infos.keys())
    if gone:
        raise ScoringMismatchError(
            f"{len(gone)} finished scores are of clips that are not below {clips.path}, the first "
            f"is {gone[0]}: they are of another folder, or were removed. Choose another --out, or "
            "start again with --overwrite"
        )
    changed = [
        name
        for name in names
        if name in finished and not finished[name].file.fits(infos[name].path)
    ]
    if changed:
        raise ScoringMismatchError(
            f"{len(changed)} latent files below {clips.path} have changed since they were scored, "
            f"the first is {changed[0]}: start again with --overwrite"
        )


def batches(infos: Mapping[str, ClipInfo], size: int) -> Iterator[dict[str, ClipInfo]]:
    """Clips of one shape and frame rate, at most `size` at a time; in order within each kind."""
    names = list(infos)
    for chosen in buckets([(info.shape, info.fps) for info in infos.values()], size):
        yield {names[index]: infos[names[index]] for index in chosen}


def score_batch(
    reward: GTSVJReward, batch: Mapping[str, ClipInfo], stored: Stored
) -> list[ScoredClip]:
    """Scores of latent files of one frame rate, in their order, with what is stored beside them.

    Raises:
        ValueError: what `GTSVJReward.details` raises, with the file's name.
    """
    infos = list(batch.values())
    loaded = [load_clip(info.path) for info in infos]
    clips = Clips(
        latents=[clip.latents for clip in loaded],
        space=loaded[0].space,
        fps=loaded[0].fps,
        text=stored.text(infos),
        image=stored.image(infos),
        names=list(batch),
    )
    normalized = reward.config.reward_mean is not None
    with torch.no_grad():
        out = reward.score(clips, normalized)
    return [
        ScoredClip.of(
            out,
            index,
            video=video_name(info, name),
            latents=name,
            normalized=normalized,
            prompt=stored.prompt(info),
        )
        for index, (name, info) in enumerate(batch.items())
    ]


def video_name(info: ClipInfo, name: str) -> str:
    """Name of a clip in the table: its source, with the parent folders of its file.

    This distinguishes two sets of videos encoded into two folders.

    Args:
        info: the latent file.
        name: its path below the folder that is scored.
    """
    if info.source is None:
        return name
    own, source = (PurePosixPath(path).parts for path in (name.removesuffix(SUFFIX), info.source))
    return "/".join(own) if own[-len(source) :] == source else info.source
