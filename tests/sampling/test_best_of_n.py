"""Best of n: the same clips as the pipeline's own, the right winners, and no decode too many."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given, strategies as st

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward import GeometryError, NonFiniteError
from gtsvj_reward.sampling import best_of_n, latent_space
from gtsvj_reward.sampling.candidates import best_first
from gtsvj_reward.sampling.pipelines import as_clips
from tests.pipelines import frozen, hunyuan_video
from tests.sampling.tiny import (
    CALL,
    PIPES,
    Failing,
    Quadratic,
    assert_same_clip,
    cogvideox,
    embeds,
    judge_reward,
    run,
    stochastic_flow,
    wan,
)
from tests.tiny import tiny_space


def best(pipe, reward=None, n=3, **changes):
    return best_of_n(
        pipe, reward or Quadratic(), None, n, **{**CALL, "call_arguments": embeds(), **changes}
    )


def count_calls(monkeypatch, owner, name):
    """The batch sizes that a method is called with."""
    sizes, method = [], getattr(owner, name)

    def counted(first, *args, **keywords):
        sizes.append(len(first))
        return method(first, *args, **keywords)

    monkeypatch.setattr(owner, name, counted)
    return sizes


def transformer_rows(pipe):
    """Clips that the transformer is run on, as a growing list."""
    rows = []

    def hook(_module, args, keywords, _output):
        rows.append(len(keywords["hidden_states"]))

    pipe.transformer.register_forward_hook(hook, with_kwargs=True)
    return rows


@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_candidate_is_the_pipelines_own_clip_of_its_seed(pipe, batch_size):
    found = best(pipe, batch_size=batch_size, seed=7, keep_latents="all")
    space = latent_space(pipe)
    assert found.seeds == (7, 8, 9)
    for seed, latents in zip(found.seeds, found.latents, strict=True):
        own = as_clips(space, run(pipe, seed), CALL["num_frames"])[0]
        assert_same_clip(latents, own)
    assert (found.latents[0] - found.latents[1]).abs().max() > 0.1, "candidates are all alike"


def test_scores_are_those_of_the_latents_and_the_best_wins(pipe):
    found = best(pipe, n=5, keep=2, batch_size=2, keep_latents="all")
    scores = Quadratic()(found.latents)
    torch.testing.assert_close(found.scores, scores)
    assert found.scores.dtype == torch.float32
    assert found.winners == tuple(scores.topk(2).indices.tolist())
    assert found.winners[0] == int(scores.argmax())
    assert scores.unique().numel() == 5, "scores are tied: the test proves nothing"
    assert found.details is None


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_equal_scores_the_lower_index_first(values):
    # Python's sort is stable.
    expected = sorted(range(len(values)), key=lambda index: -values[index])
    assert best_first(torch.tensor(values, dtype=torch.float32)) == expected


def test_many_equal_scores_the_lower_index_first():
    # PyTorch's default sort keeps the order of equal values in short lists, but promises nothing.
    assert best_first(torch.zeros(100_000)) == list(range(100_000))


def test_equal_scores_the_first_candidate_wins():
    def constant(latents, **_arguments):
        return torch.zeros(len(latents))

    assert best(cogvideox(), constant, n=4, keep=3, batch_size=3).winners == (0, 1, 2)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_winners_are_decoded_one_by_one(pipe, monkeypatch, keep):
    decodes = count_calls(monkeypatch, pipe.vae, "decode")
    found = best(pipe, n=4, keep=keep, batch_size=4)
    assert decodes == [1] * keep
    assert len(found.frames) == len(found.winners) == len(found.latents) == keep


def test_frames_are_the_pipelines_own(pipe):
    check_frames(pipe, "np")


@pytest.mark.parametrize("output_type", ["pt", "pil"])
def test_frames_of_other_types(output_type):
    check_frames(cogvideox(), output_type)


def check_frames(pipe, output_type):
    found = best(pipe, n=2, output_type=output_type)
    own = run(pipe, found.seeds[found.winners[0]], output_type=output_type)[0]
    for frame, other in zip(found.frames[0], own, strict=True):
        np.testing.assert_allclose(np.asarray(frame), np.asarray(other), rtol=0, atol=1e-5)
    assert np.asarray(found.frames[0][0]).std() > 0


def test_the_reward_gets_unpadded_latents_the_space_and_the_length(pipe):
    reward = Quadratic()
    text = TextCondition(torch.ones(1, 6, 8))
    best(pipe, reward, n=3, batch_size=2, fps=8.0, text=text, normalize=False)
    assert [call["shape"] for call in reward.calls] == [(2, 3, 4, 4, 6), (1, 3, 4, 4, 6)]
    for call in reward.calls:
        assert call["space"] == latent_space(pipe)
        assert (call["fps"], call["num_frames"], call["normalize"]) == (8.0, 9, False)
        assert call["text"].embeds.shape == (call["shape"][0], 6, 8)


def test_latents_of_winners_come_in_their_order():
    def later_is_better():
        given = iter(range(4))
        return lambda latents, **_: torch.tensor([float(next(given))])

    pipe = cogvideox()
    everything = best(pipe, later_is_better(), n=4, keep=2, keep_latents="all")
    winners = best(pipe, later_is_better(), n=4, keep=2)
    assert winners.winners == (3, 2)
    assert torch.equal(winners.latents, everything.latents[[3, 2]])


def test_a_prompt_in_words():
    pipe = cogvideox(text=True)
    words = {"max_sequence_length": 6, "negative_prompt": "dog"}
    found = best_of_n(
        pipe, Quadratic(), "a dog runs", 2, batch_size=2, **CALL, call_arguments=words
    )
    call = {**CALL, **words, "output_type": "latent"}
    seed = found.seeds[found.winners[0]]
    own = pipe("a dog runs", generator=torch.Generator().manual_seed(seed), **call).frames
    assert_same_clip(found.latents, own)
    other = pipe("dog", generator=torch.Generator().manual_seed(seed), **call).frames
    assert (own - other).abs().max() > 1e-3, "the prompt changes nothing"


def test_without_a_guidance_scale_the_pipelines_own_default():
    pipe = cogvideox()
    found = best(pipe, n=1, guidance_scale=None)
    torch.testing.assert_close(found.latents, run(pipe, guidance_scale=6.0))


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_a_judge_is_the_reward(kind):
    pipe = cogvideox(kind)
    reward = judge_reward(pipe, kind)
    found = best(pipe, reward, n=5, batch_size=2, fps=8.0, keep_latents="all")
    once = reward.details(found.latents, space=latent_space(pipe), fps=8.0, num_frames=9)
    torch.testing.assert_close(found.scores, once.rewards, rtol=1e-5, atol=1e-5)
    assert found.winners[0] == int(once.rewards.argmax())
    assert found.scores.std() > 1e-4
    assert len(found.details.trajectory) == 5
    torch.testing.assert_close(found.details.raw, once.raw)
    for steps, other in zip(found.details.trajectory, once.trajectory, strict=True):
        torch.testing.assert_close(steps, other)
    assert found.details.notes == once.notes


def test_a_judge_of_other_latents_is_refused_before_anything_is_generated(pipe):
    rows = transformer_rows(pipe)
    reward = judge_reward(cogvideox())
    reward.judge.config = type(reward.config)(
        **{**vars(reward.config), "latent_space": tiny_space()}
    )
    with pytest.raises(LatentSpaceError, match="the judge scores latents of `tiny`"):
        best(pipe, reward)
    assert not rows


def test_nothing_is_recorded_for_gradients():
    def reward(latents, **_arguments):
        assert not torch.is_grad_enabled()
        return latents.flatten(1).mean(dim=1)

    found = best(cogvideox(), reward)
    assert not found.latents.requires_grad


def test_what_the_reward_raises_reaches_the_caller():
    pipe = cogvideox()
    before = run(pipe)
    with pytest.raises(RuntimeError, match="the reward broke"):
        best(pipe, Failing(), batch_size=1)
    assert torch.equal(run(pipe), before)


def test_refusals_name_the_candidates():
    pipe = cogvideox()
    with pytest.raises(GeometryError, match=r"clip 0 \(candidate 0\): .*fps 99"):
        best(pipe, judge_reward(pipe), batch_size=2, fps=99.0)

    def broken(latents, **_arguments):
        return torch.full((len(latents),), float("nan"))

    with pytest.raises(NonFiniteError, match=r"clip 0 \(candidate 0\)"):
        best(pipe, broken)


def test_scores_must_be_one_per_clip():
    with pytest.raises(ValueError, match=r"shape \(\), expected \(1,\)"):
        best(cogvideox(), lambda latents, **_: latents.mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n=0, keep=1"),
        ({"n": 2, "keep": 3}, "n=2, keep=3"),
        ({"keep": 0}, "keep=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_frames": 8}, "got 8"),
        ({"call_arguments": {**embeds(), "generator": None}}, "must not hold generator"),
        ({"call_arguments": {**embeds(), "height": 32, "latents": 1}}, "hold height, latents"),
        ({"call_arguments": {}}, "got neither"),
        ({"call_arguments": embeds(clips=2)}, r"one row, for the one prompt, got \(2, 6, 8\)"),
        ({"text": TextCondition(torch.zeros(2, 6, 8))}, "got 2 rows"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_generated(changes, message):
    pipe = cogvideox()
    rows = transformer_rows(pipe)
    with pytest.raises(ValueError, match=message):
        best(pipe, **changes)
    assert not rows


def test_a_prompt_given_twice_is_refused():
    with pytest.raises(ValueError, match="got both"):
        best_of_n(cogvideox(), Quadratic(), "a dog", 2, **CALL, call_arguments=embeds())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("prompt", [["a dog", "a dog runs"], ("a dog",)])
def test_a_list_of_prompts_is_not_taken_for_one(prompt):
    pipe = cogvideox(text=True)
    with pytest.raises(TypeError, match=r"is one prompt, .* call this once for each prompt"):
        best_of_n(pipe, Quadratic(), prompt, 2, **CALL)


def test_the_length_of_texts_is_the_transformers_own():
    """226 tokens, the default of the pipeline, do not fit into this one; 6 do."""
    pipe = cogvideox(text=True)
    found = best_of_n(pipe, Quadratic(), "a dog runs", 1, **CALL)
    words = {"max_sequence_length": 6}
    said = best_of_n(pipe, Quadratic(), "a dog runs", 1, **CALL, call_arguments=words)
    torch.testing.assert_close(found.scores, said.scores)
    score = found.scores.item()
    assert repr(found) == f"BestOfN(1 candidates, winners (0,), scores [{round(score, 4)}])"


def test_an_unknown_pipeline_is_refused_by_name():
    with pytest.raises(
        ValueError, match="cannot sample with a SimplePipeline; known pipelines: Cog"
    ):
        best(type("SimplePipeline", (), {})())


def test_wan_schedulers_that_draw_noise_are_refused():
    with pytest.raises(ValueError, match="stochastic_sampling=True draws noise"):
        best(wan(stochastic_flow()))
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler may draw noise"):
        best(wan(DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **flow)))


def test_a_wan_space_is_the_vaes_own():
    pipe = wan()
    space = latent_space(pipe)
    latents = torch.randn(1, 4, 3, 2, 2)
    expected = latents.clone()
    for channel, (mean, std) in enumerate(
        zip([0.1, -0.2, 0.3, 0.0], [1.5, 2.0, 0.8, 1.0], strict=True)
    ):
        expected[:, channel] = latents[:, channel] * std + mean
    torch.testing.assert_close(space.unscale(space.to_btchw(latents)), expected.transpose(1, 2))
    assert not space.same_latents(latent_space(PIPES["2b"]()))
    other = wan()
    other.vae.decoder.conv_in.weight.data.add_(1)
    assert not space.same_latents(latent_space(other))


def test_decoding_records_no_gradients():
    pipe = cogvideox()
    pipe.vae.requires_grad_(True)
    assert not best(pipe, n=1, output_type="pt").frames[0].requires_grad


def test_clips_of_hunyuan_video_are_its_own():
    pipe = frozen(hunyuan_video)
    size = {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 2}
    found = best_of_n(pipe, Quadratic(), "a dog", 2, batch_size=2, output_type="np", **size)
    seed = torch.Generator().manual_seed(found.seeds[found.winners[0]])
    own = pipe(prompt="a dog", generator=seed, output_type="np", **size).frames[0]
    np.testing.assert_allclose(found.frames[0], own, rtol=0, atol=1e-5)
    assert found.frames[0].std() > 0
