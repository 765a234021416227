"""Time and memory of full-size judges on a GPU, compared with decoding.

    python -m benchmarks.gpu --json gpu.json                      # every model
    python -m benchmarks.gpu --json gpu.json --models CogVideoX-2B --parts scores
    python -m benchmarks.gpu --show benchmarks/results/gpu_costs.json  # tables of what was measured

For the clip nearest to 49 frames of 480x720 that each model can make, with random weights: bfloat16
as the judge holds them, adapter and head float32. `scores` times scoring and decoding, `gradients`
a gradient to the latents, `training` a step of training by LoRA's place, `compiled` what
`torch.compile` gains. Times are medians by the device's own clock; memory is the most that torch's
allocator held beyond the weights. What does not fit is said to be out of memory.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost import Row, read, table
from benchmarks.counting import GIB, frozen_model
from benchmarks.full_models import FULL_MODELS, FullModel
from benchmarks.lora_placement import training_step
from gtsvj_reward import VideoJudge
from gtsvj_reward.backbones import backbone_for

PARTS = ("scores", "gradients", "training", "compiled")
COUNTED = Path(__file__).parent / "results" / "full_size_costs.json"
JUDGES: dict[str, dict[str, Any]] = {
    "judge, all blocks": {},
    "judge, 1/3": {"fraction": 1 / 3},
    "judge, all blocks, pooled 2x": {"latent_pooling": 2},
    "judge, 1/3, pooled 2x": {"fraction": 1 / 3, "latent_pooling": 2},
}
"""Name in the counted table -> changes to the judge."""


@dataclass(frozen=True)
class Subject:
    """A model with weights on the device."""

    name: str
    model: FullModel
    transformer: Any

    def judge(self, fraction: float = 1.0, **changes: Any) -> VideoJudge:
        """A frozen judge that has a share of the blocks."""
        depth = round(fraction * backbone_for(self.transformer).depth)
        return self.model.judge(self.transformer, depth=depth, **changes).eval()

    def clip(self, *, grad: bool = False) -> Tensor:
        """One clip of noise."""
        generator = torch.Generator("cuda").manual_seed(0)
        clip = torch.randn(1, *self.model.latents, generator=generator, device="cuda")
        return clip.requires_grad_(grad)

    def decode(self) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """The VAE, and what decodes latents with it."""
        vae = frozen_model(self.model.make_vae, device="cuda")
        return vae, lambda clip: vae.decode(clip.to(torch.bfloat16).transpose(1, 2)).sample


def timed(run: Callable[[], object], budget: float = 2.0) -> dict[str, Any]:
    """Median milliseconds of a call, how many were timed, and its memory beyond what was held.

    Args:
        run: called twice before the clock runs.
        budget: seconds to spend on timing; three calls at least, thirty at most.
    """
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        run()
        peak = torch.cuda.max_memory_allocated() - before
        first = elapsed(run)
        count = min(30, max(3, int(1000 * budget / first)))
        times = [elapsed(run) for _ in range(count)]
    except torch.OutOfMemoryError:
        gc.collect()
        torch.cuda.empty_cache()
        return {"out of memory": True}
    return {"ms": statistics.median(times), "calls": count, "gib": peak / GIB}


def elapsed(run: Callable[[], object]) -> float:
    """Milliseconds of one call on the device."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def no_grad(run: Callable[[], object]) -> Callable[[], object]:
    """The call without a graph."""
    return torch.no_grad()(run)


def scores(subject: Subject) -> Iterator[dict[str, Any]]:
    """Scoring by each judge, and decoding."""
    clip = subject.clip()
    for what, changes in JUDGES.items():
        judge = subject.judge(**changes)
        yield {"what": what, **timed(no_grad(partial(judge, clip)))}
    _, decode = subject.decode()
    yield {"what": "VAE decode", **timed(no_grad(partial(decode, clip)))}


def gradients(subject: Subject) -> Iterator[dict[str, Any]]:
    """A gradient to the latents, blocks stored or recomputed, where the counted bytes may fit."""
    counted = {row.what: row for row in read(COUNTED) if row.model == subject.name}
    for what, changes in JUDGES.items():
        if what not in counted:
            continue
        judge = subject.judge(**changes)
        for recompute, note in fitting(counted[what]):
            judge.backbone.gradient_checkpointing = recompute
            run = partial(gradient, subject, lambda clip, judge=judge: judge(clip).scores)
            yield {"what": what, **note, **timed(run)}
    vae, decode = subject.decode()
    for recompute, note in fitting(counted["VAE decode"]):
        if recompute:
            vae.enable_gradient_checkpointing()
        yield {"what": "VAE decode", **note, **timed(partial(gradient, subject, decode))}


