"""From a transformer, or the folder of one, to a backbone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from gtsvj_reward.backbones.admission import SharingError, without_peft
from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.backbones.cogvideox import CogVideoXBackbone
from gtsvj_reward.backbones.denoising import SCHEDULERS
from gtsvj_reward.backbones.hunyuan_video import HunyuanVideoBackbone
from gtsvj_reward.backbones.hunyuan_video15 import HunyuanVideo15Backbone
from gtsvj_reward.backbones.ltx import LTXBackbone
from gtsvj_reward.backbones.ltx2 import LTX2Backbone
from gtsvj_reward.backbones.mochi import MochiBackbone
from gtsvj_reward.backbones.transformer import TransformerBackbone, check_depth
from gtsvj_reward.backbones.wan import WanBackbone
from gtsvj_reward.dtypes import built_in_float32
from gtsvj_reward.files import is_hub_id, read_safetensors

BACKBONES: dict[str, type[TransformerBackbone]] = {
    "CogVideoXTransformer3DModel": CogVideoXBackbone,
    "HunyuanVideoTransformer3DModel": HunyuanVideoBackbone,
    "HunyuanVideo15Transformer3DModel": HunyuanVideo15Backbone,
    "LTXVideoTransformer3DModel": LTXBackbone,
    "LTX2VideoTransformer3DModel": LTX2Backbone,
    "MochiTransformer3DModel": MochiBackbone,
    "WanTransformer3DModel": WanBackbone,
}
"""diffusers class name (`_class_name` in `config.json`) -> the backbone that wraps it."""


def backbone_for(transformer: nn.Module, depth: int | None = None) -> Backbone:
    """Wrap a diffusers transformer, or check a `Backbone` of your own and hand it back.

    Args:
        transformer: a diffusers video transformer whose class is in `BACKBONES`, or a `Backbone`.
            A transformer is left as it is; its weights are shared, not copied.
        depth: blocks to keep; None keeps all.

    Raises:
        ValueError: if the class is not in the table, or a `Backbone` has another depth.
    """
    if isinstance(transformer, Backbone):
        if depth is not None and depth != transformer.depth:
            raise ValueError(
                f"the backbone holds {transformer.depth} blocks, the judge wants {depth}: "
                f"build it with depth={depth}"
            )
        return transformer
    return known_family(type(transformer).__name__)(transformer, depth)


def shared_backbone(transformer: nn.Module, depth: int | None = None) -> Backbone:
    """A backbone whose weights are, and stay, those of a transformer in use.

    Args:
        transformer: a diffusers transformer as a pipeline or trainer holds it, possibly with PEFT
            adapters of its own, which are not shared.
        depth: blocks to use; None uses all.

    Raises:
        SharingError: for weights that are trained, merged, fused, quantised, sharded or offloaded,
            and for wrappers around the transformer; later, at a call, also for changed values.
        ValueError: if its class is not in `BACKBONES`.
    """
    model = without_peft(transformer)
    name = type(model).__name__
    if name in WRAPPERS:
        raise SharingError(f"got a {name} around a transformer: pass {WRAPPERS[name]}")
    return known_family(name)(model, depth, live=True)


WRAPPERS = {
    "OptimizedModule": "the module that was compiled, `transformer._orig_mod`",
    "DistributedDataParallel": "`accelerator.unwrap_model(transformer)`",
    "FullyShardedDataParallel": "a transformer that is not sharded, or give the judge its own "
    "weights: shards cannot be shared",
}
"""Class of a wrapper -> what to pass instead."""


def family_name(given: nn.Module) -> str:
    """Class name of a transformer, that within PEFT's wrapper or a `Backbone` too."""
    if isinstance(given, Backbone):
        return given.family
    return type(without_peft(given)).__name__


def known_family(name: str) -> type[TransformerBackbone]:
    """The backbone class for a diffusers class name.

    Raises:
        SharingError: for a class that `fully_shard` has renamed.
        ValueError: if the name is not in `BACKBONES`.
    """
    if name.startswith("FSDP") and name.removeprefix("FSDP") in BACKBONES:
        raise SharingError(
            f"{name} is a {name.removeprefix('FSDP')} whose weights are sharded by "
            "`fully_shard`: pass a transformer that is not sharded"
        )
    if name not in BACKBONES:
        raise ValueError(
            f"no backbone for {name!r}; known: {', '.join(BACKBONES)}. "
            "Subclass `gtsvj_reward.backbones.Backbone` and pass the object instead"
        )
    return BACKBONES[name]


def load_transformer(
    source: str | Path, *, depth: int | None = None, revision: str | None = None
) -> Any:
    """Load the first blocks of a diffusers transformer; the other blocks never enter memory.

    Args:
        source: folder of a transformer or of a pipeline with a `transformer` folder inside, or a
            hub id of either. Of a pipeline with two experts, the one for low noise.
        depth: blocks to load; None loads all.
        revision: branch, tag or commit, for a hub id.

    Returns:
        The diffusers model in evaluation mode, in the dtype of its files, without gradients.

    Raises:
        FileNotFoundError: if a folder holds no transformer.
        ValueError: for a family without a backbone, a depth out of range, or weights that are
            missing, of another shape, or not safetensors.
    """
    folder = transformer_folder(source, revision)
    config = transformer_config(folder)
    family = known_family(config["_class_name"])
    depth = check_depth(depth, family.block_count(config))
    with built_in_float32(), init_empty_weights(include_buffers=False):
        model = family.skeleton(config, depth)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = read_tensors(folder, expected)
    # As diffusers does with half-precision files: the model computes with these in float32.
    kept = set(model._keep_in_fp32_modules or ())
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not kept.isdisjoint(name.split(".")):
            tensors[name] = tensor.float()
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False).eval()


