"""What people have at hand, as rewards take it; everything else is refused with what to pass."""

import numpy as np
import pytest
import torch
from PIL import Image

from gtsvj_reward import GTSVJReward
from gtsvj_reward.integrations.ddpo import DDPOReward
from gtsvj_reward.integrations.trl import LatentsRewardFunc
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward import Clips, RewardEnsemble, WeightedReward
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.inputs import as_videos
from tests.sampling.tiny import cogvideox
from tests.tiny import clips, tiny_aspect_judge, tiny_judge

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def reward():
    return GTSVJReward(tiny_judge())


def test_arrays_lists_and_batches_of_one_are_latents(reward):
    batch = clips(3)
    expected = reward(batch)
    assert expected.std() > 1e-3
    for given in (
        batch.numpy(),
        list(batch.numpy()),
        tuple(batch),
        [clip[None] for clip in batch],
        batch.double().numpy(),
    ):
        torch.testing.assert_close(reward(given), expected, rtol=0, atol=1e-5)


def test_a_pipeline_and_a_vae_say_their_space():
    pipe = cogvideox()
    own = LatentSpace.from_pipeline(pipe)
    assert Clips.of(clips(), space=pipe).space == own
    assert Clips.of(clips(), space=pipe.vae).space == own
    judge = GTSVJReward(tiny_judge(latent_space=own))
    torch.testing.assert_close(judge(clips(), space=pipe), judge(clips()))
    assert ClipScorer(judge, space=pipe.vae).space == own
    with pytest.raises(LatentSpaceError, match="expected latents of `tiny`"):
        GTSVJReward(tiny_judge())(clips(), space=pipe)


def test_adapters_take_them_too():
    pipe = cogvideox()
    judge = GTSVJReward(tiny_judge(latent_space=LatentSpace.from_pipeline(pipe)))
    expected = judge(clips(2)).tolist()
    said = {"space": pipe.vae, "fps": "8", "num_frames": "17"}
    ddpo = DDPOReward(judge, images_are="latents", **said)
    assert ddpo(clips(2), ["a", "b"], {})[0].tolist() == pytest.approx(expected, abs=1e-5)
    trl = LatentsRewardFunc(judge, **said)
    assert trl(["a", "b"], latents=list(clips(2))) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="`fps` must be a number"):
        LatentsRewardFunc(judge, fps="fast")
    with pytest.raises(TypeError, match="`space` must name the VAE"):
        DDPOReward(judge, images_are="latents", space="cogvideox-2b")


def test_numbers_may_be_text_as_configuration_files_have_them(reward):
    given = Clips.of(clips(), fps="8", num_frames=np.int64(17))
    assert (given.fps, given.num_frames) == (8.0, 17)
    torch.testing.assert_close(reward(clips(), fps="8"), reward(clips(), fps=8.0))


def test_a_dtype_may_be_its_name_and_casts_the_base_alone(reward):
    judge = GTSVJReward(tiny_judge()).to(dtype="bfloat16")
    other = GTSVJReward(tiny_judge()).to(torch.bfloat16)
    for cast in (judge, other):
        assert cast.judge.backbone.dtype == torch.bfloat16
        assert next(cast.judge.head.parameters()).dtype == torch.float32
    torch.testing.assert_close(judge(clips()), other(clips()))
    assert (judge(clips()) - reward(clips())).abs().max() > 1e-5
    with pytest.raises(ValueError, match="unknown dtype 'half-ish'"):
        judge.to(dtype="half-ish")


