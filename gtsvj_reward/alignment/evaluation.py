"""Metrics of checkups: the same prompts and seeds each time, sampled without noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.guards import Checkup, trajectory_variance
from gtsvj_reward.alignment.policy import decoded
from gtsvj_reward.alignment.rollout import EVALUATION, Key, batches
from gtsvj_reward.alignment.sampler import Sampler
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.plotting import plot_alignment, plot_film_strips
from gtsvj_reward.reward import Clips, as_reward
from gtsvj_reward.sampling.scoring import Scoring

EvalMetric = Callable[[Latents, Sequence[str]], Float[Tensor, " clip"]]
"""(clean latents without padding, prompts) -> one number per clip, higher is better."""


@dataclass(frozen=True)
class Evaluation:
    """Clips of a policy, with their reward and eval metrics."""

    sampler: Sampler
    scoring: Scoring
    """Of the reward that is trained on."""
    eval_metrics: Mapping[str, EvalMetric]
    """Metrics that are not trained on, by name."""

    @property
    def arguments(self) -> AlignArguments:
        """Of the run."""
        return self.sampler.arguments

    def clips(self) -> tuple[list[str], Latents]:
        """Prompts and clean latents of this process's share of a checkup, without padding."""
        count = self.arguments.evaluation_clips
        share, prompts = self.sampler.share(range(count)), self.sampler.prompts
        texts = [prompts[index % len(prompts)] for index in share]
        keys: list[Key] = [(self.arguments.seed, EVALUATION, index) for index in share]
        return texts, self.sampler.clean(texts, keys)

    def scoring_of(self, texts: Sequence[str] | None) -> Scoring:
        """The scoring with these prompts, if the reward reads prompts.

        Functions of one's own get them whatever else is in the sum, encoded and as they are.
        """
        reward = as_reward(self.scoring.reward)
        if texts is None or not (reward.wants_text or reward.reads_prompts):
            return self.scoring
        return replace(self.scoring, text=self.sampler.policy.text(texts), texts=list(texts))

    @torch.no_grad()
    def measure(
        self, latents: Latents, texts: Sequence[str], iteration: int = 0, refits: int = 0
    ) -> Checkup:
        """Reward, eval metrics and roughness of clips, in batches, gathered from all processes.

        Args:
            latents: clean, without padding.
            texts: their prompts.
            iteration: number of iterations done before.
            refits: number of refits of the reward before.
        """
        proxy, roughness = [], []
        metrics: dict[str, list[Tensor]] = {name: [] for name in self.eval_metrics}
        for part in batches(len(texts), self.arguments.batch_size):
            clips = latents[part]
            output = self.scoring_of(texts[part]).details(clips)
            proxy.append(output.rewards)
            if output.trajectory:
                roughness.append(trajectory_variance(output.trajectory))
            for name, metric in self.eval_metrics.items():
                found = metric(clips, texts[part])
                metrics[name].append(Clips(latents=clips).scored(found, name).to(clips.device))
        return Checkup(
            iteration=iteration,
            proxy=self._gathered(proxy),
            eval_metrics={name: self._gathered(parts) for name, parts in metrics.items()},
            roughness=self._gathered(roughness) if roughness else None,
            refits=refits,
        )

    def _gathered(self, parts: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, " clip"]:
        return self.sampler.gather(torch.cat(list(parts))).cpu()

    def draw(
        self,
        latents: Latents,
        texts: Sequence[str],
        checkup: Checkup,
        entries: Sequence[Mapping[str, float]],
    ) -> None:
        """Draw film strips of the first clips, and the curves of the log so far."""
        folder, shown = self.arguments.folder, min(self.arguments.samples, len(texts))
        if shown:
            plot_film_strips(
                [decoded(self.sampler.policy, clip) for clip in latents[:shown]],
                labels=list(texts[:shown]),
                scores=checkup.proxy[:shown].tolist(),
                score_name="reward",
                title=f"after {checkup.iteration} iterations",
                path=folder / "samples" / f"iteration-{checkup.iteration:06d}.png",
            )
        if sum("proxy" in entry for entry in entries) > 1:
            plot_alignment(entries, path=folder / "curves.png")
