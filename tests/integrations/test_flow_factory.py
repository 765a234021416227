"""Flow-Factory's reward model, in a stand-in for its loader and its `RewardProcessor`."""

import importlib
import inspect
import pickle
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from gtsvj_reward.integrations import flow_factory
from gtsvj_reward.latents import LatentSpaceError
from tests.integrations.tiny import ROUNDING, videos
from tests.tiny import clips

PATH = "gtsvj_reward.integrations.flow_factory.GTSVJRewardModel"


@dataclass
class RewardModelOutput:
    rewards: Any
    extra_info: Any = None


class PointwiseRewardModel(ABC):
    required_fields = ("image", "prompt")
    use_tensor_inputs = False

    def __init__(self, config, accelerator):
        self.accelerator = accelerator
        self.config = config
        self.device = config.device
        self.dtype = config.dtype
        self.model = None

    @abstractmethod
    def __call__(self, prompt, image=None, video=None, **kwargs): ...

    def to(self, device):
        self.device = device
        return self


@dataclass
class Sample:
    """The fields of `T2VSample` that matter here."""

    prompt: str = "a dog"
    video: Any = None
    all_latents: Any = None
    latent_index_map: Any = None
    prompt_embeds: Any = field(default_factory=lambda: torch.zeros(3, 4))


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """`flow_factory.rewards.abc`, as far as the adapter sees it."""
    names = ("flow_factory", "flow_factory.rewards", "flow_factory.rewards.abc")
    modules = {name: ModuleType(name) for name in names}
    modules["flow_factory.rewards.abc"].PointwiseRewardModel = PointwiseRewardModel
    modules["flow_factory.rewards.abc"].RewardModelOutput = RewardModelOutput
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    flow_factory.reward_model_class.cache_clear()
    yield
    flow_factory.reward_model_class.cache_clear()


def loaded(settings, **own):
    """`get_reward_model_class` and `load_reward_model`, for an entry of the YAML."""
    config = SimpleNamespace(
        device=torch.device("cpu"), dtype=torch.float32, batch_size=2, extra_kwargs=settings
    )
    vars(config).update(own)
    module, name = PATH.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(config=config, accelerator=None)


def compute_rewards(model, samples, batch_size=2):
    """`_compute_pointwise_rewards`: fields by signature, without those that are None anywhere."""
    assert isinstance(model, PointwiseRewardModel), "others are left out without a word"
    parameters = inspect.signature(model.__call__).parameters
    assert all(p.kind != inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    rewards = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        given = {
            f.name: [getattr(sample, f.name) for sample in batch]
            for f in fields(Sample)
            if f.name in parameters and all(getattr(s, f.name) is not None for s in batch)
        }
        if "video" in given:
            assert model.use_tensor_inputs, "videos would become lists of images"
        output = model(**given)
        found = output.rewards if hasattr(output, "rewards") else output
        rewards.append(torch.as_tensor(found, device="cpu", dtype=torch.float32))
    return torch.cat(rewards)


def trajectory(clean, stored, steps=4):
    """What a collector keeps of a trajectory that ends in `clean` (time, channel, ...)."""
    index_map = torch.full((steps + 1,), -1)
    for place, position in enumerate(stored):
        index_map[position] = place
    noise = [torch.randn(clean.transpose(0, 1).shape) * 5 for _ in stored]
    latents = torch.stack(
        [clean.transpose(0, 1) if p == steps else n for p, n in zip(stored, noise, strict=True)]
    )
    return {"all_latents": latents, "latent_index_map": index_map}


def finished(count):
    """Samples with their clean latents, and videos that these are not the latents of."""
    pairs = zip(clips(count), videos(count), strict=True)
    return [Sample(**trajectory(clip, [4]), video=video) for clip, video in pairs]


def latent_settings(saved, **changes):
    return {"judge": saved.judge, "latents_of": saved.vae, "fps": 8, **changes}


@pytest.mark.parametrize("stored", [[4], [0, 1, 2, 3, 4], [2, 3, 4]], ids=["nft", "all", "grpo"])
def test_the_end_of_the_trajectory_is_scored(saved, judge, stored):
    samples = [Sample(**trajectory(clip, stored), video=videos(1)[0]) for clip in clips(5)]
    found = compute_rewards(loaded(latent_settings(saved)), samples)
    torch.testing.assert_close(found, judge(clips(5)), rtol=0, atol=ROUNDING)
    assert found.std() > 1e-3


def test_evaluation_scores_videos_if_a_vae_was_named(saved, judge, vae):
    """`trajectory_indices=None` leaves no latents; GRPO may not store the last ones."""
    evaluated = [Sample(video=video) for video in videos(3)]
    unfinished = [
        Sample(**trajectory(clip, [0, 1]), video=video)
        for clip, video in zip(clips(3), videos(3), strict=True)
    ]
    both = loaded(latent_settings(saved, encode_with=saved.vae))
    expected = judge.score_frames(videos(3), vae=vae, fps=8.0)
    for samples in (evaluated, unfinished):
        torch.testing.assert_close(compute_rewards(both, samples), expected, rtol=0, atol=ROUNDING)
        with pytest.raises(ValueError, match="Flow-Factory did not store the clean latents"):
            compute_rewards(loaded(latent_settings(saved)), samples)
    stored = finished(3)
    torch.testing.assert_close(
        compute_rewards(both, stored), judge(clips(3)), rtol=0, atol=ROUNDING
    )
    assert (judge(clips(3)) - expected).abs().min() > 1e-3
    with pytest.raises(ValueError, match="neither latents nor videos"):
        compute_rewards(both, [Sample()])


def test_what_scores_are_made_of_is_handed_on(saved, judge):
    made = trajectory(clips(1)[0], [4])
    output = loaded(latent_settings(saved))(["a dog"], **{k: [v] for k, v in made.items()})
    expected = judge.details(clips(1))
    assert output.extra_info["clear"] == expected.aspects["clear"].tolist()
    assert not output.rewards.requires_grad


def test_refusals_reach_the_trainer(saved):
    model = loaded(latent_settings(saved))
    packed = {"all_latents": torch.randn(1, 40, 4), "latent_index_map": torch.tensor([-1, 0])}
    with pytest.raises(LatentSpaceError, match="expected latents of rank 5"):
        compute_rewards(model, [Sample(**packed)])
    with pytest.raises(LatentSpaceError, match="the latents to score are of"):
        loaded(latent_settings(saved, latents_of=saved.foreign))
    with pytest.raises(ValueError, match=r"unknown keys \['latent_of'\]"):
        loaded({"judge": saved.judge, "latent_of": saved.vae})


def test_dtype_and_batch_size_are_the_hosts(saved):
    model = loaded(latent_settings(saved), dtype=torch.bfloat16, batch_size=3)
    reward = model.scorer.reward
    assert next(reward.judge.backbone.base_tensors())[1].dtype == torch.bfloat16
    assert reward.batch_size == 3
    assert model.to(torch.device("meta")) is model
    assert reward.device.type == model.device.type == "meta"


def test_the_class_is_found_by_its_path():
    cls = flow_factory.GTSVJRewardModel
    assert cls is flow_factory.GTSVJRewardModel
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert issubclass(cls, PointwiseRewardModel)
    with pytest.raises(AttributeError, match="has no attribute 'GTSVJRewardModels'"):
        _ = flow_factory.GTSVJRewardModels


def test_importing_needs_no_host(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("flow_factory")]:
        monkeypatch.setitem(sys.modules, name, None)
    importlib.reload(flow_factory)
    with pytest.raises(ImportError):
        _ = flow_factory.GTSVJRewardModel
