"""Rewards by (images, prompts, metadata), against the checks of the trainers that call them."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.integrations.ddpo import DDPOReward, flow_grpo_scorer
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError
from gtsvj_reward.reward.combine import WeightedReward
from tests.integrations.tiny import example_of
from tests.tiny import clips, tiny_judge, tiny_space

PROMPTS = ("a dog", "a cat")


@pytest.fixture
def reward():
    return GTSVJReward(tiny_judge())


@pytest.fixture
def on_pixels(tiny_vae):
    return GTSVJReward(tiny_judge(latent_space=LatentSpace.from_vae(tiny_vae)))


def frames(batch=2, time=9, seed=0):
    """Noise with colours in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, 3, 32, 48, generator=generator)


def ddpo_pytorch(rewards_module, name, batches):
    """What `scripts/train.py` does with a reward: a pool of two threads, then one tensor."""
    reward_fn = getattr(rewards_module, name)()
    executor = ThreadPoolExecutor(max_workers=2)
    with torch.no_grad():
        waiting = [executor.submit(reward_fn, images, PROMPTS, [{}, {}]) for images in batches]
    samples = []
    for future in waiting:
        rewards, _metadata = future.result()
        samples.append({"rewards": torch.as_tensor(rewards, device="cpu")})
        _captions = [f"{p:.25} | {r:.2f}" for p, r in zip(PROMPTS, rewards, strict=True)]
    executor.shutdown()
    gathered = torch.cat([sample["rewards"] for sample in samples]).cpu().numpy()
    return (gathered - gathered.mean()) / (gathered.std() + 1e-8), gathered


def trl_ddpo(reward_function, batches):
    """`DDPOTrainer.compute_rewards` and `step` of trl 0.23, without asynchronous rewards."""
    rewards = []
    for images in batches:
        reward, metadata = reward_function(images, PROMPTS, ({}, {}))
        rewards.append((torch.as_tensor(reward, device="cpu"), metadata))
    rewards, metadata = zip(*rewards, strict=True)
    assert all(information == {} for information in metadata)
    return torch.cat(rewards).cpu().numpy()


def alignprop_loss(reward_function, images):
    """`AlignPropTrainer.step` of trl 0.23: rewards, figures, loss."""
    with torch.enable_grad():
        rewards, _metadata = reward_function(images, PROMPTS, ({}, {}))
        assert rewards.detach().cpu().numpy().shape == (len(images),)
        return 10.0 - rewards.mean()


def flow_grpo_multi_score(score_functions, device, weights):
    """`multi_score` of flow_grpo with another table, which there is a local name."""
    scorers = {}
    for name in weights:
        factory = score_functions[name]
        takes_device = "device" in factory.__code__.co_varnames
        scorers[name] = factory(device) if takes_device else factory()

    def score(images, prompts, metadata, only_strict=True):
        total, details = [], {}
        for name, weight in weights.items():
            scores, _ = scorers[name](images, prompts, metadata)
            details[name] = scores
            weighted = [weight * score for score in scores]
            total = [a + b for a, b in zip(total, weighted, strict=True)] if total else weighted
        details["avg"] = total
        return details, {}

    return score


# scores


def test_ddpo_pytorch_gets_the_scores_of_direct_calls(reward):
    module = SimpleNamespace(
        gtsvj=lambda: DDPOReward(reward, images_are="latents", space=tiny_space(), fps=8.0)
    )
    batches = [clips(2, seed=seed) for seed in range(4)]
    advantages, gathered = ddpo_pytorch(module, "gtsvj", batches)
    expected = torch.cat([reward(batch) for batch in batches]).numpy()
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, expected)
    assert np.abs(advantages).max() > 0.5


def test_trl_ddpo_gets_the_scores_of_direct_calls(reward):
    batches = [clips(2, seed=seed) for seed in range(3)]
    found = trl_ddpo(DDPOReward(reward, images_are="latents"), batches)
    np.testing.assert_array_equal(found, torch.cat([reward(b) for b in batches]).numpy())


def test_flow_grpo_gets_lists_under_its_names(on_pixels, tiny_vae):
    table = {
        "gtsvj": flow_grpo_scorer(on_pixels, images_are="pixels", vae=tiny_vae, fps=8.0),
        "brightness": lambda device: (
            lambda images, prompts, metadata: (
                images.mean(dim=(1, 2, 3, 4)).numpy(),
                {},
            )
        ),
    }
    score = flow_grpo_multi_score(table, torch.device("cpu"), {"gtsvj": 2.0, "brightness": 0.5})
    videos = [frames(seed=seed) for seed in range(3)]
    with ThreadPoolExecutor(max_workers=8) as executor:
        waiting = [executor.submit(score, v, list(PROMPTS), {}, only_strict=True) for v in videos]
    for video, future in zip(videos, waiting, strict=True):
        details, _ = future.result()
        assert type(details["gtsvj"]) is list
        assert all(type(value) is float for value in details["gtsvj"])
        tensors = {key: torch.as_tensor(value).float() for key, value in details.items()}
        expected = on_pixels.score_frames(video, vae=tiny_vae, fps=8.0)
        torch.testing.assert_close(tensors["gtsvj"], expected, rtol=0, atol=0)
        total = 2 * expected + 0.5 * video.mean(dim=(1, 2, 3, 4))
        torch.testing.assert_close(tensors["avg"], total)


