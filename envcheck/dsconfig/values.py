"""What is wrong with a single value: its type, its bounds, its spelling, an `auto` that nobody fills in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.dsconfig.keys import json_text
from envcheck.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.dsconfig.document import Entry
    from envcheck.dsconfig.keys import Key

AUTO = "auto"

#: `auto` keys that the Trainer fills in (transformers, integrations/deepspeed.py, the same in 4.36.2, 4.46.3, 4.57.6 and 5.24.0).
FILLED_BY_TRAINER = frozenset(
    {
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "fp16.enabled",
        "bf16.enabled",
        "amp.enabled",
        "amp.opt_level",
        "optimizer.params.lr",
        "optimizer.params.betas",
        "optimizer.params.eps",
        "optimizer.params.weight_decay",
        "scheduler.params.warmup_min_lr",
        "scheduler.params.warmup_max_lr",
        "scheduler.params.warmup_num_steps",
        "scheduler.params.total_num_steps",
        "zero_optimization.reduce_bucket_size",
        "zero_optimization.stage3_prefetch_bucket_size",
        "zero_optimization.stage3_param_persistence_threshold",
    }
)

#: Of these, those that transformers 5.0.0 and later leave alone (there in 4.57.6).
FILLED_BEFORE_5 = frozenset({"amp.enabled", "amp.opt_level"})

#: `auto` keys that accelerate fills in from its own plugin (accelerate, utils/dataclasses.py).
FILLED_BY_ACCELERATE = frozenset(
    {
        "zero_optimization.stage",
        "zero_optimization.offload_optimizer.device",
        "zero_optimization.offload_param.device",
        "zero_optimization.stage3_gather_16bit_weights_on_model_save",
        "zero_optimization.offload_optimizer.nvme_path",
        "zero_optimization.offload_param.nvme_path",
    }
)

#: Keys that DeepSpeed compares without regard to case.
CASELESS = (
    "communication_data_type",
    "seq_parallel_communication_data_type",
    "checkpoint.tag_validation",
    "checkpoint.writer.type",
    "checkpoint.writer.data_parallel",
    "gradient_allreduce_op",
)

WORDS = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "list": "an array",
    "object": "an object",
    "python": "an object of Python, which no file can hold",
}
TRUTHS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


class ValueProblem(NamedTuple):
    """One thing that is wrong with a value; `change` holds the JSON text of a better value, or nothing."""

    id: str
    severity: Severity
    title: str
    because: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    certain: bool = True


def value_problems(
    key: Key | None,
    entry: Entry,
    *,
    strict: bool,
    pydantic2: bool,
    trainer: bool | None,
    bounded: bool | None = True,
    five: bool = False,
) -> Iterator[ValueProblem]:
    """What is wrong with the value of `entry`.

    Args:
        key: What the table says of it; None in sections that are not listed.
        entry: The key and its value.
        strict: Whether its section is one of DeepSpeed's pydantic classes, which convert and check.
        pydantic2: Whether those are pydantic 2's.
        trainer: Whether the Trainer reads the file; None where nobody said.
        bounded: Whether this release has the table's bounds; None where that is not known.
        five: Whether transformers is 5.0.0 or later.
    """
    value = entry.value.plain
    if value == AUTO:
        yield from auto_problems(key, entry.path, strict=strict, trainer=trainer, five=five)
        return
    if key is None:
        return
    if entry.value.entries is not None:
        if key.type not in ("object", "any"):
            yield wrong_type(entry.path, key.type, "an object")
        return
    if value is None:
        yield from null(key, entry.path, strict=strict)
        return
    problem = typed(key, entry.path, value, strict=strict, pydantic2=pydantic2)
    if problem is not None:
        yield problem
        if problem.severity is Severity.ERROR:
            return
        if problem.id == "ds-config-number-as-text" or isinstance(value, bool):
            value = float(value)  # DeepSpeed converts it, and then looks at its bounds
    yield from allowed_problems(key, entry.path, value)
    if bounded is not False:
        yield from bounds(key, entry.path, value, certain=bounded is True)


def null(key: Key, path: str, *, strict: bool) -> Iterator[ValueProblem]:
    """A null that stops DeepSpeed."""
    if path in NEVER_NULL or ((strict or key.type == "object") and not key.nullable):
        yield wrong_type(path, key.type, "null")


def own(key: Key | None, path: str) -> bool:
    """Whether `auto` is DeepSpeed's own word there."""
    return (key is not None and key.default == '"auto"') or path.startswith(("zero_optimization.zenflow.", "pipeline."))


