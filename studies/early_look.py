"""What an early look at candidates keeps of the gain of best-of-16, at which share of the cost.

    python -m studies.early_look --work runs/early_look

Candidates of the toy world's unsteady generator, 10 steps; the reward is the aspect "steadiness" of
the bundled judge. After 2, 3 or 5 steps the clean latents that the generator predicts are scored:
by the judge itself, and by a readout that was fitted to such predictions of clips of other prompts,
with the judge's score of the finished clip as its target. No label is used. The gain is that of the
chosen clip over the mean one, of the reward and of the steadiness of pixels. Each seed has other
prompts and noise; what is in the results folder is not run again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward import GTSVJReward
from gtsvj_reward.alignment import ClipSize, Policy, batches, rollout
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.metrics.student import student_quantile
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import UNSTEADY, decode, load_pipeline
from gtsvj_reward.toy.world import FRAMES, SIZE, captions
from gtsvj_reward.training.closed_form import FeatureCache, fit_level

STEPS, LOOKS = 10, (2, 3, 5)
"""Denoising steps, and after how many of them candidates are looked at."""
PROMPTS, EACH = {"fit": 32, "test": 16}, {"fit": 8, "test": 16}
FINISH = (2, 4, 8)
"""Candidates that are finished, of 16."""
BATCH = 32


def make(seed: int, file: Path) -> dict[str, Tensor]:
    """Clips of a seed, what was predicted of them, and their steadiness; kept on disk."""
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
    reward = GTSVJReward.from_pretrained(
        "gtsvj-toy", aspects=["steadiness"], check_statistics=False, batch_size=BATCH
    )
    cache = FeatureCache(reward.judge, work / "features", batch_size=BATCH)
    with torch.no_grad():
        final = {part: reward(found[f"{part} clean"]) for part in PROMPTS}
    prompt = torch.arange(PROMPTS["fit"]).repeat_interleave(EACH["fit"])
    record: dict[str, Any] = {}
    for look in LOOKS:
        readout = fit_level(
            reward.judge,
            cache,
            predicted=[lambda clip=clip: clip for clip in found[f"fit look {look}"]],
            scores=final["fit"],
            groups=[str(number) for number in prompt.tolist()],
        )
        own = GTSVJReward(readout, check_statistics=False, batch_size=BATCH)
        for name, looking in (("judge", reward), ("readout", own)):
            with torch.no_grad():
                early = looking(found[f"test look {look}"])
            record[f"{name} {look}"] = measures(early, final["test"], found["test steadiness"])
    return record


def measures(early: Tensor, final: Tensor, steady: Tensor) -> dict[str, Any]:
    """Correlation with the final score within a prompt, and shares of the gain of best-of-16."""
    rows = [values.double().view(-1, EACH["test"]) for values in (early, final, steady)]
    first, last, pixels = (values - values.mean(dim=1, keepdim=True) for values in rows)
    correlation = (first * last).sum(1) / (first.norm(dim=1) * last.norm(dim=1))
    best = last.argmax(dim=1)
    place = torch.arange(len(last))
    gains = {"16": [last[place, best].mean().item(), pixels[place, best].mean().item()]}
    for count in FINISH:
        finished = first.topk(count, dim=1).indices
        chosen = finished.gather(1, last.gather(1, finished).argmax(dim=1)[:, None])[:, 0]
        gains[str(count)] = [last[place, chosen].mean().item(), pixels[place, chosen].mean().item()]
    return {"correlation": correlation.mean().item(), "gains": gains}


def cost(look: int, count: int) -> float:
    """Denoising steps as a share of those of best-of-16."""
    return (16 * look + count * (STEPS - look)) / (16 * STEPS)


def report(records: list[dict[str, Any]]) -> str:
    """A table: correlation and share of the gain, with 95% t intervals over seeds.

    The gain of pixels is given as it is: that of best-of-16 itself is not clear of zero in each
    seed, so that a share of it means nothing.
    """
    lines = ["| look | scored by | correlation | finished | cost | share of gain | of pixels |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    full = interval([record[f"judge {LOOKS[0]}"]["gains"]["16"][1] for record in records], 3)
    lines.append(f"| at the end | judge | 1.00 | 16 of 16 | 100% | 1.00 | {full} |")
    for look in LOOKS:
        for name in ("judge", "readout"):
            rows = [record[f"{name} {look}"] for record in records]
            correlation = interval([row["correlation"] for row in rows], 2)
            for count in FINISH:
                gains = [row["gains"] for row in rows]
                share = interval([g[str(count)][0] / g["16"][0] for g in gains], 2)
                pixels = interval([g[str(count)][1] for g in gains], 3)
                lines.append(
                    f"| {look} of {STEPS} | {name} | {correlation} | {count} of 16 | "
                    f"{cost(look, count):.0%} | {share} | {pixels} |"
                )
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
