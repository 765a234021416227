"""Prompts through every door: each hands them to the reward, and refuses without, by name."""

import asyncio
import contextlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.alignment import AlignArguments, AlignmentRun, Policy, Sampler
from gtsvj_reward.integrations import flow_factory, unirl, verl_omni
from gtsvj_reward.integrations.dancegrpo import VideoAlignReward
from gtsvj_reward.integrations.ddpo import DDPOReward, flow_grpo_scorer
from gtsvj_reward.integrations.diffusers import RewardCallback, RewardGuidance
from gtsvj_reward.integrations.fastvideo import media_scorer
from gtsvj_reward.integrations.trl import LatentsRewardFunc
from gtsvj_reward.integrations.vader import vader_loss_fn
from gtsvj_reward.integrations.videox_fun import GTSVJVideoReward
from gtsvj_reward.reward import PromptEncoder
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from tests.integrations.test_contract import Part
from tests.integrations.tiny import ROUNDING, videos
from tests.pipelines import cogvideox, frozen, wan
from tests.serving.server import serving
from tests.tiny import clips, tiny_aspect_judge

PROMPTS = ["a dog runs", "a red square"]


@dataclass
class World:
    """A generator, on disk too, and a judge that was never shown a clip without its prompt."""

    pipe: Any
    folder: str
    judge: str
    space: LatentSpace

    def reward(self):
        return GTSVJReward.from_pretrained(self.judge)

    def encode(self):
        return PromptEncoder(self.pipe)

    def settings(self, reads):
        given = {"judge": self.judge, "latents_of": self.folder, "fps": 8}
        return {**given, "text_encoder": self.folder} if reads else given

    def scorer(self, reads, **clips):
        encode = self.encode() if reads else None
        return ClipScorer(self.reward(), **(clips or {"space": self.space}), encode=encode)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder, pipe = tmp_path_factory.mktemp("world"), frozen(cogvideox)
    pipe.save_pretrained(folder / "pipe")
    judge = tiny_aspect_judge(
        transformer=pipe.transformer,
        base_model=str(folder / "pipe"),
        latent_space=LatentSpace.from_pipeline(pipe),
        text_input="prompt",
        geometry=None,
    )
    GTSVJReward(judge).save_pretrained(folder / "judge")
    return World(pipe, str(folder / "pipe"), str(folder / "judge"), judge.config.latent_space)


def with_verl_omni(world, reads, settings=None):
    settings = settings or world.settings(reads)

    def score(latents, prompts):
        async def run():
            return await asyncio.gather(
                *(
                    verl_omni.compute_score(
                        solution_image=clip.transpose(0, 1), ground_truth=prompt, **settings
                    )
                    for clip, prompt in zip(latents, prompts, strict=True)
                )
            )

        return [row["score"] for row in asyncio.run(run())]

    if not reads:
        score(clips(1), PROMPTS[:1])  # it is loaded by the first call
    return score


def with_verl_omni_native(world, reads):
    settings = {k: v for k, v in world.settings(reads).items() if k != "judge"}
    model = verl_omni.GTSVJRewardModel(world.judge, "cpu", **settings)

    async def infer(**given):
        return model.infer(**given)

    def score(latents, prompts):
        handle = SimpleNamespace(infer=infer)
        return [
            asyncio.run(
                verl_omni.compute_native_score(
                    solution_image=clip.transpose(0, 1), reward_model=handle, ground_truth=prompt
                )
            )["score"]
            for clip, prompt in zip(latents, prompts, strict=True)
        ]

    return score


def with_flow_factory(world, reads):
    scorer = ScorerConfig.from_dict(world.settings(reads)).load()

    def score(latents, prompts):
        steps = [clip.transpose(0, 1)[None] for clip in latents]
        places = [torch.tensor([0])] * len(latents)
        return flow_factory.score_samples(scorer, None, steps, places, prompts).rewards.tolist()

    return score


def with_unirl(world, reads):
    scorer = unirl.load_scorer(world.settings(reads), "cpu")

    def score(latents, prompts):
        segment = SimpleNamespace(
            latents=latents.transpose(1, 2)[:, None],
            indices=torch.tensor([1]),
            sigmas=torch.tensor([1.0, 0.0]),
        )
        part = Part([f"p/{index}" for index in range(len(latents))], segment)
        return unirl.scored_part(scorer, part, prompts).rewards.tolist()

    return score


def with_videox_fun(world, reads):
    built = GTSVJVideoReward(device="cpu", **world.settings(reads))
    return lambda latents, prompts: built.get_reward(latents.transpose(1, 2), prompts).tolist()


