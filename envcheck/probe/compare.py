"""Judge a scenario: what its ranks recorded, against what plain torch says. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from envcheck.probe import trainerlog
from envcheck.probe.attribution import Diagnosis, Kind, Products, Shape, add, diagnose, healthy, scale_text
from envcheck.probe.spec import TRAINER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.probe.spec import Scenario

#: Unit roundoff of what gradients are summed in. fp32 gets 2^-20 and not 2^-24: sums in another order over a few dozen terms.
ROUNDOFF = {"fp32": 2.0**-20, "bf16": 2.0**-8, "fp16": 2.0**-11}

#: Unit roundoff of the float32 master copies that updates are read from, and of working copies where there are none.
READ_ROUNDOFF = {"master": 2.0**-23, "bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-23}

#: Largest relative difference of a loss from the float64 one: a few roundings of the logits.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 0.04, "fp16": 0.01}

#: The Trainer logs the loss rounded to four digits after the point.
LOGGED_DIGITS = 1e-4

#: Kinds that say something about a report of DeepSpeed's, while the training itself is right.
REPORT_ONLY = (Kind.WRONG_REPORT,)

Record = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Seen:
    """One parameter in one step: diagnosis of its update and, where it could be read, of its gradient."""

    name: str
    update: Diagnosis
    grad: Diagnosis | None
    products: Products | None
    tolerance: float
    floor: float
    silent: bool = False


@dataclass(slots=True)
class StepJudgement:
    """What one step comes to."""

    kind: Kind
    text: str
    parameters: tuple[tuple[str, str], ...] = ()
    coefficients: tuple[float, ...] = ()
    seen: list[Seen] = field(default_factory=list)
    scale: float = 1.0
    reference_norm: float = 0.0


def number(value: object) -> float:
    """A number of the journal; the words nan and inf are numbers there, anything else is nan."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


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
    views = tuple(_view(one, judgement, _losses(records, index)) for index, (one, judgement) in enumerate(zip(first, judged, strict=True)))
    result = _overall(scenario, judged, views)
    if result.good:
        result = _others(result, ranks, first, records, views)
    return replace(result, steps=views, notes=(*result.notes, *notes))


def _rough_note(scenario: Scenario, first: list[Record]) -> tuple[str, ...]:
    """Says where DeepSpeed's API did not give the parameters and the model's own copy was read instead."""
    names = sorted({name for one in first for name in one.get("rough", ())})
    if not names or scenario.dtype == "fp32":
        return ()
    return (f"{len(names)} parameters were read from the model's own {scenario.dtype} copy, since DeepSpeed's API gives no matching master; tolerances are wider",)


def judge_step(scenario: Scenario, ranks: int, record: Record) -> StepJudgement:
    """Judge one step by its updates, and use its gradients to explain."""
    entries = record["params"]
    earlier = len(entries[0]["gram"]) > ranks * scenario.accumulation
    shape = Shape(ranks, scenario.accumulation, earlier)
    broken = _non_finite(record, ranks, scenario.dtype)
    if broken:
        return StepJudgement(Kind.NON_FINITE, broken)
    grams = [_matrix(entry["gram"]) for entry in entries]
    reference_norm = math.sqrt(sum(Products(gram, [0.0] * len(gram), 0.0).length(healthy(shape, 1.0)) ** 2 for gram in grams))
    clip = number(record.get("clip") or 0.0)
    scale = min(1.0, clip / (reference_norm + 1e-6)) if clip > 0 else 1.0
    seen = [_seen(scenario, shape, entry, gram, scale, record) for entry, gram in zip(entries, grams, strict=True)]
    judgement = _judge(seen, shape, scale, record)
    judgement.seen, judgement.scale, judgement.reference_norm = seen, scale, reference_norm
    return judgement


def _matrix(rows: Sequence[Sequence[Any]]) -> list[list[float]]:
    return [[number(value) for value in row] for row in rows]


