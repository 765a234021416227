"""Does the gradient of a score point from a faulty clip towards its clean twin?

    python -m studies.gradients --work runs/moments

Clips are those of the study of moments, in the same folder. Each row is measured once and kept in
`studies/alignment_results/gradients.json`; what is there is not run again. Then the page is
written.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward import JudgeConfig, VideoJudge
from gtsvj_reward.files import write_text
from gtsvj_reward.judge.readout import tap_widths
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.perturbations import GENERATED, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import ClipSpec, encode_specs
from gtsvj_reward.toy.degradations import FAULTS
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import decode, load_pipeline
from gtsvj_reward.toy.world import draw_scene
from studies.baselines import statistics
from studies.data import STRONG, build_generated
from studies.gradients_page import CLIMBING, write_page
from studies.gradients_scores import Clips, Energy, Score, judged, smoothed, through_generator

ROOT = Path(__file__).resolve().parents[1]
SCENE_KEY = 17
"""Scenes of the study's clips of the same content."""
AT_ONCE = 24
ASCENT_STEPS, ASCENT_LENGTH = 10, 0.5
"""Steps of equal length; together they are this share of the way to the clean twin."""
DRAWS = 4
SMOOTHING = (0.1, 0.4)
STRENGTHS = (1.0, 10.0, 100.0)
RULED = ("flicker", "colour_drift")
"""Faults that a ruler in the pixels measures."""


class Study:
    """Clips, and the scores of the rows."""

    def __init__(self, work: Path, scenes: int, fitted: int) -> None:
        self.data, self.scenes, self.fitted = work / "data", scenes, fitted
        self.pipe = load_pipeline()
        self.texts = [draw_scene(SCENE_KEY, index).caption for index in range(scenes)]
        specs = [ClipSpec(f"real-{index:05d}", (11, index), {}) for index in range(fitted)]
        encode_specs(specs, self.pipe.vae, self.data / "real", bfloat16=True)
        sizes = {"generated": 320, "held_out": 32}
        build_generated(self.data, sizes, pipeline="gtsvj-toy-pipeline")
        same = [
            ClipSpec(f"same-{index:03d}-clean", (SCENE_KEY, index), {}) for index in range(scenes)
        ]
        for index in range(scenes):
            same += [
                ClipSpec(f"same-{index:03d}-{fault}-strong", (SCENE_KEY, index), {fault: STRONG})
                for fault in FAULTS
            ]
        encode_specs(same, self.pipe.vae, self.data / "test", bfloat16=True)

    def same(self, kind: str) -> Clips:
        """The scenes with a fault, or `clean`."""
        names = [f"same-{index:03d}-{kind}" for index in range(self.scenes)]
        return self.load("test", names)

    def load(self, folder: str, names: Sequence[str]) -> Clips:
        """Latents of clips."""
        paths = [self.data / folder / f"{name}.safetensors" for name in names]
        return torch.stack([load_clip(path).latents.float() for path in paths])

    @cached_property
    def fresh(self) -> VideoJudge:
        """A judge of moments that is not fitted."""
        space = load_clip(self.data / "real" / "real-00000.safetensors").space
        config = JudgeConfig(
            base_model="gtsvj-toy-pipeline", latent_space=space, readout="moments", lora_rank=0
        )
        return VideoJudge.from_transformer(self.pipe.transformer, config)

    def energy(self, features: Callable[[Clips], Tensor], widths: tuple[int, ...]) -> Energy:
        """Real clips against two negatives of each."""
        names = [f"real-{index:05d}" for index in range(self.fitted)]
        real, sampler = self.load("real", names), PerturbationSampler.extended()
        made = sorted(path.stem for path in (self.data / "generated").glob("*.safetensors"))
        negatives, groups = [], [*range(self.fitted)]
        for number in range(2 * self.fitted):
            draw, source = keyed_generator(84, number), number % self.fitted
            kind = sampler.draw(draw, generated_available=True).kind
            if kind == GENERATED:
                index = int(torch.randint(len(made), (), generator=draw))
                negatives.append(self.load("generated", [made[index]])[0])
                groups.append(self.fitted + index)
            else:
                negatives.append(sampler.apply(kind, real[source][None], draw)[0])
                groups.append(source)
        return Energy(features, widths, real, torch.stack(negatives), torch.tensor(groups))

    @cached_property
    def energies(self) -> dict[str, Score]:
        """Label-free energies of moments and of hand-made statistics."""
        config, backbone = self.fresh.config, self.fresh.backbone
        widths = tap_widths(config.taps or [], backbone.latent_channels, backbone.dim)
        moments = self.energy(lambda clips: self.fresh.moments(clips).mean(dim=1), widths)
        strengths = (0.0, *STRENGTHS)
        solved = moments.solve(0.1, strengths)
        named = {f"energy_r{strength:g}": s for strength, s in zip(strengths, solved, strict=True)}
        hand = self.energy(statistics, (statistics(moments.positive[:1]).shape[1],))
        return {
            "energy": named.pop("energy_r0"),
            **named,
            "hand": hand.solve(0.1, (0.0,))[0],
            "random": moments.random(),
        }

    def rows(self) -> dict[str, Callable[[], Score]]:
        """Row -> its score function."""
        found: dict[str, Callable[[], Score]] = {
            "gtsvj-toy": lambda: judged("gtsvj-toy"),
            "gtsvj-toy-lora": lambda: judged("gtsvj-toy-lora"),
            "energy": lambda: self.energies["energy"],
            "hand": lambda: self.energies["hand"],
        }
        bases = dict(found)
        for sigma in SMOOTHING:
            found[f"energy, noise {sigma:g}"] = self.changed(bases["energy"], smoothed, sigma)
        for strength in STRENGTHS:
            key = f"energy_r{strength:g}"
            found[f"energy, R1 and R2 {strength:g}"] = lambda key=key: self.energies[key]
        for name in ("energy", "hand"):
            for share in (0.1, 0.3):
                found[f"{name}, last step {share:g}"] = self.changed(
                    bases[name], self.through, share
                )
        found["random"] = lambda: self.energies["random"]
        found["random, last step 0.3"] = self.changed(found["random"], self.through, 0.3)
        found["gtsvj-toy, last step 0.3"] = self.changed(bases["gtsvj-toy"], self.through, 0.3)
        return found

    def changed(
        self, base: Callable[[], Score], change: Callable[[Score, float, int], Score], by: float
    ) -> Callable[[], Score]:
        """A modified score."""
        return lambda: change(base(), by, DRAWS)

    def through(self, score: Score, share: float, draws: int) -> Score:
        """A score of the generator's denoised clip."""
        return through_generator(score, self.pipe, share, draws)

    def measure(self, score: Score, *, climbs: bool) -> dict[str, Any]:
        """Fault -> per scene: cosine, whether the clean twin scores higher, and the ascent."""
        clean = self.same("clean")
        with torch.no_grad():
            best = batched(score, clean, self.texts)
        clean, texts = clean.repeat(len(FAULTS), 1, 1, 1, 1), self.texts * len(FAULTS)
        faulty = torch.cat([self.same(f"{fault}-strong") for fault in FAULTS])
        with torch.no_grad():
            worse = batched(score, faulty, texts)
        found = {
            "cosine": cosine(gradient(score, faulty, texts), clean - faulty),
            "right": (best.repeat(len(FAULTS)) > worse).float(),
        }
        end = ascent(score, faulty, clean, texts) if climbs else faulty
        if climbs:
            found["distance"] = norm(end - clean) / norm(faulty - clean)
        record = {}
        for place, fault in enumerate(FAULTS):
            own = slice(place * self.scenes, (place + 1) * self.scenes)
            values = {name: column[own] for name, column in found.items()}
            if climbs and fault in RULED:
                before, after, ideal = (
                    steadiness(torch.stack(decode(self.pipe, clips[own])))
                    for clips in (faulty, end, clean)
                )
                values |= {"steadier": after - before, "possible": ideal - before}
            record[fault] = {name: rounded(column) for name, column in values.items()}
        return record


