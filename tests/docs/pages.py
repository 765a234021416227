"""What the pages of the documentation take for granted, tiny: models on disk, and names."""

import re
import sys
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from diffusers import CogVideoXPipeline
from PIL import Image

from gtsvj_reward import GTSVJReward, LatentSpace, TextCondition
from gtsvj_reward.annotations.aspects import VISIONREWARD_ASPECTS
from gtsvj_reward.integrations.videox_fun import GTSVJVideoReward
from gtsvj_reward.judge import Aspect
from tests.alignment.tiny import tiny_pipeline
from tests.annotations import rows
from tests.pipelines import cogvideox_image, frozen
from tests.sampling.tiny import wan
from tests.serving.server import body_of, post, serving
from tests.tiny import tiny_aspect_judge, tiny_judge, tiny_transformer

ASPECTS = tuple(Aspect(name=s.name, low=s.low, high=s.high) for s in VISIONREWARD_ASPECTS)


class World:
    """Pipelines and judges on disk, each made when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.address = "http://127.0.0.1:8000"

    @cached_property
    def cogvideox(self):
        pipe = tiny_pipeline()
        sizes = {"text_embed_dim": 16, "sample_width": 6, "sample_height": 4}
        pipe.transformer = tiny_transformer(max_text_seq_length=226, **sizes)
        pipe.transformer.proj_out.weight.data.mul_(0.3)  # keeps samples on the scale of latents
        pipe.save_pretrained(self.folder / "cogvideox")
        return str(self.folder / "cogvideox")

    @cached_property
    def wan(self):
        pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs need 0.36")
        self.wan_pipe.save_pretrained(self.folder / "wan")
        return str(self.folder / "wan")

    @cached_property
    def wan_pipe(self):
        pipe = wan(text=True)
        return pipe.to(torch.bfloat16).to(torch.float32)  # a page may load it as either

    @cached_property
    def judge(self):
        pipe = CogVideoXPipeline.from_pretrained(self.cogvideox)
        base = pipe.transformer.to(torch.bfloat16)  # as the commands of the pages train it
        return self.saved("judge", self.cogvideox, base, pipe.vae)

    @cached_property
    def moment_judge(self):
        pipe, folder = self.pipe(), self.folder / "moment-judge"
        settings = {"latent_space": LatentSpace.from_vae(pipe.vae), "taps": [0, 1]}
        judge = tiny_judge(
            transformer=pipe.transformer,
            base_model=self.cogvideox,
            readout="moments",
            lora_rank=0,
            **settings,
        )
        GTSVJReward(judge).save_pretrained(folder)
        return str(folder)

    @cached_property
    def wan_judge(self):
        base, pipe = self.wan, self.wan_pipe
        return self.saved("wan-judge", base, pipe.transformer, pipe.vae)

    @cached_property
    def space_id(self):
        return LatentSpace.from_pipeline(self.pipe()).id

    def saved(self, name, base, transformer, vae):
        judge = tiny_aspect_judge(
            transformer=transformer,
            base_model=base,
            latent_space=LatentSpace.from_vae(vae),
            aspects=ASPECTS,
        )
        GTSVJReward(judge).save_pretrained(self.folder / name)
        return str(self.folder / name)

    def pipe(self):
        pipe = CogVideoXPipeline.from_pretrained(self.cogvideox, torch_dtype=torch.bfloat16)
        pipe.set_progress_bar_config(disable=True)
        pipe.transformer.requires_grad_(False)
        return pipe

    def reward(self):
        return GTSVJReward.from_pretrained(self.judge)

    def clips(self, count=2):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, 4, 4, 6, generator=generator)


SMALLER = (
    (r'"cuda"|f"cuda:\{device\}"', '"cpu"'),
    (r"base_device: cuda\b", "base_device: cpu"),
    (r'\("cpu", \(8,\)\)', '("cpu", (1,))'),  # a mesh
    (r"\b49\b", "9"),
    (r"\b480\b", "32"),
    (r"\b720\b", "48"),
    (r"13(,| \*) 16(,| \*) 60(,| \*) 90", r"3\1 4\2 4\3 6"),  # latents of that size
    (r"num_inference_steps=\d+", "num_inference_steps=4"),
    (r"(callback_on_step_end=\w+)\)", r"\1, num_inference_steps=4)"),
    (r"\bsteps=20\b", "steps=3"),
    (r"look_at=25", "look_at=2"),
    (r"(8|16),\n( +)(num_frames|look_at)", r"4,\n\2\3"),  # clips to choose from
    (r"finish=8", "finish=2"),
    (r'"a dog runs on a beach", 8', '"a dog runs on a beach", 2'),
    (r"\* 8, seeds=range\(8\)", "* 2, seeds=range(2)"),  # real models of the toy world
    (
        r"num_generations=8, max_completion_length=200",
        "num_generations=2, max_completion_length=6, per_device_train_batch_size=2, max_steps=1, "
        'use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True',
    ),
)
"""What is replaced in code, in this order."""


def smaller(text, world):
    """Code or settings with tiny models in place of large ones."""
    judge = world.wan_judge if "Wan-AI/" in text else world.judge
    folders = {"zai-org": world.cogvideox, "Wan-AI": world.wan}
    text = re.sub(r"\b(zai-org|Wan-AI)/[\w.-]+", lambda found: folders[found[1]], text)
    text = re.sub(r"models/Diffusion_Transformer/CogVideoX[\w.-]+", world.cogvideox, text)
    if "path/to/moment-judge" in text:
        text = text.replace("path/to/moment-judge", world.moment_judge)
    text = text.replace("path/to/judge", judge).replace("http://127.0.0.1:8000", world.address)
    text = text.replace(
        '"latent_space_id": "cogvideox-2b"', f'"latent_space_id": "{world.space_id}"'
    )
    for pattern, replacement in SMALLER:
        text = re.sub(pattern, replacement, text)
    return text


@contextmanager
def nothing(world, monkeypatch):
    yield {}


@contextmanager
def generator_and_judge(world, monkeypatch):
    yield {"pipe": world.pipe(), "reward": world.reward(), "prompt": "a dog", "look": look}


def look(pipe, step, timestep, arguments):
    """A callback that changes nothing."""
    return arguments


@contextmanager
def prompts(world, monkeypatch):
    yield {"pipe": world.pipe(), "reward": world.reward(), "latents": world.clips(4)}


@contextmanager
def images(world, monkeypatch):
    pipe = frozen(cogvideox_image)
    pictures = [Image.new("RGB", (48, 32), (60 * index, 90, 10)) for index in range(4)]
    yield {"pipe": pipe, "pictures": pictures, "latents": world.clips(4)}


@contextmanager
def served(world, monkeypatch):
    """A server of the judge, and the names of who calls it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    reward = world.reward()
    with serving(reward) as (_, port):
        world.address = f"http://127.0.0.1:{port}"
        pipe, latents = world.pipe(), world.clips(1)
        space = LatentSpace.from_pipeline(pipe)
        status, answer = post(port, body_of(latents, space_id=space.id, space=space))
        assert status == 200, answer
        yield {"pipe": pipe, "reward": reward, "latents": latents, "array": latents.numpy(),
               "answer": answer}  # fmt: skip


