"""Every setting of transformers works, or is refused by name before the first step."""

from dataclasses import fields
from functools import partial

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import TrainingArguments

from gtsvj_reward.training import DiscriminatorTrainer, RealAndGenerated
from gtsvj_reward.training.arguments import JudgeTrainingConfig
from gtsvj_reward.training.refused import REFUSED, refuse_sharding
from tests.ranks import on_unix, run_apart
from tests.tiny import tiny_judge
from tests.training.clips import write_clips
from tests.training.test_discriminator import config

OTHER = {
    "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True}, "use_cache": True, "optim_target_modules": ["q"],
    "remove_unused_columns": True, "label_names": ["target"], "auto_find_batch_size": True,
    "include_num_input_tokens_seen": "all", "include_tokens_per_second": True,
    "train_sampling_strategy": "sequential", "group_by_length": True, "length_column_name": "n",
    "data_seed": 3, "per_device_eval_batch_size": 2, "prediction_loss_only": True,
    "eval_do_concat_batches": False, "eval_use_gather_object": True, "eval_accumulation_steps": 2,
    "include_for_metrics": ["inputs"], "include_inputs_for_metrics": True,
    "batch_eval_metrics": True, "bf16_full_eval": True, "fp16_full_eval": True,
    "jit_mode_eval": True, "do_train": True, "do_predict": True, "push_to_hub": True,
    "hub_token": "t", "hub_private_repo": True, "hub_model_id": "a/b", "hub_strategy": "end",
    "hub_always_push": True, "hub_revision": "r", "overwrite_output_dir": True,
    "save_safetensors": False, "past_index": 1, "mp_parameters": "{}", "fsdp": "full_shard",
}  # fmt: skip
"""Refused field -> a value that is not its default."""

IN_SEVERAL_PROCESSES = {"average_tokens_across_devices"}
"""Refused, but one process alone cannot show it."""

OBJECTS = {"parallelism_config"}
"""Refused; only an object of accelerate can be given."""

READ_BY_TRAINER = """
output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
lr_scheduler_kwargs warmup_steps warmup_ratio optim optim_args weight_decay adam_beta1 adam_beta2
adam_epsilon adafactor gradient_accumulation_steps max_grad_norm bf16 fp16 tf32 fp16_opt_level
fp16_backend half_precision_backend activation_checkpointing activation_checkpointing_kwargs
gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend
torch_compile_mode torchdynamo torch_empty_cache_steps logging_dir logging_strategy logging_steps
logging_first_step log_on_each_node logging_nan_inf_filter log_level log_level_replica
disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id
eval_strategy eval_steps eval_delay eval_on_start save_only_model save_strategy save_steps
save_on_each_node save_total_limit enable_jit_checkpoint load_best_model_at_end
metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint
full_determinism seed use_cpu no_cuda use_mps_device use_ipex dataloader_drop_last
dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend
ddp_timeout debug skip_memory_metrics do_eval local_rank tpu_num_cores tpu_metrics_debug ray_scope
"""
"""Fields that `Trainer` reads in code that no stage replaces, or that tests below go through."""

READ_BY_US = {
    "accelerator_config": "in part refused",
    "fsdp_config": "nothing without `fsdp`, which is refused",
    "deepspeed": "ZeRO-3 is refused",
    "resume_from_checkpoint": "by the commands",
}

PUSHED = {"push_to_hub_token", "push_to_hub_model_id", "push_to_hub_organization"}
"""Old names of settings that are refused."""


def test_every_field_is_classified_once():
    installed = {item.name for item in fields(TrainingArguments)}
    kinds = [set(REFUSED), set(READ_BY_TRAINER.split()), set(READ_BY_US), PUSHED]
    assert installed <= set().union(*kinds), installed - set().union(*kinds)
    assert sum(map(len, kinds)) == len(set().union(*kinds)), "a field is classified twice"
    assert set(REFUSED) == set(OTHER) | IN_SEVERAL_PROCESSES | OBJECTS


@pytest.mark.parametrize(
    "name", sorted(set(OTHER) & {item.name for item in fields(TrainingArguments)})
)
def test_refused_settings_are_named_with_the_reason(tmp_path, name):
    with pytest.raises(ValueError, match=f"does not support .*`{name}`: .*Remove") as error:
        config(tmp_path, **{name: OTHER[name]})
    assert REFUSED[name] in str(error.value)


def test_all_refused_settings_are_named_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"`label_smoothing_factor`: .*`neftune_noise_alpha`: "):
        config(tmp_path, neftune_noise_alpha=1.0, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="`optim galore_adamw`: it projects"):
        config(tmp_path, optim="galore_adamw")
    with pytest.raises(ValueError, match="`accelerator_config`: each process reads"):
        config(tmp_path, accelerator_config={"split_batches": True})


