"""UniRL's reward service and backend, in a stand-in for its base classes and its trainer."""

import importlib
import pickle
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.integrations import unirl
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError
from tests.integrations.tiny import videos
from tests.tiny import clips


class RewardBackend(ABC):
    input_kind = "image"

    def __init__(self, model_name="", batch_size=8, timeout=60.0):
        self.model_name = model_name

    def get_model_name(self):
        return self.model_name

    @property
    def preferred_input_kind(self):
        return self.input_kind

    @abstractmethod
    def compute_rewards(self, request): ...

    @abstractmethod
    def is_available(self): ...


@dataclass
class RewardResponse:
    rewards: list = field(default_factory=list)
    component_rewards: dict = field(default_factory=dict)
    successes: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    compute_time: float = 0.0


@dataclass
class Part:
    """The fields that matter here."""

    sample_ids: list
    segment: Any = None
    primitives: Any = None
    rewards: Any = None
    component_rewards: Any = None


@dataclass
class Texts:
    texts: list


@dataclass
class Sample:
    """A prompt's part, and what was generated from it."""

    parts: list
    said: Any = ()

    def turns(self):
        """Root first: a system turn, then the prompts of the generated clips."""
        return [SimpleNamespace(role=role, content=Texts(texts)) for role, texts in self.said]

    def with_parts(self, parts):
        return replace(self, parts=list(parts))


def distributed(*, dispatch_mode):
    def decorate(method):
        method._distributed_config = {"dispatch_mode": dispatch_mode}
        return method

    return decorate


class RewardService:
    """Scores decoded media only, and stops at flags of failure."""

    def __init__(
        self, backend, truncated_reward="zero", overlong_buffer_len=1, overlong_penalty_factor=1.0
    ):
        self.backend, self.truncated_reward = backend, truncated_reward
        assert backend.get_model_name()
        assert backend.preferred_input_kind in {"image", "video", "text"}

    @distributed(dispatch_mode="dp scatter")
    def score_and_attach(self, sample):
        last = sample.parts[-1]
        channels_first = [video.transpose(0, 1) for video in last.primitives["video"]]
        request = SimpleNamespace(videos=channels_first, prompts=[])
        response = self.backend.compute_rewards(request)
        assert all(response.successes)
        assert len(response.rewards) == len(response.errors) == len(last.sample_ids)
        parts = {str(k): torch.tensor(list(v)) for k, v in response.component_rewards.items()}
        rewards = torch.tensor(response.rewards)
        scored = replace(last, rewards=rewards, component_rewards=parts)
        return sample.with_parts([*sample.parts[:-1], scored])

    @distributed(dispatch_mode="dp scatter")
    def score_differentiable(self, media_tensor, prompts, records=None):
        return self.backend.compute_rewards_differentiable(media_tensor, prompts, records=records)


MODULES = {
    "unirl.reward.base": {"RewardBackend": RewardBackend},
    "unirl.reward.service": {"RewardService": RewardService},
    "unirl.types.reward": {"RewardResponse": RewardResponse},
    "unirl.types.sample": {"Part": Part, "Sample": Sample},
    "unirl.types.primitives": {"Texts": Texts},
    "unirl.distributed.group.dispatch": {
        "distributed": distributed,
        "Dispatch": SimpleNamespace(DP_SCATTER="dp scatter"),
    },
}


@pytest.fixture(autouse=True)
def host(monkeypatch):
    for path, names in MODULES.items():
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or ModuleType(name))
        vars(sys.modules[path]).update(names)
    for made in (unirl.backend_class, unirl.service_class):
        made.cache_clear()
    yield
    for made in (unirl.backend_class, unirl.service_class):
        made.cache_clear()


