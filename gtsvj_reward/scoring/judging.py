"""Scores of the videos of a benchmark by a judge, each video once."""

from pathlib import Path

from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.scoring.folder import collect_scores, score_shard
from gtsvj_reward.scoring.shards import Shards, run_header
from gtsvj_reward.scoring.table import write_scores


def score_clips(
    reward: GTSVJReward,
    clips: LatentFolder,
    out: str | Path,
    *,
    checkpoint: str | Path,
    progress: bool = True,
) -> Path:
    """Score latent files and write a table that `read_scores` reads.

    Finished batches go to disk at once, into `<stem>-shards`, so that a stopped run goes on where
    it was; `gtsvj score` does the same with several processes.

    Args:
        reward: the judge; its `batch_size` clips of one shape and frame rate share a pass.
        clips: with sources; see `LatentFolder.only`.
        out: a path ending in `.csv` or `.jsonl`.
        checkpoint: the folder that the judge was loaded from.
        progress: show a progress bar.

    Returns:
        The path of the table.

    Raises:
        ScoringMismatchError: for finished scores of another judge or of files that have changed.
        ValueError: for a clip without a source, a judge that reads prompts, and what
            `GTSVJReward.details` refuses, with the files of the batch.
    """
    if reward.config.text_input == "prompt":
        raise ValueError(
            "this judge reads prompts, whose embeddings are not part of latent files: score the "
            "videos with `reward(latents, text=...)` and evaluate the table with `--scores`"
        )
    nameless = [str(info.path) for info in clips.infos if info.source is None]
    if not clips.infos or nameless:
        raise ValueError(f"expected latent files that name their source video, got {nameless}")
    out = Path(out)
    shards = Shards(
        folder=out.with_name(f"{out.stem}-shards"), header=run_header(checkpoint, reward)
    )
    score_shard(reward, clips, shards, progress=progress)
    write_scores(collect_scores(clips, shards), out)
    return out
