import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.backbones.lora import lora_blocks
from gtsvj_reward.judge import JudgeConfig, VideoJudge
from tests.backbones.test_cogvideox import diffusers_hidden
from tests.tiny import KINDS, clips, tiny_judge, tiny_space, tiny_transformer


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_the_head_on_the_unmodified_models_tokens(kind):
    """With a fresh adapter the judge is the diffusers model and the head, nothing else."""
    transformer, latents = tiny_transformer(kind), clips(3, 4)
    judge = tiny_judge(kind, transformer=transformer, trained=False, depth=3)
    hidden = diffusers_hidden(transformer, latents, 3, timestep=0, embeds=torch.zeros(3, 6, 8))
    expected = judge.head(hidden.unflatten(1, (2 if kind == "1.5" else 4, -1)))
    energies = judge.energies(latents)
    assert torch.equal(energies, expected)
    assert energies.dtype == torch.float32
    assert energies.std() > 1e-3, "energies are all alike: the test proves nothing"


def test_the_head_is_a_mean_over_tokens_of_an_mlp():
    """Against the formula written out: LayerNorm, linear, GELU, mean, linear."""
    head = tiny_judge().head
    tokens = torch.randn(2, 3, 5, 32)
    rows = []
    for token in tokens.reshape(-1, 32):
        normed = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
        hidden = head.hidden.weight @ normed + head.hidden.bias
        rows.append(hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))
    pooled = torch.stack(rows).reshape(2, 3, 5, 16).mean(2)
    expected = (pooled @ head.energy.weight[0]) + head.energy.bias
    torch.testing.assert_close(head(tokens), expected)


def test_the_head_stays_in_float32_under_mixed_precision():
    judge, latents = tiny_judge(), clips()
    with torch.autocast("cpu", torch.bfloat16):
        tokens = judge.backbone(latents, timestep=0.0)
        energies = judge.energies(latents)
    assert energies.dtype == torch.float32
    assert torch.equal(energies, judge.head(tokens))
    assert (energies - judge.energies(latents)).abs().max() > 0, "autocast did nothing"


def test_only_adapter_and_head_are_trainable_and_only_after_unfreeze():
    judge = tiny_judge()
    judge.requires_grad_(False)
    judge.unfreeze()
    trainable = {name for name, p in judge.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in judge.named_parameters() if ".lora_" in n or "head." in n}
    assert any("head." in n for n in trainable)
    assert any(".lora_A." in n for n in trainable)


def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one():
    judge = tiny_judge()
    judge.unfreeze()
    judge.energies(clips()).square().sum().backward()
    for name, parameter in judge.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.abs().max() > 0, name


def test_frozen_blocks_below_the_adapter_store_nothing_for_the_backward_pass():
    """Blocks below the first adapter run without a graph: their outputs have no history."""
    judge = tiny_judge(depth=3)
    judge.unfreeze()
    recorded = []
    for block in judge.backbone.model.transformer_blocks:
        block.register_forward_hook(lambda m, i, output: recorded.append(output[0].requires_grad))
    judge.energies(clips())
    assert recorded == [False, False, True]