def instantiated(recipe):
    """Hydra's `_target_`: children first, then the class that the dotted path names."""
    if not isinstance(recipe, dict):
        return recipe
    values = {k: instantiated(v) for k, v in recipe.items() if k != "_target_"}
    if "_target_" not in recipe:
        return values
    module, name = recipe["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**values)


def service(config, target="gtsvj_reward.integrations.unirl.LatentRewardService", **own):
    backend = {
        "_target_": "gtsvj_reward.integrations.unirl.GTSVJBackend",
        "base_device": "cpu",
        "config": config,
    }
    return instantiated({"_target_": target, "backend": backend, **own})


def rollout(count=2, stored=(0, 3, 4), **changes):
    """A rollout of Wan: stored steps (sample, step, channel, time, height, width)."""
    clean = clips(count).transpose(1, 2)
    steps = [clean if place == 4 else torch.randn_like(clean) * 5 for place in stored]
    segment = SimpleNamespace(
        latents=torch.stack(steps, dim=1),
        indices=torch.tensor(stored),
        sigmas=torch.linspace(1, 0, 5),
    )
    fields = {"sample_ids": [f"p/{i}" for i in range(count)], "segment": segment}
    return Sample([Part(["p"]), Part(**{**fields, **changes})])


def settings(saved, **changes):
    return {"judge": saved.judge, "latents_of": saved.vae, "fps": 8, **changes}


def test_the_clean_latents_of_the_last_part_are_scored(saved, judge):
    given = rollout()
    found = service(settings(saved)).score_and_attach(given)
    assert found.parts[0] is given.parts[0]
    scored = found.parts[-1]
    expected = judge.details(clips())
    torch.testing.assert_close(scored.rewards, expected.rewards, rtol=0, atol=1e-6)
    assert scored.rewards.dtype == torch.float32
    torch.testing.assert_close(scored.component_rewards["raw"], expected.raw)
    torch.testing.assert_close(scored.component_rewards["clear"], expected.aspects["clear"])
    assert given.parts[-1].rewards is None, "the sample that came in must stay as it was"
    assert scored.segment is given.parts[-1].segment
    assert expected.rewards.std() > 1e-3


def test_the_prompts_are_the_last_text_turn_of_the_sample():
    said = [("system", ["be brief"] * 2), ("user", ["a dog", "a cat"])]
    turns = [SimpleNamespace(role="user", content=object()), *Sample([], said).turns()]
    assert unirl.prompts_of(turns) == ["a dog", "a cat"]
    with pytest.raises(ValueError, match="no turn with a text"):
        unirl.prompts_of(turns[:1])


def test_videos_are_scored_by_the_hosts_own_service(saved, judge, vae):
    target = "unirl.reward.service.RewardService"
    pixels = service({"judge": saved.judge, "encode_with": saved.vae}, target)
    given = rollout(primitives={"video": list(videos())})
    scored = pixels.score_and_attach(given).parts[-1]
    expected = judge.score_frames(videos(), vae=vae)
    torch.testing.assert_close(scored.rewards, expected, rtol=0, atol=1e-5)
    assert "movement smoothness" in scored.component_rewards
    latents_only = service(settings(saved), target)
    with pytest.raises(ValueError, match="got decoded frames, but no VAE to encode them"):
        latents_only.score_and_attach(given)


def test_gradients_reach_decoded_videos(saved, judge, vae):
    media = videos().transpose(1, 2).clone().requires_grad_()
    target = "unirl.reward.service.RewardService"
    pixels = service({"judge": saved.judge, "encode_with": saved.vae}, target)
    scores = pixels.score_differentiable(media, ["a dog", "a cat"])
    torch.testing.assert_close(scores, judge.score_frames(videos(), vae=vae), rtol=0, atol=1e-5)
    scores[1].backward()
    assert media.grad[0].abs().max() == 0 < media.grad[1].abs().max()
    with pytest.raises(ValueError, match=r"expected frames in \[0, 1\]"):
        pixels.score_differentiable(2 * media - 1, ["a dog", "a cat"])


def test_settings_of_the_hosts_service_are_taken(saved):
    ours = service(settings(saved), truncated_reward="keep", require_prompt_video=False)
    assert ours.truncated_reward == "keep"
    with pytest.raises(ValueError, match="set it to false, and add such a reward"):
        service(settings(saved), require_prompt_video=True)


def test_releases_without_samples_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "unirl.types.sample", None)
    with pytest.raises(ImportError, match=r"July 2026 or later. `GTSVJBackend` works with both"):
        _ = unirl.LatentRewardService


