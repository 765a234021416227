"""Judges with the moment readout: exact trajectories, every family, batches, checkpoints."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.judge import JudgeConfig, VideoJudge, load_judge, save_judge
from gtsvj_reward.judge.moments import block_moments, latent_moments
from gtsvj_reward.judge.readout import MomentReadout
from tests.backbones.test_families import every_family, latents_of
from tests.tiny import ASPECTS, clips, tiny_judge, tiny_transformer


def moment_judge(family=None, *, transformer=None, filled=True, **changes):
    """A judge on a tiny model, its readout drawn at random."""
    if family is None:
        changes = {"lora_rank": 0, **changes}
        judge = tiny_judge(transformer=transformer, readout="moments", geometry=None, **changes)
    else:
        config = JudgeConfig(
            base_model="tiny", latent_space=family.space, readout="moments", lora_rank=0, **changes
        )
        judge = VideoJudge.from_transformer(transformer or family.transformer(0), config)
    head = judge.head
    assert isinstance(head, MomentReadout)
    if filled:
        generator = torch.Generator().manual_seed(4)
        for tensor in (head.output.weight, head.output.bias, head.mean):
            tensor.data.normal_(0, 0.1, generator=generator)
        head.deviation.data.uniform_(0.5, 1.5, generator=generator)
        if head.energy is not None:
            head.energy.weight.data.normal_(0, 0.1, generator=generator)
        if head.projection is not None:
            head.root.data.normal_(0, 0.05, generator=generator)
            head.noise.data.copy_(torch.eye(len(head.noise)))
    return judge.requires_grad_(False)


LATER = {
    "stage": "aspects",
    "aspects": ASPECTS,
    "has_energy": True,
    "penalties": (1.0, 2.0, 3.0, 4.0),
    "projection_seed": 3,
}


@every_family
def test_scores_read_what_leaves_the_blocks_of_the_unmodified_model(family):
    model, latents = family.transformer(0), latents_of(family)
    depth = family.depths[-1]
    taps = [0, 1, depth] if depth > 1 else [0, 1]
    judge = moment_judge(family, transformer=model, taps=taps)
    batch, time, _, height, width = latents.shape
    steps, _ = family.tokens((time, height, width))
    if steps < 3:
        pytest.skip("the clip has fewer steps than moments need")
    patch = judge.backbone.patch_size
    parts = [latent_moments(latents, judge.backbone.step_of_frame(time))]
    for tap in taps[1:]:
        seen = family.hidden(model, latents, tap, 0.0, family.null_text(batch))
        parts.append(block_moments(seen.unflatten(1, (steps, -1)), height // patch, width // patch))
    expected = -judge.head(torch.cat(parts, dim=2))[..., 0]
    scores = judge(latents).scores
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert scores.std() > 1e-2, "scores are all alike: the test proves nothing"


@pytest.mark.parametrize("kind", ["2b", "1.5"])
def test_the_mean_of_a_trajectory_is_the_score_of_the_mean_moments(kind):
    judge = moment_judge(transformer=tiny_transformer(kind), **LATER)
    latents = clips(3, 7)
    outputs = judge(latents)
    whole = judge.head(judge.moments(latents).mean(1, keepdim=True))[:, 0]
    torch.testing.assert_close(outputs.aspects.mean(1), whole, rtol=1e-4, atol=1e-5)
    assert outputs.scores.std(1).min() > 1e-3, "the trajectory is flat: the test proves nothing"


def test_scores_do_not_depend_on_the_batch():
    judge = moment_judge(**LATER)
    latents = clips(3)
    alone = [judge(clip[None]) for clip in latents]
    together = judge(latents)
    for part in ("scores", "aspects", "leverage"):
        expected = torch.cat([getattr(output, part) for output in alone])
        torch.testing.assert_close(getattr(together, part), expected, rtol=1e-4, atol=1e-5)


def test_gradients_equal_central_differences():
    judge = moment_judge(**LATER).double()
    reward = GTSVJReward(judge, pessimism=0.7)
    latents = clips(1, 4, 4, 6, dtype=torch.float64).requires_grad_()
    reward(latents).sum().backward()
    direction = clips(1, 4, 4, 6, seed=9, dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        up, down = (judge_score(judge, latents + s * step * direction) for s in (1, -1))
    expected = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-6, atol=0)


@every_family
def test_gradients_of_every_family_equal_central_differences(family):
    """Along the gradient itself; models that cast to float32 inside are exact to 1e-3 only."""
    size = (max(family.sizes[0][0], 7), *family.sizes[0][1:])
    judge = moment_judge(family, depth=1, taps=[0, 1]).double()
    latents = latents_of(family, 1, size, dtype=torch.float64).requires_grad_()
    judge(latents).scores.mean().backward()
    slope = latents.grad.norm()
    with torch.no_grad():
        up, down = (
            judge(latents + sign * 1e-3 * latents.grad / slope).scores.mean() for sign in (1, -1)
        )
    torch.testing.assert_close((up - down) / 2e-3, slope, rtol=1e-3, atol=0)
    assert slope > 1e-4, "the score does not move: the test proves nothing"


def judge_score(judge, latents):
    """r - 0.7 u in float64, which a reward would round to float32."""
    output = judge(latents)
    raw = output.scores.mean(1)
    spread = (judge.score_noise() * output.leverage).sqrt()
    return ((raw - 0.7 * spread) / judge.config.reward_std).sum()


def test_uncertainty_is_in_units_of_the_reward_and_pessimism_subtracts_it():
    judge = moment_judge(**LATER)
    judge.head.noise.data.copy_(torch.tensor([[4.0, 1, 0], [1, 2, 0], [0, 0, 1]]))
    latents = clips(3)
    plain = GTSVJReward(judge).details(latents)
    # The score is the mean of three aspects: its noise is the sum of all covariances / 9.
    expected = (judge(latents).leverage * (9 / 9)).sqrt() / 0.5
    torch.testing.assert_close(plain.uncertainty, expected)
    careful = GTSVJReward(judge, pessimism=2.0).details(latents)
    torch.testing.assert_close(careful.rewards, plain.rewards - 2 * plain.uncertainty)
    torch.testing.assert_close(careful.raw, plain.raw)
    chosen = GTSVJReward(judge, weights={"clear": 1.0, "focus": -1.0}).details(
        latents, normalize=False
    )
    # 4 + 2 - 2 * 1
    torch.testing.assert_close(chosen.uncertainty, (judge(latents).leverage * 4).sqrt())
    assert plain.uncertainty.std() > 1e-3


def test_pessimism_without_a_posterior_is_refused():
    with pytest.raises(ValueError, match="`pessimism` needs a judge that gives its uncertainty"):
        GTSVJReward(moment_judge(), pessimism=1.0)
    with pytest.raises(ValueError, match="must be >= 0 and finite"):
        GTSVJReward(moment_judge(**LATER), pessimism=-1.0)


@pytest.mark.parametrize("later", [{}, LATER, {"stage": "preference", "penalties": (1.0,) * 4}])
def test_checkpoints_load_bitwise(later, tmp_path):
    model = tiny_transformer()
    judge = moment_judge(transformer=model, **later)
    save_judge(judge, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "head.safetensors", "README.md"}
    loaded = load_judge(tmp_path, backbone=model)
    for got, expected in zip(loaded(clips()), judge(clips()), strict=True):
        assert (got is None) == (expected is None)
        assert got is None or torch.equal(got, expected)


@pytest.mark.parametrize("lora", [{"lora_rank": 0}, {"lora_rank": 4, "lora_placement": "all"}])
def test_shared_weights_give_the_same_scores(tmp_path, lora):
    model = tiny_transformer().requires_grad_(False)
    judge = moment_judge(transformer=tiny_transformer(), **LATER, **lora)
    save_judge(judge, tmp_path)
    shared = load_judge(tmp_path, transformer=model)
    alone = load_judge(tmp_path, backbone=tiny_transformer())
    assert alone(clips()).scores.equal(judge(clips()).scores)
    assert shared.backbone.live is not None
    for got, expected in zip(shared(clips()), judge(clips()), strict=True):
        torch.testing.assert_close(got, expected)


def test_judges_of_the_other_readout_refuse_its_settings():
    with pytest.raises(ValueError, match=r"\['taps'\] are settings of readout='moments'"):
        tiny_judge(taps=[0, 1])
    with pytest.raises(ValueError, match="`taps` must rise within 0"):
        moment_judge(taps=[0, 9])


def test_lora_that_nothing_reads_or_that_changes_what_is_asked_is_refused():
    with pytest.raises(ValueError, match=r"up to block 4, `taps` \[0, 1, 3\] do not: read block 4"):
        moment_judge(lora_rank=4, taps=[0, 1, 3])
    for asked in ({"surprise": [0.5]}, {"text_input": "prompt"}, {"image_input": "image"}):
        with pytest.raises(ValueError, match=rf"{list(asked)}.*`lora_rank` to 0, got 4, or leave"):
            moment_judge(lora_rank=4, **asked)


def test_short_clips_are_refused():
    judge = moment_judge()
    with pytest.raises(ValueError, match="at least 3 steps of 2x2 tokens, this clip has 2"):
        judge(clips(1, 2))
    with pytest.raises(ValueError, match="too short for this judge: it reads 2 steps"):
        moment_judge(temporal_stride=2).check_size((4, 8, 12))


def test_a_moment_judge_is_not_trained_step_by_step():
    with pytest.raises(ValueError, match="its stages are solved by"):
        moment_judge().start_aspects(ASPECTS)


def test_the_card_says_what_is_read(tmp_path):
    save_judge(moment_judge(**LATER), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert (
        "| readout | moments of the latents, block 1, block 3, block 4, by a linear readout."
        in card
    )
    assert "Each score has a standard deviation." in card
    save_judge(moment_judge(), tmp_path)
    assert "standard deviation" not in (tmp_path / "README.md").read_text()
