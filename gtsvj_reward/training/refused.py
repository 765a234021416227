"""Settings of `transformers.TrainingArguments` that the trainers do not support, and why."""

import os
from dataclasses import MISSING, fields

from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

_ONE_BY_ONE = "held-out clips are scored whole, one at a time, by the stage's own metrics"
_PUBLISH = "publish the finished judge with `GTSVJReward.from_pretrained(...).push_to_hub(...)`"
_SHARDS = "what is saved would be a part of the weights: use DDP"

REFUSED = {
    "label_smoothing_factor": "no label of a judge is a class of a softmax",
    "neftune_noise_alpha": "a judge embeds no words that noise could be added to",
    "use_liger_kernel": "its kernels are for language models",
    "liger_kernel_config": "its kernels are for language models",
    "use_cache": "a judge generates nothing",
    "optim_target_modules": "adapter and head are what is trained; see `lora_placement`",
    "remove_unused_columns": "it would drop the latents",
    "label_names": "batches have the names that their stage gives them",
    "include_num_input_tokens_seen": "clips have no input ids to count",
    "include_tokens_per_second": "clips have no input ids to count",
    "auto_find_batch_size": "the result would depend on free memory: set the batch size",
    "train_sampling_strategy": "the order of clips follows from `seed` alone",
    "group_by_length": "the order of clips follows from `seed` alone",
    "length_column_name": "the order of clips follows from `seed` alone",
    "data_seed": "every draw follows from `seed`",
    "average_tokens_across_devices": "the loss is always weighted over all processes",
    "per_device_eval_batch_size": _ONE_BY_ONE,
    "prediction_loss_only": _ONE_BY_ONE,
    "eval_do_concat_batches": _ONE_BY_ONE,
    "eval_use_gather_object": _ONE_BY_ONE,
    "eval_accumulation_steps": _ONE_BY_ONE,
    "include_for_metrics": _ONE_BY_ONE,
    "include_inputs_for_metrics": _ONE_BY_ONE,
    "batch_eval_metrics": _ONE_BY_ONE,
    "bf16_full_eval": f"{_ONE_BY_ONE}, in the precision of the base weights",
    "fp16_full_eval": f"{_ONE_BY_ONE}, in the precision of the base weights",
    "jit_mode_eval": _ONE_BY_ONE,
    "do_train": "training is what the command does",
    "do_predict": "score clips with `gtsvj score`",
    "push_to_hub": _PUBLISH,
    "hub_token": _PUBLISH,
    "hub_private_repo": _PUBLISH,
    "hub_model_id": _PUBLISH,
    "hub_strategy": _PUBLISH,
    "hub_always_push": _PUBLISH,
    "hub_revision": _PUBLISH,
    "overwrite_output_dir": "an output folder is resumed: choose another one to start anew",
    "save_safetensors": "judges are always saved as safetensors",
    "past_index": "a judge keeps nothing from one batch to the next",
    "mp_parameters": "SageMaker's model parallelism shards the weights",
    "parallelism_config": _SHARDS,
    "fsdp": _SHARDS,
}
"""Field -> why another value than its default is refused; some are of transformers 4 alone."""

REFUSED_OPTIMIZERS = {
    "galore": "it projects the weights of a whole model, a judge trains an adapter",
    "apollo": "it projects the weights of a whole model, a judge trains an adapter",
    "lomo": "it steps inside the backward pass, before gradients are clipped",
    "adalomo": "it steps inside the backward pass, before gradients are clipped",
    "schedule_free": "it needs other weights to evaluate and save than to train",
}
"""First words of `optim` -> why such an optimizer is refused."""


EXTRAS = {"tensorboard": "gtsvj-reward[train]"}
"""Name in `report_to` -> what to install, where that has another name."""


DDP = "use DDP (`accelerate launch --multi_gpu`)"
UNSHARDED = f"evaluation and checkpoints of a judge cannot gather them: {DDP}"


def refuse_settings(args: TrainingArguments) -> None:
    """Refuse settings that would be ignored or fail in the middle."""
    found = {}
    for item in fields(args):
        made = item.default_factory
        default = item.default if made is MISSING else made()
        if item.name in REFUSED and getattr(args, item.name) not in (default, [], {}, "no"):
            found[item.name] = REFUSED[item.name]
    if args.world_size == 1:  # transformers 4 switches it off itself
        found.pop("average_tokens_across_devices", None)
    optimizer = str(getattr(args.optim, "value", args.optim))
    for start, reason in REFUSED_OPTIMIZERS.items():
        if optimizer.startswith(start):
            found[f"optim {optimizer}"] = reason
    loader = args.accelerator_config
    if loader.split_batches or loader.dispatch_batches:
        found["accelerator_config"] = "each process reads its own batches, of clips of any size"
    if found:
        reasons = "; ".join(f"`{name}`: {reason}" for name, reason in found.items())
        raise ValueError(f"training of a judge does not support {reasons}. Remove these settings")


def refuse_reports(args: TrainingArguments) -> None:
    """Refuse `report_to` where what it names cannot be used, before any work.

    Raises:
        ValueError: for a name that transformers does not know.
        ImportError: for a package that is not installed, with what to install.
    """
    for name in args.report_to:
        (callback,) = get_reporting_integration_callbacks([name])
        try:
            callback()
        except (ImportError, RuntimeError) as error:
            package = EXTRAS.get(name, name)
            raise ImportError(f'`report_to` {name}: pip install "{package}" ({error})') from error


def refuse_sharded_weights(model: nn.Module) -> None:
    """Refuse a model of whose weights this process holds a part."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor) or not parameter.numel():
            raise ValueError(
                f"{name!r} is sharded (FSDP, DeepSpeed ZeRO-3, tensor parallelism), and {UNSHARDED}"
            )


def refuse_sharding(args: TrainingArguments) -> None:
    """Refuse set-ups in which a process holds a part of the weights, or of a batch.

    Raises:
        ValueError: for FSDP, DeepSpeed, and several GPUs in one process.
    """
    if args.deepspeed_plugin is not None:
        raise ValueError(
            "DeepSpeed is not supported: ZeRO-3 shards the weights, and ZeRO-1 and ZeRO-2 shard "
            f"the optimizer, which holds a few megabytes for an adapter and a head: {DDP}"
        )
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    if launched or args.fsdp:
        raise ValueError(f"FSDP shards the weights, and {UNSHARDED}")
    if args.n_gpu > 1:
        raise ValueError(
            f"one process with {args.n_gpu} GPUs would split each clip: start with "
            "`accelerate launch`, or show it one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