def test_pixels_are_scored_as_score_frames_does(on_pixels, tiny_vae):
    video = frames()
    expected = on_pixels.score_frames(video, vae=tiny_vae, fps=8.0)
    found, information = DDPOReward(on_pixels, images_are="pixels", vae=tiny_vae, fps=8.0)(
        video, PROMPTS, None
    )
    assert information == {}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert expected.std() > 1e-4, "rewards are all alike: the test proves nothing"
    swapped = DDPOReward(on_pixels, images_are="pixels", vae=tiny_vae, layout="BCTHW")
    torch.testing.assert_close(swapped(video.transpose(1, 2), PROMPTS, None)[0], expected)
    double = WeightedReward([("judge", on_pixels, 2.0)])
    combined = DDPOReward(double, images_are="pixels", vae=tiny_vae)
    torch.testing.assert_close(combined(video, PROMPTS, None)[0], 2 * expected)


def test_layout_padding_and_scale_of_latents():
    # Asked for 9 frames, CogVideoX 1.5 returns 4 latents, of which the first is padding.
    reward = GTSVJReward(tiny_judge("1.5"))
    padded = clips(2, time=4)
    function = DDPOReward(reward, images_are="latents", layout="BCTHW", num_frames=9,
                          normalize=False)  # fmt: skip
    found, _ = function(padded.transpose(1, 2), PROMPTS, [])
    expected = reward(padded[:, 1:], normalize=False)
    torch.testing.assert_close(found, expected)
    assert (found - reward(padded[:, 1:])).abs().min() > 1e-3


# gradients


def test_alignprop_reaches_latents_and_pixels(reward, on_pixels, tiny_vae):
    latents = DDPOReward(reward, images_are="latents", differentiable=True)
    pixels = DDPOReward(on_pixels, images_are="pixels", vae=tiny_vae, differentiable=True)
    for function, images in ((latents, clips()), (pixels, frames())):
        images.requires_grad_()
        alignprop_loss(function, images).backward()
        assert images.grad.isfinite().all()
        assert (images.grad.flatten(1).norm(dim=1) > 0).all()
        assert all(parameter.grad is None for parameter in function.reward.judge.parameters())
    # -d mean(rewards): the trainer ascends the reward
    direct = clips().requires_grad_()
    reward(direct).mean().backward()
    found = clips().requires_grad_()
    alignprop_loss(latents, found).backward()
    torch.testing.assert_close(found.grad, -direct.grad)


def test_there_is_no_graph_unless_it_is_asked_for(reward, on_pixels, tiny_vae):
    latents = DDPOReward(reward, images_are="latents")
    pixels = DDPOReward(on_pixels, images_are="pixels", vae=tiny_vae)
    for function, images in ((latents, clips()), (pixels, frames())):
        rewards, _ = function(images.requires_grad_(), PROMPTS, [])
        assert rewards.grad_fn is None
        with pytest.raises(RuntimeError, match="does not require grad"):
            alignprop_loss(function, images).backward()
    # A pool's threads have gradients on, whatever the trainer's own thread has.
    with torch.no_grad(), ThreadPoolExecutor(1) as executor:
        assert executor.submit(torch.is_grad_enabled).result()
        future = executor.submit(latents, clips().requires_grad_(), PROMPTS, [])
    assert not future.result()[0].requires_grad


# threads


class Alone:
    """A reward that fails if it is called while it is being called."""

    def __init__(self):
        self.busy = 0

    def __call__(self, latents, *, space=None, fps=None, num_frames=None, text=None,
                 normalize=True):  # fmt: skip
        self.busy += 1
        time.sleep(0.02)
        alone, self.busy = self.busy == 1, self.busy - 1
        if not alone:
            raise RuntimeError("called while it was being called")
        return latents.mean(dim=(1, 2, 3, 4))


