"""Does a clip show its prompt? The prompt score and prompt-aware moments on the toy world.

    python -m studies.prompts --work runs/moments

Clips are those of the study of moments, in the same folder. Each seed is one JSON file in
`--results`; what is there is not run again. Then the page is written.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward import GTSVJReward, JudgeConfig, PromptScore, VideoJudge
from gtsvj_reward.backbones import denoising_errors
from gtsvj_reward.files import write_text
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.random_keys import keyed_generator, keyed_order
from gtsvj_reward.reward import text_of
from gtsvj_reward.toy.corpus import ClipSpec, encode_specs
from gtsvj_reward.toy.detector import caption_log_probability, load_detector
from gtsvj_reward.toy.pipeline import decode, load_pipeline
from gtsvj_reward.toy.world import COLOURS, MOTIONS, SHAPES, captions, draw_scene
from gtsvj_reward.training import Contrast, FeatureCache, refit, shown
from studies.data import build_generated
from studies.own_clips import MEASURED, build_own, prompts_of
from studies.prompts_page import ATTRIBUTES, write_page

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"pool": 120, "drawn": 80, "test": 24, "prompts": 3}
"""Clips with right and wrong captions that seeds draw from; that one draws; test clips of each kind
and prompts of the best of 10, of each seed."""
OWN = {"test_prompts": 16, "clips": 10, "rated_prompts": 24, "rated_clips": 5}
GENERATED = {"generated": 320, "held_out": 32}


def wrong_caption(text: str, attribute: str, generator: torch.Generator) -> str:
    """A caption with one attribute changed, or (`other`) any other caption."""

    def another(options: Sequence[str], own: str) -> str:
        rest = [option for option in options if option != own]
        return rest[int(torch.randint(len(rest), (), generator=generator))]

    count, colour, shapes, motion = text.split()
    shape = shapes.removesuffix("s")
    match attribute:
        case "count":
            count = another(("one", "two"), count)
        case "colour":
            colour = another(list(COLOURS), colour)
        case "shape":
            shape = another(SHAPES, shape)
        case "motion":
            motion = another(MOTIONS, motion)
        case _:
            return another(captions(), text)
    return f"{count} {colour} {shape}{'s' if count == 'two' else ''} {motion}"


class Study:
    """Clips, a generator, and the results of each seed.

    Args:
        work: folder of clips.
        sizes: see `SIZES`.
    """

    def __init__(self, work: Path, sizes: dict[str, int]) -> None:
        self.data, self.sizes = work / "data", sizes
        self.pipe = load_pipeline()
        self.detector = load_detector()
        total = sizes["pool"] + 5 * sizes["test"]
        specs = [ClipSpec(f"real-{index:05d}", (11, index), {}) for index in range(total)]
        encode_specs(specs, self.pipe.vae, self.data / "real", bfloat16=True)
        build_generated(self.data, GENERATED, pipeline="gtsvj-toy-pipeline")
        build_own(self.data, OWN)

    @cached_property
    def cache(self) -> FeatureCache:
        """Features of a fresh judge that reads prompts."""
        config = JudgeConfig(
            base_model="gtsvj-toy-pipeline",
            latent_space=PromptScore(self.pipe).space,
            readout="moments",
            lora_rank=0,
            text_input="prompt",
            prompt_dropout=0.1,
        )
        judge = VideoJudge.from_transformer(
            self.pipe.transformer, config, scheduler=self.pipe.scheduler
        )
        return FeatureCache(judge, self.data.parent / "prompt_features", batch_size=16)

    def encode(self, texts: Sequence[str]) -> Any:
        """Embeddings by the pipeline's text encoder."""
        return text_of(self.pipe, texts)

    @lru_cache(maxsize=512)  # noqa: B019
    def latents(self, name: str) -> Tensor:
        """Latents of a clip."""
        return load_clip(self.data / f"{name}.safetensors").latents.float()

    def load(self, name: str) -> Callable[[], Tensor]:
        """Loader of a clip's latents."""
        return lambda: self.latents(name)

    def prompt(self, name: str) -> str:
        """What a clip shows, or was asked to show."""
        if name.startswith("real/"):
            return draw_scene(11, int(name[-5:])).caption
        return str(load_clip(self.data / f"{name}.safetensors").settings["prompt"])

    def fit(self, seed: int) -> VideoJudge:
        """A judge of real clips under their captions against one attribute wrong."""
        order = keyed_order(self.sizes["pool"], 61, seed)[: self.sizes["drawn"]]
        pairs = []
        for index in order:
            name = f"real/real-{index:05d}"
            for place, attribute in enumerate(ATTRIBUTES):
                said = wrong_caption(
                    self.prompt(name), attribute, keyed_generator(62, index, place)
                )
                first, second = (
                    shown(self.load(name), text, self.encode) for text in (self.prompt(name), said)
                )
                pairs.append(Contrast(first, second, (name, name)))
        return refit(self.cache.judge, self.cache, contrast=pairs)

    def scores(
        self, judge: VideoJudge, names: Sequence[str], texts: Sequence[str], seed: int
    ) -> dict[str, list[float]]:
        """Scores of clips under texts by each way of scoring."""
        read = [shown(self.load(n), t, self.encode) for n, t in zip(names, texts, strict=True)]
        moments = self.cache.features(self.cache.read(read, "clips under captions"))
        gains = self.errors(tuple(names), ("",) * len(names), seed)
        gains = gains - self.errors(tuple(names), tuple(texts), seed)
        with torch.no_grad():
            own = judge.from_moments(moments[:, None]).scores[:, 0]
        return {"score": gains.tolist(), "moments": own.tolist()}

    @lru_cache(maxsize=64)  # noqa: B019
    def errors(self, names: tuple[str, ...], texts: tuple[str, ...], seed: int) -> Tensor:
        """The generator's errors, of which the prompt score is the difference."""
        score = PromptScore(self.pipe, seed=seed)
        clips = torch.stack([self.latents(name) for name in names])
        levels = list(score.levels.values())
        with torch.no_grad():
            found = denoising_errors(
                score.backbone, clips, levels, text=self.encode(texts), seed=seed
            )
        return found.mean(dim=(1, 2))

    @lru_cache(maxsize=1024)  # noqa: B019
    def frames(self, name: str) -> Tensor:
        """Decoded pixels of a clip."""
        return decode(self.pipe, self.latents(name)[None])[0]

    @lru_cache(maxsize=1024)  # noqa: B019
    def likelihood(self, names: tuple[str, ...], texts: tuple[str, ...]) -> Tensor:
        """Log-likelihood of captions of clips by the detector, in nats."""
        frames = torch.stack([self.frames(name) for name in names])
        return caption_log_probability(self.detector, frames, texts)

    def matched(self, judge: VideoJudge, names: Sequence[str], seed: int) -> dict[str, Any]:
        """Clips under their captions and under wrong ones; the detector reads decoded pixels."""
        own = [self.prompt(name) for name in names]
        found: dict[str, Any] = {}
        for place, kind in enumerate(("own", *ATTRIBUTES, "other")):
            texts = own
            if kind != "own":
                draws = [keyed_generator(63, seed, place, index) for index in range(len(names))]
                texts = [wrong_caption(t, kind, g) for t, g in zip(own, draws, strict=True)]
            detector = self.likelihood(tuple(names), tuple(texts)).tolist()
            found[kind] = {**self.scores(judge, names, texts, seed), "detector": detector}
        return found

    def best_of(self, judge: VideoJudge, seed: int) -> list[dict[str, Any]]:
        """Candidates of some prompts: each way of scoring, and what they show."""
        quality = GTSVJReward.from_pretrained(
            "gtsvj-toy", backbone=self.pipe.transformer, batch_size=16
        )
        measured = json.loads((self.data / MEASURED).read_text())
        each, found = self.sizes["prompts"], []
        for place in range(each * seed, each * (seed + 1)):
            names = [f"own/test-unsteady-{place:02d}-{n:02d}" for n in range(OWN["clips"])]
            prompt = prompts_of("test", OWN)[place]
            clips = torch.stack([self.latents(name) for name in names])
            with torch.no_grad():
                steady = quality(clips)
            texts = [prompt] * len(names)
            found.append(
                {
                    **self.scores(judge, names, texts, seed),
                    "quality": steady.tolist(),
                    "caption": self.likelihood(tuple(names), tuple(texts)).tolist(),
                    "steadiness": [measured[name.removeprefix("own/")] for name in names],
                }
            )
        return found

    def run(self, seed: int) -> dict[str, Any]:
        """All results of one seed."""
        judge, count = self.fit(seed), self.sizes["test"]
        first = self.sizes["pool"] + count * seed
        real = [f"real/real-{index:05d}" for index in range(first, first + count)]
        made = [f"generated/generated-{i:05d}" for i in range(count * seed, count * (seed + 1))]
        return {
            "real": self.matched(judge, real, seed),
            "generated": self.matched(judge, made, seed),
            "best_of": self.best_of(judge, seed),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/moments"))
    parser.add_argument("--results", type=Path, default=ROOT / "studies/prompt_results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/study/prompts.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study: Study | None = None
    for seed in args.seeds:
        file = args.results / f"seed-{seed}.json"
        if not file.exists():
            began = time.process_time()
            study = study or Study(args.work, {name: getattr(args, name) for name in SIZES})
            record = {**study.run(seed), "cpu_seconds": round(time.process_time() - began)}
            write_text(file, json.dumps(record) + "\n")
    write_page(args.results, args.page)


if __name__ == "__main__":
    main()
