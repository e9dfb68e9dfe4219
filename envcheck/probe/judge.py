"""Judge one optimizer step: the update of every parameter against what plain torch says, its gradient to explain. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from envcheck.probe.attribution import Diagnosis, Kind, Products, Shape, add, diagnose, healthy, rank_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.probe.spec import Scenario

#: Unit roundoff of what gradients are summed in. fp32 gets 2^-20 and not 2^-24: sums in another order over a few dozen terms.
ROUNDOFF = {"fp32": 2.0**-20, "bf16": 2.0**-8, "fp16": 2.0**-11}

#: Unit roundoff of the float32 master copies that updates are read from, and of working copies where there are none.
READ_ROUNDOFF = {"master": 2.0**-23, "bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-23}

#: Relative difference within which an update is another parameter's, or twice its own gradient.
SWAP_TOLERANCE = 0.05

Record = dict[str, Any]


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
    if _rests(record):
        seen = []  # nothing was to move: no ratio of lengths has a meaning
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


def tolerances(
    scenario: Scenario, entry: Record, ranks: int, scale: float, lr: float, expected: float, *, rough: bool
) -> tuple[float, float]:
    """(largest |update - expected| that is equal, the part of it that comes from reading the parameters).

    The first is a sum of: the rounding of summing accumulation + ranks terms in the dtype, relative to the expected size; three
    times the rounding that plain torch itself shows in this dtype for this parameter; and the floor, one unit roundoff of the
    parameter's size for each of the two readings an update is the difference of, over the learning rate.
    """
    kind = scenario.dtype if rough else "master"
    floor = 2 * READ_ROUNDOFF[kind] * number(entry["size"]) / (lr or 1.0)
    terms = scenario.accumulation + ranks + 2
    return terms * ROUNDOFF[scenario.dtype] * expected + 3 * scale * number(entry.get("noise", 0.0)) + floor, floor


def _seen(scenario: Scenario, shape: Shape, entry: Record, gram: list[list[float]], scale: float, record: Record) -> Seen:
    expected = Products(gram, [0.0] * len(gram), 0.0).length(healthy(shape, scale))
    lr = number(record.get("lr") or 0.0)
    rough = entry["name"] in record.get("rough", ())
    tolerance, floor = tolerances(scenario, entry, shape.ranks, scale, lr, expected, rough=rough)
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
            if math.sqrt(max(0.0, update.square - 2 * cross + size**2)) <= max(tolerance, SWAP_TOLERANCE * size):
                return Diagnosis(Kind.SWAPPED, f"has the gradient of `{entry['name']}`", 1.0, 1.0, 1.0)
    return None


def _judge(seen: list[Seen], shape: Shape, scale: float, record: Record) -> StepJudgement:
    if _rests(record):
        still = [one for one in seen if one.products and one.products.square > one.floor**2]
        return (
            StepJudgement(Kind.CORRUPTED, f"moved although lr is 0: `{still[0].name}`")
            if still
            else StepJudgement(Kind.EQUAL, "equal")
        )
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
        whole = _own_gradients(wrong, shape) or _whole(wrong, shape, scale)
        if whole:
            return StepJudgement(whole.kind, whole.text, listed, whole.coefficients)
    return _partial(wrong, listed)


def _rests(record: Record) -> bool:
    """The schedule asks for a learning rate of zero and has it: nothing is to move."""
    return record.get("expected_lr") == 0 and not number(record.get("lr") or 0.0)


def _not_stepped(live: list[Seen], record: Record) -> tuple[Kind, str]:
    if not number(record.get("lr") or 0.0):
        return Kind.NOT_STEPPED, "not stepped: lr 0"
    grads = [one.grad.kind for one in live if one.grad]
    if grads and all(kind is Kind.ZERO for kind in grads):
        return Kind.ZERO, "zero: every gradient is zero, no parameter moved"
    return Kind.NOT_STEPPED, "not stepped: no parameter moved"


def _own_gradients(wrong: list[Seen], shape: Shape) -> Diagnosis | None:
    """Did every rank move its part of the parameters by its own gradients? A parameter in two parts shows neither alone."""
    alone = {rank_text((rank,), shape.ranks) for rank in range(shape.ranks)}
    scaled = [one for one in wrong if abs(one.update.factor / shape.ranks - 1) < SWAP_TOLERANCE]
    owners = [one.update.text.partition(",")[0] for one in scaled if one.update.text.partition(",")[0] in alone]
    if len(set(owners)) < 2 or len(wrong) - len(owners) >= shape.ranks:  # noqa: PLR2004 - else it is one rank that is missing
        return None
    worst = max(wrong, key=lambda one: one.update.error).update
    text = "not averaged over the ranks: each moved its part of the parameters by its own gradients"
    return replace(worst, kind=Kind.NOT_AVERAGED, text=text, coefficients=())


def _whole(wrong: list[Seen], shape: Shape, scale: float) -> Diagnosis | None:
    """One explanation for all parameters together, if there is one."""
    parts = [one for one in wrong if one.products]
    if not parts:
        return None
    tolerance = math.sqrt(sum(one.tolerance**2 for one in parts))
    floor = math.sqrt(sum(one.floor**2 for one in parts))
    found = diagnose(add([one.products for one in parts if one.products]), shape, scale, tolerance, floor)
    grads_right = all(one.grad and one.grad.kind is Kind.EQUAL for one in parts)
    if found.kind is Kind.SCALED and abs(found.factor - 2) < SWAP_TOLERANCE and grads_right:
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
