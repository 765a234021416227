"""Clips of a policy with the settings of a run, and how processes share them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.policy import Policy
from gtsvj_reward.alignment.processes import own_share
from gtsvj_reward.alignment.rollout import TRAINING, Key, Rollout, batches, rollout
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.random_keys import keyed_generator

Shared = TypeVar("Shared", bound=Sequence[object] | Tensor)


@dataclass(frozen=True)
class Sampler:
    """Makes clips of prompts in batches; each process makes its share."""

    arguments: AlignArguments
    policy: Policy
    prompts: Sequence[str]
    """Of the run."""
    accelerator: Accelerator

    def clips(self, iteration: int) -> tuple[list[str], list[Key]]:
        """Prompts and keys of this process's clips; clips of one prompt are neighbours."""
        texts = self.prompts_of_all(iteration)
        keys: list[Key] = [
            (self.arguments.seed, TRAINING, iteration, index) for index in range(len(texts))
        ]
        return self.share(texts), self.share(keys)

    def prompts_of_all(self, iteration: int) -> list[str]:
        """Prompts of the clips of all processes."""
        generator = keyed_generator(self.arguments.seed, iteration)
        drawn = torch.randperm(len(self.prompts), generator=generator)
        chosen = drawn[: self.arguments.prompts_per_iteration].tolist()
        return [self.prompts[i] for i in chosen for _ in range(self.arguments.clips_per_prompt)]

    def share(self, values: Shared) -> Shared:
        """This process's part of what all processes have, in the order of the clips."""
        part: Shared = values[own_share(self.accelerator, len(values))]  # type: ignore[assignment]
        return part

    def gather(self, values: Float[Tensor, "clip ..."]) -> Float[Tensor, "all_clips ..."]:
        """Of all processes, in the order of the clips."""
        gathered: Tensor = self.accelerator.gather(values)
        return gathered

    def rollouts(
        self,
        texts: Sequence[str],
        keys: Sequence[Key],
        *,
        eta: float,
        stochastic: Collection[int] | None = None,
        predictions: bool = False,
    ) -> list[Rollout]:
        """Clips of prompts, made in batches of `batch_size`, in the order of the prompts.

        See `rollout` for the arguments.
        """
        return [
            rollout(
                self.policy,
                self.policy.encode(texts[part]),
                keys[part],
                steps=self.arguments.num_inference_steps,
                eta=eta,
                stochastic=stochastic,
                predictions=predictions,
            )
            for part in batches(len(texts), self.arguments.batch_size)
        ]

    def clean(self, texts: Sequence[str], keys: Sequence[Key]) -> Latents:
        """Clean latents of clips without noise in their steps, without padding."""
        return self.policy.unpadded(torch.cat(list(self.clean_batches(texts, keys, eta=0.0))))

    def clean_batches(
        self, texts: Sequence[str], keys: Sequence[Key], *, eta: float
    ) -> Iterator[Latents]:
        """Clean latents of clips, with padding, batch by batch; trajectories are not kept."""
        for part in batches(len(texts), self.arguments.batch_size):
            yield self.rollouts(texts[part], keys[part], eta=eta)[0].clean
