"""Tensors that a model ties and a checkpoint stores twice: are their bytes the same. Reads those two alone, in pieces."""

from __future__ import annotations

from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.params.checkpoint import BITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from envcheck.params.checkpoint import Checkpoint, Tensor
    from envcheck.params.compare import Comparison

#: Bytes read at once.
PIECE = 1 << 20


class Apart(NamedTuple):
    """Two tied tensors of a checkpoint that differ.

    Attributes:
        name: The checkpoint's name of one.
        other: Of the other.
        row: The first row in which they differ.
    """

    name: str
    other: str
    row: int


def apart(model: Mapping[str, Any], comparison: Comparison, checkpoint: Checkpoint) -> Iterator[Apart]:
    """The pairs that the model ties and the checkpoint stores with different values.

    Pairs of another shape or dtype are left out: bytes do not tell there. So is what cannot be read.

    Args:
        model: The worker's `model` record; `shared` has groups of names that are one tensor.
        comparison: Its names against the checkpoint's.
        checkpoint: The headers.
    """
    seen = set()
    for group in model.get("shared", ()):
        keys = sorted({comparison.loaded[name] for name in group if name in comparison.loaded})
        for pair in combinations(keys, 2):
            one, other = (checkpoint.tensors[key] for key in pair)
            if pair in seen or not one.end or not one.dtype or (one.dtype, one.shape) != (other.dtype, other.shape):
                continue
            seen.add(pair)
            byte = first_difference(checkpoint.folder, one, other)
            if byte is not None:
                yield Apart(*pair, _row(one, byte))


def first_difference(folder: Path, one: Tensor, other: Tensor) -> int | None:
    """The first byte of two tensors that differs, counted from their beginnings; None for none, and for unreadable files."""
    try:
        with (folder / one.component / one.file).open("rb") as mine, (folder / other.component / other.file).open("rb") as theirs:
            mine.seek(one.begin)
            theirs.seek(other.begin)
            for start in range(0, one.end - one.begin, PIECE):
                size = min(PIECE, one.end - one.begin - start)
                left, right = mine.read(size), theirs.read(size)
                if left != right:
                    return start + next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), 0)
    except OSError:
        return None
    return None


def _row(one: Tensor, byte: int) -> int:
    """The row (first dimension) that a byte lies in."""
    width = prod((one.shape or ())[1:])
    return byte * 8 // (BITS.get(one.dtype, 8) * max(width, 1))
