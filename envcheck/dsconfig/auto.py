"""What every `auto` of a DeepSpeed config becomes, and who decides it.

The table follows transformers' `integrations/deepspeed.py` (`trainer_config_process`, `trainer_config_finalize`) and what
accelerate does to the file after it. From 4.36.2 to 5.24.0 they differ in the prefetch bucket (a float in 4.37.2, an integer in
4.46.0) and in the warm-up (`warmup_steps` may be a fraction since 5.0.0; 5.24.0 gives at least 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.version import Version

from envcheck.dsconfig.keys import json_text, version_of
from envcheck.dsconfig.trainer import OPEN, TrainerArguments
from envcheck.dsconfig.values import AUTO, FILLED_BY_ACCELERATE, STOPS, own, without_trainer
from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.dsconfig.document import Document
    from envcheck.dsconfig.keys import KeyTable

INTEGRATION = Evidence("code", "huggingface/transformers@v4.57.6:src/transformers/integrations/deepspeed.py")

#: DeepSpeed key -> argument that fills it, and must match it where it is not `auto`.
MATCHED = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
}

#: First release that has `adamw_torch_fused` by default (with torch 2.8 or later): in the wheel 4.57.6, not in 4.46.3.
FUSED = "4.57.6"

UNKNOWN = "not known"

_FIVE = Version("5.0.0")


class Effective(NamedTuple):
    """One line of the table.

    Attributes:
        key: Dotted.
        file: What the file says as JSON, or `(absent)`.
        value: The effective value, or None where it is not known.
        shown: The effective value, or why it is not known.
        decided: Who decided it.
        known: Whether `value` is the effective value.
    """

    key: str
    file: str
    value: Any
    shown: str
    decided: str
    known: bool = True


class Run(NamedTuple):
    """What is known of the run.

    Attributes:
        trainer: The Trainer's arguments, or None where none were given.
        world_size: Number of ranks, or None.
        hidden_size: Of the model's config, or None.
        transformers: Installed version, or empty.
        deepspeed: Installed version, or empty.
    """

    trainer: TrainerArguments | None = None
    world_size: int | None = None
    hidden_size: int | None = None
    transformers: str = ""
    deepspeed: str = ""


def effective(flat: Mapping[str, Any], run: Run, table: KeyTable) -> list[Effective]:
    """The effective values of every `auto`, of what accelerate adds, and of what decides optimizer, schedule and clipping.

    Args:
        flat: The document as dotted keys (`matrix.settings.flatten`).
        run: What is known of the run.
        table: The key table, for defaults.
    """
    rows = [
        row(key, run, flat, table)
        for key, value in flat.items()
        if value == AUTO and not (run.trainer is None and own(table.get(key), key))
    ]
    if run.trainer is not None:
        rows += sizes(flat, run)
        rows += [owner("optimizer", flat, run.trainer), owner("scheduler", flat, run.trainer)]
    if "gradient_clipping" not in flat and (run.trainer is not None or run.deepspeed):
        rows.append(clipping(run, table))
    return rows


def row(key: str, run: Run, flat: Mapping[str, Any], table: KeyTable) -> Effective:
    """What one `auto` becomes."""
    if run.trainer is None:
        strict = table.refuses(key.rpartition(".")[0], version_of(run.deepspeed)) is not False
        reason = without_trainer(table.get(key), key, strict=strict)
        return unknown(key, '"auto"', f"nobody yet: give --training-args; without a Trainer an error: {reason}")
    if key in MATCHED:
        return argument(key, MATCHED[key], run.trainer)
    made = calculated(key, run, flat)
    if made is not None:
        return made
    if key in FILLED_BY_ACCELERATE:
        return unknown(key, '"auto"', "accelerate's own configuration")
    return Effective(key, '"auto"', None, "none", f"nobody: {STOPS}", known=False)


def argument(key: str, name: str, trainer: TrainerArguments, file: str = '"auto"') -> Effective:
    """A key that an argument fills."""
    value = trainer.get(name)
    given = f"TrainingArguments `{name}`" if name in trainer.values else f"default of TrainingArguments `{name}`"
    return (
        unknown(key, file, f"{given} (a shell variable)")
        if value == OPEN
        else Effective(key, file, value, json_text(value), given)
    )


def calculated(key: str, run: Run, flat: Mapping[str, Any]) -> Effective | None:
    """A key that the Trainer calculates; None for any other."""
    trainer = run.trainer
    assert trainer is not None  # noqa: S101 - the caller asked
    if key in ("fp16.enabled", "bf16.enabled"):
        return precision(key, trainer)
    if key == "amp.enabled" and not five(run):
        return Effective(key, '"auto"', value=False, shown="false", decided="TrainingArguments (apex is not asked for)")
    if key == "optimizer.params.betas":
        betas = [trainer.get("adam_beta1"), trainer.get("adam_beta2")]
        return (
            unknown(key, '"auto"', "a shell variable")
            if OPEN in betas
            else Effective(
                key,
                '"auto"',
                betas,
                json_text(betas),
                "TrainingArguments `adam_beta1`, `adam_beta2`",
            )
        )
    if key == "train_batch_size":
        return batch(run)
    if key == "scheduler.params.warmup_min_lr":
        return Effective(key, '"auto"', 0, "0", "the Trainer, always")
    if key in ("scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps"):
        return steps(key, run)
    return sized(key, run, flat)


def precision(key: str, trainer: TrainerArguments) -> Effective:
    """fp16.enabled and bf16.enabled."""
    name = "fp16" if key.startswith("fp16") else "bf16"
    if not trainer.known(name):
        return unknown(key, '"auto"', f"TrainingArguments `{name}` (a shell variable)")
    value = bool(trainer.get(name)) or trainer.get(f"{name}_full_eval") is True
    given = f"TrainingArguments `{name}`" if name in trainer.values else f"default of TrainingArguments `{name}`"
    return Effective(key, '"auto"', value, json_text(value), given)


def batch(run: Run) -> Effective:
    """train_batch_size: world size x micro-batch x accumulation."""
    trainer = run.trainer
    assert trainer is not None  # noqa: S101 - the caller asked
    micro, accumulation = (
        trainer.get("per_device_train_batch_size"),
        trainer.get("gradient_accumulation_steps"),
    )
    if not _whole(micro) or not _whole(accumulation):
        return unknown("train_batch_size", '"auto"', "a shell variable")
    if run.world_size is None:
        return unknown("train_batch_size", '"auto"', f"world size x {micro} x {accumulation}: give --world-size")
    total = run.world_size * micro * accumulation
    return Effective(
        "train_batch_size",
        '"auto"',
        total,
        str(total),
        f"world size {run.world_size} x {micro} x {accumulation}",
    )


def steps(key: str, run: Run) -> Effective:
    """Steps of the schedule, where `max_steps` or `warmup_steps` says them."""
    trainer = run.trainer
    assert trainer is not None  # noqa: S101 - the caller asked
    total, warmup, ratio = (trainer.get(name) for name in ("max_steps", "warmup_steps", "warmup_ratio"))
    of_total = _whole(total) and total > 0
    if key.endswith("total_num_steps"):
        if of_total:
            return Effective(key, '"auto"', total, str(total), "TrainingArguments `max_steps`")
        return unknown(key, '"auto"', "the Trainer, from the length of the data")
    if five(run) and _number(ratio) and trainer.values.get("warmup_ratio") is not None:
        warmup = ratio  # what 5.0.0 makes of both
    if _number(warmup) and warmup >= 1:
        return Effective(key, '"auto"', int(warmup), str(int(warmup)), "TrainingArguments `warmup_steps`")
    if not _number(warmup) or not _number(ratio or 0):
        return unknown(key, '"auto"', "TrainingArguments `warmup_steps` and `warmup_ratio`")
    name, share = ("warmup_steps", warmup) if warmup > 0 else ("warmup_ratio", ratio or 0)
    if share > 0 and not of_total:
        return unknown(key, '"auto"', f"the Trainer: {name} {share:g} of the steps")
    version = version_of(run.transformers) if run.transformers else None
    if share <= 0 and (version is None or version >= _FIVE):
        text = "no warm-up: 0, in later releases of transformers 5 (5.24.0) 1; DeepSpeed 0.19.3 and later stop at 0"
        return unknown(key, '"auto"', text)
    value = math.ceil(total * share) if share > 0 else 0
    return Effective(key, '"auto"', value, str(value), f"{name} {share:g} x max_steps {total}" if share > 0 else "no warm-up")


def five(run: Run) -> bool:
    """Whether transformers is 5.0.0 or later."""
    version = version_of(run.transformers) if run.transformers else None
    return version is not None and version >= _FIVE


def sized(key: str, run: Run, flat: Mapping[str, Any]) -> Effective | None:
    """Buckets that follow the model's hidden size; None for any other key."""
    name = key.removeprefix("zero_optimization.")
    if name not in ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold") or name == key:
        return None
    below = name != "reduce_bucket_size" and flat.get("zero_optimization.stage") != 3  # noqa: PLR2004 - ZeRO stage
    formula = {"reduce_bucket_size": "hidden_size^2", "stage3_prefetch_bucket_size": "0.9 hidden_size^2"}.get(
        name, "10 hidden_size"
    )
    if run.hidden_size is None:
        return unknown(key, '"auto"', f"{formula} of the model's config: give --model-config")
    size = run.hidden_size
    value = {
        "reduce_bucket_size": size * size,
        "stage3_prefetch_bucket_size": prefetch(size, run.transformers),
    }.get(name, 10 * size)
    after = "; accelerate fills it in, below stage 3 it has no effect" if below else ""
    return Effective(key, '"auto"', value, str(value), f"{formula}, hidden_size {size}{after}")


