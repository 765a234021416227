"""Judges of the study of moments with LoRA on top, trained from the closed form on."""

from functools import cache, partial
from pathlib import Path

from gtsvj_reward.judge import Aspect, VideoJudge, load_judge
from gtsvj_reward.toy.raters import ASPECTS, HIGH, LOW
from gtsvj_reward.training import (
    Compared,
    DiscriminatorTuning,
    FeatureCache,
    JudgeArguments,
    Rated,
    refit,
    tune_discriminator,
)
from gtsvj_reward.training.closed_form.features import Load
from studies.data import TestPair
from studies.moments_features import BATCH, Clips, latents_of
from studies.moments_fits import LOSS

STEPS = 300
PAIRS = 4
"""Real clips per step, with as many negatives."""
RANK = 8


class Tuned:
    """Judges of the seeds, and their scores of test clips.

    Args:
        clips: the study's.
    """

    def __init__(self, clips: Clips) -> None:
        self.clips = clips
        self.energy = cache(self.train)

    def folder(self, seed: int) -> Path:
        """Folder of a seed."""
        return self.clips.work / "lora" / str(seed)

    def train(self, seed: int) -> tuple[VideoJudge, FeatureCache]:
        """Stage 1 of a seed: the closed form, then LoRA and the readout from there."""
        folder = self.folder(seed)
        for kind in ("real", "generated"):
            for name in self.clips.drawn(kind, seed):
                link = folder / kind / f"{name}.safetensors"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to((self.clips.data / kind / link.name).resolve())
        tune_discriminator(
            JudgeArguments(
                base_model=str(self.clips.settings["pipeline"]), readout="moments", lora_rank=RANK
            ),
            DiscriminatorTuning(
                real=str(folder / "real"),
                generated=str(folder / "generated"),
                output_dir=str(folder / "judge"),
                features=str(folder / "features"),
                perturbations="extended",
                held_out_fraction=0.05,
                draws=self.clips.draws["negatives"],
                max_steps=STEPS,
                per_device_train_batch_size=PAIRS,
                truncation_probability=0.0,
                save_steps=50,
                save_total_limit=1,
                seed=seed,
                use_cpu=True,
            ),
        )
        judge = load_judge(folder / "judge")
        return judge, FeatureCache(judge, folder / "features", batch_size=BATCH)

    def reward(self, seed: int) -> tuple[VideoJudge, FeatureCache]:
        """Stages 2 and 3 of a seed, on the moments of the adapted base."""
        judge, known = self.energy(seed)
        ratings = [
            Rated(
                self.labelled(row["video"]),
                {name: float(row[name]) for name in ASPECTS},
                row["video"],
            )
            for row in self.clips.labels(seed, None)
        ]
        comparisons = [
            Compared(
                self.labelled(pair["video_a"]),
                self.labelled(pair["video_b"]),
                int(pair["label"]),
                (pair["video_a"], pair["video_b"]),
            )
            for pair in self.clips.compared()
        ]
        aspects = [Aspect(name=name, low=LOW, high=HIGH) for name in ASPECTS]
        fitted = refit(
            judge, known, ratings=ratings, aspects=aspects, comparisons=comparisons, loss=LOSS
        )
        return fitted, known

    def labelled(self, name: str) -> Load:
        """A rated or compared clip."""
        return partial(latents_of, self.clips.data / "labelled" / f"{name}.safetensors")

    def scores(
        self, judge: VideoJudge, known: FeatureCache, pairs: list[TestPair]
    ) -> dict[str, float]:
        """Scores of all clips of some pairs."""
        names = sorted({name for pair in pairs for name in (pair.first, pair.second)})
        paths = [self.clips.data / "test" / f"{name}.safetensors" for name in names]
        read = known.read([partial(latents_of, path) for path in paths], "test clips")
        found = judge.from_moments(known.features(read)[:, None]).scores[:, 0]
        return dict(zip(names, found.tolist(), strict=True))
