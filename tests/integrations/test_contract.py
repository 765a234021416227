"""What every host gets, from latents or frames: the judge's number, or a stop. A row per host."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.integrations import flow_factory, unirl, verl_omni
from gtsvj_reward.integrations.dancegrpo import VideoAlignReward
from gtsvj_reward.integrations.ddpo import DDPOReward
from gtsvj_reward.integrations.fastvideo import media_scorer
from gtsvj_reward.integrations.trl import LatentsRewardFunc
from gtsvj_reward.integrations.vader import vader_loss_fn
from gtsvj_reward.integrations.videox_fun import GTSVJVideoReward
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from tests.integrations.tiny import ROUNDING, videos
from tests.tiny import clips


@dataclass
class Part:
    """Of a UniRL sample."""

    sample_ids: list
    segment: Any
    rewards: Any = None
    component_rewards: Any = None


def prompts_of(latents, count):
    return ["a dog"] * (len(latents) if count is None else count)


def with_verl_omni(settings):
    def score(latents, count=None):
        async def run():
            return await asyncio.gather(
                *(
                    verl_omni.compute_score(
                        solution_image=clip.transpose(0, 1), sampling_params={}, **settings
                    )
                    for clip in latents
                )
            )

        return [row["score"] for row in asyncio.run(run())]

    return score


def with_verl_omni_native(settings):
    model = verl_omni.GTSVJRewardModel(settings["judge"], "cpu", **without_judge(settings))

    def score(latents, count=None):
        return [model.infer(latents=clip.transpose(0, 1))["score"] for clip in latents]

    return score


def without_judge(settings):
    return {name: value for name, value in settings.items() if name != "judge"}


def with_flow_factory(settings):
    scorer = ScorerConfig.from_dict(settings).load()
    noise = 5 * torch.ones(1)

    def score(latents, count=None):
        steps = [torch.stack([clip.transpose(0, 1) * noise, clip.transpose(0, 1)]).to(clip)
                 for clip in latents]  # fmt: skip
        places = [torch.tensor([0, 1])] * len(latents)
        return flow_factory.score_samples(scorer, None, steps, places).rewards.tolist()

    return score


def with_unirl(settings):
    scorer = unirl.load_scorer(settings, "cpu")

    def score(latents, count=None):
        stored = latents.transpose(1, 2)[:, None]
        segment = SimpleNamespace(
            latents=stored, indices=torch.tensor([1]), sigmas=torch.tensor([1.0, 0.0])
        )
        part = Part([f"p/{index}" for index in range(count or len(latents))], segment)
        return unirl.scored_part(scorer, part).rewards.tolist()

    return score


def with_videox_fun(settings):
    built = GTSVJVideoReward(device="cpu", **settings)

    def score(latents, count=None):
        return built.get_reward(latents.transpose(1, 2), prompts_of(latents, count)).tolist()

    return score


def scorer_of(settings):
    space = LatentSpace.from_vae(load_vae(settings["latents_of"]))
    reward = GTSVJReward.from_pretrained(settings["judge"], batch_size=settings["batch_size"])
    return ClipScorer(reward, space=space, fps=settings["fps"])


def with_dancegrpo(settings):
    inferencer = VideoAlignReward(scorer_of(settings), vq=["clear"], mq=["focus"])

    def score(latents, count=None):
        return [row["Overall"] for row in inferencer.reward_latents(latents.transpose(1, 2))]

    return score


def with_fastvideo(settings):
    scored = media_scorer(scorer_of(settings))

    def score(latents, count=None):
        return scored(latents, prompts_of(latents, count)).tolist()

    return score


def with_ddpo(settings):
    scorer = scorer_of(settings)
    function = DDPOReward(scorer.reward, images_are="latents", space=scorer.space, fps=scorer.fps)

    def score(latents, count=None):
        return function(latents, prompts_of(latents, count), {})[0].tolist()

    return score


def with_trl(settings):
    scorer = scorer_of(settings)
    function = LatentsRewardFunc(scorer.reward, space=scorer.space, fps=scorer.fps)

    def score(latents, count=None):
        return function(prompts_of(latents, count), latents=list(latents))

    return score


HOSTS = {
    "verl-omni": with_verl_omni,
    "verl-omni, a native model": with_verl_omni_native,
    "Flow-Factory": with_flow_factory,
    "UniRL": with_unirl,
    "VideoX-Fun": with_videox_fun,
    "DanceGRPO": with_dancegrpo,
    "FastVideo": with_fastvideo,
    "DDPO": with_ddpo,
    "TRL": with_trl,
}
BATCHES = sorted({*HOSTS} - {"verl-omni", "verl-omni, a native model", "DanceGRPO", "Flow-Factory"})
"""Hosts whose call with a batch names its prompts or samples too."""


def frames_with_verl_omni(settings):
    def score(frames):
        return [
            verl_omni.score_sample(settings, (clip * 255).round().to(torch.uint8), {})["score"]
            for clip in frames
        ]

    return score


def frames_with_flow_factory(settings):
    scorer = ScorerConfig.from_dict(settings).load()
    return lambda frames: flow_factory.score_samples(
        scorer, list(frames), None, None
    ).rewards.tolist()


def frames_with_unirl(settings):
    scorer = unirl.load_scorer(settings, "cpu")
    return lambda frames: unirl.score_videos(
        scorer, [clip.transpose(0, 1) for clip in frames]
    ).rewards.tolist()


def frames_with_videox_fun(settings):
    built = GTSVJVideoReward(device="cpu", **settings)
    return lambda frames: built.get_reward(frames.transpose(1, 2), ["a dog"] * len(frames)).tolist()


def frames_with_vader(settings):
    loss_fn = vader_loss_fn(ScorerConfig.from_dict(settings).load())
    return lambda frames: [loss_fn(clip[None] * 2 - 1, "a dog")[1].item() for clip in frames]


def frames_with_fastvideo(settings):
    scored = media_scorer(ScorerConfig.from_dict(settings).load())
    return lambda frames: scored(frames.transpose(1, 2), ["a dog"] * len(frames)).tolist()


def frames_with_ddpo(settings):
    scorer = ScorerConfig.from_dict(settings).load()
    function = DDPOReward(scorer.reward, images_are="pixels", vae=scorer.vae, fps=scorer.fps)
    return lambda frames: function(frames, ["a dog"] * len(frames), {})[0].tolist()


OF_FRAMES = {
    "verl-omni": frames_with_verl_omni,
    "Flow-Factory": frames_with_flow_factory,
    "UniRL": frames_with_unirl,
    "VideoX-Fun": frames_with_videox_fun,
    "VADER": frames_with_vader,
    "FastVideo": frames_with_fastvideo,
    "DDPO": frames_with_ddpo,
}
"""Hosts that hand over decoded videos, or can."""


def settings_of(saved, **changes):
    return {"judge": saved.judge, "latents_of": saved.vae, "fps": 8, "batch_size": 2, **changes}


@pytest.fixture(scope="module")
def scoring(saved):
    """Each host's function, made once."""
    made = {}

    def of(host):
        if host not in made:
            made[host] = HOSTS[host](settings_of(saved))
        return made[host]

    return of


