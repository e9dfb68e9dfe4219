"""What is known of one training step, and of the run it belongs to: the detector's only input. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of the whole run; what is not known is None or empty.

    Attributes:
        packages: Normalised name -> version.
        settings: Dotted DeepSpeed keys, TrainingArguments names, `world_size`.
        dtype: `fp32`, `bf16` or `fp16`.
        max_steps: Optimizer steps that the run is to take.
        accumulation: Micro-batches of one optimizer step.
        ranks: World size.
        logging_steps: Optimizer steps between two lines of a log; 1 where every step is seen.
        scheduler: Who owns the learning rate: `deepspeed` (a scheduler block) or `client`.
        uses: Usage words of the matrix that the run confirms.
    """

    packages: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: str = ""
    max_steps: int | None = None
    accumulation: int | None = None
    ranks: int | None = None
    logging_steps: int | None = None
    scheduler: str = ""
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter, as a survey found it; None is not known.

    Attributes:
        name: As the model names it.
        trainable: `requires_grad`.
        in_optimizer: It is in a group of the optimizer.
        late: It appeared, or became trainable, after the engine or optimizer was built.
        received: A gradient reached it in some step so far.
        gradient_zero: Every gradient that reached it was exactly zero.
        changed: Its value differs from that before the first step.
        values: What its values were before the first step: `fine`, `non-finite`, `huge`, `denormal`, `zero` or `constant`.
        absent: The checkpoint that the model was loaded from does not hold it.
        beside_loaded: It is absent, and the same module has parameters that the checkpoint does hold.
    """

    name: str
    trainable: bool | None = None
    in_optimizer: bool | None = None
    late: bool | None = None
    received: bool | None = None
    gradient_zero: bool | None = None
    changed: bool | None = None
    values: str = ""
    absent: bool | None = None
    beside_loaded: bool | None = None


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """The engine's accumulated gradient of one parameter against the micro-batch gradients that really arrived.

    Attributes:
        parameter: The parameter's name.
        kind: `equal`, `scaled`, `dropped`, `zero`, `non-finite`, ... (the words of `envcheck.probe.attribution.Kind`).
        text: The verdict in words, `only micro-batch 3 of 3 counted`.
        ratio: |observed| / |expected|.
        error: |observed - expected| / |expected|.
    """

    parameter: str
    kind: str
    text: str
    ratio: float = 1.0
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """One step (or one line of a log) of one rank; None is not known.

    Attributes:
        step: Optimizer steps taken, counted from 1; 0 is before the first.
        rank: The rank it was seen on.
        loss: As the model returned it.
        logged_loss: As the log prints it, after any filter.
        lr: The highest learning rate of all parameter groups.
        lr_integer: The log printed the learning rate as the integer 0.
        grad_norm: Global gradient norm; a non-finite one stays what it was.
        rounded: The log writes the norm with so few digits that it may repeat by chance.
        loss_scale: The loss scale in force.
        skipped: Optimizer steps skipped since the start.
        overflow: This step was skipped.
        digest: A number that is equal on all ranks where the parameters are.
        survey: What is known of the parameters, where they were looked at in this step.
        complete: The survey is the last: what has not happened by now is reported.
        check: Outcome of the gradient check, where one was made in this step.
        message: A warning or an exception that the log holds at this place.
        line: Line of the log, counted from 1; 0 where there is no log.
    """

    step: int
    rank: int = 0
    loss: float | None = None
    logged_loss: float | None = None
    lr: float | None = None
    lr_integer: bool = False
    grad_norm: float | None = None
    rounded: bool = False
    loss_scale: float | None = None
    skipped: int | None = None
    overflow: bool | None = None
    digest: float | None = None
    survey: tuple[ParameterFact, ...] = ()
    complete: bool = False
    check: tuple[GradientCheck, ...] = ()
    message: str = ""
    line: int = 0


#: Fields of a Record that hold numbers, which JSON cannot hold where they are not finite.
NUMBERS = ("loss", "logged_loss", "lr", "grad_norm", "loss_scale", "digest")


def to_json(record: Record) -> dict[str, Any]:
    """The record as plain data without what is not known; non-finite numbers become the words `nan`, `inf`, `-inf`."""
    plain = _known(record)
    if record.survey:
        plain["survey"] = [_known(fact) for fact in record.survey]
    if record.check:
        plain["check"] = [_known(one) for one in record.check]
    return plain


def _known(value: Record | ParameterFact | GradientCheck) -> dict[str, Any]:
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    default = {item.name: item.default for item in fields(value)}
    return {
        name: repr(one) if isinstance(one, float) and not math.isfinite(one) else one
        for name, one in found.items()
        if name in ("step", "name", "parameter", "kind") or one != default[name]
    }


def from_json(plain: dict[str, Any]) -> Record:
    """What `to_json` wrote; keys that are not known are left out.

    Raises:
        ValueError: A value is not of its kind.
    """
    names = {item.name for item in fields(Record)}
    values = {key: value for key, value in plain.items() if key in names}
    if not isinstance(values.get("step"), int):
        raise ValueError(f"`step` is {values.get('step')!r}, not a number of steps")  # noqa: TRY004 - of the file, not of ours
    for name in NUMBERS:
        if values.get(name) is not None:
            values[name] = float(values[name])
    if "survey" in values:
        values["survey"] = tuple(ParameterFact(**_only(ParameterFact, one)) for one in values["survey"])
    if "check" in values:
        values["check"] = tuple(GradientCheck(**_numbers(_only(GradientCheck, one))) for one in values["check"])
    return Record(**values)


def _only(kind: type[ParameterFact | GradientCheck], plain: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {key: value for key, value in plain.items() if key in names}


def _numbers(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if key in ("ratio", "error") else value for key, value in plain.items()}
