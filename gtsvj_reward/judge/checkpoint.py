"""A judge on disk: `config.json`, a PEFT adapter, `head.safetensors` and a model card."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import (
    BACKBONES,
    Backbone,
    LiveBackbone,
    SharingError,
    backbone_for,
    family_of,
    load_transformer,
    shared_backbone,
)
from gtsvj_reward.backbones.load import family_name
from gtsvj_reward.backbones.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    adapter_state,
    check_same_tensors,
    load_adapter,
    save_adapter,
)
from gtsvj_reward.dtypes import dtype_of
from gtsvj_reward.files import read_safetensors, whole_files, write_safetensors, write_text
from gtsvj_reward.judge.card import model_card
from gtsvj_reward.judge.config import JudgeConfig
from gtsvj_reward.judge.model import VideoJudge

CONFIG_FILE = "config.json"
HEAD_FILE = "head.safetensors"
CARD_FILE = "README.md"
STORED_TEXT = "stored_text"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded as it is; the message says why and what to do."""


class OtherBaseError(CheckpointError):
    """A checkpoint of another base than the one given."""


def head_state(judge: VideoJudge) -> dict[str, Tensor]:
    """The tensors of `head.safetensors`."""
    state = {f"head.{name}": tensor for name, tensor in judge.head.state_dict().items()}
    if judge.preference is not None:
        for name, tensor in judge.preference.state_dict().items():
            state[f"preference.{name}"] = tensor
    if judge.stored_text is not None:
        state[STORED_TEXT] = judge.stored_text
    return state


def trained_digest(judge: VideoJudge) -> str:
    """SHA-256 over head and adapter: which judge it is, where the base weights are the same.

    A merged judge has no adapter left; slices of the weights that it was merged into stand for it.
    """
    state = head_state(judge)
    if judge.config.lora_rank and not judge.merged:
        state |= adapter_state(judge.backbone)
    bare = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    merged = judge.backbone.fingerprint() if judge.merged else ""
    return hashlib.sha256(save(bare) + merged.encode()).hexdigest()


def save_judge(judge: VideoJudge, path: str | Path) -> None:
    """Write a checkpoint folder, whole or not at all.

    Its files take their places when all of them were read back and agree with the judge. Until
    then a checkpoint that was there before stays.

    Raises:
        CheckpointError: if the adapter was merged, the judge has no weights (meta device), or holds
            a part of them (sharded), or what was written is not what it holds.
    """
    if judge.config.base_fingerprint is None:
        raise CheckpointError("a judge on the meta device has no weights to save")
    if judge.merged:
        raise CheckpointError("a merged judge has no adapter left to save: save it before merging")
    config = replace(judge.config, **weights_record(judge))
    with whole_files(Path(path), last=CONFIG_FILE) as folder:
        write_safetensors(folder / HEAD_FILE, head_state(judge), {"format": "pt"})
        if config.lora_rank:
            save_adapter(judge.backbone, folder, config.base_model)
        check_written(judge, folder)
        write_text(folder / CARD_FILE, model_card(config))
        write_text(folder / CONFIG_FILE, config.to_json())
        if read_config(folder).to_json() != config.to_json():
            raise CheckpointError(f"`{CONFIG_FILE}` does not read back as it was written")


def check_written(judge: VideoJudge, folder: Path) -> None:
    """Read head and adapter back, as loading does, and compare them with the judge.

    Raises:
        CheckpointError: for a tensor that is missing, extra, empty, or has another shape or value.
    """
    held = {HEAD_FILE: head_state(judge)}
    if judge.config.lora_rank:
        held[ADAPTER_FILE] = adapter_state(judge.backbone)
    for name, state in held.items():
        file = folder / name
        try:
            written = read_safetensors(file)[0]
            check_same_tensors(state, written, file)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint was not written: {error}") from error
        for key, tensor in state.items():
            if not tensor.numel():
                raise CheckpointError(
                    f"the checkpoint was not written: {key!r} is empty, as where weights are "
                    "sharded (FSDP, DeepSpeed ZeRO-3): train with DDP"
                )
            if not torch.allclose(written[key], tensor.cpu(), rtol=0, atol=0, equal_nan=True):
                raise CheckpointError(f"{file} does not hold what was saved: {key!r} differs")


