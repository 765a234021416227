"""Cost of a moment judge of CogVideoX-2B, compared with the bare transformer and a LoRA judge.

    python -m benchmarks.moment_cost

For a clip of 49 frames of 480x720, counted on the meta device: what the moments add to a forward
pass in operations and in bytes read and written; memory of a gradient to the latents; the size of
a checkpoint; operations of fitting a judge. None of it is measured.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.cost import table
from benchmarks.counting import GIB, Gradient, count_gradient, fused_attention, tensors_in
from benchmarks.full_models import FULL_MODELS
from gtsvj_reward import VideoJudge
from gtsvj_reward.judge import Aspect

MODEL = FULL_MODELS["CogVideoX-2B"]
ASPECTS = 21
CLIPS, DRAWS, LABELLED = 200, 4, 100
"""Real clips and negatives of each (the default), and rated clips, of a judge fitted in minutes."""
STUDENTS = ((30, 1), (15, 1), (10, 1), (5, 1), (0, 1), (30, 2), (10, 2))
"""Blocks of 30 and pooling of the students in `studies.moments_rows`."""
RECIPE = 42.9e18
"""Operations of training by the LoRA recipe; `python -m benchmarks.training_cost`."""

PER_ELEMENT = {torch.ops.aten.native_layer_norm: 8, torch.ops.aten.var: 4}
"""Operations per element of operators that do more than one."""


class Traffic(TorchDispatchMode):
    """Operations of all operators, not only of products, and the bytes that they move.

    Each operator is taken to run by itself: it reads its inputs and writes its outputs, nothing
    stays in a cache and nothing is fused, so that this is the most that there can be.

    Attributes:
        operations: of products by their formulas; of others one per element, or `PER_ELEMENT`.
        moved: bytes read and written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.moved = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, made = tensors_in((args, kwargs)), tensors_in(result)
        before = {tensor.untyped_storage()._cdata for tensor in given}
        views = {tensor.untyped_storage()._cdata for tensor in made} <= before
        if not made or (views and not func._schema.is_mutable):
            return result
        self.moved += sum(tensor.numel() * tensor.element_size() for tensor in [*given, *made])
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        else:
            elements = max(tensor.numel() for tensor in [*given, *made])
            self.operations += PER_ELEMENT.get(func._overloadpacket, 1) * elements
        return result


def traffic(run: Callable[[], object]) -> Traffic:
    """Operations and bytes moved of a call without gradients."""
    with torch.no_grad(), Traffic() as counted, fused_attention():
        run()
    return counted


def moment_judge(transformer: Any, **changes: Any) -> VideoJudge:
    """A judge of 21 aspects with energy and posterior, as a fit leaves it."""
    aspects = tuple(Aspect(name=str(index), low=1, high=5) for index in range(ASPECTS))
    fields = {"stage": "aspects", "aspects": aspects, "has_energy": True,
              "penalties": (1.0,) * 4, "readout": "moments", "lora_rank": 0}  # fmt: skip
    return MODEL.judge(transformer, **{**fields, **changes})


def checkpoint_bytes(judge: VideoJudge) -> int:
    """Bytes of the tensors that a checkpoint has: readout, scale of the features, posterior."""
    return sum(t.numel() * t.element_size() for t in judge.head.state_dict().values())


def gradients(judge: VideoJudge) -> tuple[Gradient, Gradient]:
    """Costs of a gradient from score to latents, all blocks stored or all recomputed."""
    found = []
    for recompute in (False, True):
        judge.backbone.gradient_checkpointing = recompute
        found.append(count_gradient(lambda: judge(MODEL.clip(grad=True)).scores.mean(), judge))
    return found[0], found[1]


def bare(transformer: Any) -> object:
    """The unmodified model on the clip and an empty prompt."""
    clip: Tensor = MODEL.clip().to(torch.bfloat16)
    text = torch.zeros(1, 226, 4096, dtype=torch.bfloat16, device="meta")
    return transformer(clip, text, torch.zeros(1, device="meta"))


def readout_costs(judge: VideoJudge) -> tuple[Traffic, Traffic]:
    """Costs of a score, and of its tokens alone, without moments and readout."""
    blocks = [tap for tap in judge.config.taps or () if tap]
    whole = traffic(lambda: judge(MODEL.clip()))
    tokens = traffic(lambda: judge.backbone(MODEL.clip(), timestep=0.0, taps=blocks))
    return whole, tokens


def student(transformer: Any, blocks: int, pooling: int) -> VideoJudge:
    """A judge of one score that runs the first blocks, on averages of squares of latents."""
    reads = {"depth": blocks} if blocks else {"taps": [0]}
    return MODEL.judge(transformer, readout="moments", lora_rank=0, latent_pooling=pooling, **reads)


def report() -> str:
    """The whole account as text."""
    transformer = MODEL.transformer()
    judge, mlp = moment_judge(transformer), MODEL.judge(transformer)
    model = traffic(lambda: bare(transformer))
    whole, tokens = readout_costs(judge)
    own = whole.operations - tokens.operations, whole.moved - tokens.moved
    lines = [
        ["", "TFLOP", "GB read and written"],
        ["---"] * 3,
        ["bare transformer", f"{model.operations / 1e12:.2f}", f"{model.moved / 1e9:.0f}"],
        ["moment judge", f"{whole.operations / 1e12:.2f}", f"{whole.moved / 1e9:.0f}"],
        ["of it moments and readout", f"{own[0] / 1e12:.4f}", f"{own[1] / 1e9:.1f}"],
        ["of the transformer", f"{own[0] / model.operations:.4%}", f"{own[1] / model.moved:.2%}"],
    ]
    memory = [
        ["gradient to the latents", "saved", "peak", "saved, recomputing", "peak, recomputing"]
    ]
    memory += [["---"] * 5]
    for name, each in {"moments": judge, "mlp with LoRA": mlp}.items():
        plain, again = gradients(each)
        sizes = (plain.saved, plain.peak, again.saved, again.peak)
        memory.append([name, *(f"{size / GIB:.2f} GiB" for size in sizes)])
    students = [["student: blocks of 30", "latents averaged", "TFLOP"], ["---"] * 3]
    for blocks, pooling in STUDENTS:
        cheap = student(MODEL.transformer(), blocks, pooling)
        count = traffic(lambda cheap=cheap: cheap(MODEL.clip())).operations
        students.append([str(blocks), f"{pooling}x{pooling}", f"{count / 1e12:.4g}"])
    passes = CLIPS * (1 + DRAWS) + LABELLED
    total = passes * whole.operations
    return "\n".join(
        [
            table(lines),
            "",
            table(memory),
            "",
            table(students),
            "",
            f"checkpoint of {ASPECTS} aspects: {checkpoint_bytes(judge) / 1e6:.2f} MB",
            f"fitting: {passes:,} forward passes, {total / 1e18:.3f} EFLOP, "
            f"{total / RECIPE:.2%} of the LoRA recipe's {RECIPE / 1e18:.1f} EFLOP",
        ]
    )


def main() -> None:
    """Count and print."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(report())


if __name__ == "__main__":
    main()
