"""What of a transformer in use a judge cannot work with, and why."""

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

PLAIN_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class SharingError(ValueError):
    """Weights that cannot be shared as they are; the message says why and what to do."""


def without_peft(transformer: nn.Module) -> nn.Module:
    """The model in a `PeftModel`; another module as it is."""
    return transformer.get_base_model() if isinstance(transformer, PeftModel) else transformer


def check_unmerged(name: str, part: nn.Module) -> None:
    """Reject an adapter that was merged into the weights below it."""
    if isinstance(part, BaseTunerLayer) and part.merged:
        raise SharingError(
            f"an adapter is merged into {name} of the transformer, so its weights are not the base "
            "model's: unmerge it (`unmerge_adapter`, `unfuse_lora`) before sharing"
        )


def check_part(name: str, part: nn.Module) -> None:
    """Reject an adapter or a wrapper below which there are not the base model's weights."""
    check_unmerged(name, part)
    if isinstance(part, ModulesToSaveWrapper):
        raise SharingError(
            f"{name} of the transformer is wrapped in PEFT's {type(part).__name__}, whose weights "
            "are trained: a judge can share weights below LoRA layers only"
        )


def check_unfused(name: str, part: nn.Module) -> None:
    """Reject an attention whose projections were joined."""
    if vars(part).get("fused_projections", False):
        raise SharingError(
            f"{name} of the transformer has fused q, k, v projections: call "
            "`unfuse_qkv_projections()` before sharing"
        )


def check_call(name: str, part: nn.Module) -> None:
    """Reject a module that computes otherwise than its class says."""
    check_unfused(name, part)
    if "forward" in vars(part):
        raise SharingError(
            f"{name} of the transformer has its `forward` replaced by a hook, as offloading block "
            "by block does: a judge cannot share offloaded weights. Keep the transformer on its "
            "device, or load the judge with its own weights"
        )


def check_frozen(name: str, parameter: nn.Parameter) -> None:
    """Reject a base weight that is trained."""
    if parameter.requires_grad:
        raise SharingError(
            f"{name} of the transformer requires grad: a judge would change while its base is "
            "trained. Train an adapter on frozen weights, or load the judge with its own weights"
        )


def check_parameter(name: str, parameter: nn.Parameter) -> None:
    """Reject a base weight that is trained, quantised, sharded, or not there."""
    check_frozen(name, parameter)
    if parameter.is_meta:
        raise SharingError(
            f"{name} of the transformer is on the meta device, as offloaded weights are: keep the "
            "transformer in memory, or load the judge with its own weights"
        )
    check_plain(name, parameter)


def check_plain(name: str, parameter: nn.Parameter) -> None:
    """Reject a weight that is not a plain floating point tensor."""
    if type(parameter) is not nn.Parameter or parameter.dtype not in PLAIN_DTYPES:
        raise SharingError(
            f"{name} of the transformer is a {type(parameter).__name__} of {parameter.dtype}: "
            "quantised and sharded weights cannot be shared. Load the judge with its own weights"
        )
