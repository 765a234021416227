"""Reference images through protocol 2, and through UniRL's format."""

import base64
import io
import struct
import zlib
from dataclasses import replace

import pytest
import torch
from PIL import Image

from gtsvj_reward import GTSVJReward, ImageCondition
from gtsvj_reward.latents import read_video, write_video
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.encoding import Reading
from gtsvj_reward.reward.images import ImageEncoder
from gtsvj_reward.serving.client import RefusedError
from gtsvj_reward.serving.protocol import ScoreRequest, read_request, write_request
from gtsvj_reward.serving.unirl import unirl_routes
from gtsvj_reward.serving.videos import VideoReader
from tests.judge.test_image_judge import image_judge, images_for
from tests.pipelines import cogvideox_image, frozen
from tests.reward.test_image_store import picture
from tests.serving.server import assert_same_scores, client_of, reward_of, serving
from tests.serving.test_unirl import parsed, remote, sent
from tests.tiny import clips, tiny_judge, tiny_space


def test_images_travel_bitwise():
    image = ImageCondition(images_for(2).latents.half(), torch.randn(2, 3, 8), 0.5, "Wan")
    request = ScoreRequest(latents=clips(2), space_id="x", space=None, image=image)
    found = read_request(write_request(request), "2", {}).image
    assert found.kind == image.kind
    assert torch.equal(found.latents, image.latents)
    assert torch.equal(found.embeds, image.embeds)


def test_a_judge_that_sees_images_scores_clips_with_their_own():
    reward = GTSVJReward(image_judge(), check_statistics=False)
    latents, image = clips(3), images_for(3)
    expected = reward(latents, image=image, normalize=False)
    with serving(reward) as (_, port), client_of(port, clips_per_request=2) as client:
        scores = client(latents, image=image, normalize=False)
        with pytest.raises(RefusedError, match=r"\(image_input='image'\): pass `image`"):
            client(latents, normalize=False)
        with pytest.raises(RefusedError, match="encoded for a Wan, this is a CogVideoX"):
            client(latents, image=replace(image, family="Wan"), normalize=False)
        small = ImageCondition(image.latents[..., :6])
        with pytest.raises(ValueError, match="its reference image 8x6: encode images at the size"):
            client(latents, image=small, normalize=False)
        assert client.health()["image_input"] == "image"
    assert_same_scores(scores, expected, std=1.0)
    assert expected.std() > 1e-4, "scores are all alike: the test proves nothing"
    blind = reward_of(tiny_judge())
    with (
        serving(blind) as (_, port),
        client_of(port) as client,
        pytest.raises(RefusedError, match="ignores reference images"),
    ):
        client(latents, image=image)


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        ({"image_embeds": torch.ones(2, 3, 4)}, {}, "need `image_latents`"),
        ({}, {"image_factor": "2.0"}, "need `image_latents`"),
        ({"image_latents": torch.ones(3, 1, 4, 8, 12)}, {}, "do not go with 2 clips"),
        ({"image_latents": torch.ones(2, 1, 4, 8, 12)}, {"image_factor": "-1"}, "positive number"),
    ],
)
def test_malformed_images_are_refused(tensors, settings, message):
    from gtsvj_reward.serving.bodies import MalformedError, write_body

    body = write_body({"latents": clips(2), **tensors}, {"latent_space_id": "x", **settings})
    with pytest.raises(MalformedError, match=message):
        read_request(body, "2", {})


def as_base64(image, kind="PNG", **options):
    opened = io.BytesIO()
    image.save(opened, kind, **options)
    return base64.b64encode(opened.getvalue()).decode()


def on_its_side(image):
    """A photo whose camera was held so that viewers turn it by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return as_base64(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def bomb():
    """A picture that says it has 1.6 billion pixels."""
    file = bytearray(base64.b64decode(as_base64(picture(0))))
    file[16:24] = struct.pack(">II", 40000, 40000)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    return base64.b64encode(file).decode()


def test_unirls_videos_are_scored_with_the_image_of_their_turn(tmp_path):
    pipe = frozen(cogvideox_image)
    space = LatentSpace.from_vae(pipe.vae)
    reward = GTSVJReward(
        tiny_judge(transformer=pipe.transformer, latent_space=space, geometry=None,
                   image_input="image"),
        check_statistics=False,
    )  # fmt: skip
    reading = {"fps": 8.0, "height": 64, "width": 96, "num_frames": 9}
    with pytest.raises(ValueError, match=r"requires reference images .* give `image_encoder`"):
        VideoReader(reward, pipe.vae, Reading(**reading))
    encoder = ImageEncoder(pipe)
    reader = VideoReader(reward, pipe.vae, Reading(**reading), encode_image=encoder)
    moving = torch.arange(9 * 64 * 96 * 3).remainder(251).to(torch.uint8).reshape(9, 64, 96, 3)
    write_video(tmp_path / "a.mp4", moving, 8.0)
    payload = sent([(tmp_path / "a.mp4").read_bytes()] * 5)
    pictures = [picture(index, 64, 96) for index in range(2)]
    see_through = pictures[0].copy()
    see_through.putalpha(Image.new("L", (96, 64), 0))
    pictures[0] = Image.new("RGB", (96, 64))
    history = [request["history"] for request in payload["requests"]]
    history[0][0]["image_b64"] = as_base64(see_through)
    history[1].insert(0, {"text": "x", "image_b64": on_its_side(pictures[1])})
    history[2][0]["image_b64"] = "AAAA"
    history[4][0]["image_b64"] = bomb()
    with serving(reward, routers=[unirl_routes(reader)]) as (_, port):
        rewards, errors = parsed(remote(port, payload)[1], 5)
    assert errors[:2] == [None] * 2
    assert "not a base64 png or jpg" in errors[2]
    assert "send `image_b64` in the turn of the video" in errors[3]
    assert "not a base64 png or jpg: Image size (1600000000 pixels)" in errors[4]
    frames = read_video(tmp_path / "a.mp4", **reading).batch()
    size = {name: reading[name] for name in ("height", "width", "num_frames")}
    expected = reward.score_frames(
        torch.cat([frames] * 2), vae=pipe.vae, image=encoder(pictures, **size)
    )
    assert rewards == pytest.approx(expected.tolist(), abs=1e-4)
    assert abs(rewards[0] - rewards[1]) > 1e-4
    assert tiny_space().id != space.id
