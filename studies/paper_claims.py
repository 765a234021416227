"""The paper's claims in miniature: which hold on the toy world, and which do not.

    python -m studies.paper_claims --config studies/paper_claims.yaml --work runs/study

Each row and seed is one JSON file in `--results`; what is there is not run again, so that the study
can be interrupted at any time and shared by several workers. Then the page is written.
"""

import argparse
import fcntl
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from gtsvj_reward.files import write_text
from studies.baselines import baseline_scores
from studies.data import build, build_generated
from studies.page import write_page
from studies.rows import BASELINES, Row, rows
from studies.running import Study, accuracies


@dataclass(frozen=True)
class Task:
    """One row with one seed, or one baseline."""

    name: str
    seed: int
    row: Row | None
    """None: a baseline."""

    @property
    def shared(self) -> str:
        """Key of tasks that must not run at the same time."""
        if self.row is None:
            return f"{self.name}-{self.seed}"
        if self.row.stage1 is None:
            return f"{self.name}-{self.seed}"
        calibrated = self.row.stage1.negatives == "calibrated"
        return self.row.stage1.name if calibrated else f"{self.row.stage1.name}-{self.seed}"


def tasks(settings: dict[str, Any]) -> list[Task]:
    """All tasks, the most important first; `seeds` and `only` of the settings shorten the list."""
    limit, only = settings.get("seeds", 5), settings.get("only")
    table = [*rows()]
    found = [Task(row.name, seed, row) for row in table[:3] for seed in range(row.seeds)]
    found += [Task(name, seed, None) for name in BASELINES for seed in range(5)]
    found += [Task(row.name, seed, row) for row in table[3:] for seed in range(row.seeds)]
    return [task for task in found if task.seed < limit and (only is None or task.name in only)]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a lock file for as long as the process lives; False if another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_task(study: Study, task: Task) -> dict[str, Any]:
    """Train and test."""
    began = time.monotonic()
    if task.row is None:
        labels = study.labels(study.settings["labels"], task.seed)
        steps = 2 * study.settings["aspects"]["max_steps"]
        scores = baseline_scores(task.name, study.data, labels, study.clips, task.seed, steps)
        return {"accuracy": accuracies(study.pairs, scores), "seconds": time.monotonic() - began}
    record: dict[str, Any] = {}
    if task.row.stage1 is not None:
        folder = study.discriminator(task.row.stage1, task.seed)
        record["stage1"] = json.loads((folder / "metrics.json").read_text())
        record["zero_shot"] = study.zero_shot(folder)
    record.update(study.test(study.reward(task.row, task.seed)))
    return {**record, "seconds": time.monotonic() - began}


def work_through(study: Study, todo: list[Task], results: Path) -> list[str]:
    """Run tasks that no other worker runs until none is left; returns those that failed."""
    failed: set[str] = set()
    while True:
        missing = [task for task in todo if not result_file(results, task).exists()]
        missing = [task for task in missing if f"{task.name}-{task.seed}" not in failed]
        if not missing:
            return sorted(failed)
        ran = False
        for task in missing:
            with claimed(study.work / "claims" / task.shared) as mine:
                file = result_file(results, task)
                if not mine or file.exists():
                    continue
                print(f"{time.strftime('%H:%M:%S')} {task.name} seed {task.seed}", flush=True)
                try:
                    record = run_task(study, task)
                except Exception:  # noqa: BLE001 - the other rows go on; the exit status tells
                    traceback.print_exc()
                    failed.add(f"{task.name}-{task.seed}")
                    continue
                record = {"row": task.name, "seed": task.seed, **record}
                write_text(file, json.dumps(record, indent=1) + "\n")
                ran = True
                break
        if not ran:
            time.sleep(2)


def result_file(results: Path, task: Task) -> Path:
    """Where a task's result goes."""
    return results / f"{task.name}-{task.seed}.json"


def work(settings: dict[str, Any], args: argparse.Namespace) -> int:
    """Run what is missing, as one of the workers; the exit status."""
    failed = work_through(Study(settings, args.work), tasks(settings), args.results)
    print("failed:" if failed else "done", *failed, flush=True)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line; build the data, start the workers, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("studies/paper_claims.yaml"))
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="data and judges")
    parser.add_argument("--results", type=Path, default=Path("studies/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/study"), help="folder of the page")
    parser.add_argument("--only", nargs="+", help="run these rows alone")
    parser.add_argument("--seeds", type=int, help="of each row, at most")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(given)
    settings = yaml.safe_load(args.config.read_text())
    settings["only"] = args.only or settings.get("only")
    settings["seeds"] = args.seeds or settings.get("seeds", 5)
    torch.set_num_threads(settings["threads"])
    if args.worker:
        return work(settings, args)
    build(args.work / "data", settings["sizes"], pipeline=settings["pipeline"])
    build_generated(args.work / "data", settings["sizes"], pipeline=settings["pipeline"])
    command = [sys.executable, "-m", "studies.paper_claims", *given, "--worker"]
    others = [subprocess.Popen(command) for _ in range(settings["workers"] - 1)]
    status = max(work(settings, args), *(worker.wait() for worker in others), 0)
    write_page(args.results, args.page, settings)
    return status


if __name__ == "__main__":
    sys.exit(main())
