"""What holds for every family of transformers."""

import diffusers
import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import BACKBONES, backbone_for, load_transformer
from gtsvj_reward.backbones.lora import attach_lora, lora_blocks
from gtsvj_reward.judge import JudgeConfig, VideoJudge, load_judge, save_judge
from tests.backbones.families import FAMILIES

every_family = pytest.mark.parametrize("family", FAMILIES, ids=[f.name for f in FAMILIES])


def latents_of(family, batch=2, size=None, *, seed=0, dtype=torch.float32):
    time, height, width = size or family.sizes[0]
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, family.space.channels, height, width)
    return torch.randn(shape, generator=generator).to(dtype)


def judge_of(family, transformer=None, *, moved=True, **changes):
    """A judge whose adapter does something."""
    fields = {"base_model": "tiny", "latent_space": family.space, "head_width": 16,
              "reward_mean": 0.0, "reward_std": 1.0, "reward_data": "nothing"}  # fmt: skip
    model = transformer or family.transformer(0)
    judge = VideoJudge.from_transformer(model, JudgeConfig(**{**fields, **changes}))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in judge.named_parameters():
        if moved and ".lora_B." in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return judge


def test_every_backbone_has_a_family_here():
    names = {type(family.transformer(0)).__name__ for family in FAMILIES}
    assert names == {name for name in BACKBONES if hasattr(diffusers, name)}


@every_family
def test_hidden_states_equal_those_of_the_unmodified_model(family):
    model = family.transformer(0)
    for size in family.sizes:
        for depth in family.depths:
            latents, text = latents_of(family, size=size), family.text(2)
            tokens = backbone_for(model, depth)(latents, timestep=7.0, text=text)
            expected = family.hidden(model, latents, depth, 7.0, text)
            assert tokens.shape[1:3] == family.tokens(size)
            assert torch.equal(tokens.flatten(1, 2), expected), (size, depth)
            assert expected.std() > 0.05, "hidden states are all alike: the test proves nothing"


@every_family
def test_no_text_is_the_null_condition(family):
    model = family.transformer(0)
    latents = latents_of(family)
    tokens = backbone_for(model)(latents, timestep=0.0)
    assert tokens.isfinite().all()
    expected = family.hidden(model, latents, family.depths[-1], 0.0, family.null_text(2))
    assert torch.equal(tokens.flatten(1, 2), expected)


@every_family
def test_text_timestep_and_clip_reach_the_tokens_of_their_own_sample(family):
    backbone = backbone_for(family.transformer(0))
    latents, text = latents_of(family), family.text(2)
    first = backbone(latents, timestep=3.0, text=text)
    assert (backbone(latents, timestep=500.0, text=text) - first).abs().max() > 1e-4
    swapped = backbone(latents, timestep=3.0, text=text.rows(torch.tensor([0, 0])))
    torch.testing.assert_close(swapped[0], first[0], rtol=0, atol=5e-4)
    assert (swapped[1] - first[1]).abs().max() > 1e-4
    alone = backbone(latents[1:], timestep=3.0, text=text.rows(torch.tensor([1])))
    torch.testing.assert_close(alone[0], first[1], rtol=0, atol=5e-4)


@every_family
def test_gradients_equal_those_through_the_unmodified_model(family):
    model = family.transformer(0)
    depth, text = family.depths[-1], family.text(2)
    weight = torch.randn_like(family.hidden(model, latents_of(family), depth, 7.0, text))
    grads = []
    for use in ("ours", "theirs"):
        latents = latents_of(family).requires_grad_()
        if use == "ours":
            tokens = backbone_for(model)(latents, timestep=7.0, text=text).flatten(1, 2)
        else:
            tokens = family.hidden(model, latents, depth, 7.0, text)
        (tokens * weight).sum().backward()
        grads.append(latents.grad)
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0].abs().max() > 1e-4


@every_family
def test_gradients_equal_central_differences(family):
    """Models that cast to float32 inside are exact to 1e-3 only."""
    judge = judge_of(family).double()
    latents = latents_of(family, dtype=torch.float64).requires_grad_()
    judge(latents).scores.mean(1).sum().backward()
    direction = latents_of(family, seed=9, dtype=torch.float64)
    step = 1e-3  # smaller ones drown in the float32 roundings
    with torch.no_grad():
        up, down = (judge(latents + s * step * direction).scores.mean(1).sum() for s in (1, -1))
    expected = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-3, atol=1e-6)