def with_dancegrpo(world, reads):
    inferencer = VideoAlignReward(
        world.scorer(reads), vq=["clear"], mq=["focus"], stop_the_run=False
    )

    def score(latents, prompts):
        found = inferencer.reward_latents(latents.transpose(1, 2), prompts)
        return [row["Overall"] for row in found]

    return score


def with_fastvideo(world, reads):
    scored = media_scorer(world.scorer(reads))
    return lambda latents, prompts: scored(latents, prompts).tolist()


def with_ddpo(world, reads):
    encode = world.encode() if reads else None
    function = DDPOReward(world.reward(), images_are="latents", encode=encode)
    return lambda latents, prompts: function(latents, prompts, {})[0].tolist()


def with_flow_grpo(world, reads):
    encode = world.encode() if reads else None
    function = flow_grpo_scorer(world.reward(), images_are="latents", encode=encode)()
    return lambda latents, prompts: function(latents, prompts, {})[0]


def with_trl(world, reads):
    encode = world.encode() if reads else None
    function = LatentsRewardFunc(world.reward(), encode=encode)
    return lambda latents, prompts: function(prompts, latents=list(latents))


def with_trl_completions(world, reads):
    """A policy that writes prompts, in conversations."""
    encode = world.encode() if reads else None
    function = LatentsRewardFunc(world.reward(), encode=encode, prompt_column="completions")

    def score(latents, prompts):
        said = [[{"role": "assistant", "content": prompt}] for prompt in prompts]
        return function(["x"] * len(latents), completions=said, latents=list(latents))

    return score


def with_callback(world, reads, make=RewardCallback, **settings):
    text = world.encode()(PROMPTS) if reads else None
    recorder = make(world.pipe, world.reward(), num_frames=17, text=text, **settings)
    return lambda latents, prompts: recorder.scoring.scores(latents).tolist()


def with_guidance(world, reads):
    return with_callback(world, reads, RewardGuidance, scale=0.1)


def with_alignment(world, reads):
    pipe = frozen(cogvideox)
    arguments = AlignArguments(
        output_dir="unused", num_frames=17, height=64, width=96, device="cpu", samples=0
    )
    policy = Policy(pipe, arguments.size, guidance=1.0, rank=2)
    sampler = Sampler(arguments, policy, PROMPTS, Accelerator(cpu=True))
    run = AlignmentRun(sampler, world.reward(), eval_metrics={})
    if not reads:
        run.scores(clips(2))
    return lambda latents, prompts: run.scores(latents, prompts).tolist()


@contextlib.contextmanager
def behind_a_server(world, reads):
    """verl-omni with a judge on a server: the text encoder is the trainer's."""
    with serving(world.reward()) as (_, port):
        settings = {**world.settings(reads), "server_url": f"http://127.0.0.1:{port}"}
        del settings["judge"]
        yield with_verl_omni(world, reads, settings)


DOORS = {
    "verl-omni": (with_verl_omni, "`text_encoder`"),
    "verl-omni, a native model": (with_verl_omni_native, "`text_encoder`"),
    "verl-omni, a server": (behind_a_server, "pass `text`"),
    "Flow-Factory": (with_flow_factory, "`text_encoder`"),
    "UniRL": (with_unirl, "`text_encoder`"),
    "VideoX-Fun": (with_videox_fun, "`text_encoder`"),
    "DanceGRPO": (with_dancegrpo, "`encode`"),
    "FastVideo": (with_fastvideo, "`encode`"),
    "DDPO": (with_ddpo, "`encode`"),
    "flow_grpo": (with_flow_grpo, "`encode`"),
    "TRL": (with_trl, "`encode`"),
    "TRL, prompts that are written": (with_trl_completions, "`encode`"),
    "rewards by step": (with_callback, "`text`"),
    "guidance": (with_guidance, "`text`"),
    "alignment scripts": (with_alignment, "pass `text`"),
}


@contextlib.contextmanager
def opened(door, world, reads):
    made = DOORS[door][0](world, reads)
    with made if hasattr(made, "__enter__") else contextlib.nullcontext(made) as score:
        yield score


@pytest.mark.parametrize("door", DOORS)
def test_the_score_is_that_of_the_clip_under_its_prompt(door, world):
    expected, swapped = (
        world.reward()(clips(2), text=world.encode()(said), fps=8.0)
        for said in (PROMPTS, PROMPTS[::-1])
    )
    assert (expected - swapped).abs().min() > 10 * ROUNDING, "prompts change nothing"
    with opened(door, world, True) as score:
        assert score(clips(2), PROMPTS) == pytest.approx(expected.tolist(), abs=ROUNDING)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_without_prompts_refuses_and_names_the_setting(door, world):
    with pytest.raises(ValueError, match=DOORS[door][1]), opened(door, world, False):
        pass


