"""The verdict on a gradient, over drawn micro-batch gradients and planted faults."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.monitor.gradient import MOST_ROWS, judge, not_finite
from envcheck.probe.attribution import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from envcheck.monitor.records import GradientCheck

Vector = list[float]


def dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def check(rows: list[Vector], seen: Vector, shape: Shape, dtype: str = "fp32") -> GradientCheck:
    gram = [[dot(one, two) for two in rows] for one in rows]
    return judge("w", gram, [dot(one, seen) for one in rows], dot(seen, seen), shape, dtype)


def gradients(seed: int, shape: Shape, width: int = 24) -> list[Vector]:
    source = random.Random(seed)
    return [[source.gauss(0.3, 1) for _ in range(width)] for _ in range(shape.count)]


def mean(rows: Sequence[Vector]) -> Vector:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def scaled(vector: Vector, factor: float) -> Vector:
    return [value * factor for value in vector]


shapes = st.tuples(st.integers(1, 3), st.integers(1, 4)).map(lambda pair: Shape(*pair))


@given(st.integers(0, 10**6), shapes)
def test_the_mean_is_equal(seed: int, shape: Shape) -> None:
    rows = gradients(seed, shape)
    assert check(rows, mean(rows), shape).kind == "equal"


@given(st.integers(0, 10**6), shapes, st.sampled_from(["bf16", "fp16"]))
def test_rounding_of_the_dtype_is_no_fault(seed: int, shape: Shape, dtype: str) -> None:
    source = random.Random(seed + 1)
    rows = gradients(seed, shape)
    size = {"bf16": 2.0**-9, "fp16": 2.0**-12}[dtype]
    noisy = [[value * (1 + source.uniform(-size, size)) for value in row] for row in rows]
    assert check(rows, mean(noisy), shape, dtype).kind == "equal"


FAULTS: dict[str, tuple[Callable[[list[Vector]], Vector], str, str]] = {
    "last": (lambda rows: scaled(mean([rows[2], rows[5]]), 1 / 3), "dropped", "only micro-batch 3 of 3 counted"),
    "twice": (lambda rows: scaled(mean(rows), 1 / 3), "scaled", "divided by the accumulation steps (3) twice"),
    "rank": (lambda rows: scaled(mean(rows[:3]), 1 / 2), "dropped", "rank 1 missing"),
    "zero": (lambda rows: scaled(rows[0], 0.0), "zero", "zero"),
    "not-divided": (lambda rows: scaled(mean(rows), 3.0), "scaled", "multiplied by the accumulation steps (3)"),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str, dtype: str) -> None:
    make, kind, words = FAULTS[fault]
    rows = gradients(7, Shape(2, 3))
    found = check(rows, make(rows), Shape(2, 3), dtype)
    assert found.kind == kind
    assert words in found.text


def test_a_gradient_that_was_not_cleared_is_named() -> None:
    shape = Shape(2, 2, earlier=True)
    rows = gradients(3, Shape(2, 2))
    before = mean(gradients(4, Shape(2, 2)))
    found = check([*rows, before], [a + b for a, b in zip(mean(rows), before, strict=True)], shape)
    assert found.text == "gradients of earlier steps never cleared"


def test_something_else_altogether_is_corrupted() -> None:
    rows = gradients(3, Shape(2, 2))
    assert check(rows, gradients(9, Shape(1, 1))[0], Shape(2, 2)).kind == "corrupted"


def test_no_gradient_at_all_is_not_judged() -> None:
    assert check([[0.0, 0.0]], [0.0, 0.0], Shape(1, 1)).kind == "skipped"


def test_the_first_place_that_is_not_finite_is_named() -> None:
    found = not_finite("w", [(1, 0), (0, 2)], 2, 3)
    assert found.text == "the gradient of `w` is not finite first in micro-batch 1 of 3 on rank 1"
    assert "every micro-batch" in not_finite("w", [(rank, micro) for rank in range(2) for micro in range(3)], 2, 3).text


def test_the_verdict_takes_little_time_at_the_largest_shape() -> None:
    shape = Shape(4, MOST_ROWS // 4)
    rows = gradients(1, shape, 60)
    assert check(rows, scaled(mean(rows), 0.5), shape).kind == "scaled"
