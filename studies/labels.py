"""Gain of active choice of pairs: labels against accuracy, simulated raters, two generators.

    python -m studies.labels --work runs/labels

Each run is one JSON file in `--results`; what is there is not run again. Then the page is written,
from whatever results there are. The loop is that of `gtsvj label`: its draws, its rule, its fits.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.demo.candidates import choose_prompts, generate
from gtsvj_reward.demo.story import choice_of
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.labelling import Clip, ClipSet, SessionSettings
from gtsvj_reward.labelling.asking import Asking
from gtsvj_reward.labelling.beliefs import beliefs_of
from gtsvj_reward.labelling.fitting import Model
from gtsvj_reward.labelling.labels import Choice, Labels
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.store import clip_info, load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import save_latents
from gtsvj_reward.toy.pipeline import PIPELINE, UNSTEADY, load_pipeline
from gtsvj_reward.toy.raters import TIE_THRESHOLD
from gtsvj_reward.toy.world import FRAMES, captions
from gtsvj_reward.training import JudgeArguments, build_judge
from studies.labels_page import BUDGETS, SEEDS, page, read_records

GENERATORS = {"unsteady": UNSTEADY, "plain": PIPELINE}
PROMPTS = {"pool": 24, "test": 12}
EACH = 10
"""Clips of each prompt."""
GAP = 2.5
"""Logits between two clips of a prompt whose measured steadiness differs by one deviation."""


class World:
    """Clips of a generator, with their steadiness measured in pixels."""

    def __init__(self, name: str, work: Path) -> None:
        self.folder = work / name
        self.name = name
        if not (self.folder / "test.safetensors").exists():
            self.make()
        self.truth = {part: self.measured(part) for part in PROMPTS}
        self.clips = self.clip_set("pool")
        arguments = JudgeArguments(base_model=PIPELINE, readout="moments", lora_rank=0)
        first = self.clips[0].latents
        assert first is not None  # noqa: S101 - made above
        judge = build_judge(arguments, first.space, seed=0)
        self.model = Model(judge, self.clips, features=self.folder / "features", batch_size=16)
        self.model.read(lambda _: None)
        names = self.model.cache.read(
            [lambda i=clip.latents: load_clip(i.path).latents for clip in self.clip_set("test")],  # type: ignore[misc]
            "test clips",
        )
        self.test = self.model.cache.features(names)

    def make(self) -> None:
        """Sample all clips; prompts of the pool and of the test differ."""
        pipe = load_pipeline(GENERATORS[self.name])
        space = LatentSpace.from_pipeline(pipe)
        chosen = choose_prompts(captions()[0], PROMPTS["test"], PROMPTS["pool"], seed=5)
        for number, (part, prompts) in enumerate(zip(("test", "pool"), chosen, strict=True)):
            lot = generate(pipe, prompts, EACH, 70_000 + 10_000 * number, f"{self.name} {part}")
            for index, latents in enumerate(lot.latents):
                path = self.folder / part / f"{index // EACH:02d}-{index % EACH}.safetensors"
                save_latents(path, latents, space, FRAMES, {"prompt": prompts[index // EACH]})
            measured = {"steadiness": lot.steadiness}
            write_safetensors(self.folder / f"{part}-measured.safetensors", measured, {})
        write_safetensors(self.folder / "test.safetensors", {"done": torch.ones(1)}, {})

    def measured(self, part: str) -> Tensor:
        """Steadiness (prompt, clip), in deviations within a prompt of the pool."""
        values = {
            name: read_safetensors(self.folder / f"{name}-measured.safetensors")[0]["steadiness"]
            for name in ("pool", part)
        }
        deviation = values["pool"].view(-1, EACH).var(dim=1).mean().sqrt()
        return values[part].view(-1, EACH).double() / deviation

    def clip_set(self, part: str) -> ClipSet:
        """The clips of a part."""
        paths = sorted((self.folder / part).glob("*.safetensors"))
        clips = [
            Clip(
                number=number, name=path.stem, path=path, group=path.stem[:2], prompt=None,
                latents=clip_info(path),
            )
            for number, path in enumerate(paths)
        ]  # fmt: skip
        return ClipSet(self.folder / part, clips)

    def says(self, seed: int, left: int, right: int) -> int:
        """A rater's answer; for a pair it depends neither on the rule nor on the order."""
        truth, turned = self.truth["pool"].flatten(), left > right
        one, other = sorted((left, right))
        gap = GAP * (truth[one] - truth[other]).item()
        draw = torch.rand((), generator=keyed_generator(seed, 51, one, other)).item()
        wins = 1 / (1 + math.exp(TIE_THRESHOLD - gap))
        loses = 1 / (1 + math.exp(TIE_THRESHOLD + gap))
        label = 1 if draw < wins else -1 if draw < wins + loses else 0
        return -label if turned else label

    def score(self) -> dict[str, float]:
        """Metrics of the judge on other prompts: pairs in order, and gain of best-of-10."""
        scores = beliefs_of(self.model.judge, [self.test], 0).scores.view(-1, EACH)
        truth = self.truth["test"]
        first, second = torch.triu_indices(EACH, EACH, 1)
        right = (scores[:, first] > scores[:, second]) == (truth[:, first] > truth[:, second])
        gains = [choice_of(s, t).gain for s, t in zip(scores, truth, strict=True)]
        return {"accuracy": right.double().mean().item(), "gain": sum(gains) / len(gains)}