BATCHES = sorted(
    {door for door in DOORS if not door.startswith("verl")} - {"rewards by step", "guidance"}
)
"""Doors that are told the clips and the prompts of a batch in one call."""


@pytest.mark.parametrize("door", BATCHES)
def test_prompts_that_do_not_pair_up_are_refused(door, world):
    with opened(door, world, True) as score, pytest.raises(ValueError, match=r"\b1\b"):
        score(clips(2), PROMPTS[:1])


def test_embeddings_of_a_verl_omni_rollout_take_the_place_of_the_text_encoder(tmp_path):
    """As its Wan adapter leaves them: one prompt's, padded to 512 words, with a mask of ones."""
    pipe = frozen(wan)
    pipe.save_pretrained(tmp_path / "pipe")
    space = LatentSpace.from_pipeline(pipe)
    judge = tiny_aspect_judge(
        transformer=pipe.transformer, base_model=str(tmp_path / "pipe"), latent_space=space,
        text_input="prompt", geometry=None,
    )  # fmt: skip
    reward = GTSVJReward(judge, check_statistics=False)
    reward.save_pretrained(tmp_path / "judge")
    latents = torch.randn(2, 3, space.channels, 8, 12, generator=torch.Generator().manual_seed(3))
    text = PromptEncoder(pipe)(PROMPTS)
    expected, swapped = (
        reward(latents, text=text),
        reward(latents, text=text.rows(torch.tensor([1, 0]))),
    )
    assert (expected - swapped).abs().min() > 10 * ROUNDING, "prompts change nothing"
    settings = {"latents_of": str(tmp_path / "pipe"), "check_statistics": False}
    own = {**settings, "judge": str(tmp_path / "judge"), "prompt_embeds": True}
    model = verl_omni.GTSVJRewardModel(
        str(tmp_path / "judge"), "cpu", prompt_embeds=True, **settings
    )

    async def infer(**given):
        return model.infer(**given)

    def scores(left, index=0):
        given = {"solution_image": latents[index].transpose(0, 1), "extra_info": left}
        handle = {"reward_model": SimpleNamespace(infer=infer), "prompt_embeds": True}
        native = verl_omni.compute_native_score(**given, **handle)
        return [
            asyncio.run(made)["score"] for made in (verl_omni.compute_score(**given, **own), native)
        ]

    ones = torch.ones(512, dtype=torch.long)
    for index, value in enumerate(expected.tolist()):
        left = {"prompt_embeds": text.embeds[index], "prompt_embeds_mask": ones}
        assert scores(left, index) == pytest.approx([value, value], abs=ROUNDING)
    embeds = text.embeds[0]
    for left, words in (
        ({}, "`extra_info` has none"),
        ({"prompt_embeds": embeds[:226]}, r"\(512, text_dim\), .* got \(226, 8\)"),
        ({"prompt_embeds": embeds[None]}, r"got \(1, 512, 8\)"),
        ({"prompt_embeds": embeds[:, :4]}, r"\(1, words, 8\), got \(1, 512, 4\)"),
        (
            {"prompt_embeds": embeds, "prompt_embeds_mask": ones.cumsum(0) < 4},
            "509 of 512 .* masked",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            scores(left)
    with pytest.raises(ValueError, match="replaces `text_encoder`"):
        verl_omni.split({**own, "text_encoder": str(tmp_path / "pipe")})


def test_an_encoder_for_a_judge_that_reads_no_prompts_is_refused(world, saved):
    settings = {**world.settings(True), "judge": saved.judge}
    with pytest.raises(ValueError, match="reads no prompts: leave `text_encoder` out"):
        ScorerConfig.from_dict(settings).load()
    with pytest.raises(ValueError, match="reads no prompts: leave `encode` out"):
        ClipScorer(GTSVJReward.from_pretrained(saved.judge), space=saved.space, encode=len)


def test_decoded_videos_are_scored_under_their_prompts(world):
    scorer, frames = world.scorer(True, vae=world.pipe.vae), videos()[..., :32, :48]
    expected = world.reward().score_frames(frames, vae=world.pipe.vae, text=world.encode()(PROMPTS))
    found = vader_loss_fn(scorer)(2 * frames - 1, PROMPTS)[1]
    assert found.item() == pytest.approx(expected.mean().item(), abs=ROUNDING)
    texts = SimpleNamespace(videos=list(frames.transpose(1, 2)), prompts=PROMPTS)
    found = unirl.score_videos(scorer, texts.videos, texts.prompts).rewards
    assert found.tolist() == pytest.approx(expected.tolist(), abs=ROUNDING)
