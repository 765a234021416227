"""What two processes with one policy do; `test_live_processes.py` reads what came out."""

import faulthandler
import json
import os
import sys
import traceback
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import NoiseLevel, RankError, SharingError, TextCondition
from gtsvj_reward.judge import JudgeConfig, save_judge
from gtsvj_reward.latents.space import LatentSpaceError
from tests.backbones.family_wan import tiny_wan
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import ASPECTS, clips, tiny_transformer

PROCESSES = 2
ANSWER = timedelta(seconds=200)
"""Time after which a process that waits for the other raises, and says where."""
TARGETS = ["to_q", "to_v", "to_out.0"]
MODELS = {
    "wan": lambda: tiny_wan(layers=3).requires_grad_(False),
    "cogvideox": lambda: tiny_transformer(layers=3).requires_grad_(False),
}


def save_judges(folder):
    """A judge with a posterior for each model, and one that reads what it predicts."""
    moments = {"depth": 2, "taps": [0, 1, 2]}
    predictions = {"taps": [0, 2], "surprise": [0.3, 0.6]}
    prompts = {
        "taps": [0, 2], "text_input": "prompt", "prompt_dropout": 0.1,
        "prompt_level": NoiseLevel(500.0, 0.5, 0.5, "flow_prediction"),
    }  # fmt: skip
    for name, model in MODELS.items():
        model().save_pretrained(folder / name / "base")
        kinds = {"judge": moments, "surprise": predictions, "prompts": prompts}
        for kind, reads in kinds.items():
            if name == "cogvideox" and kind != "judge":
                continue  # they need a scheduler, which changes nothing here
            judge = moment_judge(
                transformer=model(), stage="aspects", aspects=ASPECTS, penalties=(1.0, 2.0, 3.0),
                **reads,
            )  # fmt: skip
            fields = {**vars(judge.config), "base_model": str(folder / name / "base")}
            judge.config = JudgeConfig(**fields)
            save_judge(judge, folder / name / kind)


def policy(name):
    """Two adapters, one of them frozen; the same in all processes."""
    model = MODELS[name]()
    for index, adapter in enumerate(("kept", "trained")):
        torch.manual_seed(index)
        config = LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS)
        model.add_adapter(config, adapter_name=adapter)
    model.set_adapters(["kept", "trained"])
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            nn.init.normal_(parameter, std=0.2)
        parameter.requires_grad_(".trained." in key)
    return model.train()


def blocks(model):
    return model.blocks if "Wan" in type(model).__name__ else model.transformer_blocks


def sharded(model, **settings):
    for block in blocks(model):
        fully_shard(block, **settings)
    return fully_shard(model, **settings)


def made(model, noise):
    """A clip that the policy makes of noise."""
    batch = len(noise)
    text, level = torch.zeros(batch, 6, 8), torch.zeros(batch)
    if "Wan" in type(model).__name__:
        out = model(noise.transpose(1, 2), level, text, return_dict=False)[0].transpose(1, 2)
    else:
        out = model(noise, text, level, return_dict=False)[0]
    return noise - 0.1 * out


def in_shards(model):
    return {name: isinstance(p, DTensor) for name, p in model.named_parameters()}


