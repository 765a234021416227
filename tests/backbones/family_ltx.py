"""LTX-Video."""

from gtsvj_reward.latents.space import LatentSpace
from tests.backbones.family import Family
from tests.backbones.test_ltx import hidden, null_text, text, transformer

FAMILIES = [
    Family(
        name="ltx",
        transformer=transformer,
        space=LatentSpace(
            id="tiny-ltx", channels=8, spatial_compression=32, temporal_compression=8,
            layout="BCTHW", mean=(0.1,) * 8, std=(1.5,) * 8,
        ),
        sizes=((4, 4, 6), (5, 3, 5)),
        depths=(1, 3, 4),
        tokens=lambda size: (size[0], size[1] * size[2]),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        block=lambda index: f"transformer_blocks.{index}",
    )
]  # fmt: skip