PICTURES = [Image.new("RGB", (4, 4)) for _ in range(3)]


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (
            [PICTURES, PICTURES],
            r"a list of 3 Image, a decoded video as clip 0.*output_type=.latent",
        ),
        (PICTURES, r"got a Image as clip 0.*score_frames"),
        (None, "expected latents, a tensor .* got a NoneType"),
        ("clips.safetensors", "got the str 'clips.safetensors'"),
        (
            torch.rand(2, 9, 3, 32, 32),
            "if the 3 are colours, these are decoded frames.*score_frames",
        ),
        (torch.rand(2, 3, 9, 32, 32), "decoded frames.*score_frames"),
        (np.random.rand(2, 9, 32, 32, 3), "decoded frames.*score_frames"),
        (torch.rand(9, 3, 32, 32), "decoded frames.*score_frames"),
        ([torch.rand(2, 5, 4, 8, 12)], r"clip 0 of the list is a batch of 2 clips.*torch.cat"),
    ],
)
def test_what_are_no_latents_is_refused_with_what_to_pass(reward, latents, message):
    with pytest.raises((TypeError, ValueError), match=message):
        reward(latents)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"space": "cogvideox-2b"}, r"pass `LatentSpace.from_pipeline\(pipe\)`.*'cogvideox-2b'"),
        ({"text": "a dog"}, r"`text` takes the prompts' embeddings.*got the str 'a dog'"),
        ({"text": ["a dog", "a cat"]}, "got a list of 2 str"),
        ({"text": torch.zeros(2, 6, 8)}, r"`TextCondition\(embeds\)`.*got a Tensor"),
        ({"fps": "fast"}, "`fps` must be a number > 0, got 'fast'"),
        ({"fps": float("nan")}, "`fps` must be a number > 0, got nan"),
        ({"fps": 0}, "`fps` must be a number > 0, got 0"),
        ({"num_frames": "17.5"}, "`num_frames` must be a whole number, got '17.5'"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(reward, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        reward(clips(), **wrong)


def test_videos_of_all_kinds_are_the_same_video():
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (2, 5, 3, 8, 12), dtype=torch.uint8, generator=generator)
    expected = colours.float() / 255
    arrays = colours.permute(0, 1, 3, 4, 2).numpy()  # diffusers' order: batch, time, rows, columns
    pictures = [[Image.fromarray(frame) for frame in video] for video in arrays]
    for given in (
        expected,
        colours,
        expected.transpose(1, 2),
        arrays,
        arrays.astype(np.float32) / 255,
        list(expected),
        list(arrays),
        pictures,
    ):
        found = as_videos(given)
        torch.testing.assert_close(torch.stack(list(found)), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(as_videos(pictures[1]), expected[1:], rtol=0, atol=1e-6)
    torch.testing.assert_close(as_videos(arrays[1]), expected[1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(2, 5, 4, 8, 12), r"expected frames \(batch, time, 3, height, width\)"),
        ("video.mp4", "expected decoded videos.*'video.mp4'"),
        ([], "an empty list"),
        ([torch.rand(2, 5, 3, 8, 12)], "video 0 of the list holds 2 videos"),
    ],
)
def test_what_are_no_videos_is_refused(frames, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_videos(frames)


def test_lists_of_pictures_are_scored_as_frames(tiny_vae):
    space = LatentSpace.from_vae(tiny_vae)
    judge = GTSVJReward(tiny_judge(latent_space=space), check_statistics=False)
    colours = torch.randint(0, 256, (9, 32, 48, 3), dtype=torch.uint8).numpy()
    longer = np.concatenate([colours, colours[:8]])
    short, long = ([Image.fromarray(frame) for frame in video] for video in (colours, longer))
    found = judge.score_frames([short, long], vae=tiny_vae)
    alone = [judge.score_frames(video, vae=tiny_vae) for video in (colours, longer)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-5)
    assert found.std() > 1e-5


def test_rewards_and_outputs_are_shown_in_a_line(reward):
    aspects = GTSVJReward(tiny_aspect_judge(), aspects=["clear"])
    assert repr(reward) == (
        "GTSVJReward(discriminator of CogVideoXTransformer3DModel, latents of tiny, float32 on cpu)"
    )
    assert "a selection of aspects" in repr(aspects)
    both = WeightedReward([("a", reward, 1.0), ("b", aspects, 2.0)])
    assert repr(both) == "WeightedReward(weighted_a_b)"
    out = RewardEnsemble({"a": reward, "b": aspects}).details(clips(6))
    assert repr(out).startswith("RewardOutput(6 clips, rewards [")
    assert repr(out).endswith(", ...], parts: a, b, with uncertainty)")
    assert "steps: 3, 5" in repr(reward.details([clips()[0], clips(time=3)[0]]))
