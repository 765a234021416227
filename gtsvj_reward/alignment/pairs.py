"""Pairs of clips for DPO: the best and the worst of a prompt by a judge."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.policy import Policy, Prompts
from gtsvj_reward.alignment.rollout import Key, generators_of
from gtsvj_reward.alignment.transition import Latents, standard_normal
from gtsvj_reward.annotations import find_clips, read_comparisons
from gtsvj_reward.annotations.names import identity
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.losses import denoising_error

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MinedPairs:
    """Which clips of a batch make pairs."""

    chosen: tuple[int, ...]
    """Index of the better clip of each pair."""
    rejected: tuple[int, ...]
    """Index of the worse one."""
    margins: tuple[float, ...]
    """Difference of the rewards, > 0."""
    dropped: int
    """Prompts whose best and worst were closer than the least margin, or equal."""


def mine_pairs(
    rewards: Float[Tensor, " clip"], prompts: Sequence[str], *, min_margin: float = 0.0
) -> MinedPairs:
    """Best and worst clip of each prompt; of equal rewards the first clip counts.

    Args:
        rewards: of the clips.
        prompts: one per clip, at least two clips of each.
        min_margin: least difference, in units of the reward.

    Raises:
        ValueError: for prompts of one clip, a negative margin, or another number of prompts.
    """
    if not min_margin >= 0:
        raise ValueError(f"`min_margin` must be at least 0, got {min_margin}")
    if len(rewards) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts for {len(rewards)} rewards")
    values = rewards.tolist()
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    single = [prompt for prompt, members in groups.items() if len(members) < 2]
    if single:
        raise ValueError(f"a pair needs two clips of a prompt, {single[0]!r} has one")
    found = []
    for members in groups.values():
        best = max(members, key=lambda index: values[index])
        worst = min(members, key=lambda index: values[index])
        found.append((best, worst, values[best] - values[worst]))
    kept = [pair for pair in found if pair[2] > 0 and pair[2] >= min_margin]
    return MinedPairs(
        chosen=tuple(pair[0] for pair in kept),
        rejected=tuple(pair[1] for pair in kept),
        margins=tuple(pair[2] for pair in kept),
        dropped=len(found) - len(kept),
    )


@dataclass(frozen=True)
class StoredPair:
    """A compared pair of clips on disk."""

    prompt: str
    chosen: Path
    """Latent file of the better clip."""
    rejected: Path
    """Latent file of the worse one."""


@dataclass(frozen=True)
class StoredPairs:
    """Pairs of a file."""

    pairs: tuple[StoredPair, ...]
    ties: int
    """Rows that prefer neither clip, and are left out."""
    unlabelled: int = 0
    """Rows without a label in the dimension, likewise."""


def read_pairs(path: str | Path, latents: str | Path, *, dimension: str = "overall") -> StoredPairs:
    """Pairs of a file of comparisons, such as `gtsvj rank --pairs` writes, and their latents.

    Ties and rows without a label are left out with a warning.

    Args:
        path: comparisons in the plain format, with prompts.
        latents: folder of the clips' latent files.
        dimension: which label counts.

    Raises:
        ValueError: for a file without pairs or prompts, or clips that are not in the folder.
    """
    comparisons = read_comparisons(path)
    rows = [row for row in comparisons.rows if row.labels.get(dimension)]
    if not rows:
        raise ValueError(
            f"none of {len(comparisons.rows)} rows of {path} prefers a clip in {dimension!r}"
        )
    bare = [row.row for row in rows if not row.prompt]
    if bare:
        raise ValueError(
            f"row {bare[0]} of {path} has no prompt ({len(bare)} of {len(rows)}): DPO trains on "
            "what a clip was made for"
        )
    unlabelled = sum(dimension not in row.labels for row in comparisons.rows)
    ties = len(comparisons.rows) - len(rows) - unlabelled
    if ties or unlabelled:
        logger.warning(
            "%s: %d ties and %d rows without a label %r left out, %d pairs kept",
            path, ties, unlabelled, dimension, len(rows),
        )  # fmt: skip
    files = latent_files({v for row in rows for v in (row.video_a, row.video_b)}, latents)
    pairs = []
    for row in rows:
        first, second = files[row.video_a], files[row.video_b]
        better, worse = (first, second) if row.labels[dimension] > 0 else (second, first)
        pairs.append(StoredPair(str(row.prompt), better, worse))
    return StoredPairs(tuple(pairs), ties, unlabelled)


def latent_files(names: Iterable[str], latents: str | Path) -> dict[str, Path]:
    """The latent file of each name: a path below the folder, or else by the source of the video.

    Generated clips have no source, and are named by their files.

    Raises:
        ValueError: for names that match nothing.
    """
    folder = LatentFolder(latents)
    own = {identity(str(info.path.relative_to(folder.path))): info.path for info in folder.infos}
    others = sorted(name for name in names if identity(name) not in own)
    found = find_clips(others, folder).clips if others else {}
    named = {name: own[who] for name in names if (who := identity(name)) in own}
    return {**named, **{name: info.path for name, info in found.items()}}


def load_pairs(pairs: Sequence[StoredPair], policy: Policy) -> tuple[list[str], Latents, Latents]:
    """Prompts, better and worse latents of some pairs.

    Raises:
        LatentSpaceError: for clips that the policy could not have made.
    """
    chosen = torch.stack([load_latents(pair.chosen, policy) for pair in pairs])
    rejected = torch.stack([load_latents(pair.rejected, policy) for pair in pairs])
    return [pair.prompt for pair in pairs], chosen.to(policy.device), rejected.to(policy.device)


def load_latents(file: Path, policy: Policy) -> Float[Tensor, "time channel height width"]:
    """A clip that the policy could have made.

    Raises:
        LatentSpaceError: for a clip of another space or size.
    """
    clip = load_clip(file)
    if not clip.space.same_latents(policy.space):
        raise LatentSpaceError(
            f"{file} is of {clip.space.title()}, the policy generates {policy.space.title()}"
        )
    if tuple(clip.latents.shape) != policy.latent_shape:
        raise LatentSpaceError(
            f"{file} has latents {tuple(clip.latents.shape)}, the policy makes "
            f"{policy.latent_shape}: set `num_frames`, `height` and `width` to those of the clips "
            "(stored clips of CogVideoX 1.5 lack the padding and cannot be trained on)"
        )
    return clip.latents


def pair_errors(
    policy: Policy,
    prompts: Prompts,
    chosen: Latents,
    rejected: Latents,
    *,
    keys: Sequence[Key],
    timesteps: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Denoising errors of pairs for `diffusion_dpo_loss`, of the policy and then its reference.

    Both clips of a pair get the same noise level and noise, which its key decides. The prompt is
    used, guidance is not. For flow matching the errors are those of velocities, and
    the loss is Flow-DPO's (Liu et al. 2025, VideoAlign) with a constant β.

    Args:
        policy: differentiated, unless gradients are off.
        prompts: one per pair.
        chosen: clean latents of the better clips, with padding.
        rejected: of the worse ones.
        keys: one per pair.
        timesteps: to draw noise levels from.

    Returns:
        Errors per pair: chosen, rejected, and the same two under the reference.
    """
    generators = generators_of(prompts, keys)
    drawn = [int(torch.randint(len(timesteps), (), generator=g)) for g in generators]
    levels = torch.tensor([timesteps[i] for i in drawn] * 2)
    noise = standard_normal(policy.latent_shape, generators, policy.device)
    # (2 pair, time, channel, height, width): the better clips first.
    noisy, target = policy.family.add_noise(
        torch.cat([chosen, rejected]), torch.cat([noise, noise]), levels
    )
    both = prompts.twice()
    with policy.reference():
        before = denoising_error(policy.predict(noisy, levels, both, guided=False), target)
    now = denoising_error(policy.predict(noisy, levels, both, guided=False), target)
    (chosen_now, rejected_now), (chosen_before, rejected_before) = now.chunk(2), before.chunk(2)
    return chosen_now, rejected_now, chosen_before, rejected_before
