"""What the scoring path must not do: wait for the device once per clip, or build tables again."""

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import backbone_for
from tests.backbones.families import FAMILIES
from tests.backbones.test_families import judge_of, latents_of
from tests.tiny import clips, tiny_aspect_judge, tiny_judge, tiny_transformer

READS = {
    Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.new_tensor,
    Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__,
    torch.nonzero, torch.tensor, torch.as_tensor, torch.equal,
}  # fmt: skip
"""Calls that bring values to the host, or from it, and wait for the device."""
OPERATORS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")


class Waits(TorchFunctionMode):
    """Counts such calls from Python."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READS:
            self.calls.append(func)
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Counts operators by name, and the numbers that each made."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        size = result.numel() if isinstance(result, Tensor) else 0
        self.calls.append((func.__name__.split(".")[0], size))
        return result


def waits(run):
    """How often a call waits for the device, by both counts."""
    with Waits() as python, Operators() as inside:
        run()
    return len(python.calls), sum(name in OPERATORS for name, _ in inside.calls)


REWARDS = {
    "discriminator": lambda: GTSVJReward(tiny_judge()),
    "preference": lambda: GTSVJReward(tiny_aspect_judge(stage="preference")),
    "selection": lambda: GTSVJReward(tiny_aspect_judge(), aspects=["clear", "focus"]),
}


def test_waiting_is_noticed():
    x = torch.arange(4.0)
    assert waits(lambda: x.sum().item())[0] == 1
    assert waits(lambda: [float(value) for value in x]) == (4, 4)
    assert waits(lambda: x.nonzero()) == (1, 1)
    assert waits(lambda: x * 2) == (0, 0)


@pytest.mark.parametrize("make", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("as_list", [False, True], ids=["batch", "list"])
def test_scoring_waits_as_often_for_eight_clips_as_for_two(make, as_list):
    reward = make()
    with torch.no_grad():
        few, many = (waits(lambda n=n: reward(given(clips(n), as_list))) for n in (2, 8))
    assert many == few
    assert few[0] > 0, "non-finite scores cannot be refused without a look"


def given(latents, as_list):
    return list(latents) if as_list else latents


def test_a_list_of_two_shapes_is_checked_once_per_shape():
    reward = GTSVJReward(tiny_judge())
    mixed = [*clips(3), *clips(3, time=4)]
    with torch.no_grad():
        assert waits(lambda: reward(mixed))[0] - waits(lambda: reward(list(clips(6))))[0] <= 2


OWN_LOOPS = {"mochi"}
"""Families whose diffusers code looks at each clip's mask, in every block."""


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.name not in OWN_LOOPS], ids=lambda f: f.name
)
def test_no_family_waits_per_clip(family):
    reward = GTSVJReward(judge_of(family), check_statistics=False)
    with torch.no_grad():
        few, many = (waits(lambda n=n: reward(latents_of(family, n))) for n in (2, 6))
    assert many == few


def test_mochi_still_waits_in_every_block():
    family = next(f for f in FAMILIES if f.name == "mochi")
    reward = GTSVJReward(judge_of(family), check_statistics=False)
    with torch.no_grad():
        few, many = (waits(lambda n=n: reward(latents_of(family, n)))[0] for n in (2, 6))
    assert many - few == 4 * family.depths[-1], "diffusers may have changed: take it off the list"


def angles(run):
    """How many sines and cosines a call takes, of positions and of the timestep."""
    with torch.no_grad(), Operators() as operators:
        run()
    return sum(size for name, size in operators.calls if name in ("cos", "sin"))


REBUILT = ("mochi", "cogvideox-2b", "hunyuan_video", "ltx")
"""Families whose models make their tables in every call; those of sine-cosine models are kept for
clips of the model's own size."""


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if not f.name.startswith(REBUILT)], ids=lambda f: f.name
)
def test_tables_of_positions_are_not_made_again(family):
    backbone, left = backbone_for(family.transformer(0)), set()
    for size in family.sizes:
        latents = latents_of(family, 1, size)
        backbone(latents, timestep=0.0)
        left.add(angles(lambda latents=latents: backbone(latents, timestep=0.0)))
    assert len(left) == 1, "the number of angles grows with the clip"
    assert left.pop() > 0, "the timestep has some"


def test_sine_cosine_tables_are_kept_for_clips_of_the_models_own_size():
    backbone = backbone_for(tiny_transformer("2b"))
    own, other = clips(1, time=3), clips(1, time=4)
    timestep = angles(lambda: backbone.model.time_proj(torch.zeros(1)))
    assert angles(lambda: backbone(own, timestep=0.0)) == timestep > 0
    assert angles(lambda: backbone(other, timestep=0.0)) > timestep
