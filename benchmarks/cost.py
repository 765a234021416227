"""Cost of full-size judges of latents, compared with decoding and a judge of pixels.

    python -m benchmarks.cost                       # every model; many minutes
    python -m benchmarks.cost --models CogVideoX-2B --json one.json

For the clip nearest to 49 frames of 480x720 that each model can make: bytes of weights held,
operations, and what a backward pass to the latents keeps, with and without recomputing blocks.
All of it is counted on the meta device and none of it measured; weights and activations are
bfloat16, adapter and head float32. Attention is taken to be fused, decoding not to be tiled.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.counting import GIB, Gradient, count_gradient, held
from benchmarks.full_models import FULL_MODELS, FullModel
from benchmarks.mochi_formula import mochi_operations
from benchmarks.vlm import qwen2_vl, sampled_frames, scoring
from gtsvj_reward import VideoJudge

FRACTIONS = {"all blocks": 1.0, "1/2": 1 / 2, "1/3": 1 / 3}
"""Name of a depth -> share of the blocks."""
POOLINGS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to score a clip, with the gradient to the latents (for a VLM, to the pixels)."""

    model: str
    what: str
    weights: int
    """Bytes of the weights held."""
    forward: int
    """Operations of scoring."""
    gradient: int
    """Operations of scoring and of the backward pass."""
    saved: int
    """Bytes kept for the backward pass, every block stored."""
    saved_recomputing: int | None
    """The same with activation checkpointing; None where the class has none."""
    peak: int
    """Most bytes alive at once beside weights and latents, every block stored."""
    peak_recomputing: int | None
    """The same with activation checkpointing."""


def row(model: str, what: str, weights: int, plain: Gradient, recomputing: Gradient | None) -> Row:
    """A row from the two ways of counting it."""
    return Row(
        model=model,
        what=what,
        weights=weights,
        forward=plain.forward,
        gradient=plain.operations,
        saved=plain.saved,
        saved_recomputing=recomputing and recomputing.saved,
        peak=plain.peak,
        peak_recomputing=recomputing and recomputing.peak,
    )


def judge_rows(name: str, model: FullModel) -> Iterator[Row]:
    """Judges of every depth, of all latents and of pooled ones."""
    transformer = model.transformer()
    blocks = model.judge(transformer).config.depth or 0
    for pooling in POOLINGS:
        for label, fraction in FRACTIONS.items():
            depth = round(fraction * blocks)
            what = f"judge, {label}" + (f", pooled {pooling}x" if pooling > 1 else "")
            judge = model.judge(transformer, depth=depth, latent_pooling=pooling)
            plain, again = (count_judge(model, judge, recompute) for recompute in (False, True))
            if judge.config.family == "MochiTransformer3DModel":
                check_formula(transformer.config, judge, model.clip(), plain.forward)
            yield row(name, what, held(judge), plain, again)


def count_judge(model: FullModel, judge: VideoJudge, recompute: bool) -> Gradient:
    """One judge on the clip of its model."""
    judge.backbone.gradient_checkpointing = recompute
    return count_gradient(lambda: judge(model.clip(grad=True)).scores.mean(), judge)


def check_formula(settings: Any, judge: VideoJudge, clip: Tensor, counted: int) -> None:
    """Compare operations on Mochi with the formula.

    Raises:
        RuntimeError: if they differ.
    """
    steps, _, height, width = judge.view(clip).shape[1:]
    expected = mochi_operations(settings, judge.config, (steps, height, width))
    if counted != expected:
        raise RuntimeError(f"Mochi: counted {counted} operations, the formula says {expected}")


def decode_row(name: str, model: FullModel) -> Row:
    """Decoding of the clip by the VAE, not in tiles."""
    vae = model.vae()

    def count() -> Gradient:
        latents = model.clip(grad=True)
        return count_gradient(
            lambda: vae.decode(latents.to(torch.bfloat16).transpose(1, 2)).sample, vae
        )

    plain, recomputing = count(), None
    if type(vae)._supports_gradient_checkpointing:
        vae.enable_gradient_checkpointing()
        recomputing = count()
    return row(name, "VAE decode", held(vae.decoder), plain, recomputing)


def vlm_row(name: str, model: FullModel) -> Row:
    """Qwen2-VL-2B on the frames that VideoReward reads."""
    judge = qwen2_vl()
    frames = sampled_frames(model.size[0], model.fps)
    plain = count_gradient(scoring(judge, frames, grad=True), judge)
    judge.train().gradient_checkpointing_enable({"use_reentrant": False})
    recomputing = count_gradient(scoring(judge, frames, grad=True), judge)
    return row(name, f"Qwen2-VL-2B, {frames} frames", held(judge), plain, recomputing)


def rows_of(name: str) -> list[Row]:
    """All rows of one model."""
    model = FULL_MODELS[name]
    return [*judge_rows(name, model), decode_row(name, model), vlm_row(name, model)]


def operations_table(rows: Sequence[Row]) -> str:
    """Markdown: a line per model, TFLOP of each way to score a clip."""
    heads = ["model", "clip", *FRACTIONS, *(f"pooled 2x, {label}" for label in FRACTIONS)]
    heads += ["VAE decode", "decode + Qwen2-VL-2B"]
    lines = [heads, ["---"] * len(heads)]
    for name, found in by_model(rows).items():
        judges = [item.forward for item in found if item.what.startswith("judge")]
        decode, vlm = found[-2].forward, found[-1].forward
        numbers = [*judges, decode, decode + vlm]
        clip = "x".join(str(side) for side in FULL_MODELS[name].size)
        lines.append([name, clip, *(f"{number / 1e12:.1f}" for number in numbers)])
    return table(lines)


MEMORY = ("judge, all blocks", "judge, 1/3", "judge, all blocks, pooled 2x", "VAE decode")


def memory_table(rows: Sequence[Row]) -> str:
    """Markdown: a line per model and way to score, GiB for a gradient to the latents."""
    heads = ["model", "what", "weights", "saved", "peak", "saved, recomputing", "peak, recomputing"]
    lines = [heads, ["---"] * len(heads)]
    for item in rows:
        if item.what in MEMORY:
            sizes = [item.weights, item.saved, item.peak]
            sizes += [item.saved_recomputing, item.peak_recomputing]
            lines.append([item.model, item.what, *map(gib, sizes)])
    return table(lines)


def by_model(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Rows of each model, in order."""
    found: dict[str, list[Row]] = {}
    for item in rows:
        found.setdefault(item.model, []).append(item)
    return found


def gib(size: int | None) -> str:
    """Bytes in GiB; a dash where there is no number."""
    return "-" if size is None else f"{size / GIB:.1f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown of a table, header and rule included."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(path: str | Path) -> list[Row]:
    """Rows from an earlier run."""
    return [Row(**values) for values in json.loads(Path(path).read_text())]


def main() -> None:
    """Count, write the rows, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=FULL_MODELS, default=list(FULL_MODELS))
    parser.add_argument(
        "--json", type=Path, default=Path("benchmarks/results/full_size_costs.json")
    )
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.models:
        rows += rows_of(name)
        args.json.write_text(json.dumps([asdict(item) for item in rows], indent=1) + "\n")
        print(f"{name}: counted", flush=True)
    print(operations_table(rows), memory_table(rows), sep="\n\n")


if __name__ == "__main__":
    main()
