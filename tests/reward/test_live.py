"""A judge that calls the policy's own forward, its adapters off, in one process."""

import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.hooks import (
    FirstBlockCacheConfig,
    apply_first_block_cache,
    apply_group_offloading,
    apply_layerwise_casting,
)
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import LiveBackbone, SharingError
from gtsvj_reward.judge import CheckpointError, JudgeConfig, VideoJudge, save_judge
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.combine import RewardEnsemble
from tests.backbones.family_wan import tiny_wan
from tests.backbones.test_families import every_family, latents_of
from tests.judge.test_moment_judge import moment_judge
from tests.reward.test_shared import POLICY, merged, quantised, saved, trainable
from tests.tiny import ASPECTS, clips, tiny_space, tiny_transformer

SETTINGS = {
    "stage": "aspects",
    "aspects": ASPECTS,
    "taps": [0, 1, 2],
    "penalties": (1.0, 2.0, 3.0),
}


def base(**changes):
    return tiny_transformer(layers=3, **changes).requires_grad_(False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A moment judge of two taps on a model of three blocks, with a posterior."""
    folder = tmp_path_factory.mktemp("live")
    base().save_pretrained(folder / "base")
    judge = moment_judge(transformer=base(), **{**SETTINGS, "depth": 2})
    fields = {**vars(judge.config), "base_model": str(folder / "base")}
    judge.config = JudgeConfig(**fields)
    save_judge(judge, folder / "judge")
    return folder / "judge"


def policy(**changes):
    """Two adapters on a frozen base, one of them frozen too, in training mode, with dropout."""
    transformer = base(**changes)
    for name in ("kept", "trained"):
        transformer.add_adapter(
            LoraConfig(r=2, lora_alpha=2, lora_dropout=0.5, target_modules=["to_q", "to_out.0"]),
            adapter_name=name,
        )
    transformer.set_adapters(["kept", "trained"])
    for name, parameter in transformer.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)
        parameter.requires_grad_(".trained." in name)
    for block in transformer.transformer_blocks:
        block.ff.net[1].p = 0.5
    return transformer.train()


def state(transformer):
    """All that a call may not change."""
    return (
        {name: p.requires_grad for name, p in transformer.named_parameters()},
        {name: p.detach().clone() for name, p in transformer.named_parameters()},
        {name: module.training for name, module in transformer.named_modules()},
        {
            name: (list(module.active_adapters), module.disable_adapters)
            for name, module in transformer.named_modules()
            if isinstance(module, BaseTunerLayer)
        },
    )


def assert_same_state(transformer, before):
    now = state(transformer)
    assert now[0] == before[0]
    assert now[2:] == before[2:]
    assert any(now[0].values())
    assert not all(now[0].values())
    assert len(now[3]) == 6
    for name, values in before[1].items():
        assert torch.equal(values, now[1][name]), name


def wrapped(transformer):
    return get_peft_model(base(), POLICY)


def training_more_than_adapters(transformer):
    config = LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["to_k"])
    peft = get_peft_model(base(), config)
    saved = peft.get_base_model().transformer_blocks[0].attn1.to_k.modules_to_save["default"]
    saved.weight.data.add_(1.0)
    return peft


def recomputing(transformer):
    transformer.enable_gradient_checkpointing()
    return transformer


def recomputing_wrappers(transformer):
    for index, block in enumerate(transformer.transformer_blocks):
        transformer.transformer_blocks[index] = checkpoint_wrapper(block)
    return transformer


def under_autocast(transformer):
    """As accelerate leaves a prepared model, but for the autocast."""
    transformer._original_forward = transformer.forward
    transformer.forward = lambda *args, **kwargs: transformer._original_forward(*args, **kwargs)
    return transformer


def compiled(transformer):
    return torch.compile(transformer, backend="eager")


WAYS = [
    lambda transformer: transformer,
    wrapped,
    training_more_than_adapters,
    recomputing,
    recomputing_wrappers,
    under_autocast,
    compiled,
]


@pytest.mark.parametrize("way", WAYS)
def test_scores_and_gradients_are_those_of_the_base_alone(path, way):
    own = GTSVJReward.from_pretrained(path, pessimism=0.7)
    trained = way(policy())
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True, pessimism=0.7)
    results = []
    for reward in (own, live):
        latents = clips(3).requires_grad_()
        scores = reward(latents)
        (scores * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        results.append((scores.detach(), latents.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-5, atol=1e-7)
    assert results[0][0].std() > 1e-2, "scores are all alike: the test proves nothing"
    with torch.inference_mode():
        torch.testing.assert_close(live(clips(3)), results[0][0], rtol=1e-5, atol=1e-5)


@every_family
def test_every_family_can_be_live(family):
    latents = latents_of(family)
    own = moment_judge(family, taps=[0, 1])
    if own.backbone.steps(latents.shape[1]) < 3:
        pytest.skip("the clip has fewer steps than moments need")
    results = []
    for judge in (own, live_twin(own, family.transformer(0).requires_grad_(False))):
        reward = GTSVJReward(judge, check_statistics=False)
        results.append(reward(latents, normalize=False))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_what_the_policy_predicts_is_read_without_adapters_too():
    transformer = tiny_wan(layers=2).requires_grad_(False)
    own = moment_judge(transformer=tiny_wan(layers=2), taps=[1], surprise=[0.5])
    results = []
    for judge in (own, live_twin(own, transformer, predicts=True)):
        latents = clips(2).requires_grad_()
        scores = GTSVJReward(judge)(latents)
        scores.sum().backward()
        results.append((scores.detach(), latents.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    reward = GTSVJReward(judge)
    config = LoraConfig(r=2, target_modules=["proj_out"], init_lora_weights=False)
    transformer.add_adapter(config)
    torch.testing.assert_close(reward(clips()), results[0][0], rtol=1e-5, atol=1e-6)
    transformer.proj_out.base_layer.weight.data.add_(0.1)
    with pytest.raises(SharingError, match=r"1 of .* first is proj_out\.weight"):
        reward(clips())
    transformer.scale_shift_table.requires_grad_(True)
    with pytest.raises(SharingError, match="scale_shift_table of the transformer requires grad"):
        reward(clips())


def live_twin(judge, transformer, **settings):
    """The same judge, on a policy."""
    config = JudgeConfig(**{**vars(judge.config), "base_fingerprint": None})
    live = VideoJudge(LiveBackbone(transformer, **settings), config, stored_text=None, seed=0)
    live.head.load_state_dict(judge.head.state_dict())
    assert live.config.base_fingerprint == judge.config.base_fingerprint
    return live


def test_a_call_leaves_the_policy_as_it_was(path):
    trained = policy()
    before = state(trained)
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True)
    live(clips().requires_grad_()).sum().backward()
    live.verify()
    live.judge.requires_grad_(False).eval().double()
    assert_same_state(trained, before)
    assert all(p.grad is None for p in trained.parameters())
    assert len(list(live.judge.backbone.parameters())) == 0


class Failing(nn.Linear):
    """A layer of the policy that fails at work."""

    def forward(self, inputs):
        raise RuntimeError(f"out of memory for {tuple(inputs.shape)}")


def test_a_call_that_raises_leaves_the_policy_as_it_was(path):
    trained = policy()
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True)
    projection = trained.transformer_blocks[1].attn1.to_k
    failing = Failing(32, 32)
    failing._parameters.update(projection._parameters)
    trained.transformer_blocks[1].attn1.to_k = failing
    before = state(trained)
    with pytest.raises(RuntimeError, match="out of memory"):
        live(clips())
    assert_same_state(trained, before)
    with pytest.raises(LatentSpaceError, match=r"latents\[1\] has non-finite"):
        live(torch.stack([clips(1)[0], torch.full_like(clips(1)[0], torch.nan)]))
    assert_same_state(trained, before)
    trained.transformer_blocks[1].attn1.to_k = projection
    assert live(clips()).isfinite().all()


def test_training_moves_the_policy_and_no_score(path):
    trained = policy()
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True)
    before = live(clips())
    start = copy.deepcopy(trained.state_dict())
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        text, level = torch.zeros(2, 6, 8), torch.zeros(2)
        made = trained(clips(seed=4), text, level, return_dict=False)[0]
        (-live(clips(seed=4) - 0.1 * made).mean()).backward()
        optimizer.step()
    moved = [name for name, tensor in trained.state_dict().items() if (tensor != start[name]).any()]
    assert moved
    assert all(".trained." in name for name in moved)
    torch.testing.assert_close(live(clips()), before, rtol=1e-5, atol=1e-5)


def test_gradients_are_for_the_final_score_alone(path):
    live = GTSVJReward.from_pretrained(
        path, transformer=policy(), live=True, weights={"clear": 1.0, "focus": -2.0}, pessimism=1.0
    )
    own = GTSVJReward.from_pretrained(path, weights={"clear": 1.0, "focus": -2.0}, pessimism=1.0)
    grads = []
    for reward in (own, live):
        latents = clips(2).bfloat16().requires_grad_()
        out = reward.details(latents, normalize=False)
        (grad,) = torch.autograd.grad(out.rewards.sum(), latents, retain_graph=True)
        assert grad.dtype == torch.bfloat16
        grads.append(grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=2e-2, atol=1e-5)
    for values in (out.raw, out.uncertainty, out.parts["clear"], out.trajectory[0]):
        with pytest.raises(RuntimeError, match="of a live judge has no gradient"):
            values.sum().backward(retain_graph=True)
    live.pessimism = 0.0
    wary = RewardEnsemble({"a": live, "b": live}, pessimism=1.0)
    with pytest.raises(RuntimeError, match="`pessimism=` of the judge, not of an ensemble"):
        wary.details(latents, normalize=False).rewards.sum().backward()
    squares = out.rewards.square().sum()
    (slope,) = torch.autograd.grad(squares, latents, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_no_graph_is_kept_where_no_input_needs_one(path):
    live = GTSVJReward.from_pretrained(path, transformer=policy(), live=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        assert not live.details(clips()).raw.requires_grad
        assert not kept
        with torch.no_grad():
            live(clips().requires_grad_())
        assert not kept
        live(clips().requires_grad_())
        assert kept


def test_clips_of_several_shapes_keep_their_order(path):
    own = GTSVJReward.from_pretrained(path)
    live = GTSVJReward.from_pretrained(path, transformer=policy(), live=True, batch_size=2)
    shapes = [(3, 8, 12), (5, 8, 12), (3, 8, 12), (3, 4, 8), (3, 8, 12)]
    results = []
    for reward in (own, live):
        latents = [clips(1, *shape, seed=i)[0].requires_grad_() for i, shape in enumerate(shapes)]
        latents[1] = latents[1].detach()
        scores = reward(latents)
        scores.sum().backward()
        results.append((scores.detach(), *(latents[i].grad for i in (0, 2, 3, 4))))
        assert latents[1].grad is None
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_process_without_clips_gets_an_output_of_none(path):
    live = GTSVJReward.from_pretrained(path, transformer=policy(), live=True)
    out = live.details(clips()[:0])
    assert out.rewards.shape == out.raw.shape == out.uncertainty.shape == (0,)
    assert set(out.parts) == {aspect.name for aspect in ASPECTS}
    assert len(ClipScorer(live, space=tiny_space()).score_latents(clips()[:0]).rewards) == 0
    with pytest.raises(ValueError, match="the batch is empty"):
        GTSVJReward.from_pretrained(path)(clips()[:0])


def test_groups_of_blocks_may_be_offloaded(path):
    trained = policy()
    cpu = torch.device("cpu")
    apply_group_offloading(trained, onload_device=cpu, offload_device=cpu,
                           offload_type="block_level", num_blocks_per_group=1)  # fmt: skip
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True)
    expected = GTSVJReward.from_pretrained(path)(clips())
    torch.testing.assert_close(live(clips()), expected, rtol=1e-5, atol=1e-5)
    assert live.device == cpu
    with pytest.raises(ValueError, match="group offloading cannot be differentiated through"):
        live(clips().requires_grad_())


def test_blocks_that_were_compiled_and_have_run_are_seen(path, unchecked):
    trained = recomputing(policy())
    for block in trained.transformer_blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        trained(clips(), torch.zeros(2, 6, 8), torch.zeros(2))
    live = GTSVJReward.from_pretrained(path, transformer=trained, live=True)
    own = GTSVJReward.from_pretrained(path)
    grads = []
    for reward in (own, live):
        latents = clips().requires_grad_()
        reward(latents).sum().backward()
        grads.append(latents.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


def quantised_by_torchao(transformer):
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(transformer, torchao.Int8WeightOnlyConfig())


def quantised_by_bitsandbytes(transformer):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    attention = transformer.transformer_blocks[0].attn1
    made = bitsandbytes.nn.Linear4bit(32, 32)
    made.load_state_dict(attention.to_k.state_dict())
    attention.to_k = made.to("cpu").requires_grad_(False)


def hooked(transformer):
    transformer.transformer_blocks[0].register_forward_hook(lambda m, i, o: (o[0] * 1.3, o[1]))


def steered(transformer):
    transformer.transformer_blocks[0].attn1.to_q.register_forward_pre_hook(lambda m, i: None)


def replaced(transformer):
    attention = transformer.transformer_blocks[0].attn1
    attention.forward = lambda *args, **kwargs: None


def cast_by_layers(transformer):
    apply_layerwise_casting(transformer, torch.float8_e4m3fn, torch.float32)


def cached(transformer):
    apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold=0.1))


def split_over_processes(transformer):
    """As `enable_parallelism`, which asks for GPUs, but for the groups of processes."""
    parallel = pytest.importorskip("diffusers.hooks.context_parallel")
    from diffusers.models._modeling_parallel import ContextParallelConfig, ContextParallelInput

    plan = {"": {"hidden_states": ContextParallelInput(split_dim=1)}}
    parallel.apply_context_parallel(transformer, ContextParallelConfig(ulysses_degree=2), plan)


def on_meta(transformer):
    transformer.transformer_blocks[0].to("meta")


def partitioned(transformer):
    """As ZeRO-3 leaves weights between calls."""
    transformer.transformer_blocks[0].ff.net[2].weight.data = torch.empty(0)


def changed(transformer):
    transformer.transformer_blocks[0].ff.net[2].weight.data.add_(1e-3)


REFUSALS = [
    (trainable, "requires grad: a judge would change"),
    (merged, "an adapter is merged into"),
    (quantised, r"of torch.int8: quantised weights differ from those"),
    (quantised_by_torchao, r"a Int8Tensor of torch.float32: quantised .* dequantised model"),
    (quantised_by_bitsandbytes, r"a Params4bit of torch.uint8: quantised .* dequantised model"),
    (hooked, r"blocks\.0 of the transformer has a hook from 'tests\..*take it off"),
    (steered, r"to_q of the transformer has a hook from 'tests"),
    (replaced, "its `forward` replaced"),
    (cast_by_layers, "'layerwise_casting', which stores weights in fewer bits"),
    (cached, "as caches do"),
    (split_over_processes, r"'cp_input---.*', which splits the tokens of a clip over processes"),
    (on_meta, "is not in memory.*on meta"),
    (partitioned, "is not in memory.*ZeRO-3"),
    (changed, "values of 1 of .* changed|trained on other base weights"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSALS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_would_change_the_score_is_refused(path, spoil, message, when):
    transformer = base()
    if when == "before":
        spoil(transformer)
        with pytest.raises((SharingError, CheckpointError), match=message):
            GTSVJReward.from_pretrained(path, transformer=transformer, live=True)
        return
    live = GTSVJReward.from_pretrained(path, transformer=transformer, live=True)
    spoil(transformer)
    with pytest.raises(SharingError, match=message):
        live(clips())


def test_a_hook_that_was_taken_off_is_forgotten(path):
    transformer = base()
    live = GTSVJReward.from_pretrained(path, transformer=transformer, live=True)
    expected = live(clips())
    handle = transformer.transformer_blocks[0].register_forward_hook(lambda m, i, o: None)
    with pytest.raises(SharingError, match="a hook from"):
        live(clips())
    handle.remove()
    assert torch.equal(live(clips()), expected)


def test_judges_that_cannot_be_live_say_why(path, tmp_path):
    with_lora, transformer = saved(tmp_path)
    with pytest.raises(SharingError, match=r"readout='mlp'\) has LoRA of its own.*moments"):
        GTSVJReward.from_pretrained(with_lora, transformer=transformer, live=True)
    with pytest.raises(ValueError, match="needs the policy to call"):
        GTSVJReward.from_pretrained(path, live=True)
    live = GTSVJReward.from_pretrained(path, transformer=policy(), live=True)
    with pytest.raises(SharingError, match="cannot be moved"):
        live.to("cpu")
    with pytest.raises(SharingError, match=r"computes as its policy does, in torch\.float32"):
        live.to(dtype=torch.bfloat16)
    with pytest.raises(SharingError, match=r"asked for in torch\.bfloat16"):
        GTSVJReward.from_pretrained(path, transformer=base(), live=True, dtype=torch.bfloat16)


def test_clips_that_the_policy_cannot_take_are_refused_before_it_runs(path):
    live = GTSVJReward.from_pretrained(path, transformer=policy(), live=True)
    with pytest.raises(ValueError, match="it reads 1x4 tokens, and moments need 2x2"):
        live(clips(1, 5, 2, 8))
    assert isinstance(live.judge.backbone.model, CogVideoXTransformer3DModel)