@contextmanager
def readme(world, monkeypatch):
    with served(world, monkeypatch) as names:
        yield {
            **names,
            "path": world.judge,
            "judge": world.reward(),
            "my_callable": lambda latents, **_: latents.mean((1, 2, 3, 4)),
            "a": world.reward(),
            "b": world.reward(),
            "rewards": torch.tensor([0.1, 0.4, 0.2, 0.2]),
            "prompts": ["a", "a", "b", "b"],
            "clips": world.clips(),
            "text": TextCondition(torch.randn(2, 6, 16)),
        }


@contextmanager
def alignment(world, monkeypatch):
    names = {"prompts": ["a dog", "a cat"], "keys": [(0, 0), (0, 1)], "i": 1}
    with generator_and_judge(world, monkeypatch) as models:
        yield {**models, **names, "advantages": torch.tensor([1.0, -1.0])}


@contextmanager
def live(world, monkeypatch):
    yield {"policy": world.pipe().transformer, "latents": world.clips()}


@contextmanager
def large(world, monkeypatch):
    """A process group of this process alone."""
    store = f"file://{world.folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    names = {"GTSVJReward": GTSVJReward, "torch": torch, "device": "cpu"}
    yield {**names, "path": world.moment_judge, "latents": world.clips()}
    dist.destroy_process_group()


@contextmanager
def videox_fun(world, monkeypatch):
    settings = {"judge": world.judge, "latents_of": world.cogvideox}
    yield {
        "loss_fn": GTSVJVideoReward(**settings),
        "latents": world.clips().transpose(1, 2),
        "train_prompt": ["a", "b"],
    }


@contextmanager
def dancegrpo(world, monkeypatch):
    yield {"device": 0, "latents": world.clips().transpose(1, 2), "vae": world.pipe().vae}