def _non_finite(record: Record, ranks: int, dtype: str) -> str:
    """Which parameter is not finite, or an empty string; says so when plain torch has the same.

    Under fp16 an overflow that is skipped is how loss scaling works; elsewhere a skipped step hides a non-finite gradient.
    """
    step = record["step"] + 1
    for index, loss in enumerate(record["reference_losses"]):
        if not math.isfinite(number(loss)):
            each = len(record["reference_losses"]) // ranks
            return f"loss non-finite in plain torch too: step {step}, rank {index // each}, micro-batch {index % each + 1}"
    names = [entry["name"] for entry in record["params"] if entry["update"]["state"] == "non-finite"]
    skipped = ""
    if not names and record.get("overflow") and dtype != "fp16":
        names = [entry["name"] for entry in record["params"] if entry.get("grad", {}).get("state") == "non-finite"]
        skipped = " (the optimizer skipped the step)"
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"non-finite since step {step} in `{names[0]}`{more}{skipped}"


def tolerances(scenario: Scenario, entry: Record, ranks: int, scale: float, lr: float, expected: float, rough: bool) -> tuple[float, float]:
    """(largest |update - expected| that is equal, the part of it that comes from reading the parameters).

    The first is a sum of: the rounding of summing accumulation + ranks terms in the dtype, relative to the expected size; three
    times the rounding that plain torch itself shows in this dtype for this parameter; and the floor, one unit roundoff of the
    parameter's size for each of the two readings an update is the difference of, over the learning rate.
    """
    kind = scenario.dtype if rough else "master"
    floor = 2 * READ_ROUNDOFF[kind] * number(entry["size"]) / (lr or 1.0)
    terms = scenario.accumulation + ranks + 2
    return terms * ROUNDOFF[scenario.dtype] * expected + 3 * scale * number(entry.get("noise", 0.0)) + floor, floor


def _seen(scenario: Scenario, shape: Shape, entry: Record, gram: list[list[float]], scale: float, record: Record) -> Seen:  # noqa: PLR0913 - one place that knows all
    expected = Products(gram, [0.0] * len(gram), 0.0).length(healthy(shape, scale))
    lr = number(record.get("lr") or 0.0)
    rough = entry["name"] in record.get("rough", ())
    tolerance, floor = tolerances(scenario, entry, shape.ranks, scale, lr, expected, rough)
    update = _products(entry["update"], gram)
    found = diagnose(update, shape, scale, tolerance, floor) if update else _unread(entry["update"])
    grad = None
    if "grad" in entry:
        read = _products(entry["grad"], gram)
        noise = (tolerance - floor) / scale if scale else 0.0
        grad = diagnose(read, shape, 1.0, noise) if read else _unread(entry["grad"])
    if update and found.kind is Kind.CORRUPTED:
        found = _swapped(entry["update"], update, record, scale, tolerance) or found
    return Seen(entry["name"], found, grad, update, tolerance, floor, silent=expected <= floor)


def _products(observation: Record, gram: list[list[float]]) -> Products | None:
    if observation["state"] != "ok":
        return None
    return Products(gram, [number(value) for value in observation["dots"]], number(observation["square"]))


def _unread(observation: Record) -> Diagnosis:
    if observation["state"] == "non-finite":
        return Diagnosis(Kind.NON_FINITE, "non-finite", math.nan, math.inf, math.inf)
    if observation["state"] == "none":
        return Diagnosis(Kind.FROZEN, "no gradient", 0.0, 1.0, 0.0)
    return Diagnosis(Kind.CORRUPTED, f"has {observation.get('numel')} elements", math.nan, math.inf, math.inf)


def _swapped(observation: Record, update: Products, record: Record, scale: float, tolerance: float) -> Diagnosis | None:
    """The update of another parameter of the same shape?"""
    count = len(record["reference_losses"])
    for entry in record["params"]:
        if entry["name"] in observation.get("others", {}):
            rows = _matrix(entry["gram"])
            size = math.sqrt(sum(rows[i][j] for i in range(count) for j in range(count))) / count * scale
            cross = number(observation["others"][entry["name"]]) * scale
            if math.sqrt(max(0.0, update.square - 2 * cross + size**2)) <= max(tolerance, 0.05 * size):
                return Diagnosis(Kind.SWAPPED, f"has the gradient of `{entry['name']}`", 1.0, 1.0, 1.0)
    return None