@every_family
@pytest.mark.parametrize("placement", ["first", "last", "all"])
def test_lora_sits_where_it_is_placed(family, placement):
    backbone = backbone_for(family.transformer(0))
    before = backbone(latents_of(family), timestep=0.0)
    attach_lora(backbone, rank=2, alpha=2, placement=placement)
    assert torch.equal(backbone(latents_of(family), timestep=0.0), before), "fresh LoRA changes"
    model = backbone.model
    found = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    blocks = lora_blocks(family.depths[-1], placement)
    assert found == {
        f"{family.block(b)}.{target}" for b in blocks for target in family.lora_targets(b)
    }


@every_family
def test_judges_train_adapter_and_head_alone(family):
    judge = judge_of(family, moved=False)
    judge.unfreeze()
    before = {name: p.detach().clone() for name, p in judge.named_parameters()}
    optimizer = torch.optim.SGD([p for p in judge.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        judge(latents_of(family)).scores.square().sum().backward()
        optimizer.step()
    for name, parameter in judge.named_parameters():
        trained = ".lora_" in name or name.startswith("head.")
        if not trained:
            assert torch.equal(parameter, before[name]), name
    assert any(not torch.equal(p, before[n]) for n, p in judge.named_parameters() if "lora_A" in n)


@every_family
def test_checkpoints_round_trip_and_hold_the_blocks_in_use_alone(family, tmp_path):
    family.transformer(0).save_pretrained(tmp_path / "base")
    depth = family.depths[-2]
    judge = judge_of(
        family, family.transformer(0), depth=depth, lora_placement="all",
        base_model=str(tmp_path / "base"),
    )  # fmt: skip
    save_judge(judge, tmp_path / "judge")
    loaded = load_judge(tmp_path / "judge")
    latents = latents_of(family)
    assert torch.equal(loaded(latents).scores, judge(latents).scores)
    assert loaded.config.depth == depth
    whole = sum(p.numel() for p in family.transformer(0).parameters())
    part = sum(p.numel() for p in load_transformer(tmp_path / "base", depth=depth).parameters())
    assert part < whole


@every_family
def test_other_weights_and_settings_have_other_fingerprints(family):
    first, again, other = (backbone_for(family.transformer(seed)) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.settings not in ("", "{}")


@every_family
def test_shared_weights_score_and_differentiate_the_same(family, tmp_path):
    family.transformer(0).save_pretrained(tmp_path / "base")
    save_judge(judge_of(family, base_model=str(tmp_path / "base")), tmp_path / "judge")
    generator = family.transformer(0).requires_grad_(False)
    scores, grads = [], []
    for reward in (
        GTSVJReward.from_pretrained(tmp_path / "judge"),
        GTSVJReward.from_pretrained(tmp_path / "judge", transformer=generator),
    ):
        latents = latents_of(family).requires_grad_()
        score = reward(latents, normalize=False)
        score.sum().backward()
        scores.append(score.detach())
        grads.append(latents.grad)
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(grads[0], grads[1])
    theirs = {id(p) for p in generator.parameters()}
    assert all(id(t) in theirs for _, t in reward.judge.backbone.base_tensors())


@every_family
def test_recomputed_activations_change_nothing(family):
    results = []
    for checkpointing in (False, True):
        judge = judge_of(family)
        judge.backbone.gradient_checkpointing = checkpointing
        latents = latents_of(family).requires_grad_()
        scores = judge(latents).scores
        scores.sum().backward()
        results.append((scores.detach(), latents.grad))
    torch.testing.assert_close(results[0], results[1])


@every_family
def test_a_call_in_inference_mode_does_not_stand_in_the_way_of_gradients(family):
    judge = judge_of(family)
    with torch.inference_mode():
        expected = judge(latents_of(family)).scores
    latents = latents_of(family).requires_grad_()
    scores = judge(latents).scores
    scores.sum().backward()
    torch.testing.assert_close(scores.detach(), expected.clone())
    assert latents.grad.abs().max() > 0


@every_family
def test_latents_that_cannot_be_cut_into_patches_are_refused(family):
    backbone = backbone_for(family.transformer(0))
    latents = latents_of(family)
    with pytest.raises(ValueError, match="takes latents"):
        backbone(latents[:, :, :-1], timestep=0.0)
    if backbone.patch_size > 1:
        with pytest.raises(ValueError, match="multiples of the patch size"):
            backbone(latents[..., :-1], timestep=0.0)