def prefetch(size: int, transformers: str) -> int | float:
    """0.9 hidden_size^2: a float up to transformers 4.37.2, an integer from 4.46.0 (between them not looked at)."""
    version = version_of(transformers) if transformers else None
    floating = version is not None and version <= version_of("4.37.2")  # type: ignore[operator]
    return 0.9 * size * size if floating else int(0.9 * size * size)


def sizes(flat: Mapping[str, Any], run: Run) -> Iterator[Effective]:
    """Batch sizes that the file lacks: nobody passes on the Trainer's, accelerate writes an accumulation of 1."""
    trainer = run.trainer
    assert trainer is not None  # noqa: S101 - the caller asked
    if "gradient_accumulation_steps" not in flat:
        given = trainer.get("gradient_accumulation_steps")
        more = "" if given == 1 else f"; the Trainer's {json_text(given)} does not reach DeepSpeed"
        yield Effective("gradient_accumulation_steps", "(absent)", 1, "1", f"accelerate{more}", known=given == 1)
    if "train_micro_batch_size_per_gpu" not in flat:
        text = "DeepSpeed, from train_batch_size" if "train_batch_size" in flat else "nobody: DeepSpeed stops"
        yield unknown("train_micro_batch_size_per_gpu", "(absent)", text)


def owner(block: str, flat: Mapping[str, Any], trainer: TrainerArguments) -> Effective:
    """Who makes the optimizer or the schedule."""
    name = "optim" if block == "optimizer" else "lr_scheduler_type"
    if block in flat:
        kind = flat.get(f"{block}.type", "?")
        return Effective(
            f"{block}.type",
            json_text(kind),
            kind,
            str(kind),
            f"the file; TrainingArguments `{name}` has no effect",
        )
    value = trainer.get(name) or "adamw_torch"
    if block == "optimizer" and name not in trainer.values:
        value = f"adamw_torch, or adamw_torch_fused (transformers {FUSED} and torch 2.8, or later)"
    return Effective(f"{block}.type", "(absent)", None, str(value), f"TrainingArguments `{name}`", known=False)


