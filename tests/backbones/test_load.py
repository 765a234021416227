import json

import diffusers
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard

from gtsvj_reward.backbones import SharingError, backbone_for, load_transformer, shared_backbone
from tests.tiny import KINDS, clips, tiny_transformer

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path):
    """A transformer as diffusers saves it, inside a pipeline folder."""
    tiny_transformer().save_pretrained(tmp_path / "pipe" / "transformer")
    return tmp_path / "pipe"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3, None])
def test_a_loaded_transformer_gives_the_same_tokens_at_every_depth(tmp_path, kind, depth):
    transformer, latents = tiny_transformer(kind), clips()
    transformer.save_pretrained(tmp_path)
    loaded = load_transformer(tmp_path, depth=depth)
    assert len(loaded.transformer_blocks) == (depth or 4)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    ours, theirs = backbone_for(loaded), backbone_for(transformer, depth)
    assert torch.equal(ours(latents, timestep=0.0), theirs(latents, timestep=0.0))
    assert ours.fingerprint() == theirs.fingerprint()


def test_sharded_weights_and_pipeline_folders_load(saved):
    tiny_transformer().save_pretrained(saved / "transformer", max_shard_size="50KB")
    (saved / "transformer" / WEIGHTS).unlink()
    assert len(list((saved / "transformer").glob("*.safetensors"))) > 1
    expected = backbone_for(tiny_transformer()).fingerprint()
    assert backbone_for(load_transformer(saved)).fingerprint() == expected


def test_fingerprints_tell_models_apart_but_not_their_precision():
    base = backbone_for(tiny_transformer())
    assert base.fingerprint() == backbone_for(tiny_transformer().bfloat16()).fingerprint()
    assert base.fingerprint() != backbone_for(tiny_transformer(seed=1)).fingerprint()
    assert base.fingerprint() != backbone_for(tiny_transformer(), 3).fingerprint()
    changed = tiny_transformer()
    changed.transformer_blocks[3].ff.net[2].bias.data[-1] += 0.1
    assert base.fingerprint() != backbone_for(changed).fingerprint()


def test_fingerprints_tell_apart_the_same_weights_under_other_settings():
    """Rotary and sine-cosine models have the same tensors; their hidden states differ."""
    kinds = [backbone_for(tiny_transformer(kind)) for kind in ("2b", "5b")]
    tensors = [dict(backbone.base_tensors()) for backbone in kinds]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert kinds[0].fingerprint() != kinds[1].fingerprint()
    scaled = backbone_for(tiny_transformer(spatial_interpolation_scale=1.0))
    assert scaled.fingerprint() != kinds[0].fingerprint()


def test_missing_tensors_are_named(saved):
    file = saved / "transformer" / WEIGHTS
    tensors = load_file(file)
    del tensors["transformer_blocks.2.ff.net.2.bias"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"lacks 1 tensors.*transformer_blocks.2.ff.net.2.bias"):
        load_transformer(saved)
    assert len(load_transformer(saved, depth=2).transformer_blocks) == 2  # not needed there


def test_weights_of_another_shape_are_named(saved):
    config = json.loads((saved / "transformer" / "config.json").read_text())
    config["text_embed_dim"] = 10
    (saved / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"text_proj.weight' has shape \(32, 8\).*\(32, 10\)"):
        load_transformer(saved)


def test_damaged_weights_are_refused(saved):
    file = saved / "transformer" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short or damaged"):
        load_transformer(saved)


def test_pickles_are_refused(saved):
    torch.save({"x": torch.zeros(1)}, saved / "transformer" / WEIGHTS)
    with pytest.raises(ValueError, match="looks like a pickle"):
        load_transformer(saved)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/no/where"])
def test_what_is_no_model_is_said_to_be_none(name):
    with pytest.raises(FileNotFoundError, match="neither a local folder nor a hub id"):
        load_transformer(name)


def test_folders_without_a_transformer_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no `config.json`"):
        load_transformer(tmp_path)
    (tmp_path / "config.json").write_text('{"sampling": {}}')
    with pytest.raises(
        ValueError, match=r"names no diffusers class.*pass `transformer=pipe.transformer`"
    ):
        load_transformer(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="no backbone for 'UNet2DModel'"):
        load_transformer(tmp_path)


def test_what_diffusers_keeps_in_float32_is_loaded_so(tmp_path):
    """Wan computes with its time embedding in float32, also where the files are in bfloat16."""
    wan = pytest.importorskip("tests.backbones.family_wan").FAMILIES[0]
    wan.transformer(0).bfloat16().save_pretrained(tmp_path / "base")
    expected = diffusers.WanTransformer3DModel.from_pretrained(
        tmp_path / "base", torch_dtype=torch.bfloat16
    )
    loaded = load_transformer(tmp_path / "base")
    for name, tensor in expected.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype, name
    assert {t.dtype for t in loaded.parameters()} == {torch.bfloat16, torch.float32}


def test_a_transformer_that_was_sharded_is_refused_as_such(tmp_path):
    """`fully_shard` renames the class, which then looks like a family without a backbone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        transformer = fully_shard(tiny_transformer())
        assert type(transformer).__name__ == "FSDPCogVideoXTransformer3DModel"
        for wrap in (backbone_for, shared_backbone):
            with pytest.raises(SharingError, match="sharded by `fully_shard`"):
                wrap(transformer)
    finally:
        dist.destroy_process_group()
