"""`torch.compile` takes each block of a judge in one graph."""

import pytest
import torch

from benchmarks.compile import compile_blocks
from tests.backbones.families import FAMILIES
from tests.backbones.test_families import judge_of, latents_of

REFUSED = {
    "mochi": "diffusers picks the valid words of each prompt in every block",
}
"""Families that do not compile, or not in one graph, and what stands in the way."""
LEFT_OUT = {"cogvideox-1.5", "hunyuan_video-double", "hunyuan_video-single", "wan-2.2-5b"}
"""Kinds whose code is that of another one here: each costs seconds."""


@pytest.fixture
def compiled_anew(unchecked):
    """Without the shape checks of the test run, which cannot be compiled."""
    yield
    torch._dynamo.reset()


def cases():
    for family in FAMILIES:
        if family.name in LEFT_OUT:
            continue
        reason = REFUSED.get(family.name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=False)]
        yield pytest.param(family, id=family.name, marks=marks)


@pytest.mark.parametrize("family", list(cases()))
@pytest.mark.usefixtures("compiled_anew")
def test_each_block_of_a_judge_is_one_graph(family):
    judge, latents = judge_of(family).requires_grad_(False), latents_of(family)
    expected = judge(latents).scores
    compile_blocks(judge, backend="aot_eager")
    torch.testing.assert_close(judge(latents).scores, expected, rtol=1e-4, atol=1e-5)
