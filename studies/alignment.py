"""Does alignment with a judge improve what pixels show? The examples on the toy world.

    python -m studies.alignment --work runs/alignment

Each algorithm and seed trains as `examples/` does; then policy and untrained generator make the
same fresh clips, which the reward and the world's own measures look at. What is in the results
folder is not run again; an interrupted run goes on.
"""

import argparse
import importlib
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from gtsvj_reward.alignment import AlignmentRun
from gtsvj_reward.alignment.run import SOUND
from gtsvj_reward.files import write_text
from studies.alignment_judges import judge_settings
from studies.alignment_page import file_name, planned, write_page

ROOT = Path(__file__).resolve().parents[1]
FRESH = 9
"""Second number of the keys of fresh clips; training and checkups have others."""


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line."""
    words = []
    for name, value in settings.items():
        items = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, items)]
    return words


def fresh_measures(run: AlignmentRun, count: int, *, reference: bool) -> dict[str, list[float]]:
    """Reward and eval metrics of clips that the policy, or the untrained generator, makes anew."""
    # The prompts differ from the first ones of a checkup.
    order = torch.randperm(len(run.sampler.prompts), generator=torch.Generator().manual_seed(FRESH))
    texts = [run.sampler.prompts[order[index % len(order)]] for index in range(count)]
    keys = [(run.arguments.seed, FRESH, index) for index in range(count)]
    with run.policy.reference() if reference else nullcontext():
        made = torch.cat([batch.clean for batch in run.sampler.rollouts(texts, keys, eta=0.0)])
    checkup = run.evaluation.measure(run.policy.unpadded(made), texts)
    found = {"reward": checkup.proxy.tolist()}
    return found | {name: values.tolist() for name, values in checkup.eval_metrics.items()}


def train_and_measure(
    name: str, judge: str, seed: int, config: dict[str, Any], work: Path
) -> dict[str, Any]:
    """One algorithm, judge and seed, from training to fresh clips."""
    algorithm, began = config["algorithms"][name], time.process_time()
    folder = work / f"{name}-{judge}-{seed}"
    settings = {
        **config["common"],
        **algorithm["settings"],
        **judge_settings(config["judges"][judge], seed, work / "judges"),
        "seed": seed,
        "output_dir": folder,
    }
    run = importlib.import_module(algorithm["script"]).main(flags(settings))
    before = fresh_measures(run, config["fresh_clips"], reference=True)
    last = fresh_measures(run, config["fresh_clips"], reference=False)
    sound = load_file(folder / SOUND / "pytorch_lora_weights.safetensors")
    kept = {key.removeprefix("transformer."): tensor for key, tensor in sound.items()}
    after = last
    if any(not torch.equal(kept[key], own) for key, own in run.policy.adapter().items()):
        run.policy.load_adapter(kept)
        after = fresh_measures(run, config["fresh_clips"], reference=False)
    return {
        "algorithm": name,
        "judge": judge,
        "seed": seed,
        "before": before,
        "after": after,
        "last": last,
        "stopped": run.stopped,
        "journal": run.journal.entries,
        "cpu_minutes": (time.process_time() - began) / 60,
    }


def main(argv: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "studies" / "alignment.yaml")
    parser.add_argument("--work", type=Path, default=Path("runs/alignment"))
    parser.add_argument("--results", type=Path, default=ROOT / "studies" / "alignment_results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "alignment")
    parser.add_argument("--only", nargs="*", help="algorithms; all by default")
    parser.add_argument("--judges", nargs="*", help="all by default")
    parser.add_argument("--seeds", nargs="*", type=int, help="all by default")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    sys.path.insert(0, str(ROOT / "examples"))
    config = yaml.safe_load(args.config.read_text())
    for name, judge, seed in planned(config):
        asked = (args.only, name), (args.judges, judge), (args.seeds, seed)
        path = args.results / file_name(name, judge, seed)
        if path.exists() or any(some and one not in some for some, one in asked):
            continue
        record = train_and_measure(name, judge, seed, config, args.work)
        write_text(path, json.dumps(record) + "\n")
        minutes = record["cpu_minutes"]
        print(f"{name} with {judge}, seed {seed}: {minutes:.1f} CPU minutes", flush=True)
    write_page(args.results, args.page, config)


if __name__ == "__main__":
    main()
