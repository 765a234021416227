"""Tokens of several blocks from one forward pass of the model."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from gtsvj_reward.backbones import HiddenBlockError, backbone_for, shared_backbone
from gtsvj_reward.backbones.taps import WATCHED
from tests.backbones.test_families import every_family, latents_of
from tests.tiny import clips, tiny_transformer


@every_family
def test_each_tap_is_what_a_model_of_that_depth_gives_last(family):
    model, latents, text = family.transformer(0), latents_of(family), family.text(2)
    backbone = backbone_for(model)
    tokens = backbone(latents, timestep=7.0, text=text, taps=family.depths)
    assert list(tokens) == list(family.depths)
    for depth, found in tokens.items():
        expected = family.hidden(model, latents, depth, 7.0, text)
        assert torch.equal(found.flatten(1, 2), expected)
        assert found.shape[1:3] == family.tokens(family.sizes[0])
    assert torch.equal(tokens[backbone.depth], backbone(latents, timestep=7.0, text=text))
    assert not torch.equal(tokens[family.depths[0]], tokens[family.depths[1]])


@every_family
def test_recomputing_blocks_changes_neither_taps_nor_gradients(family):
    results = []
    for recomputing in (False, True):
        backbone = backbone_for(family.transformer(0))
        backbone.gradient_checkpointing = recomputing
        latents = latents_of(family).requires_grad_()
        tokens = backbone(latents, timestep=0.0, taps=family.depths)
        runs = []
        for block in backbone.blocks():
            block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        sum(t.square().mean() for t in tokens.values()).backward()
        assert len(runs) == (backbone.depth if recomputing else 0)
        results.append((*(t.detach() for t in tokens.values()), latents.grad))
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-6, atol=1e-7)
    assert results[0][-1].abs().max() > 0


@pytest.mark.parametrize("recomputing", [False, True])
def test_tokens_read_at_once_get_their_gradient_when_the_backward_pass_comes_to_their_block(
    recomputing,
):
    def order(at_once):
        backbone, ran = backbone_for(tiny_transformer()), []
        backbone.gradient_checkpointing = recomputing
        for number, block in enumerate(backbone.blocks(), 1):
            block.register_forward_hook(
                lambda _, __, output, number=number: trace(output[0], number)
            )

        def trace(tensor, name):
            if tensor.requires_grad:
                tensor.register_hook(lambda _: ran.append(name))

        def read(tokens):
            squares = tokens.square()
            trace(squares, "read")
            return squares.mean(dim=2)

        latents = clips().requires_grad_()
        found = backbone(latents, timestep=0.0, taps=[1, 3], read=read if at_once else None)
        if not at_once:
            found = {tap: read(tokens) for tap, tokens in found.items()}
        (found[1].sum() - found[3].sum()).backward()
        return ran, found[1].detach(), found[3].detach(), latents.grad

    (late, *expected), (early, *values) = order(False), order(True)
    assert late == ["read", "read", 3, 2, 1]
    assert early == ["read", 3, 2, "read", 1]
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
    assert values[-1].abs().max() > 1e-3


def test_recomputing_can_be_turned_off_again():
    backbone = backbone_for(tiny_transformer())
    for on in (True, False, False, True):
        backbone.gradient_checkpointing = on
        assert backbone.gradient_checkpointing == on
        assert backbone.model.is_gradient_checkpointing == on


@pytest.mark.parametrize("taps", [[], [0], [5], [1, 1], [-1]])
def test_taps_that_are_no_blocks_are_refused(taps):
    backbone = backbone_for(tiny_transformer())
    with pytest.raises(ValueError, match=r"numbers of blocks in 1\.\.4, one at least, got"):
        backbone(clips(), timestep=0.0, taps=taps)


def test_a_block_that_does_not_run_is_an_error():
    backbone = backbone_for(tiny_transformer())
    last = backbone.model.transformer_blocks[3]
    del backbone.model.transformer_blocks[3]
    backbone.blocks = lambda: [*backbone.model.transformer_blocks, last]
    with pytest.raises(HiddenBlockError, match="hook of block 4 ran 0 times in one forward pass"):
        backbone(clips(), timestep=0.0)
    assert backbone(clips(), timestep=0.0, taps=[3])[3].isfinite().all()


def test_a_block_that_runs_twice_is_an_error():
    backbone = backbone_for(tiny_transformer())
    backbone.model.transformer_blocks[2] = backbone.model.transformer_blocks[1]
    with pytest.raises(HiddenBlockError, match="hook of block 2 ran 2 times"):
        backbone(clips(), timestep=0.0, taps=[2])


def test_nothing_is_kept_between_calls_and_after_errors():
    backbone = backbone_for(tiny_transformer())
    with pytest.raises(RuntimeError):
        backbone(clips().to("meta"), timestep=0.0)
    assert WATCHED.get() is None
    backbone.model(clips(), torch.zeros(2, 6, 8), torch.zeros(2))  # seen by nobody
    backbone(clips(), timestep=0.0)
    assert [len(block._forward_hooks) for block in backbone.blocks()] == [1] * 4


def test_threads_see_their_own_clips():
    backbone, barrier = backbone_for(tiny_transformer()), Barrier(4)
    batches = [clips(1, seed=seed) for seed in range(4)]
    with torch.no_grad():
        expected = [backbone(batch, timestep=0.0) for batch in batches]

    @torch.no_grad()
    def run(batch):
        barrier.wait()
        return [backbone(batch, timestep=0.0) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for found, tokens in zip(pool.map(run, batches), expected, strict=True):
            for again in found:
                torch.testing.assert_close(again, tokens)
    assert not torch.allclose(expected[0], expected[1])


@pytest.fixture
def compiled_anew(unchecked):
    """Without the shape checks of the test run, which cannot be compiled."""
    yield
    torch._dynamo.reset()


def repeated_blocks(backbone):
    for block in backbone.blocks():
        block.compile(backend="aot_eager", fullgraph=True)
    return backbone


def wrapped_blocks(backbone):
    blocks = backbone.model.transformer_blocks
    for index, block in enumerate(blocks):
        blocks[index] = torch.compile(block, backend="aot_eager", fullgraph=True)
    return backbone


def whole_model(backbone):
    backbone.model.compile(backend="aot_eager")
    return backbone


def whole_backbone(backbone):
    return torch.compile(backbone, backend="aot_eager")


@pytest.mark.parametrize(
    ("way", "recomputing"),
    [
        (repeated_blocks, False), (wrapped_blocks, False), (whole_model, False),
        (whole_backbone, False), (repeated_blocks, True), (whole_backbone, True),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("compiled_anew")
def test_compiled_after_it_was_built_it_gives_the_same_taps(way, recomputing):
    results = []
    for change in (lambda backbone: backbone, way):
        backbone = backbone_for(tiny_transformer(layers=2))
        backbone.gradient_checkpointing = recomputing
        call = change(backbone)
        with torch.no_grad():
            call(clips(), timestep=0.0)
        latents = clips().requires_grad_()
        tokens = call(latents, timestep=0.0, taps=[1, 2])
        sum(t.square().mean() for t in tokens.values()).backward()
        results.append((tokens[1].detach(), tokens[2].detach(), latents.grad))
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled_anew")
def test_a_model_that_was_compiled_as_a_whole_before_hides_its_blocks():
    backbone = backbone_for(tiny_transformer(layers=2))
    for block in backbone.blocks():
        block._forward_hooks.clear()
    backbone.model.compile(backend="aot_eager")
    with torch.no_grad():
        backbone.model(**backbone.inputs(clips(), timestep=0.0, text=None))
        with pytest.raises(HiddenBlockError, match="never run: compile its blocks"):
            backbone(clips(), timestep=0.0)


def test_shared_blocks_may_be_compiled():
    model = tiny_transformer().requires_grad_(False)
    expected = backbone_for(model)(clips(), timestep=0.0)
    for index, block in enumerate(model.transformer_blocks):
        model.transformer_blocks[index] = torch.compile(block, backend="aot_eager")
    shared = shared_backbone(model)
    assert torch.equal(shared(clips(), timestep=0.0), expected)
    shared.live.refresh()
