"""Training and testing one row with one seed, through the package's own trainers."""

import json
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from gtsvj_reward.assets import folder_of
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.backbones import backbone_for, load_transformer
from gtsvj_reward.backbones.load import transformer_folder
from gtsvj_reward.files import write_text
from gtsvj_reward.judge import JudgeConfig, VideoJudge, load_judge
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.metrics import pearson
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.toy.raters import ASPECTS, qualities
from gtsvj_reward.toy.world import FRAMES, SIZE
from gtsvj_reward.training import (
    AspectConfig,
    CalibrationSettings,
    DiscriminatorConfig,
    JudgeArguments,
    PreferenceConfig,
    calibrate_perturbations,
    train_aspects,
    train_discriminator,
    train_preference,
)
from studies.data import TestPair, test_pairs
from studies.rows import Row, Stage1, sampler_of

SECONDS = {"truncation_min_seconds": 1.0, "truncation_max_seconds": 2.0}
"""The paper's 2 to 6 of 6 seconds, scaled to clips of 17/8 seconds."""
QUIET: dict[str, Any] = {
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 20,
}


class Study:
    """Folder and settings of the study."""

    def __init__(self, settings: dict[str, Any], work: Path) -> None:
        self.settings, self.work = settings, work
        self.data = work / "data"
        self.pairs = test_pairs(self.data)
        self.clips = load_test_clips(self.data / "test", self.pairs)

    def base(self, kind: str) -> str:
        """The base model: the generator, or the same shape with random weights."""
        if kind == "trained":
            return str(self.settings["pipeline"])
        folder = self.work / "random_base"
        if not (folder / "config.json").exists():
            source = transformer_folder(folder_of(str(self.settings["pipeline"])), None)
            config = CogVideoXTransformer3DModel.load_config(source)
            torch.manual_seed(0)
            # Another worker must not find a partial copy.
            with tempfile.TemporaryDirectory(dir=self.work) as place:
                model = CogVideoXTransformer3DModel.from_config(config)
                model.save_pretrained(Path(place) / "random")
                if not folder.exists():
                    (Path(place) / "random").rename(folder)
        return str(folder)

    def judge_arguments(self, stage1: Stage1) -> JudgeArguments:
        """Settings of the judge."""
        own = {**self.settings["judge"], **stage1.judge}
        return JudgeArguments(base_model=self.base(stage1.base), base_dtype="float32", **own)

    def discriminator(self, stage1: Stage1, seed: int) -> Path:
        """Folder of a trained discriminator; trained if it is not there yet."""
        out = self.work / "stage1" / f"{stage1.name}-{seed}"
        if (out / "metrics.json").exists():
            return out
        sampler = out.with_suffix(".json")
        calibrated = self.calibration() if stage1.negatives == "calibrated" else None
        chosen = sampler_of(stage1.negatives, calibrated)
        write_text(sampler, json.dumps(chosen.to_dict()))
        args = DiscriminatorConfig(
            real=str(self.data / "real"),
            generated=str(self.data / "generated"),
            held_out_real=str(self.data / "real_held_out"),
            held_out_generated=str(self.data / "generated_held_out"),
            perturbations=str(sampler),
            truncation_probability=stage1.truncation,
            loss_per_step=stage1.per_step,
            output_dir=str(out),
            seed=seed,
            **SECONDS,
            **QUIET,
            **self.settings["discriminator"],
        )
        began = time.monotonic()
        trainer = train_discriminator(self.judge_arguments(stage1), args)
        history = trainer.state.log_history
        last = next(entry for entry in reversed(history) if "eval_loss" in entry)
        record = {
            "seconds": time.monotonic() - began,
            "held_out": {k.removeprefix("eval_"): v for k, v in last.items() if "accuracy" in k},
            "curve": [
                {key: entry[key] for key in ("step", "loss", "grad_norm", "bound_share")}
                for entry in history
                if "grad_norm" in entry
            ],
        }
        write_text(out / "metrics.json", json.dumps(record, indent=1) + "\n")
        return out

    def calibration(self) -> PerturbationSampler:
        """Probabilities by decay time, from one run per perturbation; made once."""
        file = self.work / "calibration.json"
        if not file.exists():
            steps = max(2, self.settings["discriminator"]["max_steps"] // 3)
            settings = CalibrationSettings(
                steps=steps, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-3
            )
            clips = LatentFolder(self.data / "real")
            arguments = self.judge_arguments(Stage1(name="calibration"))
            own = {f.name: getattr(arguments, f.name) for f in fields(arguments)}
            result = calibrate_perturbations(
                lambda: fresh_judge(own, clips),
                clips.infos,
                settings,
                work=self.work / "calibration",
                progress=False,
            )
            write_text(file, json.dumps(result.sampler().to_dict()))
        return PerturbationSampler.from_dict(json.loads(file.read_text()))

    def labels(self, count: int, seed: int) -> Path:
        """A ratings file of `count` clips, drawn by the seed."""
        path = self.work / "labels" / f"{count}-{seed}.csv"
        header, *lines = (self.data / "rated.csv").read_text().splitlines()
        order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(seed)).tolist()
        write_text(path, "\n".join([header, *(lines[i] for i in order[:count])]) + "\n")
        return path

    def reward(self, row: Row, seed: int) -> Path:
        """Folder of a judge of stage 3; all its stages are trained if they are not there yet."""
        out = self.work / "judges" / f"{row.name}-{seed}"
        labelled = {"latents": str(self.data / "labelled"), "seed": seed, **SECONDS, **QUIET}
        count = row.labels or self.settings["labels"]
        if not (out / "aspects" / "config.json").exists():
            judge = JudgeArguments(head_width=self.settings["judge"]["head_width"])
            before = None if row.stage1 is None else str(self.discriminator(row.stage1, seed))
            if before is None:
                judge = self.judge_arguments(row.settings)
            pooling = row.aspects.get("token_pooling")
            if pooling:
                judge.token_pooling = pooling
            own = {k: v for k, v in row.aspects.items() if k != "token_pooling"}
            train_aspects(
                judge,
                AspectConfig(
                    from_judge=before,
                    ratings=str(self.labels(count, seed)),
                    held_out_ratings=str(self.data / "rated_held_out.csv"),
                    aspects=[f"{name}=1:5" for name in ASPECTS],
                    output_dir=str(out / "aspects"),
                    **{**self.settings["aspects"], **labelled, **own},
                ),
            )
        if not (out / "preference" / "config.json").exists():
            train_preference(
                JudgeArguments(),
                PreferenceConfig(
                    from_judge=str(out / "aspects"),
                    comparisons=str(self.data / "compared.csv"),
                    held_out_comparisons=str(self.data / "compared_held_out.csv"),
                    output_dir=str(out / "preference"),
                    **{**self.settings["preference"], **labelled, **row.preference},
                ),
            )
        return out / "preference"

    def zero_shot(self, folder: Path) -> dict[str, list[float]]:
        """Accuracies of a discriminator, measured once."""
        file = folder / "zero_shot.json"
        if not file.exists():
            write_text(file, json.dumps(self.test(folder)["accuracy"]) + "\n")
        found: dict[str, list[float]] = json.loads(file.read_text())
        return found

    def test(self, folder: Path) -> dict[str, Any]:
        """Accuracies of a judge on all test pairs, and how its aspects follow the truth."""
        judge = load_judge(folder)
        scores, aspects = score_clips(judge, self.clips)
        record: dict[str, Any] = {"accuracy": accuracies(self.pairs, scores)}
        if aspects:
            record["aspects"] = aspect_correlations(self.data / "test", aspects)
        return record


