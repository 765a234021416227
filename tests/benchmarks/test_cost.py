"""The costs of full-size models: formula against count, rows, and the page that shows them."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from benchmarks.cost import (
    Row,
    decode_row,
    judge_rows,
    memory_table,
    operations_table,
    read,
    table,
)
from benchmarks.counting import count_gradient, fused_attention, operations
from benchmarks.full_models import FULL_MODELS, FullModel, PlainRoPE
from benchmarks.mochi_formula import mochi_operations
from benchmarks.vlm import TEXT_TOKENS, look_at, qwen2_vl, sampled_frames, scoring
from gtsvj_reward.judge import JudgeConfig, VideoJudge
from tests.backbones.families import FAMILIES
from tests.tiny import tiny_transformer

ROOT = Path(__file__).parents[2]
MOCHI = next(family for family in FAMILIES if family.name == "mochi")


def mochi_judge(model, depth):
    config = JudgeConfig(base_model="tiny", latent_space=MOCHI.space, depth=depth, head_width=16,
                         lora_placement="all", lora_rank=3)  # fmt: skip
    return VideoJudge.from_transformer(model, config).requires_grad_(False)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("size", [(3, 8, 12), (2, 4, 10)])
def test_the_formula_for_mochi_is_what_is_counted(size, depth):
    model = MOCHI.transformer(0)
    judge = mochi_judge(model, depth)
    expected = mochi_operations(model.config, judge.config, size)
    latents = torch.randn(1, size[0], 4, *size[1:])
    assert operations(lambda: judge(latents)) == expected
    judge.backbone.model.rope = PlainRoPE()
    judge.to("meta")
    found = count_gradient(lambda: judge(latents.to("meta").requires_grad_()).scores, judge)
    assert found.forward == expected


TINY = FullModel(
    make_transformer=lambda: tiny_transformer("2b", layers=6, in_channels=16, out_channels=16),
    make_vae=lambda: AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1
    ),
    channels=16,
    fps=8,
    size=(9, 64, 96),
)


def test_rows_of_a_model_are_in_order_of_cost():
    rows = list(judge_rows("tiny", TINY))
    assert [row.what for row in rows[::3]] == ["judge, all blocks", "judge, all blocks, pooled 2x"]
    whole, half, third = (row.forward for row in rows[:3])
    assert whole > half > third
    for plain, pooled in zip(rows[:3], rows[3:], strict=True):
        assert plain.weights == pooled.weights
        assert plain.forward > pooled.forward
        assert plain.saved > pooled.saved > 0
    for row in rows:
        assert row.gradient > row.forward
        assert row.saved_recomputing < row.saved <= row.peak
        assert row.peak_recomputing < row.peak


def test_decoding_is_counted_with_and_without_recomputing():
    found = decode_row("tiny", TINY)
    vae, latents = TINY.vae(), TINY.clip().to(torch.bfloat16).transpose(1, 2)
    assert found.forward == operations(lambda: vae.decode(latents).sample)
    assert found.saved_recomputing < found.saved <= found.peak


def test_frames_that_a_judge_of_pixels_looks_at():
    assert sampled_frames(49, 8) == 12  # 6.1 seconds
    assert sampled_frames(49, 16) == 6
    assert sampled_frames(49, 30) == 4  # the least


def test_a_judge_of_pixels_reads_what_it_is_given():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50,
             "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                 "mrope_section": [2, 3, 3]}}  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 32}
    model = qwen2_vl(vision, small)
    looked = look_at(model, 4)
    assert (looked.patches, looked.tokens) == (2 * 32 * 32, 2 * 16 * 16 + TEXT_TOKENS)
    found = count_gradient(scoring(model, 4, grad=True), model)
    assert found.forward == operations(scoring(model, 4))
    assert found.operations > 2 * found.forward
    with fused_attention():
        assert scoring(model, 4)().shape == (1, 32)
    assert operations(scoring(model, 8)) > 1.5 * found.forward


def test_clips_of_full_models_can_be_cut_into_patches():
    for model in FULL_MODELS.values():
        frames, height, width = model.size
        steps, channels, rows, columns = model.latents
        assert (steps - 1) * model.temporal + 1 == frames
        assert (rows * model.spatial, columns * model.spatial) == (height, width)
        assert channels == model.transformer().config.in_channels


def test_a_table_of_a_row_by_hand():
    tera, gib = 10**12, 2**30
    row = Row(model="CogVideoX-2B", what="VAE decode", weights=gib, forward=3 * tera,
              gradient=9 * tera, saved=4 * gib, saved_recomputing=None, peak=5 * gib,
              peak_recomputing=None)  # fmt: skip
    assert memory_table([row]).splitlines()[2] == (
        "| CogVideoX-2B | VAE decode | 1.0 | 4.0 | 5.0 | - | - |"
    )
    assert operations_table([row, row]).splitlines()[2] == (
        "| CogVideoX-2B | 49x480x720 | 3.0 | 6.0 |"
    )
    assert table([["a", "b"], ["---", "---"]]) == "| a | b |\n| --- | --- |"


def test_the_page_shows_the_rows_that_were_written():
    rows = read(ROOT / "benchmarks/results/full_size_costs.json")
    page = (ROOT / "docs/costs.md").read_text()
    assert {row.model for row in rows} == set(FULL_MODELS)
    for shown in (operations_table(rows), memory_table(rows)):
        assert shown in page, "run `python -m benchmarks.cost` and paste both tables"