@contextmanager
def vader(world, monkeypatch):
    yield {"accelerator": SimpleNamespace(device="cpu")}


@contextmanager
def fastvideo(world, monkeypatch):
    student = SimpleNamespace(device="cpu")
    yield {
        "self": SimpleNamespace(student=student, _reward_fn_config={"gtsvj": 1.0}),
        "build_multi_reward_scorer": lambda config, device, scorers: scorers,
    }


@contextmanager
def evaluation(world, monkeypatch):
    Path("mine.csv").write_text("video_a,video_b,label\na.mp4,b.mp4,1\nc.mp4,b.mp4,tie\n")
    yield {}


@contextmanager
def data(world, monkeypatch):
    """Files as the page describes them, in the current folder."""
    here, hub = Path(), Path("VisionRewardDB-Video")
    pair = {"video_a": "v/a.mp4", "video_b": "v/b.mp4"}
    other = {**pair, "video_b": "v/c.mp4", "label_VQ": -1}
    rows.write_csv(here / "comparisons.csv", [{**pair, "label_VQ": 1, "label": 0}, other])
    rows.write_csv(here / "votes.csv", [{**pair, "probability": 0.8}])
    rows.write_csv(here / "ratings.csv", [{"video": "v/a.mp4", "sharpness": 4, "note": "x"}])
    rows.latent_folder(here / "latents", ["a.mp4", "b.mp4"])
    rated = [rows.rating_row(1), rows.rating_row(2)]
    name = "{0}/{0}-00000-of-00001.parquet"
    rows.write_parquet(hub / name.format("train"), rated, rows.ratings_schema())
    rows.write_parquet(hub / name.format("test"), [rows.answer_row(1, "video1")])
    mos = {f"MOS_{side}_VQ": "2.5" for side in "AB"}
    rows.write_csv(here / "videogen-rewardbench.csv", rows.BENCHMARK_ROWS)
    rows.write_csv(here / "train.csv", [{**row, **mos} for row in rows.BENCHMARK_ROWS])
    rows.write_parquet(here / "test-00000-of-00001.parquet", [rows.vote_row(1, "leftvote")])
    feedback = here / "VideoFeedback" / "annotated" / "train" / "0000.parquet"
    rows.write_parquet(feedback, [rows.feedback_row("p1")])
    for folder in ("VideoFeedback2", "vidpro-dpo"):
        (here / folder).mkdir()
    rows.write_json(here / "VideoFeedback2" / "data_27k.json", [rows.feedback2_row()])
    votes = here / "text-2-video-human-preferences-wan2.1" / "data"
    rows.write_parquet(votes / "train-00000-of-00001.parquet", [rows.fraction_row()])
    ranked = {f"{name}{n}": f"{name} {n}" for name in ("video", "model") for n in range(1, 6)}
    ranked |= {"prompt": "p", "rankings_visual_quality": [[1, 2, 3, 4, 5], [2, 1, 3, 4, 5]]}
    rows.write_parquet(here / "train.parquet", [ranked])
    rows.write_videodpo(here / "vidpro-dpo")
    yield {}


@contextmanager
def trl(world, monkeypatch):
    """A policy that writes prompts, and the module of ddpo-pytorch that gets a function."""
    from tests.integrations.test_trl import names_of_examples

    host = ModuleType("ddpo_pytorch")
    host.rewards = ModuleType("ddpo_pytorch.rewards")
    monkeypatch.setitem(sys.modules, "ddpo_pytorch", host)
    monkeypatch.setitem(sys.modules, "ddpo_pytorch.rewards", host.rewards)
    pipe = world.pipe()
    yield {
        **names_of_examples(Path()),
        "pipe": pipe,
        "vae": pipe.vae,
        "reward": world.reward(),
        "score_functions": {},
    }


NAMES = {
    None: nothing,
    "README.md": readme,
    "docs/alignment/README.md": alignment,
    "docs/dancegrpo.md": dancegrpo,
    "docs/data.md": data,
    "docs/diffusers.md": generator_and_judge,
    "docs/evaluation.md": evaluation,
    "docs/fastvideo.md": fastvideo,
    "docs/image_to_video.md": images,
    "docs/large_policies.md": large,
    "docs/live.md": live,
    "docs/prompts.md": prompts,
    "docs/score.md": readme,
    "docs/serving.md": served,
    "docs/trl.md": trl,
    "docs/vader.md": vader,
    "docs/videox_fun.md": videox_fun,
}
"""Page -> what its blocks find."""
