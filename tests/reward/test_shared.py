"""A judge that lives on a generator's weights."""

import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig, get_peft_model
from torch import nn

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import SharingError
from gtsvj_reward.judge import CheckpointError, JudgeConfig, VideoJudge, save_judge
from tests.tiny import (
    KINDS,
    clips,
    tiny_aspect_judge,
    tiny_judge,
    tiny_space,
    tiny_transformer,
)

POLICY = LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"])


def saved(tmp_path, kind="2b", **changes):
    """A checkpoint, and a generator that holds its base weights, frozen."""
    base = tmp_path / f"base-{kind}"
    tiny_transformer(kind).save_pretrained(base)
    save_judge(tiny_judge(kind, base_model=str(base), **changes), tmp_path / "judge")
    return tmp_path / "judge", tiny_transformer(kind).requires_grad_(False)


def with_policy_adapter(transformer):
    """LoRA of a policy in training, away from its start."""
    transformer.add_adapter(POLICY)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return transformer


def run(transformer, latents):
    """The generator's own output; rotary kinds get their table from the backbone."""
    text = torch.zeros(len(latents), 6, 8)
    return transformer(latents, text, torch.zeros(len(latents)), return_dict=False)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [2, None])
def test_scores_equal_those_of_a_judge_with_its_own_copy(tmp_path, kind, depth):
    path, transformer = saved(tmp_path, kind, depth=depth, lora_placement="all")
    own = GTSVJReward.from_pretrained(path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    assert torch.equal(shared(clips(3)), own(clips(3)))
    assert shared(clips(3)).std() > 1e-4


def test_an_adapter_that_trains_on_the_generator_is_no_part_of_the_judge(tmp_path):
    path, transformer = saved(tmp_path)
    own = GTSVJReward.from_pretrained(path)
    with_policy_adapter(transformer)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    assert torch.equal(shared(clips(3)), own(clips(3)))
    wrapped = get_peft_model(tiny_transformer().requires_grad_(False), POLICY)
    assert torch.equal(
        GTSVJReward.from_pretrained(path, transformer=wrapped)(clips(3)), own(clips(3))
    )


def test_an_adapter_may_come_after_the_judge(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    before = shared(clips())
    with_policy_adapter(transformer)
    assert torch.equal(shared(clips()), before)
    shared.verify()


def test_base_parameters_are_the_generators_and_little_is_added(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    theirs = {id(p) for p in transformer.parameters()}
    base = [tensor for _, tensor in shared.judge.backbone.base_tensors()]
    assert base
    assert all(id(tensor) in theirs for tensor in base)
    own = [p for p in shared.judge.parameters() if id(p) not in theirs]
    adapter = sum(p.numel() for n, p in shared.judge.named_parameters() if ".lora_" in n)
    head = sum(p.numel() for p in shared.judge.head.parameters())
    assert sum(p.numel() for p in own) == adapter + head
    memory = {t.data_ptr() for t in [*transformer.buffers(), *transformer.parameters()]}
    assert all(b.data_ptr() in memory for b in shared.judge.buffers())


def test_the_2b_shape_gains_less_than_one_percent():
    """Counted on the meta device: rank 8 on ten blocks and a head 256 wide, of 1.69 billion."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(num_layers=30)
        config = JudgeConfig(base_model="2b", latent_space=tiny_space(channels=16))
        judge = VideoJudge.from_transformer(transformer, config)
    base = sum(tensor.numel() for _, tensor in judge.backbone.base_tensors())
    extra = sum(p.numel() for p in judge.parameters()) - base
    assert base > 1.6e9
    assert 0 < extra < 0.01 * base


def test_nothing_of_the_generator_changes(tmp_path):
    path, transformer = saved(tmp_path)
    with_policy_adapter(transformer)
    transformer.train()
    flags = {name: p.requires_grad for name, p in transformer.named_parameters()}
    modes = {name: m.training for name, m in transformer.named_modules()}
    values = {name: p.detach().clone() for name, p in transformer.named_parameters()}
    expected = run(transformer, clips())
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    latents = clips().requires_grad_()
    shared(latents).sum().backward()
    with pytest.raises(ValueError, match="channels"):
        shared(torch.randn(1, 5, 3, 8, 12))
    broken = shared.judge.head.hidden.weight.data
    shared.judge.head.hidden.weight.data = torch.full_like(broken, float("inf"))
    with pytest.raises(ValueError, match="overflowed"):
        shared(clips())
    assert torch.equal(run(transformer, clips()), expected)
    assert {name: p.requires_grad for name, p in transformer.named_parameters()} == flags
    assert {name: m.training for name, m in transformer.named_modules()} == modes
    assert all(torch.equal(p, values[n]) for n, p in transformer.named_parameters())
    assert all(p.grad is None for n, p in transformer.named_parameters() if "lora" not in n)
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize("policy_checkpointing", [False, True])
@pytest.mark.parametrize("judge_checkpointing", [False, True])
def test_policy_gradients_equal_those_with_a_judge_of_its_own(
    tmp_path, policy_checkpointing, judge_checkpointing
):
    """The reward of what the policy made, back into the policy's own adapter."""
    path, _ = saved(tmp_path)
    gradients = []
    for share in (True, False):
        torch.manual_seed(0)
        policy = with_policy_adapter(tiny_transformer().requires_grad_(False)).train()
        if policy_checkpointing:
            policy.enable_gradient_checkpointing()
        which = {"transformer": policy} if share else {}
        reward = GTSVJReward.from_pretrained(path, **which)
        reward.judge.backbone.gradient_checkpointing = judge_checkpointing
        made = clips(seed=4) - 0.1 * run(policy, clips(seed=4))
        reward(made).sum().backward()
        gradients.append({n: p.grad for n, p in policy.named_parameters() if "lora" in n})
    assert gradients[0].keys() == gradients[1].keys()
    assert max(g.abs().max() for g in gradients[0].values()) > 1e-6
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_buffers_and_adapter_follow_the_generator(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    before = shared(clips())
    transformer.to("meta")  # any other device; parameters are swapped in place, buffers replaced
    with pytest.raises(SharingError, match=r"on the meta device, as offloaded weights are"):
        shared(clips())
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    name = "pos_embedding"
    moved = transformer.patch_embed._buffers[name].clone()
    transformer.patch_embed._buffers[name] = moved
    assert torch.equal(shared(clips()), before)
    assert shared.judge.backbone.model.patch_embed._buffers[name] is moved


def test_aspect_judges_share_as_well(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    judge = tiny_aspect_judge(stage="preference", base_model=str(tmp_path / "base"))
    save_judge(judge, tmp_path / "judge")
    transformer = tiny_transformer().requires_grad_(False)
    shared = GTSVJReward.from_pretrained(tmp_path / "judge", transformer=transformer)
    expected = GTSVJReward(judge).details(clips())
    out = shared.details(clips())
    assert torch.equal(out.rewards, expected.rewards)
    assert torch.equal(out.aspects["clear"], expected.aspects["clear"])


def trainable(transformer):
    transformer.transformer_blocks[1].attn1.to_q.weight.requires_grad_(True)


def merged(transformer):
    with_policy_adapter(transformer)
    for module in transformer.modules():
        if hasattr(module, "merge"):
            module.merge()


def fused(transformer):
    transformer.fuse_qkv_projections()


def quantised(transformer):
    layer = transformer.transformer_blocks[0].attn1.to_k
    layer.weight = nn.Parameter((layer.weight * 100).to(torch.int8), requires_grad=False)


def offloaded(transformer):
    transformer.transformer_blocks[0].to("meta")


def hooked(transformer):
    block = transformer.transformer_blocks[0]
    block.forward = block.forward


def wrapped_in_peft(transformer):
    config = LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["proj"])
    get_peft_model(transformer, config)


REFUSALS = [
    (trainable, r"requires grad: a judge would change while its base is trained"),
    (merged, r"an adapter is merged into .*unmerge"),
    (fused, r"fused q, k, v projections: call `unfuse_qkv_projections"),
    (quantised, r"of torch.int8: quantised and sharded weights cannot be shared"),
    (offloaded, "on the meta device"),
    (hooked, "its `forward` replaced by a hook"),
    (wrapped_in_peft, "wrapped in PEFT's ModulesToSaveWrapper"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSALS)
def test_weights_that_cannot_be_shared_are_refused_at_attach(tmp_path, spoil, message):
    path, transformer = saved(tmp_path)
    spoil(transformer)
    with pytest.raises(SharingError, match=message):
        GTSVJReward.from_pretrained(path, transformer=transformer)


@pytest.mark.parametrize(("spoil", "message"), REFUSALS)
def test_weights_that_change_later_are_refused_at_the_next_call(tmp_path, spoil, message):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    spoil(transformer)
    with pytest.raises(SharingError, match=message):
        shared(clips())


def test_replaced_weights_are_refused_at_the_next_call(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    layer = transformer.transformer_blocks[0].attn1.to_k
    layer.weight = nn.Parameter(layer.weight.clone(), requires_grad=False)
    with pytest.raises(SharingError, match=r"to_k\.weight of the shared transformer was replaced"):
        shared(clips())


def test_blocks_beyond_the_judges_depth_may_train(tmp_path):
    path, transformer = saved(tmp_path, depth=2, lora_placement="all")
    transformer.transformer_blocks[3].requires_grad_(True)
    assert GTSVJReward.from_pretrained(path, transformer=transformer)(clips()).isfinite().all()


def test_other_weights_are_refused_by_their_fingerprint(tmp_path):
    path, transformer = saved(tmp_path)
    other = tiny_transformer(seed=1).requires_grad_(False)
    with pytest.raises(CheckpointError, match="trained on other base weights"):
        GTSVJReward.from_pretrained(path, transformer=other)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    shared.verify()


def test_the_dtype_is_that_of_training_or_asked_for(tmp_path):
    path, transformer = saved(tmp_path)
    transformer.to(torch.bfloat16)
    with pytest.raises(SharingError, match=r"in torch.bfloat16, the judge was trained"):
        GTSVJReward.from_pretrained(path, transformer=transformer)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer, dtype=torch.bfloat16)
    own = GTSVJReward.from_pretrained(path, dtype=torch.bfloat16)
    assert torch.equal(shared(clips()), own(clips()))
    assert transformer.dtype == torch.bfloat16


def test_weights_that_float16_rounded_are_refused_for_that_and_not_as_another_model(tmp_path):
    path, transformer = saved(tmp_path)
    transformer.half()
    for dtype in (None, torch.float16):
        with pytest.raises(CheckpointError, match=r"in float16.* was trained in float32.*recogni"):
            GTSVJReward.from_pretrained(path, transformer=transformer, dtype=dtype)


def test_what_would_change_the_generators_weights_is_refused(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=transformer)
    with pytest.raises(SharingError, match="cannot be merged"):
        shared.merge()
    with pytest.raises(SharingError, match="cannot be moved"):
        shared.to("cpu")
    with pytest.raises(SharingError, match="cannot be cast"):
        shared.to(dtype=torch.bfloat16)
    with pytest.raises(SharingError, match="cannot be offloaded"):
        GTSVJReward.from_pretrained(path, transformer=transformer, offload_to="cpu")
    with pytest.raises(SharingError, match="stays on their device"):
        GTSVJReward.from_pretrained(path, transformer=transformer, device="cuda")
    with pytest.raises(ValueError, match="one of `base_model`, `backbone` and `transformer`"):
        GTSVJReward.from_pretrained(path, transformer=transformer, base_model="x")


def test_wrappers_are_named(tmp_path):
    path, transformer = saved(tmp_path)
    with pytest.raises(SharingError, match=r"OptimizedModule.*_orig_mod"):
        GTSVJReward.from_pretrained(path, transformer=torch.compile(transformer))


def test_a_shared_judge_saves_like_any_other(tmp_path):
    path, transformer = saved(tmp_path)
    shared = GTSVJReward.from_pretrained(path, transformer=with_policy_adapter(transformer))
    shared.save_pretrained(tmp_path / "copy")
    again = GTSVJReward.from_pretrained(tmp_path / "copy")
    assert torch.equal(again(clips()), shared(clips()))
    names = {file.name: file.read_bytes() for file in path.iterdir()}
    for name in ("adapter_model.safetensors", "head.safetensors", "config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == names[name], name


def test_training_the_policy_between_calls_leaves_scores_alone(tmp_path):
    path, transformer = saved(tmp_path)
    policy = with_policy_adapter(transformer).train()
    shared = GTSVJReward.from_pretrained(path, transformer=policy)
    before = shared(clips())
    start = copy.deepcopy({n: p for n, p in policy.named_parameters() if "lora" in n})
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        made = clips(seed=4) - 0.1 * run(policy, clips(seed=4))
        optimizer.zero_grad()
        (-shared(made).mean()).backward()
        optimizer.step()
    moved = [n for n, p in policy.named_parameters() if n in start and not torch.equal(p, start[n])]
    assert moved, "the policy did not move: the test proves nothing"
    assert torch.equal(shared(clips()), before)
    shared.verify()
