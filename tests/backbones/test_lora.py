import json

import pytest
import torch
from hypothesis import given, strategies as st
from peft import PeftModel

from gtsvj_reward.backbones import backbone_for
from gtsvj_reward.backbones.lora import (
    adapter_state,
    attach_lora,
    load_adapter,
    lora_blocks,
    save_adapter,
)
from tests.tiny import clips, tiny_transformer


def adapted(kind="2b", *, placement="last", rank=8, layers=4, seed=0):
    """A tiny backbone with an adapter that does something."""
    backbone = backbone_for(tiny_transformer(kind, layers=layers))
    attach_lora(backbone, rank=rank, alpha=8, placement=placement, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in backbone.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return backbone


def test_thirds_of_cogvideox_2b_are_ten_blocks_each():
    """Section 5.3 of the paper: 30 layers in three segments of 10."""
    assert lora_blocks(30, "first") == range(10)
    assert lora_blocks(30, "middle") == range(10, 20)
    assert lora_blocks(30, "last") == range(20, 30)


@given(st.integers(3, 100))
def test_thirds_cover_every_block_once(depth):
    thirds = [list(lora_blocks(depth, name)) for name in ("first", "middle", "last")]
    assert [block for third in thirds for block in third] == list(lora_blocks(depth, "all"))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


def test_bad_placements_are_refused():
    with pytest.raises(ValueError, match="'late'"):
        lora_blocks(30, "late")
    with pytest.raises(ValueError, match="first third of 1 blocks is empty"):
        lora_blocks(1, "first")


@pytest.mark.parametrize("placement", ["first", "middle", "last", "all"])
def test_lora_sits_on_q_k_v_out_of_the_placed_blocks_alone(placement):
    backbone = backbone_for(tiny_transformer(layers=9))
    attach_lora(backbone, rank=2, alpha=2, placement=placement)
    trainable = {
        name.split(".lora_")[0] for name, p in backbone.model.named_parameters() if p.requires_grad
    }
    expected = {
        f"transformer_blocks.{block}.attn1.{projection}"
        for block in lora_blocks(9, placement)
        for projection in ("to_q", "to_k", "to_v", "to_out.0")
    }
    assert trainable == expected


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_a_fresh_adapter_changes_nothing(kind):
    transformer, latents = tiny_transformer(kind), clips()
    plain, with_lora = backbone_for(transformer), backbone_for(transformer)
    attach_lora(with_lora, rank=8, alpha=8, placement="all")
    assert torch.equal(plain(latents, timestep=0.0), with_lora(latents, timestep=0.0))
    assert plain.fingerprint() == with_lora.fingerprint()
    trained = adapted(kind, placement="all")(latents, timestep=0.0)
    assert (trained - plain(latents, timestep=0.0)).abs().max() > 1e-2


def test_adapter_initialisation_follows_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (adapter_state(adapted(seed=seed)) for seed in (0, 0, 1))
    torch.set_rng_state(before)
    backbone = backbone_for(tiny_transformer())
    state = torch.get_rng_state()
    attach_lora(backbone, rank=8, alpha=8, placement="last")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_saved_adapters_load_bitwise_and_with_peft_itself(tmp_path):
    """`PeftModel` reads the folder, and its hidden states are ours: the adapter is a PEFT one."""
    source, latents = adapted("2b", placement="all"), clips()
    save_adapter(source, tmp_path, "tiny")
    target = backbone_for(tiny_transformer("2b"))
    attach_lora(target, rank=8, alpha=8, placement="all", seed=9)
    load_adapter(target, tmp_path)
    tokens = source(latents, timestep=0.0)
    assert torch.equal(target(latents, timestep=0.0), tokens)

    model = PeftModel.from_pretrained(tiny_transformer("2b"), tmp_path)
    seen = []
    model.base_model.model.transformer_blocks[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    model(latents, torch.zeros(2, 6, 8), torch.zeros(2))
    assert torch.equal(seen[0], tokens.flatten(1, 2))


def test_adapter_config_holds_full_names(tmp_path):
    save_adapter(adapted(placement="all", layers=8), tmp_path, "tiny")
    targets = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(targets) == 32
    assert all(target.startswith("transformer_blocks.") for target in targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 6}, "unexpected .*another depth or LoRA placement"),
        ({"placement": "first"}, "unexpected .*another depth or LoRA placement"),
        ({"rank": 4}, r"has shape \(4, 32\), expected \(8, 32\)"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(tmp_path, changes, message):
    save_adapter(adapted(**changes), tmp_path, "tiny")
    with pytest.raises(ValueError, match=message):
        load_adapter(adapted(), tmp_path)
