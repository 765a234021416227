"""VideoAlign's interface, called as DanceGRPO's scripts call it."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.integrations.dancegrpo import ScoringStopped, VideoAlignReward
from gtsvj_reward.latents import LatentSpaceError, read_video, write_video
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.encoding import Reading
from tests.integrations.tiny import videos
from tests.tiny import clips, tiny_judge

READING = Reading(fps=8.0, height=64, width=96, num_frames=9)
GROUPS = {"vq": ["clear", "focus"], "mq": ["movement smoothness"]}


def host_step(inferencer, path, caption):
    """`sample_reference_model` of `train_grpo_hunyuan.py`, from the written file on."""
    try:
        with torch.no_grad():
            reward = inferencer.reward([path], [caption], use_norm=True)
            return [torch.tensor(reward[0][name]).unsqueeze(0) for name in ("VQ", "MQ")]
    except Exception:  # noqa: BLE001
        return [torch.tensor(-1.0).unsqueeze(0) for _ in range(2)]


@pytest.fixture
def scorer(judge, vae, saved):
    return ClipScorer(judge, vae=vae, space=saved.space, fps=8.0)


@pytest.fixture
def inferencer(scorer):
    return VideoAlignReward(scorer, READING, **GROUPS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index, video in enumerate(videos(2)):
        frames = (video.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        write_video(folder / f"{index}.mp4", frames, fps=8.0)
    return [str(folder / f"{index}.mp4") for index in range(2)]


@pytest.mark.parametrize("use_norm", [True, False])
def test_names_are_groups_of_aspects(inferencer, saved, vae, files, use_norm):
    found = inferencer.reward(files, ["a", "b"], fps=None, num_frames=9, use_norm=use_norm)
    size = {"fps": 8.0, "height": 64, "width": 96, "num_frames": 9}
    frames = torch.cat([read_video(path, **size).batch() for path in files])
    for name, aspects in (("VQ", GROUPS["vq"]), ("MQ", GROUPS["mq"]), ("Overall", None)):
        reward = GTSVJReward.from_pretrained(saved.judge, aspects=aspects)
        expected = reward.score_frames(frames, vae=vae, fps=8.0, normalize=use_norm)
        assert [row[name] for row in found] == pytest.approx(expected.tolist(), abs=1e-5)
        assert expected.std() > 1e-4
    assert all(type(value) is float for row in found for value in row.values())


def test_the_script_gets_both_scores(inferencer, files):
    vq, mq = host_step(inferencer, files[0], "a dog")
    expected = inferencer.reward(files[:1], ["a dog"])[0]
    assert (vq.item(), mq.item()) == pytest.approx((expected["VQ"], expected["MQ"]), abs=1e-6)
    assert -1.0 not in (vq.item(), mq.item())


def test_latents_instead_of_files(inferencer, saved):
    latents = clips().transpose(1, 2)
    found = inferencer.reward_latents(latents)
    for name, aspects in (("VQ", GROUPS["vq"]), ("MQ", GROUPS["mq"]), ("Overall", None)):
        expected = GTSVJReward.from_pretrained(saved.judge, aspects=aspects)(clips())
        assert [row[name] for row in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert inferencer.reward_latents(clips(), layout="BTCHW") == found


def test_no_number_stands_in_for_text_alignment(scorer, inferencer, files):
    [found] = inferencer.reward(files[:1], ["a dog"])
    assert sorted(found) == ["MQ", "Overall", "VQ"]
    with pytest.raises(KeyError, match="does not read the prompt has no text alignment"):
        _ = found["TA"]
    guessed = VideoAlignReward(scorer, READING, **GROUPS, ta=["focus"])
    assert "TA" in guessed.reward(files[:1], ["a dog"])[0]


def test_refusals_pass_the_scripts_except_clause(inferencer, scorer, files, tmp_path):
    with pytest.raises(ScoringStopped, match="no such file") as caught:
        host_step(inferencer, str(tmp_path / "none.mp4"), "a dog")
    assert isinstance(caught.value.__cause__, ValueError | OSError)
    long = Reading(fps=8.0, height=64, width=96, num_frames=17)
    with pytest.raises(ScoringStopped, match="VideoTooShortError"):
        host_step(VideoAlignReward(scorer, long, **GROUPS), files[0], "a dog")
    small = Reading(fps=8.0, height=16, width=16, num_frames=9)
    with pytest.raises(ScoringStopped, match="GeometryError: clip 0: latent height 2 outside"):
        host_step(VideoAlignReward(scorer, small, **GROUPS), files[0], "a dog")
    bad = clips().transpose(1, 2)
    bad[0, 0] = torch.inf
    with pytest.raises(ScoringStopped, match=r"LatentSpaceError: latents\[0\] has non-finite"):
        inferencer.reward_latents(bad)
    # Without it the host takes -1.0 for the score of a video that cannot be read.
    lenient = VideoAlignReward(scorer, READING, **GROUPS, stop_the_run=False)
    assert [x.item() for x in host_step(lenient, str(tmp_path / "none.mp4"), "a")] == [-1.0, -1.0]
    with pytest.raises(LatentSpaceError, match="non-finite"):
        lenient.reward_latents(bad)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"fps": 2.0}, r"fps, num_frames and max_pixels None or \(8\.0, 9, None\), .* got \(2\.0"),
        ({"max_pixels": 200704}, "max_pixels None"),
        ({"prompts": ["a", "b"]}, "got 2 prompts for 1 videos"),
    ],
)
def test_sampling_that_a_judge_was_not_trained_on_is_refused(inferencer, files, arguments, text):
    given = {"video_paths": files[:1], "prompts": ["a"], **arguments}
    with pytest.raises(ScoringStopped, match=text):
        inferencer.reward(**given)


def test_judges_that_do_not_fit_are_refused(scorer, judge, vae, saved, files):
    with pytest.raises(ValueError, match="group 'VQ': expected different names out of"):
        VideoAlignReward(scorer, READING)  # the defaults are VisionReward's 21
    energies = GTSVJReward(tiny_judge(latent_space=saved.space))
    with pytest.raises(ValueError, match="'discriminator' has no aspects"):
        VideoAlignReward(ClipScorer(energies, vae=vae, fps=8.0), READING, **GROUPS)
    fast = Reading(fps=99.0, height=64, width=96, num_frames=9)
    with pytest.raises(ValueError, match=r"the scorer's fps is 8\.0, `reading` says 99"):
        VideoAlignReward(scorer, fast, **GROUPS)
    with pytest.raises(ValueError, match="normalize=True"):
        VideoAlignReward(ClipScorer(judge, vae=vae, normalize=False), READING, **GROUPS)
    latents_only = VideoAlignReward(ClipScorer(judge, space=saved.space), **GROUPS)
    with pytest.raises(ScoringStopped, match="files need `reading`"):
        latents_only.reward(files, ["a", "b"])