def test_the_service_is_dispatched_as_the_hosts_is():
    ours = unirl.LatentRewardService.score_and_attach._distributed_config
    assert ours == RewardService.score_and_attach._distributed_config


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"stored": (0, 3)}, ValueError, "last latents stored are those of step 3, .* ends at 4"),
        ({"segment": None}, ValueError, "last part carries no latents"),
        ({"segment": SimpleNamespace(latents=None, indices=None, sigmas=None)}, ValueError,
         "carries no latents"),
        ({"sample_ids": ["a", "b", "c"]}, ValueError, "latents of 2 clips for 3 samples"),
        ({"rewards": torch.zeros(2)}, RuntimeError, "has rewards already"),
    ],
)  # fmt: skip
def test_samples_without_clean_latents_stop_the_step(saved, changes, error, text):
    with pytest.raises(error, match=text):
        service(settings(saved)).score_and_attach(rollout(**changes))


def test_refusals_of_the_judge_stop_the_step(saved):
    with pytest.raises(GeometryError, match="99"):
        service(settings(saved, fps=99)).score_and_attach(rollout())
    with pytest.raises(LatentSpaceError, match="the latents to score are of"):
        service(settings(saved, latents_of=saved.foreign))
    with pytest.raises(ValueError, match=r"unknown keys \['device_id'\]"):
        service(settings(saved, device_id=0))
    with pytest.raises(ValueError, match="name the generator as `latents_of`"):
        service({"judge": saved.judge, "encode_with": saved.vae})
    backend = service(settings(saved)).backend
    with pytest.raises(ValueError, match="expected a request with videos"):
        backend.compute_rewards(SimpleNamespace(videos=None, prompts=[]))


def test_the_judge_leaves_and_returns(saved, judge, monkeypatch):
    ours = service(settings(saved, device="cpu"))
    moved = []
    move = ours.backend.scorer.to
    monkeypatch.setattr(
        ours.backend.scorer, "to", lambda device: (moved.append(device), move(device))
    )
    assert ours.backend.is_available()
    ours.backend.offload()
    ours.backend.onload()
    assert moved == ["cpu", ours.backend.device] == ["cpu", "cpu"]
    found = ours.score_and_attach(rollout()).parts[-1].rewards
    torch.testing.assert_close(found, judge(clips()), rtol=0, atol=1e-6)
    ours.backend.device = "meta"
    ours.backend.onload()
    assert ours.backend.scorer.reward.device.type == "meta"


def test_a_server_scores_as_the_process_does(saved, judge, monkeypatch):
    monkeypatch.setattr(
        unirl, "ScoreClient", lambda url, *, token: GTSVJReward.from_pretrained(saved.judge)
    )
    far = service({"server_url": "http://127.0.0.1:8000", "latents_of": saved.vae})
    found = far.score_and_attach(rollout()).parts[-1].rewards
    torch.testing.assert_close(found, judge(clips()), rtol=0, atol=1e-6)


def test_classes_are_found_by_their_paths():
    for name in ("GTSVJBackend", "LatentRewardService"):
        cls = getattr(unirl, name)
        assert pickle.loads(pickle.dumps(cls)) is cls
    with pytest.raises(AttributeError, match="has no attribute 'Service'"):
        _ = unirl.Service


def test_importing_needs_no_host(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "unirl"]:
        monkeypatch.setitem(sys.modules, name, None)
    importlib.reload(unirl)
    with pytest.raises(ImportError):
        _ = unirl.LatentRewardService
