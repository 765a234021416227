"""Shared weights whose values change in place, and what else of a generator must not come along."""

import pytest
import torch
from peft import LoraConfig
from torch import nn

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import SharingError, shared_backbone
from tests.backbones.family_wan import tiny_wan
from tests.reward.test_shared import saved, with_policy_adapter
from tests.tiny import clips, tiny_transformer


def adapter_of(kind):
    """An adapter that takes its start out of the base weights."""

    def attach(transformer):
        transformer.add_adapter(
            LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=kind)
        )

    return attach


def merge_and_unload(transformer):
    """As `PeftModel.merge_and_unload`: no trace is left but in the values."""
    with_policy_adapter(transformer)
    transformer.fuse_lora()
    transformer.unload_lora()


def load_state_dict(transformer):
    transformer.load_state_dict(tiny_transformer(seed=1).state_dict())


def one_block(transformer):
    block = transformer.transformer_blocks[1]
    block.load_state_dict(tiny_transformer(seed=1).transformer_blocks[1].state_dict())


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (adapter_of("olora"), r"transformer_blocks\.0\.attn1\.to_q\.weight"),
        (adapter_of("pissa"), r"transformer_blocks\.0\.attn1\.to_q\.weight"),
        (merge_and_unload, r"transformer_blocks\.0\.attn1\.to_q\.weight"),
        (load_state_dict, r"patch_embed\.proj\.weight"),
        (one_block, r"transformer_blocks\.1\."),
    ],
)
def test_values_that_change_in_place_are_refused_at_the_next_call(tmp_path, change, first):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    assert shared(clips()).isfinite().all()
    change(transformer)
    with pytest.raises(SharingError, match=rf"values of \d+ of \d+ tensors .* first is {first}"):
        shared(clips())


def test_a_cast_is_refused_and_undone(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    transformer.to(torch.bfloat16)
    with pytest.raises(SharingError, match=r"was torch.float32 when .* it is torch.bfloat16 now"):
        shared(clips())
    transformer.to(torch.float32)
    with pytest.raises(SharingError, match="values of"):
        shared(clips())


def test_merged_and_unmerged_again_is_rounding_and_refused(tmp_path):
    """W + BA - BA is not W: the weights are others than the judge was trained on."""
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    before = {name: p.detach().clone() for name, p in transformer.named_parameters()}
    with_policy_adapter(transformer)
    transformer.fuse_lora()
    transformer.unfuse_lora()
    now = {n.replace(".base_layer", ""): p for n, p in transformer.named_parameters()}
    assert any(not torch.equal(now[name], before[name]) for name in before)
    with pytest.raises(SharingError, match="values of"):
        shared(clips())


def test_verify_reads_every_element(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    shared.verify()
    weight = transformer.transformer_blocks[2].ff.net[0].proj.weight
    seen = torch.zeros(weight.numel(), dtype=torch.bool)
    seen[:: weight.numel() // 64 | 1][:64] = True
    place = int((~seen).nonzero()[len(seen) // 2])
    with torch.no_grad():
        weight.view(-1)[place] += 1e-3
    assert shared(clips()).isfinite().all(), "calls look at a sample alone"
    with pytest.raises(SharingError, match=r"1 of .* transformer_blocks\.2\.ff\.net\.0\.proj"):
        shared.verify()


def test_what_stands_behind_the_blocks_may_change_and_train(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    before = shared(clips())
    transformer.proj_out.requires_grad_(True)
    with torch.no_grad():
        transformer.proj_out.weight.add_(1.0)
    assert torch.equal(shared(clips()), before)
    shared.verify()
    later = GTSVJReward.from_pretrained(path, transformer=transformer)
    assert torch.equal(later(clips()), before)
    assert transformer.proj_out.weight.requires_grad
    assert not any(p.requires_grad for p in later.judge.parameters())


def test_tensors_in_two_precisions_are_compared_too():
    wan = tiny_wan().requires_grad_(False).to(torch.bfloat16)
    wan.condition_embedder.time_embedder.float()
    backbone = shared_backbone(wan)
    backbone.live.refresh()
    name, last = list(backbone.base_tensors())[-1]
    last.add_(1.0)
    with pytest.raises(SharingError, match=f"1 of .* first is {name}"):
        backbone.live.refresh()


HOOKS = {
    "forward": lambda m: m.register_forward_hook(lambda m, i, o: (o[0] * 1.3, o[1])),
    "forward pre": lambda m: m.register_forward_pre_hook(
        lambda m, a, k: (a, {**k, "hidden_states": k["hidden_states"] * 1.3}), with_kwargs=True
    ),
    "backward": lambda m: m.register_full_backward_hook(
        lambda m, grads, out: tuple(None if g is None else g * 2 for g in grads)
    ),
    "linear": lambda m: m.attn1.to_q.register_forward_hook(lambda m, i, o: o * 1.3),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_of_the_generator_are_none_of_the_judges(tmp_path, kind, when):
    path, transformer = saved(tmp_path)
    results = []
    for hooked in (False, True):
        if hooked and when == "before":
            HOOKS[kind](transformer.transformer_blocks[0])
        shared = GTSVJReward.from_pretrained(path, transformer=transformer)
        if hooked and when == "after":
            HOOKS[kind](transformer.transformer_blocks[0])
        latents = clips().requires_grad_()
        score = shared(latents)
        score.sum().backward()
        results.append((score.detach(), latents.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    block = shared.judge.backbone.blocks()[0]
    assert len(block._forward_hooks) == 1, "our own"
    assert not block._forward_pre_hooks
    assert not block._backward_hooks


def test_mode_dropout_and_attention_processors_are_our_own(tmp_path):
    path, transformer = saved(tmp_path)
    expected = GTSVJReward.from_pretrained(path, transformer=transformer)(clips())
    for module in transformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    transformer.train()
    for block in transformer.transformer_blocks:
        block.attn1.processor = None
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    assert torch.equal(shared(clips()), expected)
    assert transformer.training


@pytest.mark.parametrize("when", ["before", "after"])
def test_parametrized_weights_are_refused(tmp_path, when):
    path, transformer = saved(tmp_path)
    layer = transformer.transformer_blocks[0].attn1.to_q
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    torch.nn.utils.parametrizations.weight_norm(layer)
    layer.parametrizations.requires_grad_(False)
    refused = r"attn1\.to_q has no `weight`.*parametrization"
    if when == "after":
        with pytest.raises(SharingError, match=refused):
            shared(clips())
    else:
        with pytest.raises(SharingError, match=refused):
            GTSVJReward.from_pretrained(path, transformer=transformer)


def test_a_replaced_layer_is_refused(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    attention = transformer.transformer_blocks[0].attn1
    attention.to_k = nn.Linear(32, 32).requires_grad_(False)
    with pytest.raises(SharingError, match=r"to_k\.weight of the shared transformer was replaced"):
        shared(clips())
