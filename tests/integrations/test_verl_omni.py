"""verl-omni's scorer, called as its two reward managers call one."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.integrations import verl_omni
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError
from gtsvj_reward.serving import RefusedError
from tests.integrations.tiny import ROUNDING
from tests.serving.server import serving
from tests.tiny import clips


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(verl_omni, "SCORERS", {})


def checked_response(response, output_type):
    """What both managers check of a rollout's response."""
    if output_type == "latent":
        assert response.dtype.is_floating_point
    else:
        assert response.dtype == torch.uint8
    return response


def single(response, settings, *, output_type="latent", extra_info=None, router=None):
    """`VisualRewardManager.run_single`, with `reward_kwargs` bound as verl binds them."""
    extra_info = {} if extra_info is None else extra_info
    extra_info |= {"num_turns": None, "rollout_reward_scores": {}}
    extra_kwargs = {} if router is None else {
        "reward_router_address": router, "reward_model_tokenizer": None, "model_name": "m",
        "sampling_params": {"max_tokens": 4096},
    }  # fmt: skip

    async def run():
        async def bound(**kwargs):
            return await verl_omni.compute_score(**kwargs, **settings)

        result = await bound(
            data_source="prompts",
            solution_image=checked_response(response, output_type),
            ground_truth="a dog",
            extra_info=extra_info,
            **extra_kwargs,
        )
        assert isinstance(result, dict)
        extra = {key: value for key, value in result.items() if key != "score"}
        return {"reward_score": result["score"], "reward_extra_info": extra}

    assert inspect.iscoroutinefunction(verl_omni.compute_score)
    return asyncio.run(run())


