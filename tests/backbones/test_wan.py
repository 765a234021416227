import pytest
import torch
from diffusers import WanTransformer3DModel

from gtsvj_reward.backbones import TextCondition, backbone_for, shared_backbone
from gtsvj_reward.backbones.admission import SharingError
from gtsvj_reward.backbones.wan import TEXT_LENGTH
from tests.backbones.families import FAMILIES
from tests.backbones.family_wan import KINDS, hidden, text, tiny_wan

WAN = [family for family in FAMILIES if family.name.removeprefix("wan-") in KINDS]


def clips(batch=2, time=3, height=8, width=12, *, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, channels, height, width, generator=generator)


def parts_in_float32(model):
    return {name for name, p in model.named_parameters() if p.dtype == torch.float32}


@pytest.mark.parametrize("family", WAN, ids=KINDS)
@pytest.mark.parametrize("timestep", [0.0, 7.0, 937.5])
def test_a_timestep_per_token_is_the_same_number_for_each(family, timestep):
    """2.2-5B's pipeline writes it out; only the order of sums differs."""
    pytest.importorskip("diffusers", minversion="0.36", reason="one timestep per clip only")
    model, latents = family.transformer(0), clips(channels=family.space.channels)
    tokens = backbone_for(model)(latents, timestep=timestep, text=text(2)).flatten(1, 2)
    expected = hidden(model, latents, 4, timestep, text(2), per_token=True)
    torch.testing.assert_close(tokens, expected, atol=2e-5, rtol=1e-5)
    other = hidden(model, latents, 4, timestep + 50, text(2), per_token=True)
    assert (other - expected).abs().max() > 1e-3


def test_the_number_of_null_tokens_does_not_matter():
    """All are alike, so attention to them gives the same vector however many there are."""
    backbone, latents = backbone_for(tiny_wan()), clips()
    null = backbone(latents, timestep=0.0)
    one = backbone(latents, timestep=0.0, text=TextCondition(torch.zeros(2, 1, 8)))
    torch.testing.assert_close(one, null, atol=1e-5, rtol=1e-5)
    assert TEXT_LENGTH == 512
    assert (backbone(latents, timestep=0.0, text=text(2)) - null).abs().max() > 1e-3


def test_padding_counts():
    """As in diffusers, which has no mask: a prompt and the same prompt padded are two inputs."""
    backbone, latents, words = backbone_for(tiny_wan()), clips(), text(2).embeds
    padded = torch.cat([words, torch.zeros_like(words)], dim=1)
    short = backbone(latents, timestep=0.0, text=TextCondition(words))
    long = backbone(latents, timestep=0.0, text=TextCondition(padded))
    assert (short - long).abs().max() > 1e-3


@pytest.mark.parametrize(
    "changes", [{"num_attention_heads": 4, "attention_head_dim": 8}, {"eps": 1e-5}]
)
def test_heads_and_epsilon_are_part_of_the_fingerprint(changes):
    one, two = backbone_for(tiny_wan()), backbone_for(tiny_wan(**changes))
    for (name, first), (same, second) in zip(one.base_tensors(), two.base_tensors(), strict=True):
        assert name == same
        assert torch.equal(first, second)
    assert one.fingerprint() != two.fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_what_diffusers_keeps_in_float32(dtype, tmp_path):
    tiny_wan().save_pretrained(tmp_path)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=dtype).eval()
    ours = backbone_for(tiny_wan())
    ours.cast(dtype)
    kept = {n for n in parts_in_float32(theirs) if n in dict(ours.base_tensors())}
    assert parts_in_float32(ours.model) == kept
    assert any("time_embedder" in name for name in kept)
    assert not any("attn" in name for name in kept)
    latents, words = clips(), text(2)
    low = hidden(theirs, latents.to(dtype), 4, 7.0, TextCondition(words.embeds.to(dtype)))
    tokens = ours(latents, timestep=7.0, text=words)
    assert tokens.dtype == dtype
    assert torch.equal(tokens.flatten(1, 2), low)
    exact = dict(tiny_wan().named_parameters())
    ours.cast(torch.float32)
    for name, tensor in ours.base_tensors():
        assert tensor.dtype == torch.float32
        if name in kept:
            assert torch.equal(tensor, exact[name]), f"{name} was rounded on the way"


def test_a_transformer_that_diffusers_loaded_in_half_precision_can_be_shared(tmp_path):
    tiny_wan().save_pretrained(tmp_path)
    for keep in (True, False):
        theirs = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).eval()
        if not keep:
            theirs = theirs.to(torch.bfloat16)
        backbone = shared_backbone(theirs.requires_grad_(False))
        before = {name: p.dtype for name, p in theirs.named_parameters()}
        backbone.cast(torch.bfloat16)
        assert {name: p.dtype for name, p in theirs.named_parameters()} == before
        assert backbone(clips(), timestep=0.0).isfinite().all()
        for dtype in (torch.float32, torch.float16):
            with pytest.raises(SharingError, match=f"cannot be cast to {dtype}"):
                backbone.cast(dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"added_kv_proj_dim": 32, "image_dim": 8},
            "has .*'added_kv_proj_dim': 32.*takes 4 channels",
        ),
        ({"in_channels": 12, "image_dim": 8}, "has {'image_dim': 8} and takes 12 channels"),
        ({"pos_embed_seq_len": 6}, "a first and a last image"),
        ({"in_channels": 9}, "takes 9 channels and gives 4"),
        ({"patch_size": (2, 2, 2)}, r"patches of \(1, p, p\) latents, got \(2, 2, 2\)"),
        ({"patch_size": (1, 2, 4)}, r"patches of \(1, p, p\) latents, got \(1, 2, 4\)"),
    ],
)
def test_models_for_other_tasks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny_wan(**changes))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (TextCondition(torch.zeros(2, 6, 9)), r"\(2, words, 8\), got \(2, 6, 9\)"),
        (TextCondition(torch.zeros(1, 6, 8)), r"\(2, words, 8\), got \(1, 6, 8\)"),
        (TextCondition(torch.zeros(2, 0, 8)), r"\(2, words, 8\), got \(2, 0, 8\)"),
        (
            TextCondition(torch.zeros(2, 6, 8), mask=torch.ones(2, 6, dtype=torch.bool)),
            "give `embeds` alone",
        ),
        (TextCondition(torch.zeros(2, 6, 8), pooled=torch.zeros(2, 8)), "give `embeds` alone"),
    ],
)
def test_text_that_does_not_fit_is_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny_wan())(clips(), timestep=0.0, text=condition)


def test_clips_beyond_the_models_positions_are_refused():
    backbone = backbone_for(tiny_wan(rope_max_seq_len=4))
    assert backbone(clips(1, 4, 8, 8), timestep=0.0).isfinite().all()
    with pytest.raises(ValueError, match=r"4 positions .* has \(5, 4, 4\) patches"):
        backbone(clips(1, 5, 8, 8), timestep=0.0)
    with pytest.raises(ValueError, match=r"4 positions .* has \(4, 4, 5\) patches"):
        backbone(clips(1, 4, 8, 10), timestep=0.0)