def test_threads_wait_for_one_another():
    factory = flow_grpo_scorer(Alone(), images_are="latents")
    training, evaluation = factory(), factory()
    batches = [clips(2, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as executor:
        waiting = [
            executor.submit(scorer, batch, PROMPTS, {})
            for batch in batches
            for scorer in (training, evaluation)
        ]
    scores = [future.result()[0] for future in waiting]
    expected = [batch.mean(dim=(1, 2, 3, 4)).tolist() for batch in batches for _ in range(2)]
    assert scores == expected


def test_an_error_in_a_thread_reaches_the_trainer_and_blocks_nobody(reward):
    module = SimpleNamespace(gtsvj=lambda: DDPOReward(reward, images_are="latents"))
    bad = clips()
    bad[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(LatentSpaceError, match=r"latents\[1\] has non-finite values"):
        ddpo_pytorch(module, "gtsvj", [bad, clips(), clips()])
    function = module.gtsvj()
    with pytest.raises(LatentSpaceError):
        function(bad, PROMPTS, [])
    assert function(clips(), PROMPTS, [])[0].shape == (2,)


@pytest.mark.parametrize("offload", [None, "cpu"])
def test_scores_in_threads_are_those_of_serial_calls(offload, tiny_vae):
    space = LatentSpace.from_vae(tiny_vae)
    reward = GTSVJReward(tiny_judge(latent_space=space), offload_to=offload)
    function = DDPOReward(reward, images_are="pixels", vae=tiny_vae)
    batches = [frames(seed=seed) for seed in range(4)]
    serial = [function(batch, PROMPTS, [])[0] for batch in batches]
    with ThreadPoolExecutor(2) as executor:
        parallel = list(executor.map(lambda batch: function(batch, PROMPTS, [])[0], batches))
    for one, other in zip(serial, parallel, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# refusals


def test_images_that_are_no_videos_are_refused(reward, on_pixels, tiny_vae):
    latents = DDPOReward(reward, images_are="latents")
    pixels = DDPOReward(on_pixels, images_are="pixels", vae=tiny_vae)
    for function in (latents, pixels):
        with pytest.raises(ValueError, match=r"shape \(2, 3, 32, 48\): single images cannot be"):
            function(torch.rand(2, 3, 32, 48), PROMPTS, [])
        with pytest.raises(TypeError, match=r"got ndarray: .*output_type=\"pt\""):
            function(np.zeros((2, 9, 32, 48, 3), np.uint8), PROMPTS, [])
        with pytest.raises(TypeError, match=r"got torch\.uint8"):
            function(torch.zeros(2, 9, 3, 32, 48, dtype=torch.uint8), PROMPTS, [])
        with pytest.raises(ValueError, match="got 2 prompts for 3 videos"):
            function(clips(3) if function is latents else frames(3), PROMPTS, [])
    with pytest.raises(ValueError, match=r"3 colours on axis 2 \('BTCHW' order\), got .*`layout`"):
        pixels(frames().transpose(1, 2), PROMPTS, [])
    with pytest.raises(ValueError, match=r"expected frames in \[0, 1\], got 0\.\d+ to 2\d\d"):
        pixels(frames() * 255, PROMPTS, [])
    with pytest.raises(ValueError, match=r"expected 4f \+ 1 frames .* got 8"):
        pixels(frames(time=8), PROMPTS, [])
    with pytest.raises(GeometryError):
        pixels(frames(time=5), PROMPTS, [])
    with pytest.raises(LatentSpaceError, match=r"expected 4 latent channels on axis 2"):
        latents(frames(), PROMPTS, [])


def test_latents_and_vaes_of_another_space_are_refused(reward, tiny_vae):
    foreign = DDPOReward(reward, images_are="latents", space=tiny_space(id="foreign"))
    with pytest.raises(LatentSpaceError, match="got latents of `foreign`"):
        foreign(clips(), PROMPTS, [])
    encoding = DDPOReward(reward, images_are="pixels", vae=tiny_vae)
    with pytest.raises(LatentSpaceError, match=r"of `tiny`.* got latents of `cogv"):
        encoding(frames(), PROMPTS, [])
    with pytest.raises(LatentSpaceError):
        DDPOReward(reward, images_are="pixels", vae=torch.nn.Linear(1, 1))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images_are": "frames"}, "must be 'latents' or 'pixels', got 'frames'"),
        ({"images_are": "latents", "layout": "BHWC"}, "`layout` must be"),
        ({"images_are": "latents", "vae": "vae"}, "`vae` and images_are='pixels' go together"),
        ({"images_are": "pixels"}, "`vae` and images_are='pixels' go together"),
        ({"images_are": "pixels", "vae": 1, "num_frames": 9}, "are of latents: leave them out"),
        ({"images_are": "pixels", "vae": 1, "space": tiny_space()}, "are of latents"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(reward, arguments, text):
    for make in (DDPOReward, flow_grpo_scorer):
        with pytest.raises(ValueError, match=text):
            make(reward, **arguments)


def test_examples_of_the_docstrings_run(reward, on_pixels, tiny_vae):
    latents, space = clips(), tiny_space()
    names = {"reward": reward, "space": space, "latents": latents, "prompts": PROMPTS,
             "metadata": [], "DDPOReward": DDPOReward}  # fmt: skip
    exec(example_of(DDPOReward), names)
    torch.testing.assert_close(names["rewards"], reward(latents))
    names = {"reward": on_pixels, "vae": tiny_vae, "score_functions": {},
             "flow_grpo_scorer": flow_grpo_scorer}  # fmt: skip
    exec(example_of(flow_grpo_scorer), names)
    score = flow_grpo_multi_score(names["score_functions"], "cpu", {"gtsvj": 1.0})
    assert len(score(frames(), PROMPTS, {})[0]["avg"]) == 2
