import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gtsvj_reward.judge import (
    Aspect,
    AspectHead,
    CheckpointError,
    EnergyHead,
    JudgeConfig,
    VideoJudge,
    load_judge,
    read_config,
    save_judge,
)
from tests.tiny import (
    ASPECTS,
    clips,
    tiny_aspect_judge,
    tiny_judge,
    tiny_space,
    tiny_transformer,
)

STAGES = ["discriminator", "aspects", "preference"]


def judge_of(stage, **changes):
    return tiny_judge(**changes) if stage == "discriminator" else tiny_aspect_judge(
        stage=stage, **changes
    )  # fmt: skip


def adapter(judge):
    return {n: p.detach().clone() for n, p in judge.named_parameters() if ".lora_" in n}


def test_scores_of_each_stage_are_made_as_the_design_says():
    latents = clips(3)
    energies = tiny_judge()(latents)
    assert energies.aspects is None
    mean = tiny_aspect_judge()(latents)
    assert mean.aspects.shape == (3, 5, 3)
    torch.testing.assert_close(mean.scores, mean.aspects.mean(dim=2))
    judge = tiny_aspect_judge(stage="preference")
    output = judge(latents)
    weights, bias = judge.score_weights()
    expected = sum(w * output.aspects[:, :, i] for i, w in enumerate(weights.tolist())) + bias
    torch.testing.assert_close(output.scores, expected)
    # linear, so the mean over time of the scores is the score of the mean over time
    torch.testing.assert_close(
        output.scores.mean(1), output.aspects.mean(1) @ weights + bias, rtol=1e-5, atol=1e-6
    )
    assert output.scores.std() > 1e-2, "all scores are alike: the test proves nothing"


def test_the_aspect_stage_keeps_the_adapter_and_replaces_the_head():
    judge = tiny_judge()
    before, old_head = adapter(judge), judge.head
    judge.start_aspects(ASPECTS, head_width=24, time_pooling="mean_std", seed=5)
    after = adapter(judge)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(tensor.abs().max() > 0 for name, tensor in after.items() if "lora_B" in name)
    assert isinstance(judge.head, AspectHead)
    assert judge.head is not old_head
    assert judge.config.stage == "aspects"
    assert judge.config.aspects == ASPECTS
    assert judge.config.head_width == 24
    assert judge.config.reward_mean is None, "statistics of energies do not hold for aspects"
    assert judge.config.base_fingerprint is not None
    again = tiny_judge()
    again.start_aspects(ASPECTS, head_width=24, time_pooling="mean_std", seed=5)
    assert torch.equal(judge(clips()).aspects, again(clips()).aspects)


def test_a_kept_energy_head_says_what_the_discriminator_said_and_is_never_trained():
    judge = tiny_judge()
    for parameter in judge.head.parameters():
        parameter.data.normal_(0, 0.5)  # away from what the seed gives any head
    latents = clips(3)
    energies = judge.energies(latents)
    judge.start_aspects(ASPECTS, keep_energy=True, head_width=24)
    kept = judge.head.energy_head
    assert isinstance(kept, EnergyHead)
    tokens = judge.backbone(latents, timestep=0.0, text=None)
    assert torch.equal(kept(tokens), energies)
    silent = judge(latents).aspects
    judge.head.from_energy.weight.data.fill_(0.5)
    torch.testing.assert_close(judge(latents).aspects, silent + 0.5 * energies[:, :, None])
    judge.unfreeze()
    frozen = [
        n for n, p in judge.named_parameters() if n.startswith("head.") and not p.requires_grad
    ]
    assert frozen
    assert all(name.startswith("head.energy_head.") for name in frozen)


def test_what_a_head_adds_starts_as_nothing():
    tokens = torch.randn(2, 5, 7, 32)
    plain = AspectHead(32, 16, 3)
    rich = AspectHead(32, 16, 3, pooling="attention", time_pooling="mean_std")
    rich.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(rich(tokens), plain(tokens))


