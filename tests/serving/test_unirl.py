"""UniRL's remote reward service, for videos.

The stand-in builds what `RemoteRewardBackend` sends at the commit that was read, and reads the
answer with the checks that it makes.
"""

import base64
import io
import json
import math
import re
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import av
import httpx
import pytest
import torch

from gtsvj_reward import LatentSpace
from gtsvj_reward.latents import UnreadableVideoError, read_video, write_video
from gtsvj_reward.latents.allowance import DecodeLimit
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward import PromptEncoder, RewardOutput
from gtsvj_reward.reward.encoding import Reading
from gtsvj_reward.serving.pace import Pace
from gtsvj_reward.serving.refusals import NotScoredError
from gtsvj_reward.serving.unirl import answer, read_videos, unirl_routes
from gtsvj_reward.serving.videos import VideoReader
from tests.pipelines import cogvideox, frozen
from tests.serving.server import assert_same_scores, post, reward_of, serving
from tests.tiny import tiny_judge, tiny_space

READ = {"fps": 8.0, "height": 64, "width": 96, "num_frames": 17}
READING = Reading(**READ)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three short mp4 files of moving bars."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(3):
        clip = torch.zeros(17, 64, 96, 3, dtype=torch.uint8)
        for step in range(17):
            left = (4 + 3 * index) * step % 80
            clip[step, :, left : left + 16] = 90 + 80 * index
        write_video(folder / f"{index}.mp4", clip, 8.0)
    return [folder / f"{index}.mp4" for index in range(3)]


@pytest.fixture(scope="module")
def judge(tiny_vae):
    space = LatentSpace.from_vae(tiny_vae)
    return reward_of(tiny_judge(latent_space=space, geometry=None), check_statistics=False)


@pytest.fixture(scope="module")
def served(judge, tiny_vae):
    with serving(judge, routers=[unirl_routes(VideoReader(judge, tiny_vae, READING))]) as (_, port):
        yield port


def sent(contents, **changes):
    """What the trainer sends for mp4 files."""
    return {
        "requests": [
            {
                "history": [{"text": "a prompt", "video_b64": base64.b64encode(x).decode()}],
                "required_rewards": ["gtsvj"],
                "metadata": None,
                **changes,
            }
            for x in contents
        ]
    }


def remote(port, payload):
    """POST /score as the trainer does."""
    body = json.dumps(payload).encode()
    return post(port, body, {"content-type": "application/json"}, "/score")


def parsed(answer, batch_size):
    """Rewards and successes, by the trainer's rules; the first sub-metric is the reward."""
    rewards, errors = [], []
    for index in range(batch_size):
        metrics = answer["results"][index].get("gtsvj")
        if metrics is None:
            errors.append(answer["errors"][index]["gtsvj"])
            continue
        assert all(isinstance(x, float) and math.isfinite(x) for x in metrics.values())
        rewards.append(next(iter(metrics.values())))
        errors.append(None)
    return rewards, errors


def test_videos_get_the_score_of_the_pixel_path(served, judge, tiny_vae, videos):
    status, answer = remote(served, sent([path.read_bytes() for path in videos]))
    assert status == 200
    rewards, errors = parsed(answer, 3)
    assert errors == [None] * 3
    frames = torch.cat([read_video(path, **READ).batch() for path in videos])
    with torch.no_grad():
        expected = judge.score_frames(frames, vae=tiny_vae, fps=8.0)
    assert_same_scores(torch.tensor(rewards), expected, std=1.0)
    assert expected.std() > 1e-3, "scores are all alike: the test proves nothing"


def test_health_is_what_the_trainer_checks_before_training(served):
    url = f"http://127.0.0.1:{served}"
    health = httpx.get(f"{url}/health", trust_env=False)
    assert health.status_code == 200
    assert set(health.json()["rewards"]) == {"gtsvj"}
    assert httpx.get(f"{url}/rewards", trust_env=False).json() == {"rewards": ["gtsvj"]}


