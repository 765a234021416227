"""GPU memory of each alignment algorithm at full size, and the GPUs it fits on.

    python -m benchmarks.align_memory               # all models, two sizes each; many minutes
    python -m benchmarks.align_memory --models Wan2.1-1.3B    # puts its rows in place of old ones

The code of `gtsvj_reward.alignment` runs on the meta device, where nothing is computed; no GPU was
measured. One clip (for DPO one pair) at a time; base weights in bfloat16, shared by policy and
judge; adapters in float32; prompts encoded before, so that the text encoder is not there, nor the
VAE, which only draws sample clips.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    LTXPipeline,
    WanPipeline,
)
from torch import Tensor

from benchmarks.cost import table
from benchmarks.counting import GIB, count_gradient, count_scoring, frozen_model, held
from benchmarks.full_models import FULL_MODELS, FullModel
from gtsvj_reward import TextCondition, VideoJudge
from gtsvj_reward.alignment import (
    ClipSize,
    Policy,
    Prompts,
    differentiable_sample,
    log_probability,
    pair_errors,
    schedule,
    transition,
)

SMALL = "17x256x384"
MODELS: dict[str, tuple[str, ...]] = {
    "CogVideoX-2B": ("49x480x720", SMALL),
    "CogVideoX-5B": ("49x480x720", SMALL),
    "Wan2.1-1.3B": ("81x480x832", SMALL),
    "Wan2.2-5B": ("121x704x1280", SMALL),
    "LTX-Video": ("161x512x704", SMALL),
    "HunyuanVideo": ("61x544x960", SMALL),
}
"""Model -> clips: frames, height and width in pixels."""
STEPS = 20
"""Denoising steps of a sample; DDPO keeps the latents of all."""
PROMPTS, CLIPS = 8, 64
"""Prompts and clips of an iteration. These and the steps are those of `examples/alignment`."""
CANDIDATES = 16
"""N of best-of-N."""
RANK = 16
ADAM_BYTES = 8
"""Per trained parameter: two averages in float32."""
CARDS = (24, 48, 80)
"""Memory of GPUs in GiB."""
USABLE = 0.9
"""Share of a GPU that the computed bytes may fill; the rest is for bytes not counted."""
THIN = {
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
}
"""Settings of a small LTX VAE."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """The pipeline of a transformer's class, and what its text encoder gives the transformer."""

    pipeline: type[Any]
    words: int
    """Tokens of a prompt."""
    width: str
    """Name of their width in the transformer's config."""
    masked: bool = False
    pooled: str | None = None
    """The same for a pooled projection."""


