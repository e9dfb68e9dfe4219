"""Judge a scenario: its steps, its ranks, its losses, its learning rates, and what DeepSpeed reported of them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envcheck.probe import trainerlog
from envcheck.probe.attribution import Kind, Shape, scale_text
from envcheck.probe.judge import ROUNDOFF, Record, StepJudgement, judge_step, number
from envcheck.probe.spec import TRAINER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from envcheck.probe.spec import Scenario

#: Largest relative difference of a loss from the float64 one: a few roundings of the logits.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 0.04, "fp16": 0.01}

#: The Trainer logs the loss rounded to four digits after the point.
LOGGED_DIGITS = 1e-4

#: Relative difference of norms below which they count as the same, besides the dtype's rounding.
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class StepView:
    """One optimizer step, for tables and curves; None where nothing was reported."""

    step: int
    loss: float | None
    reference_loss: float | None
    lr: float | None
    norm: float | None
    reference_norm: float | None
    ratio: float
    error: float
    gradient_ratio: float | None = None
    expected_lr: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one scenario.

    Attributes:
        scenario: What was run.
        kind: The verdict.
        text: The verdict in words.
        error: Largest |update - expected| / |expected| over all parameters and steps.
        ratio: The |update| / |expected| that is farthest from 1.
        parameters: (name, verdict) of the parameters that are wrong, at most ten.
        coefficients: Fitted coefficients divided by the healthy ones, rank-major, where a fit was made.
        steps: One view a step.
        notes: Further facts, one sentence each.
    """

    scenario: Scenario
    kind: Kind
    text: str
    error: float = 0.0
    ratio: float = 1.0
    parameters: tuple[tuple[str, str], ...] = ()
    coefficients: tuple[float, ...] = ()
    steps: tuple[StepView, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Computed the right thing."""
        return self.kind is Kind.EQUAL

    @property
    def looked(self) -> bool:
        """False where the scenario could not be run."""
        return self.kind is not Kind.SKIPPED


def compare(scenario: Scenario, ranks: int, records: Sequence[tuple[int, Record]]) -> Result:
    """Judge a scenario whose ranks all came to its end; `records` are its journal lines with their ranks."""
    records = trainerlog.attach(records)
    first = [one for rank, one in records if rank == 0 and one["event"] == "step"]
    notes = tuple(str(one["note"]) for rank, one in records if rank == 0 and one["event"] == "note")
    if not first:
        reason = notes[0] if notes else "no step was taken"
        return Result(scenario, Kind.NOT_STEPPED, reason, notes=notes[1:])
    notes += trainerlog.explain(records, first) + _rough_note(scenario, first)
    judged = [judge_step(scenario, ranks, one) for one in first]
    views = tuple(
        _view(one, judgement, _losses(records, index)) for index, (one, judgement) in enumerate(zip(first, judged, strict=True))
    )
    result = _overall(scenario, judged, views)
    if result.good:
        result = _others(result, ranks, first, records, views)
    return replace(result, steps=views, notes=(*result.notes, *notes))


def _rough_note(scenario: Scenario, first: list[Record]) -> tuple[str, ...]:
    """Says where DeepSpeed's API did not give the parameters and the model's own copy was read instead."""
    names = sorted({name for one in first for name in one.get("rough", ())})
    if not names or scenario.dtype == "fp32":
        return ()
    note = (
        f"{len(names)} parameters were read from the model's own {scenario.dtype} copy, since DeepSpeed's API gives no "
        "matching master; tolerances are wider"
    )
    return (note,)


def _losses(records: Sequence[tuple[int, Record]], step: int) -> list[float]:
    """The losses of one step over all ranks, rank-major."""
    by_rank = [(rank, one) for rank, one in records if one["event"] == "step" and one["step"] == step]
    return [number(loss) for _, one in sorted(by_rank, key=lambda item: item[0]) for loss in one["losses"]]


def _view(record: Record, judgement: StepJudgement, losses: list[float]) -> StepView:
    expected = [number(loss) for loss in record["reference_losses"]]
    diagnoses = [one.update for one in judgement.seen if not one.silent]
    grads = [one.grad.ratio for one in judgement.seen if one.grad and not one.silent]
    norm = record.get("norm")
    logged = record.get("logged", {})
    return StepView(
        step=record["step"] + 1,
        loss=number(logged["loss"]) if "loss" in logged else _mean(losses),
        reference_loss=_mean(expected),
        lr=number(logged.get("learning_rate", record.get("lr"))),
        norm=None if norm is None else number(norm),
        reference_norm=judgement.reference_norm,
        ratio=farthest_from_one(one.ratio for one in diagnoses),
        error=max((one.error for one in diagnoses), default=0.0),
        gradient_ratio=_median(grads),
        expected_lr=record.get("expected_lr"),
    )


def farthest_from_one(ratios: Iterable[float]) -> float:
    """The ratio whose logarithm is largest; zero and infinity are farthest of all."""
    return max(ratios, key=lambda value: abs(math.log(value)) if 0 < value < math.inf else math.inf, default=1.0)


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _overall(scenario: Scenario, judged: list[StepJudgement], views: tuple[StepView, ...]) -> Result:
    bad = [(index, one) for index, one in enumerate(judged) if one.kind is not Kind.EQUAL]
    error = max((view.error for view in views), default=0.0)
    ratio = farthest_from_one(view.ratio for view in views)
    if not bad:
        return Result(scenario, Kind.EQUAL, "equal", error, ratio)
    index, worst = next(((i, one) for i, one in bad if one.kind is not Kind.CORRUPTED), bad[0])
    text = worst.text
    if index and "since step" not in text and worst.kind is not Kind.NOT_CLEARED:
        text = f"{text}, since step {bad[0][0] + 1}"
    return Result(scenario, worst.kind, text, error, ratio, worst.parameters, worst.coefficients)


def _others(
    result: Result, ranks: int, first: list[Record], records: Sequence[tuple[int, Record]], views: tuple[StepView, ...]
) -> Result:
    """Everything besides the updates: ranks, losses, parameters between steps; then what was only reported wrongly."""
    checks = (
        _rank_difference(records),
        _between(first),
        _rate_difference(first),
        _loss_difference(result.scenario, first, records),
        _logged_loss_difference(result.scenario, views),
    )
    for found in checks:
        if found:
            return replace(result, kind=found[0], text=found[1])
    found = _norms(result.scenario, views)
    if found:
        return replace(result, kind=found[0], text=found[1])
    note = _gradients_read(result.scenario, ranks, first)
    return replace(result, notes=(note,)) if note else result


def _rank_difference(records: Sequence[tuple[int, Record]]) -> tuple[Kind, str] | None:
    digests = {(one["step"], rank): one["digest"] for rank, one in records if one["event"] == "step" and one.get("digest")}
    for step, rank in sorted(digests):
        mine, zero = digests[step, rank], digests.get((step, 0), {})
        for name, values in mine.items():
            pairs = zip(values, zero.get(name, values), strict=True)
            if any(abs(number(a) - number(b)) > 1e-6 * (1 + abs(number(b))) for a, b in pairs):
                return Kind.RANKS_DIFFER, f"ranks differ since step {step + 1}: `{name}` on rank {rank} is not that of rank 0"
    return None


def _between(first: list[Record]) -> tuple[Kind, str] | None:
    for one in first:
        if number(one.get("moved_between", 0.0)) > 0:
            return Kind.CHANGED_BETWEEN, f"parameters changed between step {one['step']} and step {one['step'] + 1}"
    return None


def _loss_difference(scenario: Scenario, first: list[Record], records: Sequence[tuple[int, Record]]) -> tuple[Kind, str] | None:
    if scenario.path == TRAINER:
        return None  # what the model returns there is divided by the tokens of the whole step; the logged loss is compared
    allowed = LOSS_TOLERANCE[scenario.dtype]
    for one in first:
        for seen, wanted in zip(_losses(records, one["step"]), one["reference_losses"], strict=False):
            if not abs(seen - number(wanted)) <= allowed * (1 + abs(number(wanted))):
                return Kind.WRONG_LOSS, f"loss {seen:.4g} in step {one['step'] + 1}, plain torch has {number(wanted):.4g}"
    return None


def _logged_loss_difference(scenario: Scenario, views: tuple[StepView, ...]) -> tuple[Kind, str] | None:
    if scenario.path != TRAINER:
        return None
    for view in views:
        if view.loss is None or view.reference_loss is None:
            continue
        ratio = view.loss / view.reference_loss if view.reference_loss else 1.0
        if not abs(ratio - 1) <= LOSS_TOLERANCE[scenario.dtype] + LOGGED_DIGITS / abs(view.reference_loss or 1.0):
            scaled = scale_text(ratio, Shape(1, scenario.accumulation), LOSS_TOLERANCE[scenario.dtype])
            return (
                Kind.WRONG_LOSS,
                f"logged loss {view.loss:.4g} in step {view.step}, plain torch has {view.reference_loss:.4g}: {scaled}",
            )
    return None


def _rate_difference(first: list[Record]) -> tuple[Kind, str] | None:
    for one in first:
        wanted = one.get("expected_lr")
        if wanted is None:
            continue
        have = number(one.get("lr"))
        if not abs(have - wanted) <= 1e-6 * max(1.0, abs(wanted)):
            why = " (the optimizer skipped steps on overflow, so the schedule stands)" if one.get("skipped_steps") else ""
            return Kind.WRONG_RATE, f"learning rate {have:.4g} in step {one['step'] + 1}, the schedule says {wanted:.4g}{why}"
    return None


def _norms(scenario: Scenario, views: tuple[StepView, ...]) -> tuple[Kind, str] | None:
    pairs = [(view.norm, view.reference_norm) for view in views if view.norm is not None and view.reference_norm]
    if len(pairs) < 2:  # noqa: PLR2004 - one norm cannot be constant
        return None
    seen, wanted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    spread = max(wanted) / min(wanted) - 1
    if spread > NORM_TOLERANCE and max(seen) - min(seen) <= 1e-9 * abs(max(seen)) and max(seen) > 0:
        return Kind.CONSTANT_NORM, (
            f"constant norm: {seen[0]:.6g} reported in every step, plain torch has {wanted[0]:.4g} to {wanted[-1]:.4g}"
        )
    allowed = 8 * ROUNDOFF[scenario.dtype] + NORM_TOLERANCE
    for step, (have, want) in enumerate(pairs, 1):
        if not abs(have / want - 1) <= allowed:
            scaled = scale_text(have / want, Shape(1, scenario.accumulation), allowed)
            facts = f"the reported gradient norm is {have:.5g} in step {step}, plain torch has {want:.4g}"
            return Kind.WRONG_REPORT, f"updates equal, but {facts}: {scaled}"
    return None


def _gradients_read(scenario: Scenario, ranks: int, first: list[Record]) -> str:
    """A note where the updates are right and only the gradient that DeepSpeed's API gives is not."""
    for one in first:
        for seen in judge_step(scenario, ranks, one).seen:
            if seen.grad and not seen.silent and seen.grad.kind not in (Kind.EQUAL, Kind.FROZEN):
                return (
                    "the updates are right, but the gradient that DeepSpeed's API gives is not: "
                    f"{seen.grad.text} in `{seen.name}`, step {one['step'] + 1}"
                )
    return ""
