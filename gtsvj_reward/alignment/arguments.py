"""What every alignment script can be told."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gtsvj_reward.alignment.average import check_decay
from gtsvj_reward.alignment.flow import SDE
from gtsvj_reward.alignment.policy import ClipSize
from gtsvj_reward.alignment.rewards import Term, reward_terms
from gtsvj_reward.flags import documented

FREE = (
    "output_dir",
    "iterations",
    "report_to",
    "save_every",
    "evaluate_every",
    "samples",
    "guard_patience",
    "device",
    "refit_comparisons",
    "refit_ratings",
    "refit_latents",
)
"""Settings that may differ when a run goes on: they change none of its iterations, or are labels,
which come while it runs."""


@documented
@dataclass(kw_only=True)
class AlignArguments:
    """What all algorithms share. The defaults suit the toy pipeline on a CPU."""

    pretrained_model: str = "gtsvj-toy-unsteady"
    """Pipeline of CogVideoX, HunyuanVideo, LTX, Mochi or Wan: bundled name, folder or hub id."""
    judge_weights: Literal["shared", "own", "live"] = "shared"
    """Whether judges use the pipeline's frozen weights, load their own base, as a pipeline with a
    merged fine-tuning needs, or call the policy itself (live), its adapter off."""
    reward: list[str] = field(default_factory=lambda: ["gtsvj-toy-lora"])
    """What to train on: a judge (bundled name, folder or hub id), prompt-score, or a function
    MODULE:FUNCTION; or several with weights, NAME=WEIGHT."""
    aspects: list[str] = field(default_factory=list)
    """Train on the mean of these aspects of the judge; on its score if none."""
    pessimism: float = 0.0
    """Train on the score less so many of its posterior standard deviations; for moment judges that
    were fitted to labels."""
    check_statistics: bool = True
    """Refuse latents that are not spread as those that a judge was trained on."""
    eval_metrics: list[str] = field(default_factory=list)
    """Judges that are only watched. Besides them the toy world measures itself."""
    prompts: str | None = None
    """Text file, one prompt per line; the toy world's captions by default."""
    output_dir: str = ""
    """Folder of the run; run again to go on."""
    num_frames: int = 17
    """Frames of a clip."""
    height: int = 64
    """In pixels."""
    width: int = 64
    """In pixels."""
    fps: float = 8.0
    """Frames per second, for the judges, and for LTX."""
    num_inference_steps: int = 5
    """Denoising steps."""
    guidance_scale: float = 1.0
    """1 is no guidance."""
    sde: SDE = "ddim"
    """How noise enters the steps of a flow; eta says how much."""
    flow_shift: float | None = None
    """Of a flow's noise levels; as the pipeline has it if none."""
    iterations: int = 40
    """Updates of the policy, as a rule."""
    prompts_per_iteration: int = 8
    """Different prompts."""
    clips_per_prompt: int = 4
    """Clips of each prompt."""
    batch_size: int = 16
    """Clips in one pass through the transformer, per process."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are cut to this norm."""
    ema_decay: float = 0.0
    """Of an average of the adapter, which is measured and saved in its place, such as 0.9; 0: the
    adapter itself."""
    lora_rank: int = 16
    """Of the policy's adapter."""
    lora_alpha: float | None = None
    """As the rank by default."""
    gradient_checkpointing: bool = False
    """Recompute blocks of policy and judge: less memory."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Of the policy."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen weights that policy and judge share."""
    device: str = "auto"
    """auto is accelerate's choice, or cpu."""
    seed: int = 0
    """Decides every random number of the run."""
    evaluate_every: int = 10
    """Iterations between checkups."""
    evaluation_clips: int = 32
    """Clips of a checkup, the same prompts and seeds each time."""
    samples: int = 4
    """Clips drawn at each checkup; 0 for none."""
    save_every: int = 10
    """Iterations between checkpoints."""
    guard_patience: int = 2
    """Stop after so many checkups in a row at which one eval metric falls while the reward
    rises."""
    refit_every: int = 0
    """Iterations between refits of a moment judge; 0: it stays as it is."""
    refit_clips: int = 32
    """Clips that the policy makes for a refit, as negatives."""
    refit_positives: str | None = None
    """Folder of latents of real clips: stage 1 is fitted again at each refit."""
    refit_comparisons: str | None = None
    """Comparisons, as gtsvj label writes them, read at each refit."""
    refit_ratings: str | None = None
    """Ratings of the judge's aspects, likewise."""
    refit_latents: str | None = None
    """Folder of the latents of labelled clips."""
    report_to: str = "none"
    """Tracker of accelerate: tensorboard, wandb, or none."""

    def __post_init__(self) -> None:
        given: object = self.reward
        if isinstance(given, str):
            self.reward = [given]
        reward_terms(self.reward)
        if not self.output_dir:
            raise ValueError("`output_dir` must be set: the folder of this run")
        for name in ("iterations", "prompts_per_iteration", "clips_per_prompt", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("evaluate_every", "save_every", "num_inference_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.evaluation_clips < 2:
            raise ValueError(f"a checkup needs at least 2 clips, got {self.evaluation_clips}")
        if not self.learning_rate > 0 or not self.max_grad_norm > 0:
            raise ValueError(
                "`learning_rate` and `max_grad_norm` must be positive, got "
                f"{self.learning_rate} and {self.max_grad_norm}"
            )

        check_decay(self.ema_decay)
        self.check_refits()

    def check_refits(self) -> None:
        """Refuse settings of refits that do not go together."""
        sources = ("refit_positives", "refit_comparisons", "refit_ratings")
        given = [name for name in (*sources, "refit_latents") if getattr(self, name) is not None]
        if self.refit_every < 0 or self.refit_clips < 1:
            raise ValueError(
                "expected `refit_every` >= 0 and `refit_clips` >= 1, got "
                f"{self.refit_every} and {self.refit_clips}"
            )
        if given and not self.refit_every:
            raise ValueError(f"`{given[0]}` needs `refit_every`: the iterations between refits")
        if self.refit_every and not set(given) & set(sources):
            raise ValueError(f"`refit_every` needs something to refit to: one of {sources}")
        labels = self.refit_comparisons is not None or self.refit_ratings is not None
        if labels != (self.refit_latents is not None):
            raise ValueError(
                "`refit_comparisons` or `refit_ratings` go together with `refit_latents`: tables, "
                "and the folder of the clips that they name"
            )

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is trained on."""
        return reward_terms(self.reward)

    @property
    def size(self) -> ClipSize:
        """Of the clips."""
        return ClipSize(self.num_frames, self.height, self.width)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.output_dir)

    @property
    def clips(self) -> int:
        """Of an iteration, of all processes."""
        return self.prompts_per_iteration * self.clips_per_prompt

    @property
    def looks(self) -> int:
        """Checkups after the first, those that follow a refit among them."""
        refits = self.iterations // self.refit_every if self.refit_every else 0
        return math.ceil(self.iterations / self.evaluate_every) + refits

    def decisive(self) -> dict[str, Any]:
        """Every setting that decides what the iterations do, as JSON holds it."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in FREE}
        found: dict[str, Any] = json.loads(json.dumps(values))
        return found

    def fingerprint(self) -> str:
        """SHA-256 over the decisive settings."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()

    def read_prompts(self, known: list[str]) -> list[str]:
        """Prompts of the file, or the known ones without a file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if there are fewer than an iteration needs.
        """
        found = known
        if self.prompts is not None:
            lines = Path(self.prompts).read_text(encoding="utf-8").splitlines()
            found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if len(found) < self.prompts_per_iteration:
            raise ValueError(
                f"expected at least {self.prompts_per_iteration} different prompts "
                f"(`prompts_per_iteration`) in `prompts`, got {len(found)}"
            )
        return found