def auto_problems(
    key: Key | None, path: str, *, strict: bool, trainer: bool | None, five: bool = False
) -> Iterator[ValueProblem]:
    """An `auto` that nobody will replace."""
    if own(key, path):
        if trainer:
            yield ValueProblem(
                "ds-config-auto-not-filled",
                Severity.ERROR,
                f"`{path}` cannot be `auto` under the Trainer",
                ("`auto` is a value of DeepSpeed's own here, but the file does not get that far", STOPS),
            )
        return
    alone = without_trainer(key, path, strict=strict)
    filled = FILLED_BY_TRAINER - FILLED_BEFORE_5 if five else FILLED_BY_TRAINER
    if path in filled or (path in FILLED_BY_ACCELERATE and trainer is not False):
        if trainer is False:
            yield ValueProblem(
                "ds-config-auto-without-trainer",
                Severity.ERROR,
                f"`{path}` is `auto`, but no Trainer fills it in",
                ("only the transformers Trainer (or accelerate) replaces `auto`", alone),
            )
        return
    reaches = alone if trainer is False else STOPS if trainer else f"{STOPS}; without it, {alone}"
    if path in ("zero_optimization.prefetch_bucket_size", "zero_optimization.param_persistence_threshold"):
        reaches += "; the Trainer looks for the name that begins with `stage3_`"
    if path == "bfloat16.enabled":
        reaches += "; the Trainer looks for `bf16.enabled`"
    listed = trainer or key is not None or path.startswith(("optimizer.", "scheduler."))
    if listed:
        yield ValueProblem(
            "ds-config-auto-not-filled",
            Severity.ERROR,
            f"Nobody replaces the `auto` of `{path}`",
            ("it is not among the keys that the Trainer fills in", reaches),
        )


#: What accelerate does with an `auto` that is left when it hands the file to DeepSpeed (0.27.2 to 1.15.0).
STOPS = "accelerate, and with it the Trainer, stops: it has no value for it"


def without_trainer(key: Key | None, path: str, *, strict: bool) -> str:
    """What DeepSpeed alone makes of an `auto`.

    Constructing `DeepSpeedConfig` showed it in 0.15.4 and 0.19.8; 0.9.0 has the same code.
    """
    if path in BATCH:
        return "DeepSpeed calculates with the text and stops"
    if path in ("fp16.enabled", "bf16.enabled", "bfloat16.enabled"):
        return "DeepSpeed before 0.17.1 takes the text for true; later ones drop it, and it is off"
    if strict:
        default = f" ({key.computed or key.default})" if key is not None and (key.computed or key.default) else ""
        return f"DeepSpeed drops it and takes its own default{default} silently"
    return "DeepSpeed gets the text `auto` where it expects a value"


#: Sizes that DeepSpeed calculates with while it reads the file.
BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def typed(key: Key, path: str, value: Any, *, strict: bool, pydantic2: bool) -> ValueProblem | None:  # noqa: ANN401 - JSON values
    """What is wrong with the type of a value."""
    if key.type == "bool":
        return boolean(path, value, strict=strict)
    if key.type in ("int", "float"):
        return number(key, path, value, strict=strict, pydantic2=pydantic2)
    kinds: dict[str, type | tuple[()]] = {"str": str, "list": list, "python": ()}
    if key.type in kinds and not isinstance(value, kinds[key.type]):
        return (
            None
            if converted(key, path, value, pydantic1=strict and not pydantic2)
            else wrong_type(path, key.type, kind_of(value))
        )
    if key.type == "object":
        if path == "zero_optimization" and isinstance(value, bool):
            return ValueProblem(
                "ds-config-deprecated-form",
                Severity.WARNING,
                "`zero_optimization` as true or false is deprecated",
                ('write `{"stage": 1}`',),
                ('{"stage": 1}' if value else '{"stage": 0}',),
            )
        if not (key.nullable and value is None):
            return wrong_type(path, "object", kind_of(value))
    return None