def fitting(row: Row) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Whether to recompute, where the counted bytes are fewer than what is free."""
    for recompute, peak in ((False, row.peak), (True, row.peak_recomputing)):
        if peak is not None and peak < torch.cuda.mem_get_info()[0]:
            yield recompute, {"recomputing": recompute, "counted gib": peak / GIB}


def gradient(subject: Subject, score: Callable[[Tensor], Tensor]) -> None:
    """One forward and backward pass to the latents."""
    score(subject.clip(grad=True)).float().mean().backward()


def training(subject: Subject) -> Iterator[dict[str, Any]]:
    """One clip's forward and backward pass, by LoRA's place."""
    clip = subject.clip()
    for place in ("first", "middle", "last", "all"):
        judge = subject.judge(lora_placement=place)
        judge.unfreeze()
        yield {"what": f"LoRA on {place}", **timed(partial(training_step, judge, clip))}


def compiled(subject: Subject) -> Iterator[dict[str, Any]]:
    """Scoring by a compiled judge, and by the plain one again in the same minute."""
    clip, judge = subject.clip(), subject.judge()
    fast = torch.compile(judge)
    with torch.no_grad():
        error = (fast(clip).scores - judge(clip).scores).abs().max().item()
    yield {"what": "plain", **timed(no_grad(partial(judge, clip)))}
    yield {"what": "compiled", "error": error, **timed(no_grad(partial(fast, clip)))}


def matmul_rate() -> float:
    """TFLOP per second of a large bfloat16 product, the most that this device can be asked for."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return float(2 * 8192**3 / 1e9 / timed(lambda: a @ b)["ms"])


def scores_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per model, milliseconds of each way to score, and of decoding."""
    names = ["all blocks", "1/3", "all blocks, pooled 2x", "1/3, pooled 2x"]
    lines = [["model", *names, "VAE decode", "decode / all blocks", "decode / 1/3, pooled 2x"]]
    lines.append(["---"] * len(lines[0]))
    for model in dict.fromkeys(row["model"] for row in rows):
        found = {r["what"]: r for r in rows if r["model"] == model and r["part"] == "scores"}
        judges = [found[f"judge, {name}"]["ms"] for name in names]
        decode = found.get("VAE decode", {}).get("ms")
        ratios = [f"{decode / ms:.1f}" if decode else "-" for ms in (judges[0], judges[-1])]
        cells = [f"{ms:.0f}" for ms in judges] + [f"{decode:.0f}" if decode else "-"]
        lines.append([model, *cells, *ratios])
    return table(lines)


def gradients_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per model and way, milliseconds and memory of a gradient to the latents."""
    lines = [["model", "what", "recomputing", "ms", "GiB", "counted / measured GiB"]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        if row["part"] == "gradients" and "1/3, pooled" not in row["what"]:
            share = row["counted gib"] / row["gib"]
            cells = [f"{row['ms']:.0f}", f"{row['gib']:.1f}", f"{share:.2f}"]
            recomputing = "yes" if row["recomputing"] else "no"
            lines.append([row["model"], row["what"], recomputing, *cells])
    return table(lines)


def training_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per place of LoRA, milliseconds and memory of a training step."""
    found = [row for row in rows if row["part"] == "training"]
    whole = {row["model"]: row["ms"] for row in found if row["what"] == "LoRA on all"}
    lines = [["model", "step", "ms", 'of "all"', "GiB"], ["---"] * 5]
    for row in found:
        share = f"{row['ms'] / whole[row['model']]:.2f}"
        lines.append([row["model"], row["what"], f"{row['ms']:.0f}", share, f"{row['gib']:.1f}"])
    return table(lines)


def show(found: Mapping[str, Any]) -> str:
    """All tables of what was measured."""
    tables = (scores_table, gradients_table, training_table)
    return "\n\n".join(make(found["rows"]) for make in tables)


def main() -> None:
    """Measure, write the rows after each model, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=FULL_MODELS, default=list(FULL_MODELS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--json", type=Path, help="measure, and write to this file")
    where.add_argument("--show", type=Path, help="print tables of a file")
    args = parser.parse_args()
    if args.show:
        print(show(json.loads(args.show.read_text())))
        return
    ways = {"scores": scores, "gradients": gradients, "training": training, "compiled": compiled}
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "matmul TFLOP/s": matmul_rate(),
        "rows": [],
    }
    print(found, flush=True)
    for name in args.models:
        model = FULL_MODELS[name]
        subject = Subject(name, model, frozen_model(model.make_transformer, device="cuda"))
        for part in args.parts:
            for row in ways[part](subject):
                found["rows"].append({"model": name, "part": part, **row})
                print(found["rows"][-1], flush=True)
            gc.collect()
        args.json.write_text(json.dumps(found, indent=1) + "\n")
        del subject
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