TOLD: Mapping[str, Told] = {
    "CogVideoXTransformer3DModel": Told(
        pipeline=CogVideoXPipeline, words=226, width="text_embed_dim"
    ),
    "HunyuanVideoTransformer3DModel": Told(
        pipeline=HunyuanVideoPipeline,
        words=256,
        width="text_embed_dim",
        masked=True,
        pooled="pooled_projection_dim",
    ),
    "LTXVideoTransformer3DModel": Told(
        pipeline=LTXPipeline, words=128, width="caption_channels", masked=True
    ),
    "WanTransformer3DModel": Told(pipeline=WanPipeline, words=512, width="text_dim"),
}
"""Class of a transformer -> its call."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that an algorithm needs."""

    model: str
    size: str
    algorithm: str
    recomputing: bool
    """Blocks of policy and judge are recomputed (`gradient_checkpointing`)."""
    weights: int
    """Frozen base, and the judge's adapter and head."""
    policy: int
    """The policy's adapter and AdamW's averages."""
    kept: int
    """Stored latents: trajectories with their prompts, pairs, candidates."""
    saved: int
    """Kept by autograd between the forward and the backward pass."""
    peak: int
    """Most that is alive at once in a pass, gradients of the adapter included."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.policy + self.kept + self.peak


@dataclass(frozen=True)
class Setting:
    """A policy and its judge on the meta device."""

    policy: Policy
    judge: VideoJudge
    prompts: Prompts

    @property
    def latents(self) -> Tensor:
        """One clip, float32."""
        return torch.zeros(1, *self.policy.latent_shape, device="meta")

    def score(self, latents: Tensor) -> Tensor:
        """The judge's score."""
        return self.judge(latents).scores.mean()

    def step(self) -> Tensor:
        """The loss of DDPO at one denoising step, with the KL to the reference."""
        policy, noisy = self.policy, self.latents
        timestep = schedule(policy, STEPS)[0]
        taken = transition(policy, noisy, timestep, self.prompts, 1.0)
        density = log_probability(noisy, taken.mean, taken.std)
        with policy.reference():
            reference = transition(policy, noisy, timestep, self.prompts, 1.0)
        return density.mean() + (taken.mean - reference.mean).square().mean()

    def pair(self) -> Tensor:
        """A loss of the errors that Diffusion-DPO compares."""
        clip = self.latents
        errors = pair_errors(
            self.policy,
            self.prompts,
            clip,
            clip,
            keys=[(0,)],
            timesteps=self.policy.family.noise_levels,
        )
        better, worse, better_before, worse_before = errors
        return (better - better_before - worse + worse_before).mean()

    def through(self, last: int) -> Tensor:
        """The score after this many differentiable steps."""
        latents = differentiable_sample(self.policy, self.prompts, [(0,)], steps=last, last=last)
        return self.score(latents)

    def sample(self) -> Tensor:
        """One denoising step, guided."""
        return self.policy.predict(self.latents, 999, self.prompts)


def setting(model: FullModel, size: tuple[int, int, int], recomputing: bool) -> Setting:
    """A policy with guidance and a judge of full depth over the same frozen weights."""
    transformer = model.transformer()
    judge = replace(model, size=size).judge(transformer)
    judge.backbone.gradient_checkpointing = recomputing
    policy = Policy(
        pipeline_of(transformer, model.vae()),
        ClipSize(*size),
        rank=RANK,
        gradient_checkpointing=recomputing,
    )
    transformer.to("meta")  # the fresh adapter
    return Setting(policy, judge, prompts_of(transformer))


def pipeline_of(transformer: Any, vae: Any) -> Any:
    """A pipeline without text encoders."""
    kind = TOLD[type(transformer).__name__].pipeline
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if kind is CogVideoXPipeline:
        scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction")
        # The published VAE: its space has a name without weights.
        return CogVideoXPipeline(
            None, None, frozen_model(AutoencoderKLCogVideoX), transformer, scheduler
        )
    if kind is LTXPipeline:
        # The space of LTX's latents is read from weights, so this is a small VAE with weights.
        vae = AutoencoderKLLTXVideo(**THIN)
    if kind is HunyuanVideoPipeline:
        return HunyuanVideoPipeline(None, None, transformer, vae, flow, None, None)
    return kind(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=flow)


def prompts_of(transformer: Any) -> Prompts:
    """One prompt without values."""
    told, config = TOLD[type(transformer).__name__], transformer.config

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.zeros(1, *shape, device="meta", dtype=dtype)

    embeds = empty(told.words, int(config[told.width]))
    mask = empty(told.words, dtype=torch.bool) if told.masked else None
    pooled = empty(int(config[told.pooled])) if told.pooled else None
    text = TextCondition(embeds, mask, pooled)
    return Prompts(("",), text, text)


def passes(found: Setting) -> Mapping[str, Callable[[], Tensor]]:
    """Algorithm -> the function it differentiates."""
    return {
        "DDPO": found.step,
        "Diffusion-DPO": found.pair,
        "reward gradients, K = 1": lambda: found.through(1),
        "reward gradients, K = 2": lambda: found.through(2),
    }


def edges(size: str) -> tuple[int, int, int]:
    """Frames, height and width of a clip from its name."""
    frames, height, width = map(int, size.split("x"))
    return frames, height, width