def clipping(run: Run, table: KeyTable) -> Effective:
    """gradient_clipping where the file lacks it: DeepSpeed's default, whatever `max_grad_norm` is."""
    key = table.get("gradient_clipping")
    if key is None or not run.deepspeed:
        return Effective(
            "gradient_clipping",
            "(absent)",
            None,
            UNKNOWN,
            "DeepSpeed's default (0 before 0.19.3, then 1.0)",
            known=False,
        )
    text = key.default_at(version_of(run.deepspeed))
    return Effective(
        "gradient_clipping",
        "(absent)",
        None,
        text,
        f"default of DeepSpeed {run.deepspeed}; max_grad_norm has no effect",
        known=False,
    )


def unknown(key: str, file: str, decided: str) -> Effective:
    """A value that is not known here."""
    return Effective(key, file, None, UNKNOWN, decided, known=False)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def mismatches(document: Document, where: str, run: Run) -> Iterator[Finding]:
    """Values of the file that differ from the Trainer's: it stops at them."""
    trainer = run.trainer
    if trainer is None:
        return
    wanted: dict[str, tuple[str, Any]] = {key: (name, trainer.get(name)) for key, name in MATCHED.items() if trainer.known(name)}
    for key in ("fp16.enabled", "bf16.enabled"):
        decided = precision(key, trainer)
        if decided.known:
            wanted[key] = (key[:4], decided.value)
    betas = [trainer.get("adam_beta1"), trainer.get("adam_beta2")]
    if OPEN not in betas:
        wanted["optimizer.params.betas"] = ("adam_beta1, adam_beta2", betas)
    total = batch(run)
    if total.known:
        wanted["train_batch_size"] = (
            "world size x per_device_train_batch_size x gradient_accumulation_steps",
            total.value,
        )
    loose = trainer.get("auto_find_batch_size") is True
    for key, (name, value) in wanted.items():
        entry = document.by_path.get(key)
        if entry is None or entry.value.entries is not None or entry.value.plain in (AUTO, None, value):
            continue
        if loose and key in ("train_batch_size", "train_micro_batch_size_per_gpu"):
            continue
        yield Finding(
            "ds-config-trainer-mismatch",
            Severity.ERROR,
            f"`{key}` differs from the Trainer's `{name}`",
            (key, *name.split(", ")),
            {key: json_text(entry.value.plain), name: json_text(value)},
            (
                f"the file says {json_text(entry.value.plain)}, TrainingArguments say {json_text(value)}"
                + ("" if name in trainer.values or "," in name or " x " in name else " (its default)"),
                "the Trainer stops: `Please correct the following DeepSpeed config values that mismatch TrainingArguments`",
            ),
            fixes=(Fix("config", f'{key}="auto"'),),
            evidence=(INTEGRATION,),
            place=f"{where}:{entry.place.line}:{entry.place.column}",
        )