def test_the_spread_over_time_shifts_all_steps_alike():
    """So the mean over time is still the score of the clip; a slow reference of the formula."""
    head = AspectHead(32, 16, 3, time_pooling="mean_std")
    head.spread.weight.data.normal_()
    tokens = torch.randn(2, 5, 7, 32)
    features = head.features(tokens)
    local = head.aspects(features)
    shift = head(tokens) - local
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    for clip in range(2):
        deviation = torch.stack(
            [((f - f.mean()) ** 2).mean() for f in features[clip].T.unbind()]
        ).add(1e-6).sqrt()  # fmt: skip
        torch.testing.assert_close(shift[clip, 0], head.spread.weight @ deviation)


@pytest.mark.parametrize("time_steps", [1, 4])
def test_equal_steps_give_finite_gradients(time_steps):
    head = AspectHead(32, 16, 3, time_pooling="mean_std")
    head.spread.weight.data.fill_(1.0)
    tokens = torch.randn(2, 1, 7, 32).expand(-1, time_steps, -1, -1).clone().requires_grad_()
    head(tokens).sum().backward()
    assert tokens.grad.isfinite().all()


def test_attention_pooling_is_a_weighted_mean_of_tokens():
    head = EnergyHead(32, 16, "attention")
    head.query.weight.data.normal_(0, 2)
    tokens = torch.randn(1, 1, 7, 32)
    hidden = head.activation(head.hidden(head.norm(tokens)))[0, 0]
    scores = [(head.query.weight[0] @ row).exp() for row in hidden]
    expected = sum(s / sum(scores) * row for s, row in zip(scores, hidden, strict=True))
    torch.testing.assert_close(head.features(tokens)[0, 0], expected)
    assert (expected - hidden.mean(0)).abs().max() > 1e-3


def test_the_preference_stage_starts_as_the_mean_of_the_aspects():
    judge = tiny_aspect_judge()
    before = judge(clips()).scores
    judge.start_preference()
    torch.testing.assert_close(judge(clips()).scores, before)
    assert judge.config.stage == "preference"
    assert judge.config.aspect_mean is None


