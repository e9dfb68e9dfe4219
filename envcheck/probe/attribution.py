"""Name a fault from inner products: which combination of the true (rank, micro-batch) gradients was observed.

Everything is pure arithmetic on small numbers. With gradients g_1..g_K (rank-major), an observation o and the Gram
matrix G = <g_k, g_l>, b_k = <o, g_k> and n = <o, o>, the distance of o from a combination c is

    |o - sum c_k g_k|^2 = n - 2 c.b + c.G.c

so hypotheses are tested, and coefficients fitted, without ever holding a gradient.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: At most this many micro-batches (or ranks) are tried in all subsets; beyond, only single ones.
SUBSETS_UP_TO = 6

#: Loss scales begin at this power of two.
LOSS_SCALE_POWER = 8

#: A large factor this near to a power of two is that power.
POWER_TOLERANCE = 0.02

#: A factor known no better than this is given no meaning.
LOOSE = 0.2


class Kind(str, Enum):
    """What an observation is."""

    EQUAL = "equal"
    ZERO = "zero"
    NON_FINITE = "non-finite"
    CONSTANT_NORM = "constant norm"
    SCALED = "scaled"
    DROPPED = "dropped"
    NOT_AVERAGED = "not averaged"
    NOT_CLEARED = "not cleared"
    SWAPPED = "swapped"
    CORRUPTED = "corrupted"
    NOT_STEPPED = "not stepped"
    STEPPED_TWICE = "stepped twice"
    FROZEN = "frozen"
    SKIPPED_STEP = "step skipped"
    RANKS_DIFFER = "ranks differ"
    WRONG_LOSS = "wrong loss"
    WRONG_RATE = "wrong learning rate"
    CHANGED_BETWEEN = "changed between steps"
    WRONG_REPORT = "wrong report"
    CRASHED = "crashed"
    HUNG = "hung"
    SKIPPED = "skipped"


class Shape(NamedTuple):
    """How the gradients are laid out: K = ranks * accumulation, rank-major; `earlier` adds one more row."""

    ranks: int
    accumulation: int
    earlier: bool = False

    @property
    def count(self) -> int:  # type: ignore[override]
        """K, without the row for earlier steps."""
        return self.ranks * self.accumulation


@dataclass(frozen=True, slots=True)
class Products:
    """The inner products of one parameter (or of many, added up).

    Attributes:
        gram: (K, K), or (K+1, K+1) with the sum of earlier steps' expected gradients as the last row.
        dots: <o, g_k>, of the same length.
        square: <o, o>.
    """

    gram: Sequence[Sequence[float]]
    dots: Sequence[float]
    square: float

    def distance(self, coefficients: Sequence[float]) -> float:
        """|o - sum c_k g_k|."""
        cross = sum(c * d for c, d in zip(coefficients, self.dots, strict=True))
        return math.sqrt(max(0.0, self.square - 2 * cross + self.length(coefficients) ** 2))

    def length(self, coefficients: Sequence[float]) -> float:
        """|sum c_k g_k|."""
        total = sum(
            left * right * self.gram[i][j]
            for i, left in enumerate(coefficients)
            if left
            for j, right in enumerate(coefficients)
            if right
        )
        return math.sqrt(max(0.0, total))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A fault with its pattern: what to multiply each healthy coefficient by, up to a common factor."""

    kind: Kind
    text: str
    pattern: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        kind: The verdict.
        text: The verdict in words, `only micro-batch 3 of 3 counted`.
        factor: Common factor of the pattern, 1.0 when healthy.
        error: |o - expected| / |expected|.
        ratio: |o| / |expected|.
        coefficients: Fitted c_k divided by the healthy coefficient (1 is healthy), when a fit was made.
    """

    kind: Kind
    text: str
    factor: float = 1.0
    error: float = 0.0
    ratio: float = 1.0
    coefficients: tuple[float, ...] = ()


def healthy(shape: Shape, scale: float) -> list[float]:
    """The right coefficients: `scale` / K for every gradient, nothing of earlier steps."""
    return [scale / shape.count] * shape.count + [0.0] * shape.earlier


def diagnose(products: Products, shape: Shape, scale: float, tolerance: float, floor: float = 0.0) -> Diagnosis:
    """Explain an observation.

    Args:
        products: Its inner products.
        shape: The layout of the gradients.
        scale: What the mean gradient is multiplied by when all is well (the clipping factor).
        tolerance: Largest |o - expected| (absolute) that counts as equal.
        floor: The part of it that does not shrink with the observation: the rounding of what the observation was read from.

    Returns:
        The simplest hypothesis that fits within the tolerance (relative to the size of what it predicts), else `corrupted`.
    """
    right = healthy(shape, scale)
    expected = products.length(right)
    error = products.distance(right)
    size = math.sqrt(max(0.0, products.square))
    facts = (error / expected if expected else math.inf if error > tolerance else 0.0, size / expected if expected else 1.0)
    if error <= tolerance:
        return Diagnosis(Kind.EQUAL, "equal", 1.0, *facts)
    if size <= floor:
        return Diagnosis(Kind.ZERO, "zero", 0.0, *facts)
    found = _best(products, shape, right, Slack(max(0.0, tolerance - floor) / expected, floor)) if expected else None
    if found:
        return Diagnosis(*found, *facts)
    return _fitted(products, right, tolerance, facts)


class Slack(NamedTuple):
    """What may remain unexplained: `relative` to the size of the explanation, plus `floor`."""

    relative: float
    floor: float

    def of(self, length: float) -> float:
        """The slack for an explanation of that length."""
        return self.relative * length + self.floor


def _best(products: Products, shape: Shape, right: list[float], slack: Slack) -> tuple[Kind, str, float] | None:
    """The first group of hypotheses in which one fits, and in it the one that fits best."""
    for group in hypotheses(shape):
        fits = []
        for one in group:
            pattern = [p * right[0] for p in one.pattern]
            length = products.length(pattern)
            if not length:
                continue
            factor = sum(c * d for c, d in zip(pattern, products.dots, strict=True)) / length**2
            rest = products.distance([factor * c for c in pattern])
            allowed = slack.of(abs(factor) * length)
            if rest <= allowed:
                near = 2 * slack.of(abs(factor) * length) / (abs(factor) * length) if factor else 0.0
                fits.append((abs(factor - 1) > near, rest / allowed if allowed else 0.0, factor, near, one))
        if fits:
            _, _, factor, near, one = min(fits, key=lambda fit: fit[:2])
            return _named(one, factor, shape, near)
    return None


def _named(one: Hypothesis, factor: float, shape: Shape, slack: float) -> tuple[Kind, str, float]:
    if one.kind is Kind.SCALED:
        return Kind.SCALED, scale_text(factor, shape, slack), factor
    if abs(factor - 1) <= max(slack, 1e-3):
        return one.kind, one.text, factor
    return one.kind, f"{one.text}, and {scale_text(factor, shape, slack)}", factor


def hypotheses(shape: Shape) -> Iterator[list[Hypothesis]]:
    """Groups of hypotheses, simplest first."""
    ones = (1.0,) * shape.count
    tail = (0.0,) * shape.earlier
    yield [Hypothesis(Kind.SCALED, "", ones + tail)]
    yield list(_subsets(shape, tail))
    if shape.earlier:
        yield [
            Hypothesis(Kind.NOT_CLEARED, "gradients of earlier steps never cleared", (*ones, float(shape.count))),
            Hypothesis(Kind.NOT_CLEARED, "only the gradients of earlier steps", (*(0.0,) * shape.count, float(shape.count))),
        ]
    yield list(_single(shape, tail))


def _subsets(shape: Shape, tail: tuple[float, ...]) -> Iterator[Hypothesis]:
    for kept in proper_subsets(shape.accumulation):
        pattern = tuple(float(micro in kept) for _ in range(shape.ranks) for micro in range(shape.accumulation))
        yield Hypothesis(Kind.DROPPED, subset_text("micro-batch", kept, shape.accumulation), pattern + tail)
    for kept in proper_subsets(shape.ranks):
        pattern = tuple(float(rank in kept) for rank in range(shape.ranks) for _ in range(shape.accumulation))
        yield Hypothesis(Kind.DROPPED, rank_text(kept, shape.ranks), pattern + tail)


def _single(shape: Shape, tail: tuple[float, ...]) -> Iterator[Hypothesis]:
    """One gradient missing; one rank's own gradient in place of the mean over ranks, for one micro-batch or for all."""
    places = list(itertools.product(range(shape.ranks), range(shape.accumulation)))
    for rank, micro in places:
        pattern = tuple(float((r, m) != (rank, micro)) for r, m in places)
        yield Hypothesis(Kind.DROPPED, f"micro-batch {micro + 1} of {shape.accumulation} missing on rank {rank}", pattern + tail)
        own = tuple(1.0 if m != micro else float(shape.ranks if r == rank else 0) for r, m in places)
        yield Hypothesis(
            Kind.NOT_AVERAGED,
            f"micro-batch {micro + 1} of {shape.accumulation} not averaged over the ranks (rank {rank}'s own)",
            own + tail,
        )