def test_a_video_that_cannot_be_read_is_an_error_of_its_own(served, videos):
    good = videos[0].read_bytes()
    status, answer = remote(served, sent([good, good[:200], good]))
    assert status == 200
    rewards, errors = parsed(answer, 3)
    assert len(rewards) == 2
    assert errors[0] is errors[2] is None
    assert errors[1]


def test_playlists_are_not_opened(served, tmp_path):
    """ffmpeg would open the files that they name."""
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"
    _, answer = remote(served, sent([playlist]))
    assert parsed(answer, 1) == (
        [],
        ["the video is not an mp4 file, which is what the trainer sends"],
    )


def test_the_score_comes_first_and_no_aspect_hides_it():
    """UniRL takes the first number unless it is told otherwise."""
    one = RewardOutput(
        rewards=torch.tensor([2.0]),
        raw=torch.tensor([1.0]),
        trajectory=[torch.tensor([1.0])],
        parts={"raw": torch.tensor([9.0])},
        uncertainty=torch.tensor([0.5]),
    )
    rows = [("score", 2.0), ("raw", 1.0), ("uncertainty", 0.5), ("aspect:raw", 9.0)]
    assert list(answer([one], True)["results"][0]["gtsvj"].items()) == rows
    assert list(answer([one], False)["results"][0]["gtsvj"].items()) == rows[1:]


def test_a_full_queue_is_no_error_of_a_clip():
    """It goes to the trainer as a status, which repeats the request."""
    full = NotScoredError(429, "retry later", 1)
    with pytest.raises(NotScoredError, match="retry later"):
        answer([NotScoredError(422, "unreadable"), full], True)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "list of `requests`"),
        ([], "list of `requests`"),
        ({"requests": [3]}, r"requests\[0\] must be an object"),
        ({"requests": [{"history": []}]}, "this server has the reward 'gtsvj'"),
        (sent([b""], required_rewards=["videoalign"]), "requested: .'videoalign'"),
        (sent([b""], history=[]), "the last turn"),
        (sent([b""], history=[{"text": "x", "video_path": "/etc/hostname"}]), "not read"),
        (sent([b""], history=[{"text": "x", "image_b64": "AAAA"}]), "input_kind: video"),
    ],
)
def test_what_is_no_request_is_refused_whole(served, payload, reason):
    status, answer = remote(served, payload)
    assert status == 400
    assert re.search(reason, answer["detail"]), answer


def test_too_many_videos_are_refused(served):
    status, answer = remote(served, sent([b""] * 33))
    assert status == 422
    assert "lower the trainer's `batch_size`" in answer["detail"]


