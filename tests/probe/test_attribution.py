"""The attribution names what was done to the gradients."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.probe.attribution import Kind, Products, Shape, add, diagnose, fit, healthy, proper_subsets, scale_text

Vector = list[float]


def dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def gradients(shape: Shape, seed: int, length: int = 40) -> list[Vector]:
    source = random.Random(seed)  # noqa: S311 - not a secret
    return [[source.gauss(0, 1) for _ in range(length)] for _ in range(shape.count + shape.earlier)]


def combine(coefficients: Vector, rows: list[Vector]) -> Vector:
    return [sum(c * row[k] for c, row in zip(coefficients, rows, strict=True)) for k in range(len(rows[0]))]


def products(rows: list[Vector], seen: Vector) -> Products:
    return Products([[dot(a, b) for b in rows] for a in rows], [dot(seen, row) for row in rows], dot(seen, seen))


def verdict(shape: Shape, pattern: Vector, seed: int = 1, scale: float = 1.0) -> Any:
    rows = gradients(shape, seed)
    right = healthy(shape, scale)
    seen = combine([p * right[0] for p in pattern], rows)
    found = products(rows, seen)
    return diagnose(found, shape, scale, 0.02 * found.length(right))


SHAPE = Shape(2, 3)


@pytest.mark.parametrize(
    ("pattern", "kind", "text"),
    [
        ([1, 1, 1, 1, 1, 1], Kind.EQUAL, "equal"),
        ([0, 0, 1, 0, 0, 1], Kind.DROPPED, "only micro-batch 3 of 3 counted"),
        ([1, 0, 1, 1, 0, 1], Kind.DROPPED, "micro-batch 2 of 3 missing"),
        ([1, 1, 1, 0, 0, 0], Kind.DROPPED, "rank 1 missing"),
        ([0, 0, 0, 2, 2, 2], Kind.DROPPED, "rank 0 missing, and scaled by 2: multiplied by the ranks (2)"),
        (
            [0, 0, 3, 0, 0, 3],
            Kind.DROPPED,
            "only micro-batch 3 of 3 counted, and scaled by 3: multiplied by the accumulation steps (3)",
        ),
        ([1 / 3] * 6, Kind.SCALED, "scaled by 1/3: divided by the accumulation steps (3) twice"),
        ([1 / 9] * 6, Kind.SCALED, "scaled by 1/9: divided by the accumulation steps (3) three times"),
        (
            [1 / 65536 / 9 * 1.0006] * 6,
            Kind.SCALED,
            "scaled by 1/65536, and divided by the accumulation steps (3) three times",
        ),
        ([65536.0] * 6, Kind.SCALED, "scaled by 65536"),
        ([1 / 65536] * 6, Kind.SCALED, "scaled by 1/65536"),
        ([-1.0] * 6, Kind.SCALED, "scaled by -1"),
        ([0.0] * 6, Kind.ZERO, "zero"),
        ([1, 1, 1, 1, 1, 0], Kind.DROPPED, "micro-batch 3 of 3 missing on rank 1"),
        ([1, 1, 2, 1, 1, 0], Kind.NOT_AVERAGED, "micro-batch 3 of 3 not averaged over the ranks (rank 0's own)"),
        ([1, 2, 3, 4, 5, 6], Kind.CORRUPTED, "micro-batches wrongly weighted: 1.00, 2.00, 3.00, 4.00, 5.00, 6.00 instead of 1"),
    ],
)
def test_each_fault_has_its_name(pattern: Vector, kind: Kind, text: str) -> None:
    found = verdict(SHAPE, pattern)
    assert (found.kind, found.text) == (kind, text)


@pytest.mark.parametrize(
    ("shape", "factor", "text"),
    [
        (Shape(2, 2), 1 / 2, "scaled by 1/2: divided by the accumulation steps or the ranks (2) twice"),
        (Shape(2, 4), 1 / 4, "scaled by 1/4: divided by the accumulation steps (4) twice"),
        (Shape(4, 5), 1 / 5, "scaled by 1/5: divided by the accumulation steps (5) twice"),
        (Shape(2, 4), 1 / 65536 / 4, "scaled by 1/262144"),  # both are powers of two: nobody can tell
        (Shape(2, 1), 1.0, "scaled by 1"),
    ],
)
def test_a_factor_gets_the_meaning_nearest_to_it(shape: Shape, factor: float, text: str) -> None:
    assert scale_text(factor, shape, 0.15) == text


def test_gradients_that_were_never_cleared() -> None:
    found = verdict(Shape(2, 2, earlier=True), [1, 1, 1, 1, 4])
    assert (found.kind, found.text) == (Kind.NOT_CLEARED, "gradients of earlier steps never cleared")


def test_noise_is_not_a_combination() -> None:
    rows = gradients(SHAPE, 3)
    found = diagnose(products(rows, gradients(Shape(1, 1), 99)[0]), SHAPE, 1.0, 0.02)
    assert (found.kind, found.text) == (Kind.CORRUPTED, "not a combination of the true gradients")


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_the_healthy_combination_is_equal_for_every_layout(ranks: int, accumulation: int, seed: int, scale: float) -> None:
    shape = Shape(ranks, accumulation)
    assert verdict(shape, [1.0] * shape.count, seed, scale).kind is Kind.EQUAL


@given(st.integers(2, 3), st.integers(2, 5), st.integers(0, 10**6), st.data())
def test_every_lost_set_of_micro_batches_is_named(ranks: int, accumulation: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.sampled_from(list(proper_subsets(accumulation))))
    pattern = [float(micro in kept) for _, micro in itertools.product(range(ranks), range(accumulation))]
    found = verdict(Shape(ranks, accumulation), pattern, seed)
    assert found.kind is Kind.DROPPED
    named = f"only micro-batch {kept[0] + 1} of" if len(kept) == 1 else "missing"
    assert named in found.text


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(0, 10**6))
def test_the_fit_finds_the_coefficients_that_made_the_observation(wanted: Vector, seed: int) -> None:
    rows = gradients(SHAPE, seed)
    found = fit(products(rows, combine(wanted, rows)), healthy(SHAPE, 1.0))
    assert found == pytest.approx(wanted, abs=1e-4)


@given(st.integers(0, 10**6), st.floats(0.05, 0.9) | st.floats(1.1, 20))
def test_a_factor_is_scaled_never_equal(seed: int, factor: float) -> None:
    found = verdict(SHAPE, [factor] * 6, seed)
    assert found.kind is Kind.SCALED
    assert found.factor == pytest.approx(factor)


@given(st.integers(0, 10**6))
def test_adding_parameters_is_taking_them_as_one_vector(seed: int) -> None:
    rows, more = gradients(SHAPE, seed), gradients(SHAPE, seed + 1)
    seen, other = combine([1.0] * 6, rows), combine([0.5] * 6, more)
    both = [a + b for a, b in zip(rows, more, strict=True)]
    joined, summed = products(both, seen + other), add([products(rows, seen), products(more, other)])
    assert summed.square == pytest.approx(joined.square)
    assert summed.distance([0.3] * 6) == pytest.approx(joined.distance([0.3] * 6))