def weights_record(judge: VideoJudge) -> dict[str, Any]:
    """The trained weights of the aspects in the score, as `config.json` shows them."""
    if judge.preference is None:
        return {"aspect_weights": None, "score_bias": None}
    return {
        "aspect_weights": tuple(judge.preference.weight.detach()[0].tolist()),
        "score_bias": judge.preference.bias.item(),
    }


def read_config(path: str | Path) -> JudgeConfig:
    """Read a checkpoint's `config.json`.

    Raises:
        FileNotFoundError: if the folder has none.
        CheckpointError: if it is not that of a judge.
    """
    file = Path(path) / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"no judge in {path}: {file} does not exist")
    try:
        return JudgeConfig.from_json(file.read_text())
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def load_judge(
    path: str | Path,
    *,
    base_model: str | Path | None = None,
    backbone: nn.Module | None = None,
    transformer: nn.Module | None = None,
    live: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> VideoJudge:
    """Load a checkpoint folder, strictly.

    Args:
        path: the folder.
        base_model: folder or hub id of the transformer, in place of the one the checkpoint names
            (a moved folder, a mirror); the fingerprint is checked all the same.
        backbone: a transformer in memory, or a `Backbone`, instead of loading one.
        transformer: a transformer in use by a pipeline or trainer, whose frozen weights the judge
            is to share for as long as both live; the judge stays on their device.
        live: call the transformer's own forward, without its adapters, instead of sharing weights;
            processes that hold shards of it load the judge together.
        device: where the judge goes; the CPU by default.
        dtype: dtype of the backbone, that of training by default; adapter and head stay float32.
            For shared weights it must be theirs.

    Raises:
        FileNotFoundError: if the checkpoint, one of its files or the base model is not there.
        CheckpointError: if a file is damaged or does not fit, or the base is another model.
        SharingError: if the weights of `transformer` cannot be shared as they are.
    """
    if (base_model, backbone, transformer).count(None) < 2:
        raise ValueError("pass one of `base_model`, `backbone` and `transformer` at most")
    if live and transformer is None:
        raise ValueError("`live=True` needs the policy to call: pass `transformer`")
    folder = Path(path)
    config = read_config(folder)
    adapter_rank(folder, config)
    given = backbone if transformer is None else transformer
    if given is None:
        source = folder_of(base_model or base_beside(folder, config))
        check_family(family_of(source, revision=config.base_revision), config, folder)
        given = load_transformer(source, depth=config.depth, revision=config.base_revision)
    elif family_name(given) in BACKBONES:
        check_family(family_name(given), config, folder)
    if transformer is not None:
        if live:
            refuse_adapter(config)
            wrapped: Backbone = LiveBackbone(
                transformer, config.depth, device=device, predicts=bool(config.surprise)
            )
        else:
            wrapped = shared_backbone(transformer, config.depth)
            device = own_device(wrapped, device)
    else:
        wrapped = backbone_for(given, config.depth)
    check_family(wrapped.family, config, folder)
    check_base(wrapped, config, folder)
    set_dtype(wrapped, dtype, dtype_of(str(config.base_dtype)))
    stored_text = read_head(folder).get(STORED_TEXT)
    judge = VideoJudge(wrapped, config, stored_text=stored_text, seed=0)
    load_trained_weights(judge, folder)
    shown = {"aspect_weights": config.aspect_weights, "score_bias": config.score_bias}
    if shown != weights_record(judge):
        raise CheckpointError(
            f"the aspect weights in {folder / CONFIG_FILE} are not those of {HEAD_FILE}: one of "
            "them was edited or is of another checkpoint. To weight aspects otherwise, leave the "
            "files as they are and pass `weights=` to GTSVJReward"
        )
    # What training used, not what casting to `dtype` made of it.
    judge.config = replace(
        judge.config, base_fingerprint=config.base_fingerprint, base_dtype=config.base_dtype
    )
    judge.requires_grad_(False)
    if transformer is not None:
        judge.follow_base()
        return judge
    return judge.to(device or "cpu")


def refuse_adapter(config: JudgeConfig) -> None:
    """Refuse a judge with an adapter of its own, which a policy's blocks do not hold."""
    if config.lora_rank:
        raise SharingError(
            f"this judge (readout={config.readout!r}) has LoRA of its own. A live judge reads the "
            "policy's blocks as they are, and an adapter put into them would be sharded, trained "
            "and saved with the policy. Use a judge with readout='moments', which has none, or "
            "leave `live` out"
        )


def own_device(backbone: Backbone, device: str | torch.device | None) -> torch.device:
    """The device of shared weights.

    Raises:
        SharingError: if another one was asked for, or they are on several.
    """
    devices = {tensor.device for _, tensor in backbone.base_tensors()}
    if len(devices) > 1:
        raise SharingError(
            f"the transformer's weights are on several devices: {sorted(map(str, devices))}"
        )
    (there,) = devices
    if device is not None and torch.device(device).type != there.type:
        raise SharingError(
            f"a judge on shared weights stays on their device, {there}; got `device` {device}"
        )
    return there


def check_family(name: str, config: JudgeConfig, folder: Path) -> None:
    """Refuse another class of transformer, whose number of blocks means nothing to the judge."""
    if name != config.family:
        raise OtherBaseError(f"{folder} wants a {config.family}, got a {name}")


def check_base(backbone: Backbone, config: JudgeConfig, folder: Path) -> None:
    """Refuse base weights that are not those of training, as their fingerprint tells."""
    found = backbone.fingerprint()
    if found == config.base_fingerprint:
        return
    if backbone.dtype == torch.float16 and config.base_dtype != "float16":
        raise OtherBaseError(
            f"the transformer is in float16, the judge in {folder} was trained in "
            f"{config.base_dtype}: weights that were rounded to float16 cannot be recognised as "
            f"those. Load the pipeline with torch_dtype=torch.{config.base_dtype}, or the judge "
            "with its own weights"
        )
    raise OtherBaseError(
        f"{folder} was trained on other base weights than those given: fingerprint "
        f"{str(config.base_fingerprint)[:12]}… expected, {found[:12]}… found. "
        f"It names {config.base_model!r}; pass that model with --base_model (`base_model=`)"
    )


def set_dtype(backbone: Backbone, dtype: torch.dtype | str | None, trained: torch.dtype) -> None:
    """Bring the base weights to the dtype that was asked for, that of training by default.

    Raises:
        SharingError: for shared weights in another dtype.
    """
    held, wanted = backbone.dtype, trained if dtype is None else dtype_of(dtype)
    if backbone.live is not None and held != wanted:
        raise SharingError(
            f"the transformer is in {held}, the judge {'is asked for' if dtype else 'was trained'} "
            f"in {wanted}: scores would differ a little. Load the pipeline with "
            f"torch_dtype={wanted}, pass dtype={held} to accept that, or load the judge with its "
            "own weights"
        )
    backbone.cast(wanted)


def load_trained_weights(judge: VideoJudge, folder: Path) -> None:
    """Fill head and adapter of a judge from a checkpoint of the same build, strictly.

    Raises:
        FileNotFoundError: if a file is missing.
        CheckpointError: if a file is damaged or does not fit.
    """
    head = read_head(folder)
    try:
        check_same_tensors(head_state(judge), head, folder / HEAD_FILE)
        judge.head.load_state_dict(below("head", head))
        if judge.preference is not None:
            judge.preference.load_state_dict(below("preference", head))
        if judge.config.lora_rank:
            load_adapter(judge.backbone, folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one module, under their names inside it."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def read_head(folder: Path) -> dict[str, Tensor]:
    """The tensors of `head.safetensors`.

    Raises:
        FileNotFoundError: if it is missing.
        CheckpointError: if it is not a whole safetensors file.
    """
    try:
        return read_safetensors(folder / HEAD_FILE)[0]
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def adapter_rank(folder: Path, config: JudgeConfig) -> None:
    """Check that the adapter's own config agrees with the judge's.

    Raises:
        FileNotFoundError: if `adapter_config.json` is missing.
        CheckpointError: if rank or scale differ.
    """
    if not config.lora_rank:
        return
    file = folder / ADAPTER_CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    adapter = json.loads(file.read_text())
    got = adapter.get("r"), adapter.get("lora_alpha")
    if got != (config.lora_rank, config.lora_alpha):
        raise CheckpointError(
            f"{file} has rank and alpha {got}, {CONFIG_FILE} has "
            f"{(config.lora_rank, config.lora_alpha)}: the two files are of different checkpoints"
        )


def base_beside(folder: Path, config: JudgeConfig) -> str | Path:
    """Where to load the base from: a path relative to the checkpoint counts as well."""
    beside = folder / config.base_model
    return beside if not Path(config.base_model).is_dir() and beside.is_dir() else config.base_model