def fresh_judge(arguments: dict[str, Any], clips: LatentFolder) -> VideoJudge:
    """An untrained discriminator."""
    transformer = load_transformer(folder_of(arguments["base_model"]), depth=arguments["depth"])
    backbone = backbone_for(transformer)
    backbone.cast(torch.float32)
    names = ("lora_rank", "lora_alpha", "lora_placement", "head_width", "timestep", "depth")
    config = JudgeConfig(
        base_model=arguments["base_model"],
        latent_space=clips.space,
        **{name: arguments[name] for name in names},
    )
    return VideoJudge.from_transformer(backbone, config)


def operations(pipeline: str, options: dict[str, Any]) -> int:
    """Floating point operations of scoring one clip of the world, counted on the meta device.

    Args:
        pipeline: bundled name or folder of the generator.
        options: of the judge.
    """
    vae = load_vae(pipeline)
    transformer = load_transformer(folder_of(pipeline), depth=options.get("depth")).to("meta")
    space = LatentSpace.from_vae(vae)
    config = JudgeConfig(base_model=pipeline, latent_space=space, **options)
    judge = VideoJudge.from_transformer(transformer, config).to("meta")
    side = SIZE // space.spatial_compression
    shape = (1, space.latent_frames(FRAMES), space.channels, side, side)
    latents = torch.zeros(shape, device="meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        judge(latents)
    return int(counter.get_total_flops())


def load_test_clips(folder: Path, pairs: list[TestPair]) -> dict[str, torch.Tensor]:
    """Latents of every clip that a pair names."""
    names = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    return {name: load_clip(folder / f"{name}.safetensors").latents for name in names}


def score_clips(
    judge: VideoJudge, clips: dict[str, torch.Tensor], batch: int = 40
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Mean score over time of each clip, and its mean aspects; clips of one length together."""
    scores: dict[str, float] = {}
    aspects: dict[str, list[float]] = {}
    for length in sorted({len(clip) for clip in clips.values()}):
        names = [name for name, clip in clips.items() if len(clip) == length]
        for first in range(0, len(names), batch):
            some = names[first : first + batch]
            with torch.no_grad():
                out = judge(torch.stack([clips[name] for name in some]))
            scores.update(zip(some, out.scores.mean(1).tolist(), strict=True))
            if out.aspects is not None:
                aspects.update(zip(some, out.aspects.mean(1).tolist(), strict=True))
    return scores, aspects


def accuracies(pairs: list[TestPair], scores: dict[str, float]) -> dict[str, list[float]]:
    """Group -> (share of pairs in the right order, ties counted half; number of pairs)."""
    groups: dict[str, list[float]] = {}
    for pair in pairs:
        gap = (scores[pair.first] - scores[pair.second]) * (1 if pair.gap > 0 else -1)
        groups.setdefault(pair.group, []).append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
    return {name: [sum(rows) / len(rows), len(rows)] for name, rows in groups.items()}


def aspect_correlations(folder: Path, aspects: dict[str, list[float]]) -> dict[str, float]:
    """Pearson correlation of each aspect with the true quality, over the clips of `cross/seen`."""
    names = [name for name in aspects if name.startswith("cross-seen")]
    truth = []
    for name in names:
        settings = load_clip(folder / f"{name}.safetensors").settings
        truth.append([qualities(settings["severities"])[aspect] for aspect in ASPECTS])
    predicted, true = torch.tensor([aspects[name] for name in names]), torch.tensor(truth)
    return {
        aspect: pearson(predicted[:, column], true[:, column])
        for column, aspect in enumerate(ASPECTS)
    }
