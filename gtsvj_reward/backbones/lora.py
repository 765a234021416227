"""The PEFT adapter of a judge: where it sits, how it is attached, saved and loaded."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text

Placement = Literal["first", "middle", "last", "all"]
"""Third of the blocks in use that carries LoRA (paper section 5.3, Fig. 4), or all of them."""

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
"""What `PeftModel` puts before each name, kept in files so that it can read them."""


def lora_blocks(depth: int, placement: str) -> range:
    """Indices of the blocks that carry LoRA, of `depth` blocks in use.

    Thirds are cut at round(depth / 3) and round(2 depth / 3): ten blocks each of CogVideoX-2B's 30.
    With fewer than three blocks a third can be empty, which is an error.

    Raises:
        ValueError: for an unknown placement or an empty third.
    """
    cuts = [0, round(depth / 3), round(2 * depth / 3), depth]
    thirds = {
        name: range(cuts[i], cuts[i + 1]) for i, name in enumerate(("first", "middle", "last"))
    }
    blocks = {**thirds, "all": range(depth)}
    if placement not in blocks:
        raise ValueError(f"`lora_placement` must be one of {', '.join(blocks)}, got {placement!r}")
    if not blocks[placement]:
        raise ValueError(f"the {placement} third of {depth} blocks is empty: use 'all'")
    return blocks[placement]


def attach_lora(
    backbone: Backbone, *, rank: int, alpha: float, placement: Placement, seed: int = 0
) -> None:
    """Add a LoRA adapter to q, k, v and out of the chosen blocks; a fresh one changes nothing.

    Args:
        backbone: changed in place; its own weights stay frozen, the adapter's are trainable.
        rank: r of the paper (8).
        alpha: the adapter is scaled by alpha / rank (8 / 8).
        placement: which blocks.
        seed: seeds the adapter's initial values without touching the global generator.
    """
    targets = [
        target
        for block in lora_blocks(backbone.depth, placement)
        for target in backbone.lora_targets(block)
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, bias="none")
    backbone.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone.model)
    config.target_modules = set(targets)  # PEFT shortens long lists to suffixes
    for name, parameter in backbone.model.named_parameters():
        if ".lora_" in name and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()  # trained and summed in float32
    adapted = {name.removesuffix(".lora_A") for name, _ in backbone.model.named_modules()
               if name.endswith(".lora_A")}  # fmt: skip
    if adapted != set(targets):
        raise ValueError(f"LoRA reached {sorted(adapted)}, not the targets {sorted(targets)}")


def adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's file names."""
    state = get_peft_model_state_dict(backbone.model, save_embedding_layers=False)
    return {PEFT_PREFIX + name: tensor for name, tensor in state.items()}


def save_adapter(backbone: Backbone, folder: Path, base_model: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, a PEFT adapter folder."""
    attached: Any = backbone.model.peft_config  # set by PEFT
    config = attached["default"].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_model
    config["inference_mode"] = True
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    write_text(folder / ADAPTER_CONFIG_FILE, text + "\n")
    write_safetensors(folder / ADAPTER_FILE, adapter_state(backbone), {"format": "pt"})


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Fill the attached adapter from a file, strictly.

    Raises:
        ValueError: naming the first tensor that is missing, extra or of another shape, as happens
            with an adapter of another depth, placement or rank.
    """
    tensors, _ = read_safetensors(folder / ADAPTER_FILE)
    check_same_tensors(adapter_state(backbone), tensors, folder / ADAPTER_FILE)
    stripped = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in tensors.items()}
    set_peft_model_state_dict(backbone.model, stripped)


def check_same_tensors(expected: dict[str, Tensor], got: dict[str, Tensor], file: Path) -> None:
    """Reject a file whose names or shapes are not exactly the expected ones."""
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"{file} does not fit this judge: {len(missing)} tensors missing"
            f"{f' (first {missing[0]!r})' if missing else ''}, {len(extra)} unexpected"
            f"{f' (first {extra[0]!r})' if extra else ''}. "
            "Was it saved at another depth or LoRA placement?"
        )
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            raise ValueError(
                f"{file}: {name!r} has shape {tuple(got[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )


def merge_lora(backbone: Backbone) -> None:
    """Fold the adapter into copies of the base weights, which may be somebody else's too."""
    for layer in lora_layers(backbone):
        base = layer.get_base_layer()
        base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
        layer.merge()


def lora_layers(backbone: Backbone) -> list[LoraLayer]:
    """The layers that carry the adapter."""
    return [module for module in backbone.modules() if isinstance(module, LoraLayer)]