def flags(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


def loss(model, reward, noise):
    return -reward(made(model, noise)).mean()


def train(folder, rank, name, *, checkpointing):
    """Three steps through the judge: scores stay, gradients are those of one process."""
    path, settings = folder / name / "judge", {}
    one, many = policy(name), policy(name)
    if checkpointing:
        recomputing(many)
        settings = {"reshard_after_forward": True}  # the outermost module too
    sharded(many, **settings)
    own = GTSVJReward.from_pretrained(path, pessimism=0.5)
    live = GTSVJReward.from_pretrained(path, transformer=many, live=True, pessimism=0.5)
    before, asked = in_shards(many), flags(many)
    assert all(before.values())
    latents = clips(2, seed=rank)
    expected = own(latents)
    torch.testing.assert_close(live(latents), expected, rtol=1e-5, atol=1e-5)
    assert in_shards(many) == before
    optimizer = torch.optim.SGD([p for p in many.parameters() if p.requires_grad], lr=0.5)
    for step in range(3):
        noise = [clips(1, seed=10 * step + each) for each in range(PROCESSES)]
        optimizer.zero_grad()
        loss(many, live, noise[rank]).backward()
        if step == 0:
            torch.stack([loss(one, own, each) for each in noise]).mean().backward()
            wanted = {n: p.grad for n, p in one.named_parameters() if p.grad is not None}
            found = {n: p.grad for n, p in many.named_parameters() if p.grad is not None}
            assert found.keys() == wanted.keys() != set()
            for key, gradient in wanted.items():
                torch.testing.assert_close(found[key].full_tensor(), gradient, rtol=1e-4, atol=1e-6)
        optimizer.step()
    moved = [n for n, p in many.named_parameters() if not same(p, one.get_parameter(n))]
    assert moved
    assert all(".trained." in key for key in moved)
    torch.testing.assert_close(live(latents), expected, rtol=1e-5, atol=1e-5)
    assert in_shards(many) == before
    assert flags(many) == asked
    live.verify()


def same(sharded_one, plain):
    return torch.equal(sharded_one.full_tensor(), plain)


def gathered_stays_gathered(folder, rank):
    """Sampling leaves the weights of the outermost module gathered; a call does so too."""
    many = sharded(policy("wan"))
    path = folder / "wan" / "judge"
    with torch.no_grad():
        made(many, clips(1))
    before = in_shards(many)
    assert set(before.values()) == {True, False}
    live = GTSVJReward.from_pretrained(path, transformer=many, live=True)
    assert in_shards(many) == before
    live(clips(1).requires_grad_()).sum().backward()
    assert in_shards(many) == before
    own = GTSVJReward.from_pretrained(path)
    torch.testing.assert_close(live(clips(1)), own(clips(1)), rtol=1e-5, atol=1e-5)


def uneven(folder, rank):
    """Clips of other shapes and numbers, none, gradients in one process: all take part."""
    path = folder / "wan" / "judge"
    own = GTSVJReward.from_pretrained(path)
    live = GTSVJReward.from_pretrained(
        path, transformer=sharded(policy("wan")), live=True, batch_size=1
    )
    mine = [clips(1, 3, 8, 12, seed=5)[0], clips(1, 5, 4, 8, seed=6)[0]] if rank else clips(1)
    torch.testing.assert_close(live(mine), own(mine), rtol=1e-5, atol=1e-5)
    for with_clips in range(PROCESSES):
        latents = clips(3, seed=7)[: 3 * (rank == with_clips)].requires_grad_()
        scores = live(latents)
        assert len(scores) == len(latents)
        if len(latents):
            scores.sum().backward()
            copy = latents.detach().clone().requires_grad_()
            own(copy).sum().backward()
            torch.testing.assert_close(latents.grad, copy.grad, rtol=1e-5, atol=1e-6)
    assert live(clips()[:0]).shape == (0,)


def predictions(folder, rank):
    """A judge that also reads what the policy predicts: several passes, one of them whole."""
    path, latents = folder / "wan" / "surprise", clips(1, 3, seed=rank)
    own = GTSVJReward.from_pretrained(path)
    settings = ({}, {"reshard_after_forward": True})
    for setting in settings:
        many = sharded(recomputing(policy("wan")) if setting else policy("wan"), **setting)
        live = GTSVJReward.from_pretrained(path, transformer=many, live=True)
        mine = latents[: not (setting and rank)]
        grads = []
        for reward in (own, live):
            given = mine.clone().requires_grad_()
            if reward is live or len(mine):
                reward(given).sum().backward()  # also without clips
            grads.append(given.grad)
        if len(mine):
            torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-6)
        assert all(in_shards(many).values())


