"""Judges that also read the generator's surprise, its denoising error at some noise levels."""

import json

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from gtsvj_reward.backbones import denoising_errors, load_scheduler
from gtsvj_reward.judge import JudgeConfig, VideoJudge, load_judge, save_judge
from gtsvj_reward.training import Contrast, FeatureCache, JudgeArguments, build_judge, refit
from gtsvj_reward.training.closed_form.features import reading_id
from tests.backbones.families import FAMILIES
from tests.backbones.family_wan import tiny_wan
from tests.tiny import clips, tiny_space, tiny_transformer

SCHEDULER = CogVideoXDDIMScheduler(prediction_type="v_prediction")


def surprised(scheduler=SCHEDULER, **changes):
    """A judge of one block, its readout drawn at random."""
    settings = {"taps": [0, 1], "surprise": [0.2, 0.5], **changes}
    config = JudgeConfig(
        base_model="tiny", latent_space=tiny_space(), readout="moments", lora_rank=0, **settings
    )
    judge = VideoJudge.from_transformer(tiny_transformer(), config, scheduler=scheduler)
    generator = torch.Generator().manual_seed(4)
    judge.head.output.weight.data.normal_(0, 0.1, generator=generator)
    return judge.requires_grad_(False)


def test_the_surprise_of_a_step_is_the_logarithm_of_its_denoising_error():
    judge, latents = surprised(), clips(2, 4)
    plain = surprised(surprise=None)
    features = judge.moments(latents)
    errors = denoising_errors(judge.backbone, latents, judge.config.noise_levels)
    assert [level.prediction for level in judge.config.noise_levels] == ["v_prediction"] * 2
    torch.testing.assert_close(features[..., :-2], plain.moments(latents))
    torch.testing.assert_close(features[..., -2:], errors.log().transpose(1, 2))
    assert errors.std(dim=2).min() > 1e-3, "all steps are alike: the test proves nothing"
    whole = judge.head(features.mean(1, keepdim=True))[:, 0, 0]
    torch.testing.assert_close(-judge(latents).scores.mean(1), whole, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_brings_its_levels_and_needs_no_scheduler(tmp_path):
    judge, latents = surprised(), clips(2, 4)
    tiny_transformer().save_pretrained(tmp_path / "base")
    save_judge(judge, tmp_path / "judge")
    again = load_judge(tmp_path / "judge", base_model=tmp_path / "base")
    assert again.config.noise_levels == judge.config.noise_levels
    assert torch.equal(again(latents).scores, judge(latents).scores)
    assert "denoising error at noise levels 0.2, 0.5" in (tmp_path / "judge/README.md").read_text()


def test_gradients_are_those_of_central_differences():
    judge = surprised().double()
    judge.backbone.cast(torch.float64)
    latents = clips(1, 3).double().requires_grad_()
    judge(latents).scores.mean().backward()
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        ends = [judge(latents + sign * 1e-6 * direction).scores.mean() for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close((latents.grad * direction).sum(), expected, rtol=1e-6, atol=0)
    assert expected.abs() > 1e-3


def test_a_fit_reads_it_with_a_penalty_of_its_own():
    judge = surprised()
    judge.head.output.weight.data.zero_()
    real, strange = clips(12, 4, seed=1), 1.3 * clips(12, 4, seed=2)
    pairs = [
        Contrast(lambda a=a: a, lambda b=b: b, (str(number), str(number)))
        for number, (a, b) in enumerate(zip(real, strange, strict=True))
    ]
    fitted = refit(judge, FeatureCache(judge), contrast=pairs)
    assert len(fitted.config.training["energy: penalty of each tap"]) == 3
    assert bool(fitted.head.output.weight[0, -2:].all())
    assert reading_id(judge) != reading_id(surprised(surprise=[0.2]))
    assert reading_id(surprised(surprise=None)) != reading_id(judge)


def test_a_family_of_flow_matching_needs_no_scheduler():
    family = next(family for family in FAMILIES if family.name.startswith("wan"))
    config = JudgeConfig(
        base_model="tiny", latent_space=family.space, readout="moments", lora_rank=0, taps=[1],
        surprise=[0.4],
    )  # fmt: skip
    judge = VideoJudge.from_transformer(family.transformer(0), config)
    assert [(level.sigma, level.timestep) for level in judge.config.noise_levels] == [(0.4, 400.0)]


def test_what_cannot_be_asked_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give `scheduler`"):
        surprised(scheduler=None)
    with pytest.raises(ValueError, match="leave out `latent_pooling`"):
        surprised(latent_pooling=2)
    with pytest.raises(ValueError, match="`surprise` takes all blocks"):
        surprised(depth=1, taps=[1])
    with pytest.raises(ValueError, match="surprise"):
        JudgeConfig(base_model="tiny", latent_space=tiny_space(), surprise=[0.3])
    SCHEDULER.save_pretrained(tmp_path / "scheduler")
    assert load_scheduler(tmp_path).config.prediction_type == "v_prediction"
    with pytest.raises(FileNotFoundError, match="give the pipeline"):
        load_scheduler(tmp_path / "scheduler")


def test_a_command_takes_the_scheduler_of_the_pipeline(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "transformer")
    SCHEDULER.save_pretrained(tmp_path / "scheduler")
    settings = {"readout": "moments", "taps": [1], "surprise": [0.2]}
    judge = build_judge(JudgeArguments(base_model=str(tmp_path), **settings), tiny_space(), seed=0)
    assert judge.config.noise_levels == surprised(taps=[1], surprise=[0.2]).config.noise_levels
    with pytest.raises(ValueError, match="leave out `depth`"):
        build_judge(
            JudgeArguments(base_model=str(tmp_path), depth=1, **settings), tiny_space(), seed=0
        )


def test_levels_above_the_boundary_of_two_experts_are_refused(tmp_path):
    """Wan 2.2's A14B: `transformer_2` denoises below the boundary, and clean latents are its."""
    model = tiny_wan(layers=2)
    for name in ("transformer", "transformer_2"):
        model.save_pretrained(tmp_path / name)
    index = {"transformer": ["x", "y"], "transformer_2": ["x", "y"], "boundary_ratio": 0.875}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    space = tiny_space(channels=model.config.in_channels)

    def judge(*shares):
        settings = {"readout": "moments", "taps": [1], "surprise": list(shares)}
        return build_judge(JudgeArguments(base_model=str(tmp_path), **settings), space, seed=0)

    assert [level.sigma for level in judge(0.5, 0.87).config.noise_levels] == [0.5, 0.87]
    with pytest.raises(ValueError, match=r"\[0.875, 0.9\] is above the boundary 0.875"):
        judge(0.5, 0.875, 0.9)
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": None}))
    assert len(judge(0.9).config.noise_levels) == 1