def run(world: World, choice: Choice, seed: int, budgets: list[int]) -> dict[str, Any]:
    """Label as `gtsvj label` does, and score the judge at some numbers of labels."""
    settings = SessionSettings(choice=choice, double_share=0.0, seed=seed)
    labels, model = Labels(), world.model
    asking = Asking(world.clips, settings, labels)
    model.beliefs, model.judge = None, model.start
    curve = []
    for number in range(max(budgets)):
        drawn = asking.draw("rater", model.beliefs, number)
        if drawn is None:
            raise RuntimeError(f"the pool has only {number} pairs")
        ticket = str(number)
        labels.apply(
            {"event": "shown", "ticket": ticket, "rater": "rater", "task": "compare", **drawn}
        )
        left, right = (world.clips.numbers[name] for name in drawn["clips"])
        said = world.says(seed, left, right)
        labels.apply({"event": "answer", "ticket": ticket, "label": said, "time": 0.0})
        if number + 1 in budgets:
            model.fit("compare", labels.given("compare"), ())
            curve.append({"labels": number + 1, **world.score()})
    kinds = [answer.task.choice for answer in labels.given("compare")]
    return {"curve": curve, "active": kinds.count("active")}


def ran_as_far(path: Path, most: int) -> bool:
    """Whether a saved run reached this number of labels."""
    curve = json.loads(path.read_text())["curve"]
    return bool(curve[-1]["labels"] >= max(b for b in BUDGETS if b <= most))


def main() -> int:
    """Read the command line; run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/labels"), help="clips, features")
    parser.add_argument("--results", type=Path, default=Path("studies/label_results"))
    parser.add_argument("--page", type=Path, default=Path("docs/study/labels.md"))
    parser.add_argument("--most", type=int, default=max(BUDGETS), help="labels of a run")
    parser.add_argument("--only", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--page_only", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    worlds: dict[str, World] = {}
    for seed in range(0 if args.page_only else SEEDS):
        for name in args.only:
            for choice in ("random", "active"):
                path = args.results / f"{name}-{choice}-{seed}.json"
                if path.exists() and ran_as_far(path, args.most):
                    continue
                if name not in worlds:
                    worlds[name] = World(name, args.work)
                began = time.monotonic()
                record = run(worlds[name], choice, seed, [b for b in BUDGETS if b <= args.most])  # type: ignore[arg-type]
                known = {"generator": name, "choice": choice, "seed": seed}
                seconds = round(time.monotonic() - began)
                write_text(path, json.dumps(known | record | {"seconds": seconds}) + "\n")
                print(f"{time.strftime('%H:%M:%S')} {path.stem} {seconds} s", flush=True)
    write_text(args.page, page(read_records(args.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
