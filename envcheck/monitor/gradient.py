"""The reference check of the first steps: is the engine's gradient the one that its micro-batches gave? Pure.

The rows are the gradients of the single (rank, micro-batch) losses, scaled so that their mean is what the engine must hold;
what is compared is a sample of one parameter's elements.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from envcheck.monitor.records import GradientCheck
from envcheck.probe.attribution import Kind, Products, Shape, diagnose

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Machine epsilon of the dtype that gradients are accumulated in.
EPSILON = {"fp32": 2.0**-23, "bf16": 2.0**-8, "fp16": 2.0**-11}

#: Roundings that may add up, over the micro-batches and the reduction.
ROUNDINGS = 4.0

#: Beyond so many (rank, micro-batch) pairs the ranks' gradients are averaged first.
MOST_ROWS = 48


def judge(
    name: str, gram: Sequence[Sequence[float]], dots: Sequence[float], square: float, shape: Shape, dtype: str
) -> GradientCheck:
    """Compare one parameter's gradient with its rows.

    Args:
        name: The parameter.
        gram: Inner products of the rows, and of the earlier steps' expected gradient last where the shape has one.
        dots: Inner products of the observation with them.
        square: The observation's with itself.
        shape: Ranks and micro-batches; rank-major.
        dtype: What the gradients are accumulated in.
    """
    products = Products(gram, dots, square)
    lengths = sum(math.sqrt(max(0.0, gram[k][k])) for k in range(shape.count)) / shape.count
    tolerance = ROUNDINGS * EPSILON.get(dtype, EPSILON["bf16"]) * lengths
    if not lengths:
        return GradientCheck(name, "skipped", "every micro-batch's gradient is zero")
    found = diagnose(products, shape, 1.0, tolerance, tolerance / 2)
    if found.kind is Kind.CORRUPTED and found.error <= SUSPECT:
        return GradientCheck(name, "skipped", "a difference too small to name", found.ratio, found.error)
    return GradientCheck(name, found.kind.value, found.text, found.ratio, found.error)


#: A difference that no hypothesis explains is called a fault only beyond this relative size.
SUSPECT = 0.2


def not_finite(name: str, places: Sequence[tuple[int, int]], ranks: int, micro_batches: int) -> GradientCheck:
    """The outcome where a micro-batch's gradient is not finite; `places` are (rank, micro-batch), counted from 0."""
    if len(places) == ranks * micro_batches:
        where = "in every micro-batch of every rank"
    else:
        rank, micro = places[0]
        where = f"first in micro-batch {micro + 1} of {micro_batches} on rank {rank}"
    return GradientCheck(name, "non-finite", f"the gradient of `{name}` is not finite {where}", math.nan, math.nan)


def skipped(name: str, why: str) -> GradientCheck:
    """The outcome where nothing could be compared."""
    return GradientCheck(name, "skipped", why)