def prompts(folder, rank):
    """A judge that takes further passes for prompts: all with them, or all without."""
    path, many = folder / "wan" / "prompts", sharded(policy("wan"))
    own = GTSVJReward.from_pretrained(path)
    live = GTSVJReward.from_pretrained(path, transformer=many, live=True)
    latents = clips(1, 3)
    text = TextCondition(torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(3)))
    mine = clips(1, 3)[:rank].requires_grad_()
    scores = live(mine, text=text.rows(torch.arange(rank)))
    scores.sum().backward()
    if rank:
        expected = latents.requires_grad_()
        own(expected, text=text).sum().backward()
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-5, atol=1e-6)
    error = raises(ValueError, lambda: live(latents, text=text if rank else None))
    assert "1 of the 2 processes with clips passed `text`" in str(error)


def recomputing(model):
    model.enable_gradient_checkpointing()
    return model


def refused_together(folder, rank):
    """What one process refuses, before or after the forward pass, all refuse."""
    live = GTSVJReward.from_pretrained(
        folder / "wan" / "judge", transformer=sharded(policy("wan")), live=True
    )
    latents = clips(1)
    expected = live(latents)
    wrong = {
        LatentSpaceError: latents.transpose(1, 2),
        ValueError: clips(1, 5, 2, 8),
    }
    for kind, bad in wrong.items():
        raises(kind if rank else RankError, lambda bad=bad: live(bad if rank else latents))
    head = live.judge.head.output.weight
    kept = head.detach().clone()
    if rank:
        head.data.fill_(torch.inf)
    error = raises(ValueError if rank else RankError, lambda: live(latents))
    assert rank or "number 1: NonFiniteError" in str(error), error
    head.data.copy_(kept)
    torch.testing.assert_close(live(latents), expected)


class Failing(nn.Linear):
    """A layer that fails in a forward or a backward pass, as one that finds no memory."""

    fails = ""
    error = None

    def forward(self, inputs):
        if self.fails == "forward":
            self.fail()
        out = super().forward(inputs)
        if self.fails == "backward":
            out.register_hook(lambda gradient: self.fail())
        return out

    def fail(self):
        raise self.error


def fails_inside(folder, rank):
    """What fails in a pass of one process, all raise; the next calls and steps are as before."""
    path, latents = folder / "wan" / "judge", clips(2, seed=rank)
    for prepare in (lambda model: model, recomputing):
        many = prepare(policy("wan"))
        layer = blocks(many)[1].attn1.to_k
        layer.__class__ = Failing
        sharded(many)
        live = GTSVJReward.from_pretrained(path, transformer=many, live=True, batch_size=1)
        expected, step = live(latents), gradients_of_a_step(many)
        kept = in_shards(many)
        for place, failure in (
            ("forward", MemoryError("no room")),
            ("backward", MemoryError("no room")),
            ("forward", KeyboardInterrupt("Ctrl-C")),
        ):
            layer.fails, layer.error = place if rank else "", failure
            # the second process has two passes, the first takes part with padding in one
            given = latents[: 1 + rank].clone().requires_grad_()
            error = raises(type(failure) if rank else RankError, partial(live, given))
            assert rank or "1 of the 2 processes" in str(error), error
            assert rank or f"number 1: {type(failure).__name__}: {failure}" in str(error), error
            layer.fails = ""
            assert in_shards(many) == kept
            torch.testing.assert_close(live(latents), expected)
            for key, gradient in gradients_of_a_step(many).items():
                torch.testing.assert_close(gradient, step[key])