def _judge(seen: list[Seen], shape: Shape, scale: float, record: Record) -> StepJudgement:
    if number(record.get("lr") or 0.0) == 0 and number(record.get("expected_lr") or 1.0 if record.get("expected_lr") is None else record["expected_lr"]) == 0:
        still = [one for one in seen if one.products and one.products.square > one.floor**2]
        return StepJudgement(Kind.CORRUPTED, f"moved although lr is 0: `{still[0].name}`") if still else StepJudgement(Kind.EQUAL, "equal")
    wrong = [one for one in seen if one.update.kind is not Kind.EQUAL]
    live = [one for one in seen if not one.silent]
    if not wrong:
        return StepJudgement(Kind.EQUAL, "equal")
    if record.get("overflow") or record.get("skipped_now"):
        return StepJudgement(Kind.SKIPPED_STEP, f"step {record['step'] + 1} skipped on overflow")
    listed = tuple((one.name, _text_of(one)) for one in wrong[:10])
    if live and all(one.update.kind is Kind.ZERO for one in live):
        return StepJudgement(*_not_stepped(live, record), listed)
    if len(wrong) >= max(2, len(live) - 1):
        whole = _whole(wrong, shape, scale)
        if whole:
            return StepJudgement(whole.kind, whole.text, listed, whole.coefficients)
    return _partial(wrong, listed)


def _not_stepped(live: list[Seen], record: Record) -> tuple[Kind, str]:
    if not number(record.get("lr") or 0.0):
        return Kind.NOT_STEPPED, "not stepped: lr 0"
    grads = [one.grad.kind for one in live if one.grad]
    if grads and all(kind is Kind.ZERO for kind in grads):
        return Kind.ZERO, "zero: every gradient is zero, no parameter moved"
    return Kind.NOT_STEPPED, "not stepped: no parameter moved"


def _whole(wrong: list[Seen], shape: Shape, scale: float) -> Diagnosis | None:
    """One explanation for all parameters together, if there is one."""
    parts = [one for one in wrong if one.products]
    if not parts:
        return None
    tolerance = math.sqrt(sum(one.tolerance**2 for one in parts))
    floor = math.sqrt(sum(one.floor**2 for one in parts))
    found = diagnose(add([one.products for one in parts if one.products]), shape, scale, tolerance, floor)
    if found.kind is Kind.SCALED and abs(found.factor - 2) < 0.05 and all(one.grad and one.grad.kind is Kind.EQUAL for one in parts):
        return replace(found, kind=Kind.STEPPED_TWICE, text="stepped twice: the update is twice the gradient")
    if found.kind is Kind.ZERO:
        return _largest_factor(parts) or found
    if found.kind is not Kind.CORRUPTED:
        return found
    texts = Counter(one.update.text for one in parts)
    text, count = texts.most_common(1)[0]
    if count * 2 > len(parts):
        return replace(next(one.update for one in parts if one.update.text == text), coefficients=found.coefficients)
    return found


def _largest_factor(parts: list[Seen]) -> Diagnosis | None:
    """The factor of the parameter whose update stands out most from rounding, where only some do."""
    scaled = [one for one in parts if one.update.kind is Kind.SCALED and one.products and one.floor]
    if not scaled:
        return None
    return max(scaled, key=lambda one: one.products.square / one.floor**2 if one.products else 0.0).update


def _text_of(one: Seen) -> str:
    if one.update.kind is Kind.ZERO and one.grad is not None:
        return {
            Kind.EQUAL: "not stepped although its gradient is right",
            Kind.FROZEN: "frozen: no gradient, not stepped",
        }.get(one.grad.kind, "zero gradient")
    return one.update.text


def _partial(wrong: list[Seen], listed: tuple[tuple[str, str], ...]) -> StepJudgement:
    first = wrong[0]
    text = _text_of(first)
    kind = first.update.kind
    if kind is Kind.ZERO and first.grad is not None:
        kind = {Kind.EQUAL: Kind.NOT_STEPPED, Kind.FROZEN: Kind.FROZEN}.get(first.grad.kind, Kind.ZERO)
    same = [one for one in wrong if _text_of(one) == text or one.update.kind is kind]
    names = f"`{first.name}`" + (f" and {len(same) - 1} more" if len(same) > 1 else "")
    return StepJudgement(kind, f"{text} in {names}", listed, first.update.coefficients)


