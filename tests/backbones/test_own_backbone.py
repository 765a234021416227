"""A backbone of one's own, from outside the package."""

import json

import pytest
import torch
from torch import nn

from gtsvj_reward import GTSVJReward, JudgeConfig, VideoJudge
from gtsvj_reward.backbones import Backbone, backbone_for
from gtsvj_reward.judge import CheckpointError, save_judge
from gtsvj_reward.latents import LatentSpaceError
from tests.tiny import clips, tiny_space


class Block(nn.Module):
    """One head of attention over all tokens."""

    def __init__(self, dim):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens):
        attended = nn.functional.scaled_dot_product_attention(
            self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        )
        return tokens + self.to_out(attended)


class OwnModel(nn.Module):
    """A small model that diffusers does not have."""

    def __init__(self, depth, dim):
        super().__init__()
        self.embed = nn.Conv2d(4, dim, 2, stride=2)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))

    def forward(self, video):
        batch, steps = video.shape[:2]
        patches = self.embed(video.flatten(0, 1)).flatten(2).transpose(1, 2)
        tokens = patches.unflatten(0, (batch, steps)).flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class OwnBackbone(Backbone):
    """Watches it."""

    family = "OwnModel"
    latent_channels = 4
    patch_size = 2
    dim = 12

    def __init__(self, depth=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.depth = depth
        self.settings = json.dumps({"attention": "one head"})
        self.model = OwnModel(depth, self.dim)

    def blocks(self):
        return self.model.blocks

    def inputs(self, latents, *, timestep, text):
        return {"video": latents}

    def lora_targets(self, block):
        return [f"blocks.{block}.{name}" for name in ("to_q", "to_k", "to_v", "to_out")]


@pytest.fixture
def saved(tmp_path):
    config = JudgeConfig(
        base_model="own", latent_space=tiny_space(), head_width=8, reward_mean=0.0, reward_std=1.0,
        reward_data="nothing",
    )  # fmt: skip
    judge = VideoJudge.from_transformer(OwnBackbone(), config)
    for name, parameter in judge.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)
    save_judge(judge, tmp_path / "judge")
    return tmp_path / "judge", judge


def test_it_scores_and_is_taken_again_on_reload(saved):
    path, judge = saved
    reward = GTSVJReward.from_pretrained(path, backbone=OwnBackbone())
    assert torch.equal(reward(clips(3)), GTSVJReward(judge)(clips(3)))
    assert reward(clips(3)).std() > 1e-4
    latents = clips().requires_grad_()
    reward(latents).sum().backward()
    assert latents.grad.abs().max() > 0
    with pytest.raises(LatentSpaceError, match="foreign"):
        reward(clips(), space=tiny_space(id="foreign"))


def test_another_one_is_refused_on_reload(saved):
    path, _ = saved
    with pytest.raises(CheckpointError, match="trained on other base weights"):
        GTSVJReward.from_pretrained(path, backbone=OwnBackbone(seed=1))
    with pytest.raises(ValueError, match="holds 2 blocks, the judge wants 3"):
        GTSVJReward.from_pretrained(path, backbone=OwnBackbone(depth=2))
    with pytest.raises(FileNotFoundError, match="'own' is neither a local folder nor a hub id"):
        GTSVJReward.from_pretrained(path)


def test_it_is_handed_back_as_it_is():
    own = OwnBackbone()
    assert backbone_for(own) is own