def converted(key: Key, path: str, value: Any, *, pydantic1: bool) -> bool:  # noqa: ANN401 - JSON values
    """Whether DeepSpeed makes the type it wants: a text of a number (pydantic 1), a list of one name (leaf modules)."""
    if key.type == "list":
        return isinstance(value, str) and path.startswith("zero_optimization.leaf_module.")
    return (
        pydantic1 and key.type == "str" and not key.allowed and not path.endswith("nvme_path") and isinstance(value, (int, float))
    )


#: Keys in sections without a class that DeepSpeed reads in a way that null stops it (0.14.5 to 0.19.8).
NEVER_NULL = (
    "wall_clock_breakdown",
    "flops_profiler.enabled",
    "checkpoint.tag_validation",
    "checkpoint.parallel_write.pipeline_stage",
    "data_types.keep_in_fp32_modules",
    "gradient_allreduce_op",
    "torch_autocast.dtype",
    "torch_autocast.lower_precision_safe_modules",
)

#: Booleans that the Trainer or accelerate reads for itself, where every text counts as true.
READ_BY_TRAINER = (
    "fp16.enabled",
    "bf16.enabled",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save",
)


def boolean(path: str, value: Any, *, strict: bool) -> ValueProblem | None:  # noqa: ANN401 - JSON values
    """What is wrong with something that should be true or false."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and (truth := TRUTHS.get(value.lower())) is not None:
        apart = path in READ_BY_TRAINER
        effect = (
            f"DeepSpeed converts it here{', the Trainer and accelerate do not' if apart else ''}"
            if strict
            else ("DeepSpeed does not convert it: every text counts as true" + ("" if truth else ", this one too"))
        )
        return ValueProblem(
            "ds-config-boolean-as-text",
            Severity.WARNING if strict and not apart else Severity.ERROR,
            f"`{path}` is the text {json_text(value)}, not a boolean",
            (effect,),
            (json_text(truth),),
        )
    if value in (0, 1) and isinstance(value, int):
        return ValueProblem(
            "ds-config-boolean-as-number",
            Severity.INFO,
            f"`{path}` is {value}, not a boolean",
            ("DeepSpeed takes it",),
            (json_text(bool(value)),),
        )
    return wrong_type(path, "bool", kind_of(value))


def number(key: Key, path: str, value: Any, *, strict: bool, pydantic2: bool) -> ValueProblem | None:  # noqa: ANN401 - JSON values
    """What is wrong with something that should be a number."""
    if isinstance(value, bool):
        return boolean_for_number(key, path, value, strict=strict)
    if isinstance(value, str):
        return number_as_text(key, path, value, strict=strict)
    if not isinstance(value, (int, float)):
        return wrong_type(path, key.type, kind_of(value))
    if not math.isfinite(value):
        return ValueProblem("ds-config-not-a-number", Severity.ERROR, f"`{path}` is not a finite number")
    if key.type == "float" or isinstance(value, int):
        return None
    if value == int(value):
        if strict or path not in POSITIVE:
            return None  # pydantic 1 and 2 take 5e8 for an integer; elsewhere only batch sizes must be one
        return ValueProblem(
            "ds-config-float-for-integer",
            Severity.WARNING,
            f"`{path}` is a float where an integer is expected",
            ("DeepSpeed does not convert it here; torch's samplers refuse a float batch size",),
            (str(int(value)),),
        )
    because = (
        "DeepSpeed 0.15.0 and later (pydantic 2) refuse it"
        if strict and pydantic2
        else "DeepSpeed before 0.15.0 (pydantic 1) cuts the fraction off silently"
        if strict
        else "DeepSpeed does not convert it here"
    )
    return ValueProblem(
        "ds-config-fraction-for-integer",
        Severity.ERROR if pydantic2 or not strict else Severity.WARNING,
        f"`{path}` has a fraction where an integer is expected",
        (because,),
        (str(int(value)),),
    )


def boolean_for_number(key: Key, path: str, value: bool, *, strict: bool) -> ValueProblem:
    """True or false where a number is expected."""
    if not strict:
        return wrong_type(path, key.type, "a boolean")
    newer = ", newer releases refuse it" if path.startswith("fp16.") else ""
    return ValueProblem(
        "ds-config-wrong-type",
        Severity.ERROR if path.startswith("fp16.") else Severity.WARNING,
        f"`{path}` must be {WORDS[key.type]}, not a boolean",
        (f"DeepSpeed takes {json_text(value)} for {int(value)}{newer}",),
        (str(int(value)),),
    )


def number_as_text(key: Key, path: str, value: str, *, strict: bool) -> ValueProblem:
    """A number in quotes."""
    try:
        plain = float(value)
    except ValueError:
        plain = math.nan
    if not math.isfinite(plain):
        return wrong_type(path, key.type, f"the text {json_text(value)}")
    whole = plain == int(plain)
    better = str(int(plain)) if whole and key.type == "int" else json_text(plain)
    converts = strict and key.default != '"auto"' and (key.type == "float" or value.strip().lstrip("+-").isdigit())
    because = (
        "DeepSpeed converts it here"
        if converts
        else (
            "DeepSpeed takes digits in quotes here, but not this"
            if strict
            else "DeepSpeed does not convert it: arithmetic with a text stops"
        )
    )
    if path == "zero_optimization.stage":
        because += "; transformers and accelerate compare it with numbers and do not see ZeRO-3 in a text"
    return ValueProblem(
        "ds-config-number-as-text",
        Severity.WARNING if converts else Severity.ERROR,
        f"`{path}` is the text {json_text(value)}, not a number",
        (because,),
        (better,),
    )


def allowed_problems(key: Key, path: str, value: Any) -> Iterator[ValueProblem]:  # noqa: ANN401 - JSON values
    """A value that is none of those DeepSpeed takes."""
    if key.allowed and not isinstance(value, (list, bool)):
        folded = isinstance(value, str) and path in CASELESS
        allowed = [str(item).lower() for item in key.allowed] if folded else list(key.allowed)
        if (str(value).lower() if folded else value) not in allowed:
            yield ValueProblem(
                "ds-config-value-not-allowed",
                Severity.ERROR,
                f"`{path}` cannot be {json_text(value)}",
                (f"DeepSpeed takes {', '.join(json_text(item) for item in key.allowed)}",),
                nearest(value, key.allowed),
            )


def bounds(key: Key, path: str, value: Any, *, certain: bool) -> Iterator[ValueProblem]:  # noqa: ANN401 - JSON values
    """A number outside the bounds of its key."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    least = 1 if path in POSITIVE else key.least
    for holds, text in (
        (least is None or value >= least, f"at least {least}"),
        (key.above is None or value > key.above, f"above {key.above}"),
        (key.most is None or value <= key.most, f"at most {key.most}"),
        (key.below is None or value < key.below, f"below {key.below}"),
    ):
        if not holds:
            yield ValueProblem(
                "ds-config-out-of-bounds",
                Severity.ERROR if certain else Severity.WARNING,
                f"`{path}` is {json_text(value)}",
                (f"it must be {text}{f' since DeepSpeed {key.bounds_since}' if key.bounds_since else ''}",),
                certain=certain,
            )


#: DeepSpeed asserts that these are positive.
POSITIVE = BATCH


def nearest(value: Any, allowed: tuple[Any, ...]) -> tuple[str, ...]:  # noqa: ANN401 - JSON values
    """The allowed text most like a wrong one."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

    if not isinstance(value, str):
        return ()
    lower = {str(item).lower(): item for item in allowed}
    return tuple(json_text(lower[item]) for item in get_close_matches(value.lower(), list(lower), 1))


def wrong_type(path: str, wanted: str, found: str) -> ValueProblem:
    """A value of another type than the key has."""
    return ValueProblem(
        "ds-config-wrong-type",
        Severity.ERROR,
        f"`{path}` must be {WORDS.get(wanted, wanted)}, not {found}",
    )


def kind_of(value: object) -> str:
    """The kind of a JSON value in words."""
    if isinstance(value, bool):
        return "a boolean"
    names = {
        "int": "a number",
        "float": "a number",
        "str": "a text",
        "list": "an array",
        "dict": "an object",
        "NoneType": "null",
    }
    return names.get(type(value).__name__, type(value).__name__)
