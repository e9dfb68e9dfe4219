"""Findings about what belongs together in one document: optimizer, scheduler, batch sizes, keys of ZeRO-3."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from packaging.version import Version

from envcheck.dsconfig.document import Place
from envcheck.dsconfig.subject import READER, SCHEDULES, ZERO, Subject, shown
from envcheck.dsconfig.values import AUTO
from envcheck.findings import Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.dsconfig.document import Entry

STAGE3 = {
    f"zero_optimization.{name}"
    for name in (
        "offload_param",
        "zero_hpz_partition_size",
        "zero_quantized_weights",
        "gather_16bit_weights_on_model_save",
    )
}
TORCH_OPTIMIZERS = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "Adamax",
    "AdamW",
    "ASGD",
    "LBFGS",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
)
TORCH_SCHEDULERS = (
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
)
START = Place(1, 1, 0)


def optimizer(subject: Subject) -> Iterator[Finding]:
    """An optimizer that neither DeepSpeed nor torch has."""
    entry = subject.document.by_path.get("optimizer.type")
    name = entry.value.plain if entry else None
    if entry is None or not isinstance(name, str) or name == AUTO:
        return
    made = subject.table.optimizers.get(name.lower())
    if made is not None:
        yield from release_of(subject, entry, name, made)
    elif name not in TORCH_OPTIMIZERS:
        yield no_such(
            subject,
            entry,
            name,
            [*TORCH_OPTIMIZERS, "OneBitAdam", "OneBitLamb", "ZeroOneAdam", "Lamb", "Lion", "Muon"],
            "torch.optim",
        )


def scheduler(subject: Subject) -> Iterator[Finding]:
    """A scheduler that neither DeepSpeed nor torch has, and parameters that a DeepSpeed scheduler does not take."""
    entry = subject.document.by_path.get("scheduler.type")
    name = entry.value.plain if entry else None
    if entry is None or not isinstance(name, str) or name == AUTO:
        return
    made = subject.table.schedulers.get(name)
    if made is None:
        if name not in TORCH_SCHEDULERS:
            yield no_such(subject, entry, name, [*subject.table.schedulers, *TORCH_SCHEDULERS], "torch.optim.lr_scheduler")
        return
    yield from release_of(subject, entry, name, made)
    given = [item for item in subject.document.entries() if item.path.startswith("scheduler.params.")]
    for item in given:
        if item.key not in made["params"] and item.key != "last_batch_iteration":
            yield parameter(subject, item, name, list(made["params"]))
        elif item.key == "warmup_num_steps" and isinstance(item.value.plain, float):
            yield from fractional_steps(subject, item)
    missing = [word for word, default in made["params"].items() if not default and word not in {item.key for item in given}]
    if missing:
        yield Finding(
            "ds-config-scheduler-parameter-missing",
            Severity.ERROR,
            f"{name} needs `scheduler.params.{missing[0]}`",
            tuple(f"scheduler.params.{word}" for word in missing),
            {"scheduler.type": name},
            ("DeepSpeed makes the scheduler from these parameters and stops without it",),
            fixes=(Fix("config", f'scheduler.params.{missing[0]}="auto"'),),
            evidence=(SCHEDULES,),
            place=subject.at(entry.place),
        )


#: First release that refuses a warm-up that is no integer (deepspeedai/DeepSpeed#8126; not in v0.19.2).
WHOLE_WARMUP = Version("0.19.3")


def fractional_steps(subject: Subject, item: Entry) -> Iterator[Finding]:
    """A number of steps written as a float, such as 1e3."""
    if subject.version is not None and subject.version < WHOLE_WARMUP:
        return
    plain = item.value.plain
    better = str(int(plain)) if isfinite(plain) and plain >= 1 else "1"
    yield Finding(
        "ds-config-float-for-integer",
        Severity.ERROR if subject.version else Severity.WARNING,
        f"`{item.path}` is a float where an integer is expected",
        (item.path,),
        {item.path: shown(item)},
        (f"DeepSpeed {WHOLE_WARMUP} and later stop: `warmup_num_steps must be a positive integer`",),
        certain=subject.version is not None,
        fixes=(Fix("config", f"{item.path}={better}"),),
        evidence=(SCHEDULES,),
        place=subject.at(item.place),
    )


def parameter(subject: Subject, item: Entry, name: str, known: list[str]) -> Finding:
    """A parameter that a scheduler does not take."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

    close = get_close_matches(item.key, known, 1)
    return Finding(
        "ds-config-scheduler-parameter",
        Severity.ERROR,
        f"{name} takes no parameter `{item.key}`",
        (item.path, "scheduler.type"),
        {item.path: shown(item), "scheduler.type": name},
        (
            "DeepSpeed hands the parameters to the scheduler, which stops at one it does not know",
            f"it takes {', '.join(known)}",
        ),
        fixes=(Fix("do", f"write `{close[0]}`" if close else f"remove `{item.key}`"),),
        evidence=(SCHEDULES,),
        place=subject.at(item.place),
    )