@pytest.mark.parametrize(("placement", "first"), [("first", 0), ("middle", 2), ("last", 4)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_tensors_are_saved_from_the_first_adapted_block_on_alone(placement, first, checkpointing):
    """Counted by hooks on what autograd saves, block by block, and each block runs once."""
    transformer = tiny_transformer(layers=6)
    judge = tiny_judge(transformer=transformer, lora_placement=placement)
    judge.unfreeze()
    judge.backbone.gradient_checkpointing = checkpointing
    assert lora_blocks(6, placement).start == first
    saved, entered, running = [0] * 7, [0] * 6, [6]  # place 6: before and after the blocks

    def pack(tensor):
        saved[running[0]] += 1
        return tensor

    def enter(index):
        entered[index] += 1
        running[0] = index

    for index, block in enumerate(judge.backbone.model.transformer_blocks):
        block.register_forward_pre_hook(lambda m, i, index=index: enter(index))
        block.register_forward_hook(lambda m, i, o: running.__setitem__(0, 6))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        energies = judge.energies(clips())
    assert saved[:first] == [0] * first
    assert entered == [1] * 6
    if not checkpointing:
        assert min(saved[first:6]) > 0
    energies.sum().backward()
    assert entered == [1] * first + [2 if checkpointing else 1] * (6 - first)


def test_config_is_completed_from_the_transformer():
    judge = tiny_judge(depth=3)
    assert judge.config.family == "CogVideoXTransformer3DModel"
    assert judge.config.depth == 3
    assert judge.config.base_fingerprint == judge.backbone.fingerprint()
    assert tiny_judge().config.depth == 4


def test_judges_are_made_from_their_seed_alone():
    transformer = tiny_transformer()
    config = JudgeConfig(base_model="tiny", latent_space=tiny_space())
    torch.manual_seed(1)
    first = VideoJudge.from_transformer(transformer, config, seed=3)
    torch.manual_seed(2)
    again = VideoJudge.from_transformer(transformer, config, seed=3)
    other = VideoJudge.from_transformer(transformer, config, seed=4)
    assert torch.equal(first.energies(clips()), again.energies(clips()))
    assert not torch.equal(first.energies(clips()), other.energies(clips()))


def test_text_rules():
    text = TextCondition(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match=r"ignores prompts.*'zeros'"):
        tiny_judge()(clips(), text)
    prompted = tiny_judge(text_input="prompt")
    with pytest.raises(ValueError, match=r"trained with prompts .*: pass `text`"):
        prompted(clips())
    other = TextCondition(text.embeds.flip(0))
    assert (prompted.energies(clips(), text) - prompted.energies(clips(), other)).abs().max() > 1e-3
    config = JudgeConfig(base_model="tiny", latent_space=tiny_space(), text_input="stored")
    with pytest.raises(ValueError, match="`stored_text` goes with"):
        VideoJudge.from_transformer(tiny_transformer(), config)
    stored = VideoJudge.from_transformer(tiny_transformer(), config, stored_text=text.embeds[0])
    expected = VideoJudge.from_transformer(
        tiny_transformer(), JudgeConfig(base_model="tiny", latent_space=tiny_space(),
                                        text_input="prompt")
    ).energies(clips(), TextCondition(text.embeds[:1].expand(2, -1, -1)))  # fmt: skip
    assert torch.equal(stored.energies(clips()), expected)


def test_channels_of_space_and_transformer_must_agree():
    config = JudgeConfig(base_model="tiny", latent_space=tiny_space(channels=16))
    with pytest.raises(ValueError, match=r"takes 4 latent channels.*'tiny' has 16"):
        VideoJudge.from_transformer(tiny_transformer(), config)


def test_merging_changes_scores_by_rounding_and_leaves_the_transformer_alone():
    transformer = tiny_transformer()
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    judge, latents = tiny_judge(transformer=transformer), clips(6)
    expected = judge.energies(latents)
    judge.merge()
    assert judge.merged
    difference = (judge.energies(latents) - expected).abs().max()
    assert difference < 1e-5 * expected.std()
    after = transformer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_clean_latents_are_announced_with_timestep_zero():
    """CogVideoX shifts its schedule: timestep 100 is already noisy, so a small one is not clean.

    Cumulative alpha a becomes a / (s + (1 - s) a) with snr_shift_scale s = 3: of the 0.894 that
    the schedule of Stable Diffusion has at t = 100, 0.738 is left.
    """
    alphas = CogVideoXDDIMScheduler().alphas_cumprod
    plain = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(
        0
    )
    torch.testing.assert_close(alphas.double(), plain / (3 - 2 * plain), rtol=1e-4, atol=1e-6)
    assert plain[100].item() == pytest.approx(0.894, abs=0.001)
    assert alphas[100].item() == pytest.approx(0.738, abs=0.001)
    assert tiny_judge().config.timestep == 0.0


def test_timestep_reaches_the_transformer():
    assert (
        tiny_judge(timestep=500.0).energies(clips()) - tiny_judge().energies(clips())
    ).abs().max() > 1e-3