def _losses(records: Sequence[tuple[int, Record]], step: int) -> list[float]:
    """The losses of one step over all ranks, rank-major."""
    by_rank = [(rank, one) for rank, one in records if one["event"] == "step" and one["step"] == step]
    return [number(loss) for _, one in sorted(by_rank, key=lambda item: item[0]) for loss in one["losses"]]


def _view(record: Record, judgement: StepJudgement, losses: list[float]) -> StepView:
    expected = [number(loss) for loss in record["reference_losses"]]
    diagnoses = [one.update for one in judgement.seen if not one.silent]
    ratio = max((one.ratio for one in diagnoses), key=lambda value: abs(math.log(value)) if 0 < value < math.inf else math.inf, default=1.0)
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
        ratio=ratio,
        error=max((one.error for one in diagnoses), default=0.0),
        gradient_ratio=_median(grads),
        expected_lr=record.get("expected_lr"),
    )


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _overall(scenario: Scenario, judged: list[StepJudgement], views: tuple[StepView, ...]) -> Result:
    bad = [(index, one) for index, one in enumerate(judged) if one.kind is not Kind.EQUAL]
    error = max((view.error for view in views), default=0.0)
    ratio = max((view.ratio for view in views), key=lambda value: abs(math.log(value)) if 0 < value < math.inf else math.inf, default=1.0)
    if not bad:
        return Result(scenario, Kind.EQUAL, "equal", error, ratio)
    index, worst = next(((i, one) for i, one in bad if one.kind is not Kind.CORRUPTED), bad[0])
    text = worst.text
    if index and "since step" not in text and worst.kind is not Kind.NOT_CLEARED:
        text = f"{text}, since step {bad[0][0] + 1}"
    return Result(scenario, worst.kind, text, error, ratio, worst.parameters, worst.coefficients)


def _others(result: Result, ranks: int, first: list[Record], records: Sequence[tuple[int, Record]], views: tuple[StepView, ...]) -> Result:
    """Everything besides the updates: ranks, losses, parameters between steps; then what was only reported wrongly."""
    checks = (
        _rank_difference(records, ranks), _between(first), _rate_difference(first),
        _loss_difference(result.scenario, first, records), _logged_loss_difference(result.scenario, views),
    )  # fmt: skip
    for found in checks:
        if found:
            return replace(result, kind=found[0], text=found[1])
    found = _norms(result.scenario, views)
    if found:
        return replace(result, kind=found[0], text=found[1])
    note = _gradients_read(result.scenario, ranks, first)
    return replace(result, notes=(note,)) if note else result


def _rank_difference(records: Sequence[tuple[int, Record]], ranks: int) -> tuple[Kind, str] | None:
    digests = {(one["step"], rank): one["digest"] for rank, one in records if one["event"] == "step" and one.get("digest")}
    for step, rank in sorted(digests):
        mine, zero = digests[step, rank], digests.get((step, 0), {})
        for name, values in mine.items():
            pairs = zip(values, zero.get(name, values), strict=True)
            if any(abs(number(a) - number(b)) > 1e-6 * (1 + abs(number(b))) for a, b in pairs):
                return Kind.RANKS_DIFFER, f"ranks differ since step {step + 1}: `{name}` on rank {rank} is not that of rank 0"
    return None if ranks else None


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
            return Kind.WRONG_LOSS, f"logged loss {view.loss:.4g} in step {view.step}, plain torch has {view.reference_loss:.4g}: {scaled}"
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
    if spread > 1e-3 and max(seen) - min(seen) <= 1e-9 * abs(max(seen)) and max(seen) > 0:
        return Kind.CONSTANT_NORM, f"constant norm: {seen[0]:.6g} reported in every step, plain torch has {wanted[0]:.4g} to {wanted[-1]:.4g}"
    allowed = 8 * ROUNDOFF[scenario.dtype] + 1e-3
    for step, (have, want) in enumerate(pairs, 1):
        if not abs(have / want - 1) <= allowed:
            return Kind.WRONG_REPORT, f"updates equal, but the reported gradient norm is {have:.5g} in step {step}, plain torch has {want:.4g}"
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