def release_of(subject: Subject, entry: Entry, name: str, made: dict[str, str]) -> Iterator[Finding]:
    """Something DeepSpeed makes, in releases that do not have it."""
    since, removed = made.get("since", ""), made.get("removed", "")
    if subject.version is None or not (
        (since and subject.version < Version(since)) or (removed and subject.version >= Version(removed))
    ):
        return
    text = f"it is there since {since}" if since and subject.version < Version(since) else f"it was removed in {removed}"
    yield Finding(
        "ds-config-not-in-release",
        Severity.ERROR,
        f"DeepSpeed {subject.version} has no {name}",
        (entry.path, "deepspeed"),
        {entry.path: name, "deepspeed": str(subject.version)},
        (text,),
        evidence=(READER,),
        place=subject.at(entry.place),
    )


def no_such(subject: Subject, entry: Entry, name: str, known: list[str], home: str) -> Finding:
    """A type that nobody has."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

    lower = {item.lower(): item for item in known}
    close = get_close_matches(name.lower(), list(lower), 1)
    return Finding(
        "ds-config-unknown-type",
        Severity.ERROR,
        f"Neither DeepSpeed nor `{home}` has `{name}`",
        (entry.path,),
        {entry.path: name},
        (
            f"DeepSpeed looks for other names in `{home}` and stops where there is none",
            *((f"the nearest known name is `{lower[close[0]]}`",) if close else ()),
        ),
        fixes=(Fix("config", f"{entry.path}={lower[close[0]]}"),) if close else (),
        evidence=(READER,),
        place=subject.at(entry.place),
    )


def batch(subject: Subject) -> Iterator[Finding]:
    """train_batch_size = micro-batch x accumulation x world size."""
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    entries = [subject.document.by_path.get(name) for name in names]
    numbers = [_whole(entry) for entry in entries]
    total, micro, steps = numbers
    place = subject.at(next((entry.place for entry in entries if entry), START))
    if entries[0] is None and entries[1] is None and subject.trainer is not None:
        yield Finding(
            "ds-config-no-batch-size",
            Severity.ERROR,
            "Neither train_batch_size nor train_micro_batch_size_per_gpu is given",
            names[:2],
            because=("DeepSpeed needs one of them and stops; the Trainer and accelerate replace an `auto`, and add neither",),
            fixes=(Fix("config", 'train_micro_batch_size_per_gpu="auto"'),) if subject.trainer else (),
            evidence=(READER,),
            place=subject.at(START),
        )
    if total is None:
        return
    known = (micro or 1) * (steps or 1) * (subject.world_size or 1)
    whole = micro is not None and steps is not None and subject.world_size is not None
    if total != known if whole else total % known:
        parts = [
            f"{text} {value}"
            for text, value in (
                ("micro-batch", micro),
                ("accumulation", steps),
                ("world size", subject.world_size),
            )
            if value
        ]
        yield Finding(
            "ds-config-batch-arithmetic",
            Severity.ERROR,
            "train_batch_size is not micro-batch x accumulation x world size",
            (*names, "world_size"),
            {name: str(value) for name, value in zip(names, numbers, strict=True) if value is not None},
            (
                f"train_batch_size {total} {'is not' if whole else 'is not a multiple of'} {' x '.join(parts)} = {known}",
                "DeepSpeed checks this and stops",
            ),
            fixes=(Fix("config", f"train_batch_size={known}"),) if whole else (),
            evidence=(READER,),
            place=place,
        )


#: Sections of which DeepSpeed takes `enabled` out without looking whether it is there (0.9.0 to 0.19.7; then it refuses them).
SWITCHED = ("amp", "curriculum_learning", "progressive_layer_drop")


def switches(subject: Subject) -> Iterator[Finding]:
    """A section that must say whether it is enabled, and does not."""
    for name in SWITCHED:
        entry, key = subject.document.by_path.get(name), subject.table.get(name)
        if entry is None or key is None or entry.value.entries is None or f"{name}.enabled" in subject.document.by_path:
            continue
        if subject.version is not None and key.removed and subject.version >= Version(key.removed):
            continue  # the section itself is refused
        yield Finding(
            "ds-config-no-enabled",
            Severity.ERROR,
            f"`{name}` does not say `enabled`",
            (f"{name}.enabled",),
            {name: shown(entry)},
            ("DeepSpeed stops: `KeyError: 'enabled'`",),
            fixes=(Fix("config", f"{name}.enabled=false"), Fix("do", f"remove `{name}`")),
            evidence=(READER,),
            place=subject.at(entry.place),
        )


def stage3_only(subject: Subject) -> Iterator[Finding]:
    """Keys that only ZeRO-3 reads, under another stage."""
    stage = subject.document.by_path.get("zero_optimization.stage")
    if stage is None or stage.value.plain not in (0, 1, 2) or isinstance(stage.value.plain, bool):
        return
    found = [
        item for item in subject.document.entries() if item.path in STAGE3 or item.path.startswith("zero_optimization.stage3_")
    ]
    if found:
        names = tuple(item.path for item in found)
        yield Finding(
            "ds-config-stage3-only-key",
            Severity.INFO,
            f"Keys of ZeRO-3 under stage {stage.value.plain} have no effect",
            (*names, stage.path),
            {item.path: shown(item) for item in found},
            (f"{', '.join(f'`{item.key}` (line {item.place.line})' for item in found)}",),
            evidence=(ZERO,),
            place=subject.at(found[0].place),
        )


def _whole(entry: Entry | None) -> int | None:
    """A positive whole number, or None."""
    value = entry.value.plain if entry else None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value  # noqa: PLR0124 - only NaN differs from itself
        or value in (float("inf"), float("-inf"))
    ):
        return None
    return int(value) if value == int(value) and value > 0 else None
