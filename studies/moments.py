"""Moment judges against hand-made statistics, with seeds and many pairs.

    python -m studies.moments --work runs/moments

Each row and seed is one JSON file in `--results`; what is there is not run again. Then the page is
written, from whatever results there are.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward import GTSVJReward
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.files import write_text
from gtsvj_reward.judge import Aspect, VideoJudge
from gtsvj_reward.judge.moments import default_taps
from gtsvj_reward.random_keys import keyed_generator, keyed_order
from gtsvj_reward.toy.raters import ASPECTS, HIGH, LOW
from gtsvj_reward.training.closed_form.features import FeatureCache, content_id
from gtsvj_reward.training.closed_form.refit import Contrast, Rated, refit
from studies.data import build, build_generated, build_made, test_pairs
from studies.moments_features import MADE, latents_of
from studies.moments_fits import Fits, Scorer
from studies.moments_lora import Tuned
from studies.moments_page import marks, page, read_records
from studies.moments_rows import BLOCKS, ROWS, Row
from studies.own_clips import build_own, rated_clips, within_prompts
from studies.semantic import KINDS, build_semantic, clip_names

LONG_ENOUGH = ("same", "graded", "cross")
"""Prefixes of the groups of test pairs for LoRA on moments."""

TEST_CLIPS = ("same", "cross-seen", "cross-unseen", "short", "long")
"""Prefixes of the names of test clips."""


class Study(Fits):
    """Judges and their results."""

    def __init__(self, settings: dict[str, Any], work: Path) -> None:
        super().__init__(settings, work)
        self.trained = cache(self.score_bundled)
        self.tuned = Tuned(self)

    def test(self, row: Row, seed: int) -> dict[str, Any]:
        """Results of a row's judge on the row's tests."""
        if row.on == "semantic":
            return self.test_semantic(row, seed)
        if row.kind in ("tuned_energy", "tuned"):
            pairs = [pair for pair in test_pairs(self.data) if pair.group.startswith(LONG_ENOUGH)]
            fitted = (
                self.tuned.energy(seed) if row.kind == "tuned_energy" else self.tuned.reward(seed)
            )
            return {"tests": marks(pairs, self.tuned.scores(*fitted, pairs))}
        if row.kind == "bundled":
            return {"tests": marks(test_pairs(self.data), self.trained())}
        score = self.fit_own(row, seed) if row.kind == "labels" else self.fit(row, seed)
        if row.on == "own":
            table = self.table(row.reads, "own")
            scores = dict(zip(table.rows, score(table.features).tolist(), strict=True))
            found = within_prompts(self.data, self.settings["own"], scores)
            return {"tests": {name: {"values": values} for name, values in found.items()}}
        scores = {}
        for start in TEST_CLIPS:
            table = self.table(row.reads, "test", start)
            scores.update(zip(table.rows, score(table.features).tolist(), strict=True))
        return {
            "tests": marks(test_pairs(self.data), scores),
            "penalties": {stage: vars(chosen) for stage, chosen in score.penalties.items()},
        }

    def score_bundled(self) -> dict[str, float]:
        """Scores of all test clips by the bundled judge that was trained with LoRA."""
        reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", allow_untrained_geometry=True)
        scores: dict[str, float] = {}
        for start in TEST_CLIPS:
            paths = sorted((self.data / "test").glob(f"{start}*.safetensors"))
            for first in tqdm(range(0, len(paths), 16), f"score {start}", leave=False):
                some = paths[first : first + 16]
                with torch.no_grad():
                    found = reward(torch.stack([latents_of(path) for path in some]))
                scores.update(zip((path.stem for path in some), found.tolist(), strict=True))
        return scores

    def fit_own(self, row: Row, seed: int) -> Scorer:
        """A judge of ratings of the generators' own clips; their prompts are not in the test."""
        names, ratings, prompts = rated_clips(self.data, self.settings["own"], seed)
        clips = self.table(row.reads, "own")(names)
        return self.fit_aspects(row, seed, clips, ratings[:, None], prompts)

    def test_semantic(self, row: Row, seed: int) -> dict[str, Any]:
        """Pairs of a scene with and without a fault; labelled pairs are of other scenes."""
        sizes, table = self.settings["semantic"], self.table(row.reads, "semantic")
        tests: dict[str, Any] = {}
        for fault, kind in KINDS.items():
            both = [("clean", kind.motion), (fault, kind.motion)]
            if row.kind == "labels":
                drawn = keyed_order(sizes["pool"], seed, 7)[: row.labels or sizes["labelled"]]
                sides = [table(clip_names("pool", *side, drawn)) for side in both]
                score = self.fit_pairs(row, seed, *sides)
            else:
                score = self.fit(row, seed)
            clean, damaged = (
                score(table(clip_names("test", *side, range(sizes["test"])))) for side in both
            )
            found = torch.sign(clean - damaged).int() + 1
            tests[fault] = {"marks": "".join(map(str, found.tolist())), "unit": 1}
        return {"tests": tests}

    def uncertainty(self, seed: int) -> dict[str, Any]:
        """Coverage of held-out ratings, and uncertainty on out-of-distribution clips."""
        columns, _ = self.columns("trained", "three")
        judge = self.judge("trained", *default_taps(len(self.widths("trained")) - 1))
        known = FeatureCache(judge, batch_size=16)
        for folder in ("real", "labelled", "generated"):
            table = self.table("trained", folder)
            for name, row in table.rows.items():
                latents = latents_of(self.data / folder / f"{name}.safetensors")
                known.known[content_id(latents)] = table.features[row, columns]
        fitted = refit(
            judge,
            known,
            contrast=[
                Contrast(
                    partial(latents_of, self.data / "real" / f"{source}.safetensors"),
                    load,
                    (source, source if "/" in name else name),
                )
                for source, name, load in self.negatives("extended", seed)
            ][:: self.draws["negatives"]],
            ratings=[self.rating(row) for row in self.labels(seed, None)],
            aspects=[Aspect(name=name, low=LOW, high=HIGH) for name in ASPECTS],
            seed=seed,
        )
        values = self.coverage(fitted)
        paths = sorted((self.data / "real_held_out").iterdir())
        clean = torch.stack([latents_of(path) for path in paths])
        strange = {
            "optimised": optimised(fitted, clean, self.settings["optimised_steps"]),
            "noise": torch.randn(clean.shape, generator=keyed_generator(seed, 6)),
            "scaled": 1.5 * clean,
            "foreign": self.foreign(len(clean)),
        }
        with torch.no_grad():
            usual = fitted(clean).leverage.sqrt()
            for name, changed in strange.items():
                ratio = fitted(changed).leverage.sqrt() / usual
                values |= {f"{name}_larger": (ratio > 1).float(), f"{name}_ratio": ratio}
        return {
            "tests": {
                name: {"values": [round(value, 4) for value in each.tolist()]}
                for name, each in values.items()
            }
        }

    def foreign(self, count: int) -> Tensor:
        """Clips of a generator whose clips the judge was not trained on."""
        paths = sorted((self.data / "own").glob("test-unsteady-*.safetensors"))
        return torch.stack([latents_of(path) for path in paths[:: len(paths) // count][:count]])

    def coverage(self, judge: VideoJudge) -> dict[str, Tensor]:
        """Share of held-out ratings in the judge's intervals."""
        columns, _ = self.columns("trained", "three")
        apart = self.rated()[-self.draws["held_out_ratings"] :]
        features = self.table("trained", "labelled")([row["video"] for row in apart])
        with torch.no_grad():
            found = judge.from_moments(features[:, None, columns])
        truth = torch.tensor([[float(row[name]) for name in ASPECTS] for row in apart])
        deviation = (judge.head.noise.diagonal() * (1 + found.leverage[:, None])).sqrt()
        error = ((truth - LOW) / (HIGH - LOW) - found.aspects[:, 0]).abs() / deviation
        return {
            f"coverage_{share}": (error < NormalDist().inv_cdf(0.5 + share / 200)).float().mean(1)
            for share in (50, 80, 95)
        }

    def rating(self, row: Mapping[str, str]) -> Rated:
        """A rated clip."""
        path = self.data / "labelled" / f"{row['video']}.safetensors"
        scores = {name: float(row[name]) for name in ASPECTS}
        return Rated(partial(latents_of, path), scores, row["video"])


def optimised(judge: VideoJudge, clips: Tensor, steps: int) -> Tensor:
    """Clips after some steps of Adam on their own score."""
    changed = clips.clone().requires_grad_()
    optimizer = torch.optim.Adam([changed], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (-judge(changed).scores.mean(dim=1).sum()).backward()
        optimizer.step()
    return changed.detach()


def run(study: Study, results: Path) -> None:
    """Rows and seeds without a result, the most important first."""
    only = chosen(study.settings)
    for block in BLOCKS:
        for seed in range(study.settings["seeds"]):
            for row in block:
                path = results / f"{row.name}-{seed}.json"
                if row.name not in only or path.exists():
                    continue
                began = time.monotonic()
                uncertain = row.kind == "uncertainty"
                record = study.uncertainty(seed) if uncertain else study.test(row, seed)
                known = {"row": row.name, "seed": seed, "seconds": time.monotonic() - began}
                write_text(path, json.dumps(known | record) + "\n")
                print(f"{time.strftime('%H:%M:%S')} {path.stem}", flush=True)


def chosen(settings: dict[str, Any]) -> list[str]:
    """Requested rows, by default all."""
    return settings.get("only") or [row.name for row in ROWS]


def build_all(settings: dict[str, Any], data: Path) -> None:
    """Make missing clips of the rows."""
    build(data, settings["sizes"], pipeline=settings["pipeline"])
    build_generated(data, settings["sizes"], pipeline=settings["pipeline"])
    on = {row.on for row in ROWS if row.name in chosen(settings)}
    if "semantic" in on:
        build_semantic(data / "semantic", settings["semantic"], load_vae(settings["pipeline"]))
    if any(row.negatives in MADE for row in ROWS if row.name in chosen(settings)):
        build_made(data, pipeline=settings["pipeline"])
    if "own" in on or "uncertainty" in chosen(settings):
        build_own(data, settings["own"])


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line; build what is missing, run, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("studies/moments.yaml"))
    parser.add_argument("--work", type=Path, default=Path("runs/moments"), help="data, features")
    parser.add_argument("--results", type=Path, default=Path("studies/moment_results"))
    parser.add_argument("--page", type=Path, default=Path("docs/study/moments.md"))
    parser.add_argument("--only", nargs="+", help="run these rows alone")
    args = parser.parse_args(argv)
    settings = yaml.safe_load(args.config.read_text())
    settings["only"] = args.only or settings.get("only")
    torch.set_num_threads(settings["threads"])
    build_all(settings, args.work / "data")
    run(Study(settings, args.work), args.results)
    write_text(args.page, page(read_records(args.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