def stopped(error, text, call):
    """The host is stopped, by this error or by one of its own whose cause it is."""
    with pytest.raises(BaseException, match=text) as caught:
        call()
    assert isinstance(caught.value, error) or isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("host", HOSTS)
def test_the_number_is_the_judges_whatever_the_batch(host, scoring, judge):
    """Three clips at two per pass: the last batch is a part of one."""
    expected = judge(clips(3), fps=8.0)
    assert expected.std() > 1e-3
    assert scoring(host)(clips(3)) == pytest.approx(expected.tolist(), abs=ROUNDING)
    assert scoring(host)(clips(1)) == pytest.approx(judge(clips(1)).tolist(), abs=ROUNDING)


@pytest.mark.parametrize("host", HOSTS)
def test_half_precision_is_scored_to_its_rounding(host, scoring, judge):
    expected = judge(clips(2).half().float(), fps=8.0).tolist()
    assert scoring(host)(clips(2).half()) == pytest.approx(expected, abs=ROUNDING)
    assert scoring(host)(clips(2).bfloat16()) != pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("host", HOSTS)
def test_threads_get_their_own_scores(host, scoring, judge):
    batches = clips(6).split(1)
    with ThreadPoolExecutor(3) as pool:
        found = [score for scores in pool.map(scoring(host), batches) for score in scores]
    assert found == pytest.approx(judge(clips(6)).tolist(), abs=ROUNDING)


@pytest.mark.parametrize("host", HOSTS)
def test_what_the_judge_refuses_stops_the_host(host, scoring, saved):
    bad = clips(2)
    bad[1, 0, 0, 0, 0] = torch.nan
    stopped(LatentSpaceError, "non-finite", lambda: scoring(host)(bad))
    stopped(GeometryError, "latent frames 2 outside", lambda: scoring(host)(clips(2, time=2)))
    stopped(LatentSpaceError, "expected 4 latent channels",
            lambda: scoring(host)(torch.randn(1, 5, 7, 8, 12)))  # fmt: skip
    stopped(LatentSpaceError, "standard deviation", lambda: scoring(host)(100 * clips(1)))
    foreign = settings_of(saved, latents_of=saved.foreign)
    stopped(LatentSpaceError, "latents .*of `cogvideox-vae-",
            lambda: HOSTS[host](foreign)(clips(1)))  # fmt: skip


@pytest.mark.parametrize("host", BATCHES)
def test_prompts_and_clips_are_counted(host, scoring):
    with pytest.raises(ValueError, match=r"\b[13]\b"):
        scoring(host)(clips(3), count=1)


@pytest.mark.parametrize("host", OF_FRAMES)
def test_frames_are_encoded_with_the_judges_vae(host, saved, judge, vae):
    """Three clips at two per pass, of colours that eight bits can say."""
    frames = (videos(3) * 255).round() / 255
    settings = {"judge": saved.judge, "encode_with": saved.vae, "fps": 8, "batch_size": 2}
    score = OF_FRAMES[host](settings)
    expected = judge.score_frames(frames, vae=vae, fps=8.0)
    assert score(frames) == pytest.approx(expected.tolist(), abs=ROUNDING)
    assert expected.std() > 1e-3
    if host != "verl-omni":  # whose colours are whole numbers
        frames[1, 2, 0, 3, 4] = torch.nan
        with pytest.raises(ValueError, match=r"in \[0, 1\]|finite|nan"):
            score(frames)


@pytest.mark.parametrize("host", ["verl-omni", "Flow-Factory", "UniRL"])
def test_frames_are_refused_where_no_vae_was_named(host, saved):
    score = OF_FRAMES[host](settings_of(saved))
    with pytest.raises(
        ValueError, match=r"no VAE to encode them|Set `encode_with` to the judge's VAE"
    ):
        score(videos(1))