def transformer_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a transformer in a folder.

    Raises:
        ValueError: if it is of something else.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if "_class_name" not in config:
        raise ValueError(
            f"{folder / 'config.json'} names no diffusers class, so this is not a transformer. For "
            "a LoRA, load its pipeline and pass `transformer=pipe.transformer`"
        )
    return config


def family_of(source: str | Path, *, revision: str | None = None) -> str:
    """Class name of the transformer that `load_transformer` would load; reads no weights."""
    found = transformer_config(config_folder(settings_folder(source, revision)))
    return str(found["_class_name"])


def load_scheduler(source: str | Path, *, revision: str | None = None) -> Any:
    """The scheduler of a pipeline, which defines the noise levels of its generator.

    Args:
        source: folder of the pipeline, or its hub id.
        revision: branch, tag or commit, for a hub id.

    Raises:
        FileNotFoundError: if there is no scheduler beside the transformer.
        ValueError: for a scheduler whose noise levels are not known.
    """
    local = Path(source)
    if not local.is_dir() and is_hub_id(str(source)):
        patterns = ["scheduler/*.json"]
        local = Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    file = local / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"no scheduler in {source}: {file} does not exist; give the pipeline, not its "
            "transformer alone"
        )
    config = json.loads(file.read_text())
    name = config.get("_class_name")
    known = {kind.__name__: kind for kind in SCHEDULERS}
    if name not in known:
        raise ValueError(
            f"noise levels of {name} ({file}) are not known; known schedulers: {', '.join(known)}"
        )
    return known[name].from_config(config)  # type: ignore[attr-defined]


def transformer_folder(source: str | Path, revision: str | None) -> Path:
    """The local folder with the transformer's `config.json`, downloaded if `source` is a hub id.

    Of a pipeline with two experts (Wan 2.2's A14B, whose `model_index.json` has a `boundary_ratio`)
    it is `transformer_2`, which denoises below the boundary: clean latents are its business.

    Raises:
        FileNotFoundError: naming the places that were looked at.
    """
    local = settings_folder(source, revision)
    if not Path(source).is_dir():
        name = expert_folder(local)
        weights = f"{name}/*.safetensors" if (local / name).is_dir() else "*.safetensors"
        snapshot_download(str(source), revision=revision, allow_patterns=[weights])
    return config_folder(local)


def settings_folder(source: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model or pipeline; of a hub id, its settings (JSON) without weights.

    Raises:
        FileNotFoundError: if it is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_id(str(source)):
        raise FileNotFoundError(
            f"base model {str(source)!r} is neither a local folder nor a hub id (owner/name)"
        )
    # A pattern's * stands for slashes too: these are the settings of all parts.
    return Path(snapshot_download(str(source), revision=revision, allow_patterns=["*.json"]))


def config_folder(local: Path) -> Path:
    """The folder with the transformer's `config.json`, of a pipeline or transformer here.

    Raises:
        FileNotFoundError: naming the places that were looked at.
    """
    for folder in (local / expert_folder(local), local):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no `config.json` in {local} or {local / 'transformer'}: "
        "give the folder of a diffusers transformer or pipeline"
    )


def expert_folder(pipeline: Path) -> str:
    """Name of the folder of the transformer that denoises clean latents."""
    return "transformer" if boundary_in(pipeline) is None else "transformer_2"


def boundary_in(pipeline: Path) -> float | None:
    """The share of noise from which a pipeline's other expert denoises; None: it has one."""
    file = pipeline / "model_index.json"
    index = json.loads(file.read_text()) if file.is_file() else {}
    boundary: float | None = index.get("boundary_ratio") if "transformer_2" in index else None
    return boundary


def check_expert(
    source: str | Path, shares: Sequence[float], *, revision: str | None = None
) -> None:
    """Refuse noise levels at which the loaded one of two experts does not denoise.

    Args:
        source: as for `load_transformer`.
        shares: of noise, 0..1.
        revision: of a hub id.

    Raises:
        ValueError: for shares from the boundary on, with the expert for low noise.
    """
    folder = transformer_folder(source, revision)
    boundary = boundary_in(folder.parent)
    if boundary is None or folder.name != "transformer_2":
        return
    above = [share for share in shares if share >= boundary]
    if above:
        raise ValueError(
            f"`surprise` at {above} is above the boundary {boundary:g} of {source}: a judge of "
            "clean latents reads the low-noise expert, which was not trained there. Use levels "
            "below the boundary"
        )


def read_tensors(folder: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The expected tensors from all safetensors files of a folder, and no others.

    Raises:
        ValueError: if a file cannot be read, or a tensor is missing or has another shape.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}: convert the weights, pickles are not read")
    tensors: dict[str, Tensor] = {}
    for file in files:
        found, _ = read_safetensors(file, names=expected)
        tensors.update(found)
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]!r}")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{folder}: {name!r} has shape {tuple(tensors[name].shape)}, "
                f"expected {shape} from its config.json"
            )
    return tensors
