"""Features of the study's clips, and their subsets by seed."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import load_scheduler, load_transformer, noise_levels
from gtsvj_reward.backbones.load import transformer_folder
from gtsvj_reward.files import read_safetensors, write_safetensors
from gtsvj_reward.judge import JudgeConfig, VideoJudge
from gtsvj_reward.judge.moments import default_taps
from gtsvj_reward.judge.reading import surprise
from gtsvj_reward.judge.readout import tap_widths
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.perturbations import GENERATED, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator, keyed_order
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from studies.baselines import statistics
from studies.data import MADE_EACH
from studies.moments_rows import Reads

COMBINED: dict[Reads, tuple[Reads, Reads]] = {
    "surprised": ("trained", "surprise"),
    "random_surprised": ("random", "random_surprise"),
}
SURPRISES: dict[Reads, Reads] = {"surprise": "trained", "random_surprise": "random"}
"""Models whose surprise is read."""
SHARES = (0.2, 0.5)
"""Noise levels at which the surprise is read."""
BATCH = 16

SAMPLERS = {
    "extended": PerturbationSampler.extended(),
    "table": PerturbationSampler(),
    "made": PerturbationSampler(real={GENERATED: 1.0}),
    "made_extended": PerturbationSampler.extended(),
}
MADE = ("made", "made_extended")
"""Samplers whose first negatives of a clip are the generator's versions of it."""


