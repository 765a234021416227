"""Version 1, as verl-omni's `latent_http_scorer_client` speaks it.

The stand-in packs and checks what that client does at the commit that was read: five tensors, two
headers, `{"protocol_version": "1", "raw_scores": [one finite number]}`.
"""

import math

import pytest
import torch
from safetensors.torch import save

from gtsvj_reward import TextCondition
from gtsvj_reward.judge import Geometry
from gtsvj_reward.serving.protocol import PATH, VERSION_HEADER
from tests.serving.server import post, reward_of, serving
from tests.tiny import clips, tiny_judge

HEADERS_1 = {"content-type": "application/octet-stream", VERSION_HEADER: "1"}
IMAGES = Geometry(latent_frames=(1, 7), height=(4, 12), width=(4, 16), fps=(8.0, 30.0))


def packed(latents, *, noise_level=0.0, noise_seed=0, **changes):
    """What the host sends for one image latent."""
    tensors = {
        "latents": latents,
        "prompt_embeds": torch.zeros(1, 6, 8),
        "pooled_prompt_embeds": torch.zeros(1, 8),
        "u": torch.tensor([noise_level], dtype=torch.float32),
        "seeds": torch.tensor([noise_seed], dtype=torch.int64),
        **changes,
    }
    return save({name: tensor for name, tensor in tensors.items() if tensor is not None})


def host_score(port, body, query="?latent_space_id=tiny"):
    """The host's reading of the answer."""
    status, result = post(port, body, HEADERS_1, PATH + query)
    if status != 200:
        raise RuntimeError(f"HTTP {status}: {result['detail']}")
    assert set(result) == {"protocol_version", "raw_scores"}
    assert result["protocol_version"] == "1"
    assert isinstance(result["raw_scores"], list)
    assert len(result["raw_scores"]) == 1
    assert math.isfinite(result["raw_scores"][0])
    return result["raw_scores"][0]


@pytest.fixture(scope="module")
def images():
    """A judge of single latent frames, and its server."""
    reward = reward_of(tiny_judge(geometry=IMAGES))
    with serving(reward) as (_, port):
        yield reward, port


@pytest.mark.parametrize("seed", range(3))
def test_an_image_is_a_clip_of_one_frame(images, seed):
    reward, port = images
    latents = clips(1, 1, seed=seed)
    score = host_score(port, packed(latents[0]))
    assert score == pytest.approx(reward(latents, normalize=False).item(), abs=1e-6)
    assert score == host_score(port, packed(latents[0], seeds=None))


def test_a_judge_of_videos_refuses_images(port):
    with pytest.raises(RuntimeError, match=r"422.*latent frames 1 outside 3..7"):
        host_score(port, packed(clips(1, 1)[0]))


@pytest.mark.parametrize(
    ("body", "query", "reason"),
    [
        (packed(clips(1, 1)[0], noise_level=0.4), "?latent_space_id=tiny", "`noise_level` to 0"),
        (packed(clips(1, 1)[0]), "", r"in the URL \(\?latent_space_id="),
        (packed(clips(1, 1)[0]), "?latent_space_id=sd3", "422.*got latents of 'sd3'"),
        (packed(clips(1, 1)[0]), "?latent_space_id=tiny&x=1", "unknown settings"),
        (packed(clips(1, 1)[0]), "?latent_space_id=tiny&normalize=true", "raw scores only"),
        (packed(clips(1, 5)[0]), "?latent_space_id=tiny", "videos need version 2"),
        (packed(clips(1, 5)), "?latent_space_id=tiny", "must have 4 axes"),
        (packed(clips(1, 1)[0], u=None), "?latent_space_id=tiny", r"missing: \['u'\]"),
        (packed(clips(1, 1)[0], pooled_prompt_embeds=None), "?latent_space_id=tiny", "missing"),
    ],
)
def test_what_version_1_cannot_mean_is_refused(images, body, query, reason):
    with pytest.raises(RuntimeError, match=reason):
        host_score(images[1], body, query)


def test_prompts_reach_a_judge_that_reads_them():
    """Without the pooled embeddings, which the format demands."""
    reward = reward_of(tiny_judge(geometry=IMAGES, text_input="prompt"))
    latents, embeds = clips(1, 1), torch.randn(1, 6, 8)
    with serving(reward) as (_, port):
        score = host_score(port, packed(latents[0], prompt_embeds=embeds))
        other = host_score(port, packed(latents[0]))
        with pytest.raises(RuntimeError, match=r"422.*expected text embeddings"):
            host_score(port, packed(latents[0], prompt_embeds=embeds[:, :5]))
    expected = reward(latents, text=TextCondition(embeds), normalize=False).item()
    assert score == pytest.approx(expected, abs=1e-6)
    assert abs(score - other) > 1e-4
