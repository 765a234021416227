"""Clips of the policy on disk, for refits of the judge and for labelling."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.policy import Policy
from gtsvj_reward.alignment.processes import check_share
from gtsvj_reward.alignment.rollout import Key
from gtsvj_reward.alignment.sampler import Sampler
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.store import ClipInfo, LatentClip, clip_info, load_clip, save_clip
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.reward.text_store import write_made
from gtsvj_reward.tables import write_table
from gtsvj_reward.training.closed_form.features import content_id
from gtsvj_reward.training.processes import from_main

CLIPS = "clips"
"""Folder of a run: the policy's clips, and a table of their prompts."""
PROMPT = "prompt"
"""Column of `clips/prompts.csv`, and setting of a clip."""
OWN = 7
"""Second number of the keys of these clips."""


@dataclass(frozen=True)
class PolicyText:
    """A policy's text encoder, for prompts that are stored beside latents."""

    policy: Policy

    @property
    def family(self) -> str:
        """Class name of the transformer."""
        return type(self.policy.transformer).__name__

    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Embeddings of prompts, on the CPU; the same that a reward gets."""
        return self.policy.text(prompts).to(torch.device("cpu"))


@dataclass(frozen=True)
class OwnClips:
    """Clips of a policy at several iterations, `refit_clips` each, sampled without noise."""

    sampler: Sampler
    keep_prompts: bool = False
    """Store the embeddings of their prompts beside them, for a judge that reads prompts."""

    def __post_init__(self) -> None:
        processes = self.sampler.accelerator.num_processes
        check_share(self.arguments.refit_clips, processes, "`refit_clips`")

    @property
    def arguments(self) -> AlignArguments:
        """Of the run."""
        return self.sampler.arguments

    def make(self, iterations: Sequence[int]) -> None:
        """Sample and write clips after the last of these iterations; each process makes its share.

        Args:
            iterations: of all clips so far.
        """
        count, seed, last = self.arguments.refit_clips, self.arguments.seed, iterations[-1]
        prompts = self.sampler.prompts
        order = keyed_order(len(prompts), seed, OWN, last)
        # Two per prompt, so that people can compare them.
        texts = [prompts[order[index // 2 % len(order)]] for index in range(count)]
        keys: list[Key] = [(seed, OWN, last, index) for index in range(count)]
        share = self.sampler.share
        latents = self.sampler.gather(self.sampler.clean(share(texts), share(keys)))
        from_main(lambda: self.write(iterations, latents, texts))

    def write(self, iterations: Sequence[int], latents: Latents, texts: Sequence[str]) -> None:
        """Write the clips of the last of these iterations, and the prompts of all."""
        self.save(iterations[-1], latents, texts)
        rows = [(info.path.stem, info.settings[PROMPT]) for info in self.infos(iterations)]
        write_table(self.folder / "prompts.csv", ("video", PROMPT), rows)
        if self.keep_prompts:
            write_made(self.folder, PolicyText(self.sampler.policy))

    def save(self, iteration: int, latents: Latents, texts: Sequence[str]) -> None:
        """Write clips as latent files."""
        for index, (clip, prompt) in enumerate(zip(latents, texts, strict=True)):
            path = self.path(iteration, index)
            made = LatentClip(
                latents=clip.cpu().contiguous(),
                space=self.sampler.policy.space,
                fps=self.arguments.fps,
                num_frames=self.arguments.num_frames,
                source=path.stem,  # by which `gtsvj label` finds it
                settings={PROMPT: prompt, "iteration": iteration},
            )
            save_clip(path, made)

    def infos(self, iterations: Sequence[int]) -> list[ClipInfo]:
        """The clips of some iterations."""
        each = range(self.arguments.refit_clips)
        return [clip_info(self.path(done, index)) for done in iterations for index in each]

    @property
    def folder(self) -> Path:
        """Of the clips."""
        return self.arguments.folder / CLIPS

    def path(self, iteration: int, index: int) -> Path:
        """Where a clip is."""
        return self.folder / f"{iteration:06d}-{index:04d}.safetensors"


def contents(folder: str | Path, clips: Sequence[ClipInfo]) -> dict[str, str]:
    """File of each clip below a folder, without its suffix -> identity of its latents."""
    return {
        info.path.relative_to(folder).with_suffix("").as_posix(): content_id(
            load_clip(info.path).latents
        )
        for info in clips
    }