def proper_subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Every non-empty proper subset of range(count), single members and single absences first."""
    sizes = sorted(range(1, count), key=lambda size: min(size, count - size))
    if count > SUBSETS_UP_TO:
        sizes = [1, count - 1]
    for size in sizes:
        yield from itertools.combinations(range(count), size)


def subset_text(noun: str, kept: tuple[int, ...], count: int) -> str:
    """`only micro-batch 3 of 3 counted`, `micro-batch 2 of 3 missing`."""
    if len(kept) == 1:
        return f"only {noun} {kept[0] + 1} of {count} counted"
    missing = [str(index + 1) for index in range(count) if index not in kept]
    return f"{noun}{'es' if len(missing) > 1 else ''} {' and '.join(missing)} of {count} missing"


def rank_text(kept: tuple[int, ...], count: int) -> str:
    """`rank 1 missing`, counted from 0 as ranks are."""
    missing = [str(rank) for rank in range(count) if rank not in kept]
    return f"rank{'s' if len(missing) > 1 else ''} {' and '.join(missing)} missing"


def scale_text(factor: float, shape: Shape, slack: float) -> str:
    """A factor in words: what it comes from, where that is plain. Of the divisions that it counts, one is right."""
    close = max(slack, 1e-3)
    if not factor:
        return "scaled by 0"
    value, text = min(_meanings(shape), key=lambda one: abs(factor / one[0] - 1), default=(math.inf, ""))
    if close < LOOSE and abs(factor / value - 1) <= close:
        return f"scaled by {factor_text(factor, close)}: {text}"
    loss_scale, text = _loss_scale_too(factor, shape)
    return f"scaled by {factor_text(loss_scale, close)}" + (f", and {text}" if text else "")


def _meanings(shape: Shape) -> list[tuple[float, str]]:
    """Factors that have a meaning, and which; where ranks and accumulation are the same number it can be either."""
    ranks, steps = f"the ranks ({shape.ranks})", f"the accumulation steps ({shape.accumulation})"
    if shape.ranks == shape.accumulation:
        ranks = steps = f"the accumulation steps or the ranks ({shape.ranks})"
    found = [
        (float(shape.ranks), f"multiplied by {ranks}"),
        (1 / shape.ranks, f"divided by {ranks} twice"),
        (float(shape.accumulation), f"multiplied by {steps}"),
        *_divisions(shape, steps),
    ]
    return [(value, text) for value, text in found if value != 1]


def _divisions(shape: Shape, steps: str) -> list[tuple[float, str]]:
    return [
        (1 / shape.accumulation, f"divided by {steps} twice"),
        (1 / shape.accumulation**2, f"divided by {steps} three times"),
    ]


def _loss_scale_too(factor: float, shape: Shape) -> tuple[float, str]:
    """A loss scale that was not paired, together with divisions by the accumulation; told apart where that is no power of two."""
    if not _power(factor) and shape.accumulation & (shape.accumulation - 1):
        for value, text in _divisions(shape, f"the accumulation steps ({shape.accumulation})"):
            if _power(factor / value):
                return _power(factor / value), text
    return factor, ""


def _power(factor: float) -> float:
    """The power of two (a loss scale) that a very large or very small factor is within 2 %, or 0."""
    power = round(math.log2(abs(factor))) if factor else 0
    near = abs(power) >= LOSS_SCALE_POWER and abs(abs(factor) / 2.0**power - 1) < POWER_TOLERANCE
    return math.copysign(2.0**power, factor) if near else 0.0


def factor_text(factor: float, close: float) -> str:
    """`0.5`, `1/3`, `65536`, `1/65536` (a large factor within 2 % of a power of two is that power: an unpaired loss scale)."""
    factor = _power(factor) or factor
    if close >= LOOSE and not _power(factor):
        return f"about {factor:.1g}"
    if factor and abs(factor) < 1:
        inverse = 1 / factor
        whole = round(inverse)
        if abs(inverse / whole - 1) <= close:
            return f"1/{whole}" if whole > 0 else f"-1/{-whole}"
    elif abs(factor) > 1 and abs(factor / round(factor) - 1) <= close:
        return str(round(factor))
    return f"{factor:.3g}"


def _fitted(products: Products, right: list[float], tolerance: float, facts: tuple[float, float]) -> Diagnosis:
    coefficients = fit(products, right)
    shown = tuple(round(c / right[0], 3) for c in coefficients)
    if products.distance(coefficients) > max(tolerance, 1e-6 * math.sqrt(products.square)):
        return Diagnosis(Kind.CORRUPTED, "not a combination of the true gradients", math.nan, *facts, shown)
    listed = ", ".join(f"{value:.2f}" for value in shown)
    return Diagnosis(Kind.CORRUPTED, f"micro-batches wrongly weighted: {listed} instead of 1", math.nan, *facts, shown)


def fit(products: Products, right: Sequence[float]) -> list[float]:
    """Least-squares coefficients; where the gradients do not determine them, those nearest to the healthy ones.

    Solves (G + eps) d = b - G c0 by Gaussian elimination with pivoting and returns c0 + d.
    """
    count = len(right)
    trace = sum(products.gram[k][k] for k in range(count))
    ridge = 1e-10 * trace / count if trace else 1.0
    rows = [
        [products.gram[i][j] + (ridge if i == j else 0.0) for j in range(count)]
        + [products.dots[i] - sum(products.gram[i][j] * right[j] for j in range(count))]
        for i in range(count)
    ]
    return [base + change for base, change in zip(right, solve(rows), strict=True)]


def solve(rows: list[list[float]]) -> list[float]:
    """Solve a square linear system given as rows of [A | y]; a singular direction gets 0."""
    count = len(rows)
    for column in range(count):
        pivot = max(range(column, count), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        head = rows[column][column]
        if head == 0:
            continue
        for row in range(column + 1, count):
            factor = rows[row][column] / head
            rows[row] = [value - factor * top for value, top in zip(rows[row], rows[column], strict=True)]
    answer = [0.0] * count
    for row in reversed(range(count)):
        head = rows[row][row]
        rest = rows[row][count] - sum(rows[row][k] * answer[k] for k in range(row + 1, count))
        answer[row] = rest / head if head else 0.0
    return answer


def add(parts: Sequence[Products]) -> Products:
    """The inner products of several parameters taken as one long vector."""
    count = len(parts[0].dots)
    return Products(
        [[math.fsum(part.gram[i][j] for part in parts) for j in range(count)] for i in range(count)],
        [math.fsum(part.dots[i] for part in parts) for i in range(count)],
        math.fsum(part.square for part in parts),
    )
