"""Scorers that share a VAE with state: Wan's keeps features of earlier frames on itself."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import diffusers
import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.integrations.ddpo import DDPOReward
from gtsvj_reward.judge import JudgeConfig, VideoJudge
from gtsvj_reward.reward.clip_scorer import ClipScorer

pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs are refused before 0.36")
THREADS = 4


def wan_vae():
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 2, 2], num_res_blocks=1,
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return vae.eval().requires_grad_(False)


def wan_reward(space):
    torch.manual_seed(1)
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8,
        freq_dim=8, ffn_dim=16, num_layers=2, rope_max_seq_len=16,
    )  # fmt: skip
    config = JudgeConfig(
        base_model="tiny", latent_space=space, head_width=16,
        reward_mean=0.0, reward_std=1.0, reward_data="none",
    )  # fmt: skip
    judge = VideoJudge.from_transformer(transformer.eval(), config, seed=0)
    return GTSVJReward(judge, check_statistics=False)


def test_scores_of_scorers_that_share_a_vae_are_those_of_each_alone():
    vae = wan_vae()
    space = LatentSpace.from_vae(vae)
    reward = wan_reward(space)
    videos = torch.rand(2 * THREADS, 1, 9, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    first, second = (ClipScorer(reward, vae=vae) for _ in range(2))
    third = DDPOReward(reward, images_are="pixels", vae=vae)
    ways = [
        lambda video: first.score_frames(video).rewards,
        lambda video: second.score_frames(video).rewards,
        lambda video: third(video, ["a prompt"], None)[0],
        lambda video: reward.score_frames(video, vae=vae),
    ]

    def score(index):
        with torch.no_grad():
            return ways[index % len(ways)](videos[index]).item()

    alone = torch.tensor([score(index) for index in range(len(videos))])
    assert alone.unique().numel() == len(videos)
    met = Barrier(THREADS)

    def meet(*_):
        # All threads come into the encoder, with the features of none in the cache, unless they
        # have to wait for one another.
        with suppress(BrokenBarrierError):
            met.wait(timeout=0.2)

    hook = vae.encoder.register_forward_pre_hook(meet)
    with ThreadPoolExecutor(THREADS) as pool:
        together = torch.tensor(list(pool.map(score, range(len(videos)))))
    hook.remove()
    gap = (alone[:, None] - alone).abs()
    assert gap[~torch.eye(len(alone), dtype=torch.bool)].min() > 1e-4
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