def gradients_of_a_step(model):
    """Of the policy's own training."""
    model.zero_grad()
    made(model, clips(1, seed=9)).square().sum().backward()
    return {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def other_wrappers(folder, rank):
    """DDP, FSDP2 around a PeftModel, half precision; FSDP1 is refused."""
    path = folder / "wan" / "judge"
    own = GTSVJReward.from_pretrained(path)
    latents = clips(1, seed=rank)
    config = LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False)
    peft = get_peft_model(MODELS["wan"](), config)
    for block in peft.get_base_model().blocks:
        fully_shard(block)
    for wrapped in (DistributedDataParallel(policy("wan")), fully_shard(peft)):
        live = GTSVJReward.from_pretrained(path, transformer=wrapped, live=True)
        torch.testing.assert_close(live(latents), own(latents), rtol=1e-5, atol=1e-5)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    many = sharded(policy("wan"), mp_policy=half)
    error = raises(
        SharingError, lambda: GTSVJReward.from_pretrained(path, transformer=many, live=True)
    )
    assert "torch.bfloat16" in str(error)
    live = GTSVJReward.from_pretrained(path, transformer=many, live=True, dtype=torch.bfloat16)
    torch.testing.assert_close(live(latents), own(latents), rtol=0.05, atol=0.05)
    error = raises(
        SharingError,
        lambda: GTSVJReward.from_pretrained(
            path, transformer=FullyShardedDataParallel(policy("wan"), use_orig_params=True,
                                                       device_id=torch.device("cpu")), live=True
        ),
    )  # fmt: skip
    assert "FSDP1" in str(error)


def own_shards(folder, rank):
    """A judge of its own, its blocks spread over the processes: half of each, the same scores."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for name, dtype in (("wan", torch.float32), ("cogvideox", None), ("wan", torch.bfloat16)):
        path = folder / name / "judge"
        own = GTSVJReward.from_pretrained(path, dtype=dtype, pessimism=0.5)
        many = GTSVJReward.from_pretrained(path, dtype=dtype, pessimism=0.5).shard(mesh)
        block, plain = many.judge.backbone.blocks()[1], own.judge.backbone.blocks()[1]
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else 0
                   for p in block.parameters())  # fmt: skip
        whole = sum(p.numel() for p in plain.parameters() if p.dtype == own.judge.backbone.dtype)
        assert 0 < held <= 0.55 * whole, (held, whole)
        close = (
            {"rtol": 1e-5, "atol": 1e-5}
            if dtype != torch.bfloat16
            else {"rtol": 0.02, "atol": 0.02}
        )
        latents = clips(3, seed=5 + rank).requires_grad_()
        wanted = own(latents)
        found = many(latents)
        torch.testing.assert_close(found, wanted, **close)
        (slope,) = torch.autograd.grad(found.sum(), latents)
        (expected,) = torch.autograd.grad(wanted.sum(), latents)
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(slope, expected, **close)
        with torch.no_grad():  # one process has three clips, the other none
            counts = [3, 0]
            some = many(latents[: counts[rank]])
        torch.testing.assert_close(some, wanted[: counts[rank]].detach(), **close)
        many.verify()
        raises(SharingError, lambda many=many: many.shard(mesh))


CHECKS = {
    "own shards": own_shards,
    "wan": lambda folder, rank: train(folder, rank, "wan", checkpointing=False),
    "wan recomputing": lambda folder, rank: train(folder, rank, "wan", checkpointing=True),
    "cogvideox": lambda folder, rank: train(folder, rank, "cogvideox", checkpointing=False),
    "gathered": gathered_stays_gathered,
    "uneven": uneven,
    "predictions": predictions,
    "prompts": prompts,
    "refused": refused_together,
    "fails inside": fails_inside,
    "wrappers": other_wrappers,
}


def work(rank, folder):
    """All checks, one after another, in one of the processes; the first that fails is the last.

    The other process is then somewhere else in its calls: to go on would mix them up.
    """
    log = os.open(Path(folder) / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, sys.stderr.fileno())  # what C++ says when it ends a process comes there as well
    faulthandler.enable()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=PROCESSES, timeout=ANSWER
    )
    outcomes = {}
    for name, check in CHECKS.items():
        try:
            check(Path(folder), rank)
            outcomes[name] = "passed"
        except Exception:  # noqa: BLE001
            outcomes[name] = traceback.format_exc()
        (Path(folder) / f"{rank}.json").write_text(json.dumps(outcomes))
        if outcomes[name] != "passed":
            return
    dist.barrier()  # whoever leaves first would close connections that the other still uses
    dist.destroy_process_group()