def trainer(tmp_path, judge=None, **changes):
    real = write_clips(tmp_path / "real", 8).infos
    return DiscriminatorTrainer(
        judge or tiny_judge(),
        config(tmp_path, **changes),
        train_dataset=RealAndGenerated(real),
        eval_dataset=RealAndGenerated(real[:2]),
    )


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({}, torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}),
        ({"optim": "sgd", "weight_decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
        ({"optim": "rmsprop", "optim_args": "momentum=0.5"}, torch.optim.RMSprop,
         {"momentum": 0.5}),
        ({"optim": "adagrad"}, torch.optim.Adagrad, {}),
        ({"optim": "adamw_torch_fused", "adam_beta1": 0.8, "adam_beta2": 0.9,
          "adam_epsilon": 1e-6}, torch.optim.AdamW,
         {"betas": (0.8, 0.9), "eps": 1e-6, "fused": True}),
    ],
)  # fmt: skip
def test_optimizer_settings_reach_the_optimizer(tmp_path, settings, kind, expected):
    optimizer = trainer(tmp_path, learning_rate=3e-4, **settings).create_optimizer()
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 3e-4]
    for group in optimizer.param_groups:
        assert {name: group[name] for name in expected} == expected


def test_a_step_of_sgd_is_the_rate_times_the_gradient(tmp_path):
    run = trainer(
        tmp_path, optim="sgd", max_steps=1, max_grad_norm=0.0, head_learning_rate=0.01,
        lr_scheduler_type="constant", truncation_probability=0.0,
    )  # fmt: skip
    keys = list(run.keys)[:4]
    run.compute_loss(
        run.model, run.data_collator([run.train_dataset[key] for key in keys])
    ).backward()
    weight = run.judge.head.energy.weight
    before, gradient = weight.detach().clone(), weight.grad.clone()
    run.model.zero_grad()
    run.train()
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(weight.detach(), before - 0.01 * gradient, rtol=1e-4, atol=1e-7)


def test_settings_of_loading_and_logging_reach_the_run(tmp_path):
    run = trainer(
        tmp_path, max_steps=4, per_device_train_batch_size=3, dataloader_drop_last=False,
        logging_steps=2, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        lr_scheduler_type="linear", load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    loader = run.get_train_dataloader()
    assert [len(batch["positive"]) for batch in loader] == [3, 3, 2]
    run.train()
    history = run.state.log_history
    assert [e["step"] for e in history if "loss" in e] == [1, 2, 4]
    assert [e["step"] for e in history if "eval_loss" in e] == [2, 4]
    rates = [e["learning_rate"] for e in history if "loss" in e]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.25e-3])  # of the head; before its step
    best = min((e for e in history if "eval_loss" in e), key=lambda e: e["eval_loss"])
    assert run.state.best_model_checkpoint.endswith(f"checkpoint-{best['step']}")


def test_sharded_set_ups_are_refused_before_the_first_step(tmp_path, monkeypatch):
    """On a CPU accelerate ignores the wish to shard: what was asked for is looked at instead."""
    real = write_clips(tmp_path / "real", 8).infos
    args = config(tmp_path)
    for stage in (2, 3):
        args.deepspeed_plugin = DeepSpeedPlugin(zero_stage=stage)
        with pytest.raises(ValueError, match=r"DeepSpeed is not supported.*use DDP"):
            DiscriminatorTrainer(
                tiny_judge(),
                args,
                train_dataset=RealAndGenerated(real),
                eval_dataset=RealAndGenerated(real[:2]),
            )
    args.deepspeed_plugin = None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` sets it
    for version in ("1", "2"):
        monkeypatch.setenv("FSDP_VERSION", version)
        with pytest.raises(ValueError, match=r"FSDP shards the weights.*DDP"):
            DiscriminatorTrainer(
                tiny_judge(),
                args,
                train_dataset=RealAndGenerated(real),
                eval_dataset=RealAndGenerated(real[:2]),
            )
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    DiscriminatorTrainer(
        tiny_judge(),
        args,
        train_dataset=RealAndGenerated(real),
        eval_dataset=RealAndGenerated(real[:2]),
    )


def sharded_by_fsdp2(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    judge = tiny_judge()
    fully_shard(judge.head, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"'head\..* is sharded \(FSDP.*DDP"):
        trainer(tmp_path, judge)


@on_unix
def test_judges_that_were_sharded_already_are_refused(tmp_path):
    """As FSDP2 leaves parameters, and as ZeRO-3 does."""
    assert run_apart([partial(sharded_by_fsdp2, tmp_path)]) == [0]
    judge = tiny_judge()
    judge.head.energy.weight.data = torch.empty(0)
    with pytest.raises(ValueError, match=r"'head.energy.weight' is sharded"):
        trainer(tmp_path, judge)


def test_several_devices_in_one_process_are_refused(tmp_path):
    args = config(tmp_path)
    assert isinstance(args, JudgeTrainingConfig)
    args._n_gpu = 2  # what torch finds on a machine with two
    with pytest.raises(ValueError, match=r"2 GPUs would split each clip.*accelerate launch"):
        refuse_sharding(args)