def needs(name: str, size: str) -> Iterator[Need]:
    """Memory of each algorithm for clips of one size."""
    for recomputing in (False, True):
        found = setting(FULL_MODELS[name], edges(size), recomputing)
        common, kept = common_bytes(found), kept_bytes(found)
        for algorithm, run in passes(found).items():
            gradient = count_gradient(run, found.policy.transformer, found.judge)
            found.policy.transformer.zero_grad()
            yield Need(
                model=name,
                size=size,
                algorithm=algorithm,
                recomputing=recomputing,
                kept=kept[algorithm],
                saved=gradient.saved,
                peak=gradient.peak,
                **common,
            )
    yield candidates(name, size, found)


def kept_bytes(found: Setting) -> dict[str, int]:
    """Algorithm -> bytes that it keeps through an update.

    DPO samples before its updates, and then keeps at most a pair of each prompt.
    """
    clip = 4 * found.latents.numel()
    special = {
        "DDPO": CLIPS * ((STEPS + 1) * clip + text_bytes(found.prompts)),
        "Diffusion-DPO": 2 * PROMPTS * clip,
    }
    return {algorithm: special.get(algorithm, clip) for algorithm in passes(found)}


def text_bytes(prompts: Prompts) -> int:
    """Embeddings of a batch of prompts and of the empty one, which every batch of clips holds."""
    parts = [(text.embeds, text.mask, text.pooled) for text in (prompts.text, prompts.null)]
    tensors = [part for of_text in parts for part in of_text if part is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def common_bytes(found: Setting) -> dict[str, int]:
    """Weights and what is trained."""
    adapter = sum(parameter.numel() for parameter in found.policy.parameters().values())
    base = {id(tensor) for _, tensor in found.judge.backbone.base_tensors()}
    own = sum(4 * p.numel() for p in found.judge.parameters() if id(p) not in base)
    everything = held(found.policy.transformer)
    return {"weights": everything - 4 * adapter + own, "policy": (4 + ADAM_BYTES) * adapter}


def candidates(name: str, size: str, found: Setting) -> Need:
    """Best-of-N: sampling and scoring one after the other, no gradients."""
    sampling = count_scoring(found.sample)
    scoring = count_scoring(lambda: found.score(found.latents))
    return Need(
        model=name,
        size=size,
        algorithm=f"best of {CANDIDATES}",
        recomputing=False,
        weights=common_bytes(found)["weights"],
        policy=0,
        kept=CANDIDATES * 4 * found.latents.numel(),
        saved=0,
        peak=max(sampling.peak, scoring.peak),
    )


def fits(need: Need) -> str:
    """Text of the smallest GPU that it fits on."""
    found = [card for card in CARDS if need.total <= USABLE * card * GIB]
    return f"{found[0]} GB" if found else "none"


def report(found: Sequence[Need]) -> str:
    """Markdown: a line per algorithm, GiB."""
    heads = ["model", "clip", "algorithm", "blocks", "weights", "adapter, AdamW", "kept"]
    heads += ["saved", "peak", "in all", "fits on"]
    lines = [heads, ["---"] * len(heads)]
    for need in found:
        sizes = [need.weights, need.policy, need.kept, need.saved, need.peak, need.total]
        blocks = "recomputed" if need.recomputing else "stored" if need.saved else "no gradient"
        lines.append(
            [need.model, need.size, need.algorithm, blocks]
            + [f"{size / GIB:.2f}" for size in sizes]
            + [fits(need)]
        )
    return table(lines)


def read(path: str | Path) -> list[Need]:
    """Needs from an earlier run."""
    return [Need(**values) for values in json.loads(Path(path).read_text())]


def main() -> None:
    """Count, write the numbers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/align_memory.json"))
    args = parser.parse_args()
    known = read(args.json) if args.json.exists() else []
    for name in args.models:
        rows = [need for size in MODELS[name] for need in needs(name, size)]
        known = [need for need in known if need.model != name] + rows
        known.sort(key=lambda need: list(MODELS).index(need.model))
        args.json.write_text(json.dumps([asdict(need) for need in known], indent=1) + "\n")
        print(f"{name}: counted", flush=True)
    print(report(known))


if __name__ == "__main__":
    main()
