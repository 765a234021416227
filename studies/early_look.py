"""Share of the gain of best-of-16 that an early look keeps, and its share of the cost.

    python -m studies.early_look --work runs/early_look

Candidates of the toy world's unsteady generator, 10 steps. The judge is fitted to 100 simulated
ratings of clips of other prompts. After 2, 3 or 5 steps the clean latents that the generator
predicts are scored: by the judge itself, and by a readout that is fitted to the same ratings on the
predictions of the rated clips at that step. The gain is that of the chosen clip over the mean one,
of the judge's score and of the steadiness of pixels. Each seed has other prompts, noise and
ratings; what is in the results folder is not run again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward import GTSVJReward, LatentSpace, VideoJudge
from gtsvj_reward.alignment import ClipSize, Policy, batches, rollout
from gtsvj_reward.demo.story import ASPECT, constant, fresh_judge, simulated_ratings
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.metrics.student import student_quantile
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import PIPELINE, UNSTEADY, decode, load_pipeline
from gtsvj_reward.toy.world import FRAMES, SIZE, captions
from gtsvj_reward.training import FeatureCache, Rated, refit

STEPS, LOOKS = 10, (2, 3, 5)
"""Denoising steps, and those after which candidates are scored."""
PROMPTS, EACH = {"fit": 20, "test": 16}, {"fit": 5, "test": 16}
"""Prompts whose clips are rated, or are candidates, and clips of each."""
FINISH = (2, 4, 8)
"""Candidates that are finished, of 16."""
BATCH = 32


def make(seed: int, file: Path) -> dict[str, Tensor]:
    """Clips of a seed, their predicted clean latents and their steadiness; cached on disk."""
    if file.exists():
        return read_safetensors(file)[0]
    policy = Policy(load_pipeline(UNSTEADY), ClipSize(FRAMES, SIZE, SIZE), guidance=1.0, rank=1)
    known = captions()
    order = [known[index] for index in keyed_order(len(known), seed, 61)]
    prompts = {"test": order[: PROMPTS["test"]], "fit": order[PROMPTS["test"] :][: PROMPTS["fit"]]}
    found: dict[str, Tensor] = {}
    for number, part in enumerate(PROMPTS):
        texts = [prompt for prompt in prompts[part] for _ in range(EACH[part])]
        keys = [(seed, 61, number, index) for index in range(len(texts))]
        lots: dict[str, list[Tensor]] = {}
        for some in batches(len(texts), BATCH):
            made = rollout(
                policy, policy.encode(texts[some]), keys[some], steps=STEPS, eta=0.0,
                predictions=True,
            )  # fmt: skip
            pixels = torch.stack(decode(policy.pipe, made.clean))
            lots.setdefault("clean", []).append(made.clean)
            lots.setdefault("steadiness", []).append(steadiness(pixels))
            for look in LOOKS:
                lots.setdefault(f"look {look}", []).append(made.predictions[look - 1])
        found |= {f"{part} {name}": torch.cat(values) for name, values in lots.items()}
    write_safetensors(file, found, {"format": "pt"})
    return found


def run(seed: int, work: Path) -> dict[str, Any]:
    """Correlations and gains of one seed."""
    found = make(seed, work / f"{seed}.safetensors")
    pipe = load_pipeline()
    space = LatentSpace.from_pipeline(pipe)
    fresh = fresh_judge(pipe, space, found["fit clean"], base_model=PIPELINE)
    cache = FeatureCache(fresh, work / "features", batch_size=BATCH)
    ratings = simulated_ratings(found["fit steadiness"], seed)

    def fitted(clips: Tensor) -> GTSVJReward:
        """A judge fitted to the ratings, on these latents of the rated clips."""
        labels = [
            Rated(constant(clip), {ASPECT.name: rating}, str(number // EACH["fit"]))
            for number, (clip, rating) in enumerate(zip(clips, ratings, strict=True))
        ]
        return scored_by(refit(fresh, cache, ratings=labels, aspects=[ASPECT]))

    reward = fitted(found["fit clean"])
    steady = found["test steadiness"]
    record: dict[str, Any] = {}
    with torch.no_grad():
        final = reward(found["test clean"])
        for look in LOOKS:
            readout = fitted(found[f"fit look {look}"])
            for name, looking in (("judge", reward), ("readout", readout)):
                early = looking(found[f"test look {look}"])
                record[f"{name} {look}"] = measures(early, final, steady)
        record["end"] = {"pixels": within(final, steady)}
    return record


def scored_by(judge: VideoJudge) -> GTSVJReward:
    """The reward of a judge, without checks: predictions have other statistics than clips."""
    return GTSVJReward(judge, check_statistics=False, batch_size=BATCH)


def within(first: Tensor, second: Tensor) -> float:
    """Correlation over the clips of a prompt, the mean over prompts."""
    rows = [values.double().view(-1, EACH["test"]) for values in (first, second)]
    one, other = (values - values.mean(dim=1, keepdim=True) for values in rows)
    return ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))).mean().item()


def measures(early: Tensor, final: Tensor, steady: Tensor) -> dict[str, Any]:
    """Correlations within a prompt, and gains of best-of-16 of those that are finished."""
    rows = [values.double().view(-1, EACH["test"]) for values in (early, final, steady)]
    first, last, pixels = (values - values.mean(dim=1, keepdim=True) for values in rows)
    best = last.argmax(dim=1)
    place = torch.arange(len(last))
    gains = {"16": [last[place, best].mean().item(), pixels[place, best].mean().item()]}
    for count in FINISH:
        finished = first.topk(count, dim=1).indices
        chosen = finished.gather(1, last.gather(1, finished).argmax(dim=1)[:, None])[:, 0]
        gains[str(count)] = [last[place, chosen].mean().item(), pixels[place, chosen].mean().item()]
    correlations = {"correlation": within(early, final), "pixels": within(early, steady)}
    return {**correlations, "gains": gains}


def cost(look: int, count: int) -> float:
    """Cost: denoising steps as a share of those of best-of-16."""
    return (16 * look + count * (STEPS - look)) / (16 * STEPS)


def report(records: list[dict[str, Any]]) -> str:
    """A table of correlations and of shares of the gain, with 95% t intervals over seeds.

    Correlations are with the final score and with the steadiness of pixels. The last row is that of
    best-of-16 itself.
    """
    lines = ["| look | scored by | with score | with pixels | finished | cost | gain | pixels |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for look in LOOKS:
        for name in ("judge", "readout"):
            rows = [record[f"{name} {look}"] for record in records]
            known = [interval([row[key] for row in rows], 2) for key in ("correlation", "pixels")]
            for count in FINISH:
                gains = [row["gains"] for row in rows]
                kept = [
                    interval([g[str(count)][part] / g["16"][part] for g in gains], 2)
                    for part in (0, 1)
                ]
                lines.append(
                    f"| {look} of {STEPS} | {name} | {' | '.join(known)} | {count} of 16 | "
                    f"{cost(look, count):.0%} | {' | '.join(kept)} |"
                )
    end = interval([record["end"]["pixels"] for record in records], 2)
    lines.append(f"| the end | judge | 1.00 | {end} | 16 of 16 | 100% | 1.00 | 1.00 |")
    return "\n".join(lines) + "\n"


def interval(values: list[float], digits: int) -> str:
    """Mean and half width of the 95% t interval."""
    table = torch.tensor(values).double()
    mean = f"{table.mean().item():.{digits}f}"
    if len(values) < 2:
        return mean
    half = student_quantile(0.025, len(values) - 1) * table.std().item() / len(values) ** 0.5
    return f"{mean} ± {half:.{digits}f}"


def main() -> None:
    """Read the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/early_look"))
    parser.add_argument("--results", type=Path, default=Path("studies/early_look_results"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        path = args.results / f"{seed}.json"
        if not path.exists():
            began = time.process_time()
            record = run(seed, args.work)
            write_text(path, json.dumps(record) + "\n")
            print(f"seed {seed}: {time.process_time() - began:.0f} CPU seconds", flush=True)
    print(report([json.loads(path.read_text()) for path in sorted(args.results.glob("*.json"))]))


if __name__ == "__main__":
    main()
