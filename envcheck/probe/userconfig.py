"""Scenarios from the user's DeepSpeed configuration and TrainingArguments: only sizes shrink, every change is listed. Pure."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from envcheck.errors import InputError
from envcheck.probe.spec import ENGINE, MICRO_BATCH, TRAINER, Scenario

#: More micro-batches than these show nothing more and cost time.
MOST_ACCUMULATION = 4

#: Where nobody says how many. Not the number of ranks: a factor of either would look the same.
UNTOLD_ACCUMULATION = 3

#: A tiny model fills no larger bucket; the buffer would still be allocated.
MOST_BUCKET = 1_000_000

#: Sections that neither the gradients nor the updates depend on.
DROPPED = (
    "tensorboard",
    "wandb",
    "csv_monitor",
    "comet",
    "comms_logger",
    "flops_profiler",
    "autotuning",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "checkpoint",
    "nebula",
    "elasticity",
    "activation_checkpointing",
    "aio",
    "data_efficiency",
    "curriculum_learning",
)

#: TrainingArguments that reach the gradients, the schedule or the log, and are handed on as they are.
KEPT_ARGUMENTS = (
    "max_grad_norm",
    "lr_scheduler_type",
    "warmup_ratio",
    "warmup_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "logging_nan_inf_filter",
    "label_smoothing_factor",
    "average_tokens_across_devices",
)

#: TrainingArguments that the scenario itself holds, or replaces and says so.
OURS = frozenset({"deepspeed", "bf16", "fp16", "gradient_accumulation_steps", "learning_rate", "per_device_train_batch_size"})

#: Changes that both paths share.
SGD = "`optimizer` replaced by torch.optim.SGD with learning rate 1, so that an update is the gradient"

Config = dict[str, Any]


def scenarios(
    deepspeed: Config | None, trainer: Config | None, stages: tuple[int, ...] | None, paths: tuple[str, ...], model: str | None
) -> list[Scenario]:
    """The user's configuration on each path; on the stages asked for, else on its own.

    Raises:
        InputError: The stage is not a number from 0 to 3, or a section is not an object.
    """
    config = deepspeed if deepspeed is not None else (trainer or {}).get("deepspeed") or {}
    if not isinstance(config, dict):
        raise InputError("`deepspeed` in the TrainingArguments is a file name", hints=("give that file with --ds-config",))
    own = _stage(config)
    return [_scenario(config, trainer or {}, stage, own, path, model) for stage in stages or (own,) for path in paths]


def _stage(config: Config) -> int:
    zero = config.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise InputError("`zero_optimization` is not an object")
    stage = zero.get("stage", 0)
    if not isinstance(stage, int) or stage not in range(4):
        raise InputError(f"`zero_optimization.stage` is {stage!r}, not 0, 1, 2 or 3")
    return int(stage)


def _scenario(config: Config, args: Config, stage: int, own: int, path: str, model: str | None) -> Scenario:
    changed = copy.deepcopy(config)
    changes: list[str] = []
    dtype = _dtype(changed, args)
    if dtype == "fp32" and not args and any(_enabled(changed, name) == "auto" for name in ("bf16", "fp16")):
        changes.append("`bf16` or `fp16` is `auto`, and no TrainingArguments are given: fp32 taken")
    accumulation = _accumulation(changed, args, changes)
    _drop(changed, changes)
    _zero(changed, stage, own, changes)
    _sizes(changed, path, accumulation, args, changes)
    _precision(changed, dtype, path, changes)
    changes.append(SGD)
    changed.update(zero_allow_untested_optimizer=True, zero_force_ds_cpu_optimizer=False, steps_per_print=1_000_000_000)
    made = Scenario(
        path,
        model or ("llama-tied" if path == TRAINER else "mlp-outputs"),
        stage,
        dtype,
        accumulation,
        "yours",
        changed,
    )
    arguments = _arguments(args, changes) if path == TRAINER else {}
    return replace(made, training_args=arguments, changes=tuple(changes))


def _dtype(config: Config, args: Config) -> str:
    for name in ("bf16", "fp16"):
        enabled = _enabled(config, name)
        if enabled is True or (enabled == "auto" and args.get(name)):
            return name
    return "fp32"


def _enabled(config: Config, name: str) -> object:
    section = config.get(name, config.get("bfloat16") if name == "bf16" else None)
    return section.get("enabled", False) if isinstance(section, dict) else False


def _accumulation(config: Config, args: Config, changes: list[str]) -> int:
    value = config.get("gradient_accumulation_steps", "auto")
    if value == "auto" and not args:
        changes.append(
            f"`gradient_accumulation_steps` is `auto` or absent, and no TrainingArguments are given: {UNTOLD_ACCUMULATION} taken"
        )
        value = UNTOLD_ACCUMULATION
    elif value == "auto":
        value = args.get("gradient_accumulation_steps", 1)
    value = int(value) if isinstance(value, (int, float)) and value >= 1 else 1
    if value > MOST_ACCUMULATION:
        changes.append(f"`gradient_accumulation_steps` {value} shrunk to {MOST_ACCUMULATION}")
        return MOST_ACCUMULATION
    return value


def _drop(config: Config, changes: list[str]) -> None:
    for key in (*DROPPED, "optimizer", "scheduler"):
        if key in config:
            del config[key]
            if key != "optimizer":
                changes.append(f"`{key}` left out")


def _zero(config: Config, stage: int, own: int, changes: list[str]) -> None:
    zero = config.setdefault("zero_optimization", {})
    zero["stage"] = stage
    if stage != own:
        changes.append(f"`zero_optimization.stage` {own} replaced by {stage}, as asked")
    for key in ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size", "sub_group_size"):
        value = zero.get(key)
        if isinstance(value, (int, float)) and value > MOST_BUCKET:
            zero[key] = MOST_BUCKET
            changes.append(f"`zero_optimization.{key}` {value:g} shrunk to {MOST_BUCKET}")
    for key in ("offload_optimizer", "offload_param"):
        if isinstance(zero.get(key), dict) and zero[key].get("device") == "nvme":
            zero[key] = {"device": "cpu"}
            changes.append(f"`zero_optimization.{key}` to nvme replaced by cpu")


def _sizes(config: Config, path: str, accumulation: int, args: Config, changes: list[str]) -> None:
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu")
    given = [key for key in sizes if config.pop(key, "auto") != "auto"]
    changes.extend(f"`{key}` shrunk: {MICRO_BATCH} samples in a micro-batch" for key in given)
    auto = path == TRAINER
    config["train_micro_batch_size_per_gpu"] = "auto" if auto else MICRO_BATCH
    config["gradient_accumulation_steps"] = "auto" if auto else accumulation
    if config.get("gradient_clipping") == "auto" and not auto:
        config["gradient_clipping"] = float(args.get("max_grad_norm", 1.0))
    if not auto:
        _replace_auto(config, "", changes)


def _replace_auto(section: Config, prefix: str, changes: list[str]) -> None:
    """`auto` means something to the Trainer alone: on the bare engine the key is left out."""
    autos = [key for key, value in section.items() if value == "auto" and key != "enabled"]
    for key in autos:
        del section[key]
    changes.extend(f"`{prefix}{key}` is `auto`: left out on the bare engine" for key in autos)
    for key, value in section.items():
        if isinstance(value, dict):
            _replace_auto(value, f"{prefix}{key}.", changes)


def _precision(config: Config, dtype: str, path: str, changes: list[str]) -> None:
    for name in ("bf16", "fp16"):
        section = config.get(name)
        if isinstance(section, dict) and section.get("enabled") == "auto" and path == ENGINE:
            section["enabled"] = dtype == name
    fp16 = config.get("fp16")
    if dtype == "fp16" and isinstance(fp16, dict):
        power = fp16.get("initial_scale_power", 16)
        if not isinstance(power, int) or power > 8:  # noqa: PLR2004 - a scale at which a tiny model does not overflow
            fp16["initial_scale_power"] = 8
            changes.append("`fp16.initial_scale_power` lowered to 8, so that the first steps are not skipped")


def _arguments(args: Config, changes: list[str]) -> Config:
    kept = {key: args[key] for key in KEPT_ARGUMENTS if key in args}
    if isinstance(kept.get("warmup_steps"), int) and kept["warmup_steps"] > 1:
        changes.append(f"`warmup_steps` {kept['warmup_steps']} shrunk to 1")
        kept["warmup_steps"] = 1
    kept.setdefault("max_grad_norm", 1.0)
    kept.setdefault("lr_scheduler_type", "linear")
    if "learning_rate" in args:
        changes.append(f"`learning_rate` {args['learning_rate']} replaced by 1")
    if "per_device_train_batch_size" in args:
        changes.append(f"`per_device_train_batch_size` {args['per_device_train_batch_size']} replaced by {MICRO_BATCH}")
    left_out = sorted(set(args) - set(KEPT_ARGUMENTS) - OURS)
    if left_out:
        changes.append(
            "TrainingArguments that do not reach gradients, schedule or log left out: "
            + ", ".join(f"`{key}`" for key in left_out)
        )
    return kept
