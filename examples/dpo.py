"""Diffusion-DPO on pairs that a judge picked, with the model without adapter as reference.

    python examples/dpo.py --output_dir runs/dpo
    python examples/dpo.py --output_dir runs/dpo-offline --pairs pairs.jsonl --latents latents

Without `--pairs` each iteration samples clips of some prompts from the current policy and pairs the
best with the worst of each; with it, pairs are those that `gtsvj rank --pairs` wrote. The objective
is that of Wallace et al. 2024: the policy should denoise the better clip better than its reference
does, and the worse one worse. No sampler is differentiated, and nothing is decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from shared import make_run, parse
from torch import Tensor

from gtsvj_reward.alignment import (
    AlignArguments,
    AlignmentRun,
    Metrics,
    StoredPair,
    batches,
    load_pairs,
    mine_pairs,
    pair_errors,
    prediction_drift,
    read_pairs,
    schedule,
)
from gtsvj_reward.flags import documented
from gtsvj_reward.losses import diffusion_dpo_loss
from gtsvj_reward.random_keys import keyed_generator


@documented
@dataclass(kw_only=True)
class DPOArguments(AlignArguments):
    """Settings of DPO."""

    beta: float = 2000.0
    """Strength of the tie to the reference."""
    min_margin: float = 0.1
    """Least difference of the rewards of a pair."""
    eta: float = 0.0
    """Noise of the steps while sampling."""
    updates: int = 4
    """Steps of the optimizer per iteration."""
    timesteps: Literal["all", "schedule"] = "all"
    """Noise levels of the objective: all, or those of the sampling schedule."""
    pairs: str | None = None
    """JSONL of `gtsvj rank --pairs`; none: mined on the way."""
    latents: str | None = None
    """Folder of the pairs' clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.pairs is None) != (self.latents is None):
            raise ValueError("`pairs` and `latents` go together: a file and the folder it names")


def main(argv: list[str] | None = None) -> AlignmentRun:
    args = parse(DPOArguments, argv)
    run = make_run(args)
    levels = noise_levels(run, args)
    stored = read_pairs(args.pairs, args.latents).pairs if args.pairs and args.latents else ()
    if stored:
        run.policy.encode([pair.prompt for pair in stored])
    for iteration in run.iterations():
        run.finish(iterate(run, args, stored, levels, iteration))
    return run


def iterate(
    run: AlignmentRun,
    args: DPOArguments,
    stored: Sequence[StoredPair],
    levels: Sequence[float],
    iteration: int,
) -> list[Metrics]:
    """Get pairs, learn from them; what is worth logging, a number for each pair or clip."""
    metrics: list[Metrics] = []
    if stored:
        generator = keyed_generator(args.seed, 4, iteration)
        drawn = torch.randint(len(stored), (args.clips // 2,), generator=generator)
        texts, chosen, rejected = load_pairs([stored[i] for i in drawn.tolist()], run.policy)
    else:
        texts, chosen, rejected, found = mined(run, args, iteration)
        metrics.append(found)
    for update in range(args.updates):
        metrics += learn(run, args, (texts, chosen, rejected), levels, (iteration, update))
    return [*metrics, *drift(run, args, texts, chosen, iteration)]


@torch.no_grad()
def drift(
    run: AlignmentRun, args: DPOArguments, texts: list[str], chosen: Tensor, iteration: int
) -> list[Metrics]:
    """How far predictions are from the reference's, on the better clips of this process."""
    metrics: list[Metrics] = []
    for indices in own_pairs(run, len(texts), args.batch_size):
        keys = [(args.seed, 6, iteration, index) for index in indices]
        prompts = run.policy.encode([texts[index] for index in indices])
        metrics.append({"drift": prediction_drift(run.policy, chosen[indices], prompts, keys)})
    return metrics


def own_pairs(run: AlignmentRun, count: int, size: int) -> list[list[int]]:
    """This process's share of the pairs, which need not be an even one, in batches.

    Raises:
        ValueError: if there are fewer pairs than processes.
    """
    processes = run.accelerator.num_processes
    if count < processes:
        raise ValueError(
            f"{count} pairs for {processes} processes in iteration {run.done}: lower `min_margin`, "
            "or sample more prompts and clips"
        )
    own = list(range(run.accelerator.process_index, count, processes))
    return [own[part] for part in batches(len(own), size)]


def noise_levels(run: AlignmentRun, args: DPOArguments) -> Sequence[float]:
    """Timesteps of the objective."""
    if args.timesteps == "schedule":
        return schedule(run.policy, args.num_inference_steps)
    return run.policy.family.noise_levels


def mined(
    run: AlignmentRun, args: DPOArguments, iteration: int
) -> tuple[list[str], Tensor, Tensor, Metrics]:
    """Prompts, better and worse clips of the current policy, and what is worth logging."""
    texts, keys = run.sampler.clips(iteration)
    made = list(run.sampler.clean_batches(texts, keys, eta=args.eta))
    parts = batches(len(texts), args.batch_size)
    with torch.no_grad():
        scored = [run.scores(x, texts[part]) for x, part in zip(made, parts, strict=True)]
    # Latents are small: every process gets all of them, and takes its share of the pairs.
    latents, rewards = (run.sampler.gather(torch.cat(found)) for found in (made, scored))
    prompts = run.sampler.prompts_of_all(iteration)
    pairs = mine_pairs(rewards, prompts, min_margin=args.min_margin)
    metrics: Metrics = {
        "reward": rewards,
        "pairs": float(len(pairs.chosen)),
        "pairs_dropped": float(pairs.dropped),
        "pair_margin": torch.tensor(pairs.margins),
    }
    better, worse = list(pairs.chosen), list(pairs.rejected)
    return [prompts[i] for i in better], latents[better], latents[worse], metrics


def learn(
    run: AlignmentRun,
    args: DPOArguments,
    pairs: tuple[list[str], Tensor, Tensor],
    levels: Sequence[float],
    key: tuple[int, int],
) -> list[Metrics]:
    """One update over all pairs, each with a noise of its own."""
    texts, chosen, rejected = pairs
    metrics: list[Metrics] = []
    for indices in own_pairs(run, len(texts), max(1, args.batch_size // 2)):
        errors = pair_errors(
            run.policy,
            run.policy.encode([texts[i] for i in indices]),
            chosen[indices],
            rejected[indices],
            keys=[(args.seed, 5, *key, i) for i in indices],
            timesteps=levels,
        )
        found = diffusion_dpo_loss(*errors, beta=args.beta)
        # Gradients are averaged over processes, whose shares may differ by a pair.
        run.backward(found.loss.sum() * run.accelerator.num_processes / len(texts))
        metrics.append(
            {
                "loss": found.loss.detach(),
                "implicit_accuracy": (found.margin > 0).float(),
                "chosen_error": (errors[0] - errors[2]).detach(),
                "rejected_error": (errors[1] - errors[3]).detach(),
            }
        )
    return [*metrics, {"grad_norm": run.update()}]


if __name__ == "__main__":
    main()