@pytest.mark.parametrize("filling", ["[],", "{},", "[[[],[]]],", '{"a":{}},'])
def test_json_of_many_small_values_is_refused_in_little_memory_and_time(filling):
    """Full of them, 60 MiB took 1.6 GiB and held up everything for 24 s."""
    body = b'{"requests":[' + filling.encode() * (2_000_000 // len(filling)) + b"3]}"
    tracemalloc.start()
    try:
        began = time.process_time()
        with pytest.raises(NotScoredError, match="brackets, commas and colons"):
            read_videos(body, 32)
        seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # of all threads; the body has two million
    assert seconds < 0.5


def test_a_request_full_of_parts_that_are_read(served, videos):
    """32 videos with prompts of a hundred commas each are far below that limit."""
    payload = sent([videos[0].read_bytes()])
    payload["requests"][0]["history"][0]["text"] = ", ".join(map(str, range(20_000)))
    assert remote(served, payload)[0] == 200


def film(width, height, count, rate):
    """An mp4 file of black pictures, which take next to no bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=rate)
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        track.options = {"preset": "ultrafast", "crf": "51", "g": "10000"}
        picture = av.VideoFrame(width, height, "yuv420p")
        for index in range(count):
            picture.pts = index
            container.mux(track.encode(picture))
        container.mux(track.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "limit", "reason"),
    [
        ((640, 480, 24, 10), {"picture": 300_000}, "its pictures have 640 x 480 pixels"),
        ((640, 480, 24, 10), {"total": 3_000_000}, "over 3000000 pixels would have to be decoded"),
        ((16, 16, 2100, 1000), {"total": 65_536 * 1500}, "pixels would have to be decoded"),
    ],
)
def test_a_video_that_takes_too_long_to_decode_is_refused(judge, tiny_vae, shape, limit, reason):
    """Of large pictures, of many, and of many small ones between two that are needed."""
    content = base64.b64encode(film(*shape)).decode()
    assert len(VideoReader(judge, tiny_vae, READING).request(content)) == 1
    strict = VideoReader(judge, tiny_vae, READING, limit=DecodeLimit(**limit))
    with pytest.raises(UnreadableVideoError, match=reason):
        strict.request(content)


def test_a_shorter_video_is_read_as_far_as_it_goes_where_that_is_asked(judge, tiny_vae):
    """Ten pictures make nine, which are three latents."""
    content = base64.b64encode(film(96, 64, 10, 8)).decode()
    longest = Reading(**READ, at_most=True)
    assert VideoReader(judge, tiny_vae, longest).request(content).latents.shape[1] == 3


def test_videos_that_wait_are_bounded_together(judge, tiny_vae, videos):
    """Four may wait: of two requests with three each the second must come back."""
    entered, go = threading.Event(), threading.Event()

    class Held(VideoReader):
        """Reads when it may."""

        def request(self, *sent):
            entered.set()
            assert go.wait(120)
            return super().request(*sent)

    payload = sent([path.read_bytes() for path in videos])
    routers = [unirl_routes(Held(judge, tiny_vae, READING))]
    with (
        serving(judge, routers=routers, max_queue=4, max_clips=4) as (app, port),
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(remote, port, payload)
        assert entered.wait(120)
        status, refused = remote(port, payload)
        assert status == 429
        assert "3 videos are waiting, at most 4 may" in refused["detail"]
        go.set()
        assert first.result()[0] == 200
        assert app.state.service.encoder.waiting == 0
        app.state.service.encoder.waiting, app.state.service.encoder.pace = 1, Pace()
        app.state.service.encoder.pace.learn(1, 61.0)
        status, refused = remote(port, payload)
        assert (status, "the videos ahead take about 61 s" in refused["detail"]) == (429, True)


def test_base64_that_is_none_is_an_error(served):
    payload = sent([b""])
    payload["requests"][0]["history"][0]["video_b64"] = "***"
    _, answer = remote(served, payload)
    assert "not base64" in parsed(answer, 1)[1][0]


def test_a_server_without_a_vae_has_no_such_routes(port):
    assert remote(port, sent([b""]))[0] == 404


def test_only_the_judges_own_vae_is_taken(judge, tiny_vae):
    reward = reward_of(tiny_judge(latent_space=tiny_space(id="another")))
    with pytest.raises(LatentSpaceError, match="the judge scores latents of `another`"):
        VideoReader(reward, tiny_vae, READING)


def test_a_judge_that_reads_prompts_scores_each_video_under_its_own(judge, tiny_vae, videos):
    prompted = reward_of(
        tiny_judge(latent_space=judge.space, geometry=None, text_input="prompt"),
        check_statistics=False,
    )
    with pytest.raises(ValueError, match=r"requires prompts .* give `text_encoder`"):
        VideoReader(prompted, tiny_vae, READING)
    encode, said = PromptEncoder(frozen(cogvideox)), ["a dog", "a red square"]
    reader = VideoReader(prompted, tiny_vae, READING, encode=encode)
    payload = sent([videos[0].read_bytes()] * 2)
    for request, prompt in zip(payload["requests"], said, strict=True):
        request["history"][0]["text"] = prompt
    with serving(prompted, routers=[unirl_routes(reader)]) as (_, port):
        rewards, errors = parsed(remote(port, payload)[1], 2)
    assert errors == [None] * 2
    frames = read_video(videos[0], **READ).batch()
    expected = prompted.score_frames(
        torch.cat([frames] * 2), vae=tiny_vae, fps=8.0, text=encode(said)
    )
    assert rewards == pytest.approx(expected.tolist(), abs=1e-4)
    assert abs(rewards[0] - rewards[1]) > 1e-3