def test_stages_follow_one_another_and_nothing_else():
    with pytest.raises(
        ValueError, match=r"'preference' starts from .* 'aspects', .* 'discriminator'"
    ):
        tiny_judge().start_preference()
    with pytest.raises(ValueError, match=r"'aspects' starts from .* 'discriminator', .* 'aspects'"):
        tiny_aspect_judge().start_aspects(ASPECTS)
    with pytest.raises(ValueError, match="later stages have at least one"):
        tiny_judge().start_aspects([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "aspects"}, "at least one; got stage 'aspects' with 0"),
        ({"aspects": ASPECTS}, "a discriminator has no `aspects`"),
        ({"stage": "aspects", "aspects": (*ASPECTS, ASPECTS[0])}, "a name twice"),
        ({"energy_width": 8}, "`energy_width` is for the stages after"),
        ({"stage": "aspects", "aspects": ASPECTS, "aspect_mean": (0.5,) * 3}, "come together"),
        ({"stage": "preference", "aspects": ASPECTS, "aspect_weights": (1.0,)}, "1 numbers for 3"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        JudgeConfig(base_model="tiny", latent_space=tiny_space(), **changes)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_scales_must_be_scales(low, high):
    with pytest.raises(ValueError, match="needs low < high"):
        Aspect(name="clear", low=low, high=high)


@pytest.mark.parametrize("parts", [("head",), ("preference",), ("adapter", "preference")])
def test_unfreezing_parts_frees_them_and_nothing_else(parts):
    judge = tiny_aspect_judge(stage="preference")
    judge.unfreeze(parts)
    free = {name for name, p in judge.named_parameters() if p.requires_grad}
    found = {"adapter" if "lora_" in n else n.split(".")[0] for n in free}
    assert found == set(parts)
    assert not any(".base_layer." in name for name in free)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("rich", [False, True])
def test_checkpoints_of_every_stage_round_trip_bitwise(stage, rich, tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    changes = {"base_model": str(tmp_path / "base")}
    if rich:
        changes["token_pooling"] = "attention"
        if stage != "discriminator":
            changes |= {"time_pooling": "mean_std", "energy_width": 12}
    judge = judge_of(stage, **changes)
    generator = torch.Generator().manual_seed(3)
    for parameter in judge.head.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    save_judge(judge, tmp_path / "judge")
    loaded = load_judge(tmp_path / "judge")
    first, second = judge(clips()), loaded(clips())
    assert torch.equal(first.scores, second.scores)
    if stage != "discriminator":
        assert torch.equal(first.aspects, second.aspects)
    config = read_config(tmp_path / "judge")
    assert config.stage == stage
    if stage == "preference":
        weights, bias = judge.score_weights()
        assert config.aspect_weights == tuple(weights.tolist())
        assert config.score_bias == bias.item()
        card = (tmp_path / "judge" / "README.md").read_text()
        assert f"{weights[1].item():+.4g} focus" in card
        assert "movement smoothness 0-4" in card


def test_checkpoints_load_as_no_other_stage(tmp_path):
    """Relabelling a checkpoint in `config.json` is refused: the tensors are of another stage."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    for stage in STAGES:
        save_judge(judge_of(stage, base_model=str(tmp_path / "base")), tmp_path / stage)
    texts = {s: json.loads((tmp_path / s / "config.json").read_text()) for s in STAGES}
    for stage in STAGES:
        for other in STAGES:
            if other == stage:
                continue
            file = tmp_path / stage / "config.json"
            file.write_text(json.dumps(texts[other]))
            with pytest.raises(CheckpointError, match=r"missing|unexpected|extra|not those of"):
                load_judge(tmp_path / stage)
            file.write_text(json.dumps(texts[stage]))
            load_judge(tmp_path / stage)


def test_edited_weights_are_refused_wherever_they_were_edited(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    save_judge(
        tiny_aspect_judge(stage="preference", base_model=str(tmp_path / "base")), tmp_path / "judge"
    )
    file = tmp_path / "judge" / "config.json"
    text = file.read_text()
    values = json.loads(text)
    values["aspect_weights"][0] += 1e-3
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"aspect weights .* are not those of.*weights="):
        load_judge(tmp_path / "judge")
    file.write_text(text)
    head = load_file(tmp_path / "judge" / "head.safetensors")
    head["preference.bias"] = head["preference.bias"] + 1
    save_file(head, tmp_path / "judge" / "head.safetensors")
    with pytest.raises(CheckpointError, match="aspect weights"):
        load_judge(tmp_path / "judge")


def test_discriminators_of_format_1_still_load(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    judge = tiny_judge(base_model=str(tmp_path / "base"))
    save_judge(judge, tmp_path / "judge")
    file = tmp_path / "judge" / "config.json"
    values = json.loads(file.read_text())
    for name in (
        "token_pooling", "time_pooling", "energy_width", "energy_pooling", "aspect_weights",
        "score_bias", "aspect_mean", "aspect_covariance",
    ):  # fmt: skip
        del values[name]
    file.write_text(json.dumps({**values, "format_version": 1}))
    assert torch.equal(load_judge(tmp_path / "judge").energies(clips()), judge.energies(clips()))
    file.write_text(json.dumps({**values, "format_version": 2}))
    with pytest.raises(CheckpointError, match="missing fields"):
        load_judge(tmp_path / "judge")


def test_a_judge_of_aspects_can_start_from_a_bare_backbone():
    config = JudgeConfig(
        base_model="tiny", latent_space=tiny_space(), stage="aspects", aspects=ASPECTS
    )
    judge = VideoJudge.from_transformer(tiny_transformer(), config, seed=1)
    assert judge(clips()).aspects.shape == (2, 5, 3)
    assert all(p.abs().max() == 0 for n, p in judge.named_parameters() if ".lora_B." in n)


@pytest.mark.parametrize("stage", ["aspects", "preference"])
def test_later_stages_stay_in_float32_under_mixed_precision(stage):
    judge = tiny_aspect_judge(stage=stage)
    with torch.autocast("cpu", torch.bfloat16):
        output = judge(clips())
    assert output.scores.dtype == output.aspects.dtype == torch.float32
    assert (output.scores - judge(clips()).scores).abs().max() > 0, "autocast did nothing"
