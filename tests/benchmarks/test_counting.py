"""What is counted on the meta device is what the graph has, worked out by hand."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.counting import (
    Meter,
    SavedBytes,
    count_gradient,
    count_scoring,
    frozen_model,
    fused_attention,
    held,
    operations,
)
from tests.tiny import clips, tiny_judge

FLOAT = 4


def meta(*shape, grad=False):
    return torch.zeros(shape, device="meta", requires_grad=grad)


def test_operations_of_a_linear_layer():
    layer = nn.Linear(5, 7, bias=False)
    assert operations(lambda: layer(torch.zeros(3, 5))) == 2 * 3 * 5 * 7
    assert operations(lambda: layer.to("meta")(meta(3, 5))) == 2 * 3 * 5 * 7


def test_attention_has_two_products_on_both_devices():
    shape = (2, 3, 11, 4)  # batch, heads, tokens, width of a head
    expected = 2 * (2 * 2 * 3 * 11 * 11 * 4)
    for device in ("cpu", "meta"):
        q = torch.zeros(shape, device=device)
        assert operations(lambda q=q: F.scaled_dot_product_attention(q, q, q)) == expected


def test_saved_bytes_of_a_known_graph():
    x = meta(10, 10, grad=True)
    with SavedBytes() as saved:
        y = x.sin().exp()  # sin keeps its input, exp its output
    assert saved.total == 2 * 100 * FLOAT
    del y
    assert saved.total == 100 * FLOAT, "what is let go is not counted, the input is still there"


def test_a_storage_is_saved_once_and_weights_never():
    layer = frozen_model(lambda: nn.Linear(10, 10), torch.float32)
    x = meta(10, 10, grad=True)
    with SavedBytes(layer) as saved:
        y = layer(x * x)  # the product keeps x, twice; a frozen layer keeps its weight alone
    assert y.requires_grad
    assert saved.total == 100 * FLOAT
    layer.weight.requires_grad_(True)
    with SavedBytes(layer) as saved:
        z = layer(x * x)
    assert z.requires_grad
    assert saved.total == 2 * 100 * FLOAT, "a trained layer keeps its input"


def test_fused_attention_saves_no_matrix():
    q, k, v = (meta(1, 2, 512, 8, grad=True) for _ in range(3))
    with fused_attention(), SavedBytes() as saved:
        out = F.scaled_dot_product_attention(q, k, v)
    tensors, normaliser = 4 * out.numel(), 2 * 512
    # Beside them a fused kernel keeps the state of its dropout, a few numbers.
    assert 0 <= saved.total - FLOAT * (tensors + normaliser) <= 64


def test_most_bytes_alive_at_once():
    x = meta(100)
    with Meter() as alive:
        a = x * 2
        b = a * 2
        view = b.view(10, 10)
        del a
        c = view * 2
        assert alive.now == 2 * 100 * FLOAT
        del b, view, c
    assert alive.now == 0
    assert alive.peak == 2 * 100 * FLOAT


def test_views_of_what_was_there_before_are_not_new():
    x = meta(100)
    with Meter() as alive:
        y = x.view(10, 10).transpose(0, 1)
    assert y.shape == (10, 10)
    assert alive.peak == 0


def chain(x, layers, recompute):
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
    return x


def test_recomputing_keeps_the_inputs_of_blocks_and_runs_them_twice():
    def block():
        return nn.Sequential(
            nn.Linear(16, 64, bias=False), nn.GELU(), nn.Linear(64, 16, bias=False)
        )

    layers = [frozen_model(block, torch.float32) for _ in range(6)]
    x = meta(8, 16, grad=True)
    plain = count_gradient(lambda: chain(x, layers, False), *layers)
    again = count_gradient(lambda: chain(x, layers, True), *layers)
    forward = 6 * 2 * 8 * 2 * 16 * 64
    assert plain.forward == again.forward == forward
    assert plain.operations == 2 * forward  # weights are frozen: one product back for each
    # The second product of a block is not needed again: recomputing stops after the last tensor.
    assert plain.operations < again.operations <= 3 * forward
    assert plain.saved == 6 * 8 * 64 * FLOAT  # what enters each GELU
    # What enters each block, and the placeholder of each checkpoint's inputs.
    assert 0 <= again.saved - 6 * 8 * 16 * FLOAT <= 6 * 8
    assert plain.saved <= plain.peak
    assert again.peak < plain.peak


@pytest.mark.parametrize("kind", ["2b", "5b"])
def test_a_judge_has_the_same_operations_on_both_devices(kind):
    judge = tiny_judge(kind).requires_grad_(False)
    latents = clips(2)
    on_cpu = operations(lambda: judge(latents))
    judge.to("meta")
    assert operations(lambda: judge(latents.to("meta"))) == on_cpu > 0
    assert count_scoring(lambda: judge(latents.to("meta"))).operations == on_cpu


def test_models_on_the_meta_device_are_in_their_dtype():
    vae = frozen_model(
        lambda: AutoencoderKLCogVideoX(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    )
    assert {p.dtype for p in vae.parameters()} == {torch.bfloat16}
    assert held(vae) == 2 * sum(p.numel() for p in vae.parameters())
    assert torch.get_default_dtype() == torch.float32