def filtered(arguments, signature):
    """`_filter_kwargs` of the multi-reward manager."""
    if any(p.kind == inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        return arguments
    return {k: v for k, v in arguments.items() if k in signature.parameters}


def multi(response, entry, *, output_type="latent", extra_info=None, others=0.0):
    """`MultiVisualRewardManager.run_single` with one entry of ours, and a constant beside it."""
    reserved = {"path", "name", "weight", "required"}
    settings = {key: value for key, value in entry.items() if key not in reserved}
    arguments = {
        "data_source": "prompts",
        "solution_image": checked_response(response, output_type),
        "ground_truth": "a dog",
        "extra_info": {} if extra_info is None else extra_info,
        **settings,
    }
    info = {}
    try:
        signature = inspect.signature(verl_omni.compute_score)
        result = asyncio.run(verl_omni.compute_score(**filtered(arguments, signature)))
        score = float(result["score"])
        info |= {f"reward/gtsvj/{key}": v for key, v in result.items() if key != "score"}
    except Exception as error:
        if entry.get("required", False):
            raise RuntimeError(f"Required sub-reward 'gtsvj' failed: {error}") from error
        score = 0.0
    return {"reward_score": entry.get("weight", 1.0) * score + others, "reward_extra_info": info}


def host_latents(batch=2, **sizes):
    """Latents of single samples as Wan's rollout has them, (channel, time, height, width)."""
    return [clip.transpose(0, 1).contiguous() for clip in clips(batch, **sizes)]


def test_latents_score_as_the_judge_says(saved, judge):
    settings = {"judge": saved.judge, "latents_of": saved.vae, "fps": 8}
    out = judge.details(clips())
    for index, latents in enumerate(host_latents()):
        found = single(latents, settings)
        assert type(found["reward_score"]) is float
        assert found["reward_score"] == pytest.approx(out.rewards[index].item(), abs=ROUNDING)
        extra = found["reward_extra_info"]
        assert extra.keys() == {
            "gtsvj_raw", "gtsvj_clear", "gtsvj_focus", "gtsvj_movement smoothness"
        }  # fmt: skip
        assert extra["gtsvj_clear"] == pytest.approx(
            out.aspects["clear"][index].item(), abs=ROUNDING
        )
        again = multi(latents, {**settings, "weight": 2.0, "required": True}, others=1.0)
        assert again["reward_score"] == pytest.approx(2 * found["reward_score"] + 1, abs=1e-6)
        assert again["reward_extra_info"]["reward/gtsvj/gtsvj_raw"] == extra["gtsvj_raw"]
    assert out.rewards.std() > 1e-3
    assert len(verl_omni.SCORERS) == 1, "the judge is loaded once, whoever calls"


def test_latents_beside_pixels_are_preferred(saved, judge):
    """`output_type: both`, and trainers whose rollout attaches `latents_clean`."""
    video, [latents] = torch.zeros(9, 3, 64, 96, dtype=torch.uint8), host_latents(1)
    both = {"judge": saved.judge, "latents_of": saved.vae, "encode_with": saved.vae}
    extra_info = {"latents_clean": latents, "prompt_embeds": torch.zeros(3, 4)}
    found = single(video, both, output_type="both", extra_info=dict(extra_info))
    assert found["reward_score"] == pytest.approx(judge(clips(1)).item(), abs=1e-6)
    pixels = {"judge": saved.judge, "encode_with": saved.vae}
    other = single(video, pixels, output_type="both", extra_info=dict(extra_info))
    assert abs(other["reward_score"] - found["reward_score"]) > 1e-3
    named = SimpleNamespace(spec=SimpleNamespace(layout="CTHW", fps=None), data=latents)
    artifacts = {"video_latent": named, "video_preview": None}
    again = single(video, both, output_type="both", extra_info={"media_artifacts": artifacts})
    assert again["reward_score"] == pytest.approx(found["reward_score"], abs=1e-6)
    named.spec.layout = "LC"
    with pytest.raises(ValueError, match="has the layout 'LC', expected 'CTHW'"):
        single(video, both, output_type="both", extra_info={"media_artifacts": artifacts})


def test_a_named_native_model_scores_as_the_function_does(saved, judge):
    """verl-omni hands its score function a handle, whose `infer` runs where the model is."""
    model = verl_omni.GTSVJRewardModel(saved.judge, torch.device("cpu"), latents_of=saved.vae)

    async def infer(**given):
        return await asyncio.to_thread(model.infer, **given)

    async def run():
        handle = SimpleNamespace(infer=infer)
        return await asyncio.gather(
            *(
                verl_omni.compute_native_score(
                    solution_image=latents, reward_model=handle, ground_truth="a dog"
                )
                for latents in host_latents(3)
            )
        )

    found = asyncio.run(run())
    assert [row["score"] for row in found] == pytest.approx(judge(clips(3)).tolist(), abs=1e-5)
    assert found[0].keys() >= {"gtsvj_raw", "gtsvj_focus"}
    signature = inspect.signature(verl_omni.compute_native_score)
    assert "reward_model" in signature.parameters
    model.close()
    with pytest.raises(RuntimeError, match="was closed"):
        model.infer(latents=host_latents(1)[0])


@pytest.mark.parametrize(
    ("sample", "error", "text"),
    [
        (torch.randn(16, 8, 12), ValueError, r"latents of a video .* got shape \(16, 8, 12\)"),
        (torch.randn(1, 16, 8, 12), LatentSpaceError, "expected 4 latent channels on axis 1"),
        (torch.randn(4, 2, 8, 12), GeometryError, "latent frames 2 outside"),
        (torch.randn(4, 5, 8, 12) * 100, LatentSpaceError, "standard deviation"),
        (torch.empty(0), ValueError, r"got shape \(0,\)"),
    ],
    ids=["sd3", "sd3 batch", "short", "unscaled", "aborted"],
)
def test_refusals_stop_the_run_where_the_reward_is_required(saved, sample, error, text):
    settings = {"judge": saved.judge, "latents_of": saved.vae}
    with pytest.raises(error, match=text):
        single(sample, settings)
    with pytest.raises(RuntimeError, match=f"Required sub-reward 'gtsvj' failed: .*{text}"):
        multi(sample, {**settings, "required": True})
    # What the page warns of: without `required` the host itself puts a 0 in place of the score.
    assert multi(sample, settings)["reward_score"] == 0.0


def test_settings_are_read_strictly(saved):
    [latents] = host_latents(1)
    with pytest.raises(RuntimeError, match=r"unknown keys \['latent_of'\]"):
        multi(latents, {"judge": saved.judge, "latent_of": saved.vae, "required": True})
    with pytest.raises(LatentSpaceError, match="the latents to score are of"):
        single(latents, {"judge": saved.judge, "latents_of": saved.foreign})


def test_a_server_scores_as_the_process_does(saved, judge, monkeypatch):
    monkeypatch.setenv("GTSVJ_TEST_TOKEN", "secret")
    samples, expected = host_latents(4), judge(clips(4))
    with serving(GTSVJReward.from_pretrained(saved.judge), token="secret") as (_, port):
        settings = {
            "server_url": f"http://127.0.0.1:{port}",
            "server_token_env": "GTSVJ_TEST_TOKEN",
            "latents_of": saved.vae,
            "fps": 8,
        }

        async def run():
            return await asyncio.gather(
                *(verl_omni.compute_score(solution_image=x, **settings) for x in samples)
            )

        found = asyncio.run(run())
        assert [row["score"] for row in found] == pytest.approx(expected.tolist(), abs=1e-5)
        assert all("gtsvj_focus" in row for row in found)
        with pytest.raises(RefusedError, match=r"latent frames 2 outside"):
            single(samples[0][:, :2], settings)
        monkeypatch.setenv("GTSVJ_TEST_TOKEN", "wrong")
        verl_omni.SCORERS.clear()
        with pytest.raises(RefusedError, match="HTTP 401"):
            single(samples[0], settings)