def rounded(values: Tensor) -> list[float]:
    """Values as lists for JSON."""
    return [round(value, 4) for value in values.tolist()]


def norm(clips: Clips) -> Tensor:
    """Euclidean length of each clip's latents."""
    return clips.flatten(1).norm(dim=1)


def cosine(first: Clips, second: Clips) -> Tensor:
    """Cosine of each pair of clips."""
    return torch.cosine_similarity(first.flatten(1), second.flatten(1))


def batched(score: Score, clips: Clips, texts: Sequence[str]) -> Tensor:
    """Scores of clips."""
    starts = range(0, len(clips), AT_ONCE)
    return torch.cat([score(clips[i : i + AT_ONCE], texts[i : i + AT_ONCE]) for i in starts])


def gradient(score: Score, clips: Clips, texts: Sequence[str]) -> Clips:
    """Gradient of each clip's score."""
    parts = []
    for first in range(0, len(clips), AT_ONCE):
        some = clips[first : first + AT_ONCE].clone().requires_grad_()
        total = score(some, texts[first : first + AT_ONCE]).sum()
        parts.append(torch.autograd.grad(total, some)[0])
    return torch.cat(parts)


def ascent(score: Score, clips: Clips, clean: Clips, texts: Sequence[str]) -> Clips:
    """Clips after steps along the gradient, all of one length."""
    length = ASCENT_LENGTH / ASCENT_STEPS * norm(clean - clips)
    for _ in range(ASCENT_STEPS):
        found = gradient(score, clips, texts)
        clips = clips + (length / norm(found))[:, None, None, None, None] * found
    return clips


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/moments"))
    parser.add_argument(
        "--results", type=Path, default=ROOT / "studies/alignment_results/gradients.json"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs/alignment/gradients.md")
    parser.add_argument("--scenes", type=int, default=6, help="each with nine faults")
    parser.add_argument("--fitted", type=int, default=150, help="real clips of the energies")
    parser.add_argument("--only", nargs="*", help="rows; all by default")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = json.loads(args.results.read_text()) if args.results.exists() else {}
    study = Study(args.work, args.scenes, args.fitted)
    for name, make in study.rows().items():
        if name in known or (args.only and name not in args.only):
            continue
        began = time.process_time()
        known[name] = {"faults": study.measure(make(), climbs=name in CLIMBING)}
        known[name]["cpu_seconds"] = round(time.process_time() - began)
        write_text(args.results, json.dumps(known) + "\n")
        print(f"{name}: {known[name]['cpu_seconds']} CPU seconds", flush=True)
    write_page(known, args.page)


if __name__ == "__main__":
    main()