@dataclass(frozen=True)
class Table:
    """Features of clips by name."""

    rows: dict[str, int]
    features: Tensor

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Features of some clips (clip, feature)."""
        return self.features[[self.rows[name] for name in names]]


class Clips:
    """The study's clips, their features, and their subsets by seed."""

    def __init__(self, settings: dict[str, Any], work: Path) -> None:
        self.settings, self.draws = settings, settings["draws"]
        self.work, self.data = work, work / "data"
        self.judge = cache(self.build_judge)
        self.table = cache(self.read_table)

    def build_judge(self, reads: Reads, *taps: int) -> VideoJudge:
        """An unfitted judge, by default with all taps."""
        pipeline = str(self.settings["pipeline"])
        if reads in ("trained", "pooled"):
            transformer = load_transformer(folder_of(pipeline))
        else:
            folder = transformer_folder(folder_of(pipeline), None)
            shape = CogVideoXTransformer3DModel.load_config(folder)
            torch.manual_seed(0)
            transformer = CogVideoXTransformer3DModel.from_config(shape)
        every = range(len(transformer.transformer_blocks) + 1)
        space = load_clip(next((self.data / "real").iterdir())).space
        config = JudgeConfig(
            base_model=pipeline,
            latent_space=space,
            readout="moments",
            lora_rank=0,
            taps=list(taps or every),
            latent_pooling=2 if reads == "pooled" else 1,
        )
        return VideoJudge.from_transformer(transformer, config)

    def widths(self, reads: Reads) -> tuple[int, ...]:
        """Features of each tap; hand-made statistics and the surprise have one."""
        if reads == "statistics":
            return (self.table(reads, "real").features.shape[1],)
        if reads in SURPRISES:
            return (len(SHARES),)
        judge = self.judge(reads)
        taps, backbone = judge.config.taps or [], judge.backbone
        return tap_widths(taps, backbone.latent_channels, backbone.dim)

    def columns(self, reads: Reads, taps: str) -> tuple[Tensor, tuple[int, ...]]:
        """Features of some taps, and the number of each tap."""
        if reads in COMBINED:
            (first, widths), (rest, more) = (self.columns(part, taps) for part in COMBINED[reads])
            rest = rest + sum(self.widths(COMBINED[reads][0]))
            return torch.cat([first, rest]), (*widths, *more)
        widths = self.widths(reads)
        depth = len(widths) - 1
        three = default_taps(depth) if depth else [0]
        chosen = {"three": three, "last": [depth], "latents": [0], "blocks": three[1:],
                  "all": range(depth + 1), "first": [0, 1], "two": [0, 1, 2],
                  "half": [0, 1, 2, 3]}[taps]  # fmt: skip
        parts = torch.arange(sum(widths)).split(widths)
        return torch.cat([parts[tap] for tap in chosen]), tuple(widths[tap] for tap in chosen)

    def read(self, reads: Reads, clips: Sequence[Load], what: str) -> Tensor:
        """Features of clips."""
        if reads == "statistics":
            return torch.cat([statistics(load()[None]) for load in clips])
        if reads in SURPRISES:
            return self.surprises(SURPRISES[reads], clips)
        features = FeatureCache(self.judge(reads), batch_size=16)
        return features.features(features.read(clips, what))

    def surprises(self, reads: Reads, clips: Sequence[Load]) -> Tensor:
        """The surprise of clips of one shape."""
        backbone = self.judge(reads).backbone
        scheduler = load_scheduler(folder_of(str(self.settings["pipeline"])))
        levels, rows = noise_levels(backbone, SHARES, scheduler), []
        for first in tqdm(range(0, len(clips), BATCH), f"surprise of {reads}", leave=False):
            latents = torch.stack([load() for load in clips[first : first + BATCH]])
            with torch.no_grad():
                rows.append(surprise(backbone, latents, levels, None, 0).mean(dim=1))
        return torch.cat(rows)

    def keep_table(self, reads: Reads, name: str, clips: Mapping[str, Load]) -> Table:
        """Features of clips, cached on disk."""
        if reads in COMBINED:
            first, rest = (self.keep_table(part, name, clips) for part in COMBINED[reads])
            return Table(first.rows, torch.cat([first.features, rest.features], dim=1))
        path = self.work / "tables" / f"{reads}-{name}.safetensors"
        known = {clip: row for row, clip in enumerate(clips)}
        if path.exists():
            tensors, metadata = read_safetensors(path)
            if metadata["clips"] == json.dumps([*clips]):
                return Table(known, tensors["features"])
        features = self.read(reads, list(clips.values()), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, {"features": features}, {"clips": json.dumps([*clips])})
        return Table(known, features)

    def read_table(self, reads: Reads, folder: str, start: str = "") -> Table:
        """Features of the clips of a folder, selected by prefix."""
        paths = sorted((self.data / folder).glob(f"{start}*.safetensors"))
        clips = {path.stem: partial(latents_of, path) for path in paths}
        return self.keep_table(reads, f"{folder}-{start}" if start else folder, clips)

    def drawn(self, folder: str, seed: int) -> list[str]:
        """Names of the clips of a folder that a seed draws."""
        names = sorted(path.stem for path in (self.data / folder).glob("*.safetensors"))
        key = {"real": 1, "generated": 2}[folder]
        return [names[i] for i in keyed_order(len(names), seed, key)][: self.draws[folder]]

    def rated(self) -> list[dict[str, str]]:
        """All ratings; the last ones are held out from every seed."""
        with (self.data / "rated.csv").open() as file:
            return list(csv.DictReader(file))

    def compared(self) -> list[dict[str, str]]:
        """All comparisons."""
        with (self.data / "compared.csv").open() as file:
            return list(csv.DictReader(file))

    def labels(self, seed: int, count: int | None) -> list[dict[str, str]]:
        """Ratings that a seed draws; fewer are a prefix of more."""
        pool = self.rated()[: -self.draws["held_out_ratings"]]
        order = keyed_order(len(pool), seed, 3)
        return [pool[i] for i in order[: count or self.draws["labels"]]]

    def negatives(self, sampler: str, seed: int) -> list[tuple[str, str, Load]]:
        """Source clip, name and latents of each negative of a seed."""
        generated, found = self.drawn("generated", seed), []
        for index, real in enumerate(self.drawn("real", seed)):
            for each in range(self.draws["negatives"]):
                draw = keyed_generator(seed, 4, index, each)
                if sampler in MADE and each < MADE_EACH:
                    path = self.data / "made" / f"{real}-{each}.safetensors"
                    found.append((real, f"{real}/{each}", partial(latents_of, path)))
                    continue
                kind = SAMPLERS[sampler].draw(draw, generated_available=True).kind
                path = self.data / "real" / f"{real}.safetensors"
                load = partial(perturbed, path, sampler, kind, (seed, 5, index, each))
                name = f"{real}/{each}"
                if kind == GENERATED:
                    name = generated[int(torch.randint(len(generated), (), generator=draw))]
                    load = partial(latents_of, self.data / GENERATED / f"{name}.safetensors")
                found.append((real, name, load))
        return found


def latents_of(path: Path) -> Tensor:
    """Latents of a file."""
    return load_clip(path).latents


def perturbed(path: Path, sampler: str, kind: str, key: tuple[int, ...]) -> Tensor:
    """Latents of a file after a perturbation."""
    latents = latents_of(path)[None]
    return SAMPLERS[sampler].apply(kind, latents, keyed_generator(*key))[0]
