"""Write the index of the matrix as text of which a check parses only what concerns the installed packages.

Every distinct condition has a number: first those about packages, package by package, then the others. What a rule is beside
its packages (how it speaks, and its other conditions) is its rest, and stands once for all rules that share it. A rule is a
row: its place in the matrix, the number of its rest, the numbers of its package conditions. It stands with the condition on
its rarest package, so that it is read only where that package is there and fits.
"""

from __future__ import annotations

import json
import operator
from collections import Counter
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.index import PACKAGE, WIDTH, Condition, Rest, Sketch, conditions_of, hexadecimals
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.spans import sortable, turns

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from envcheck.matrix.rule import Rule
    from envcheck.matrix.spans import Position


class Row(NamedTuple):
    """A rule in the index: its place in the matrix, and the numbers of its rest and of its package conditions."""

    number: int
    rest: int
    packages: list[int]


class Text:
    """Text in the making; each piece is known by its offset and length."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.content = bytearray()

    def put(self, text: bytes) -> tuple[int, int]:
        """Add a piece."""
        offset = len(self.content)
        self.content += text
        return offset, len(text)

    def lines(self, documents: Iterable[object]) -> tuple[int, int]:
        """Add a piece with a line of JSON for each document."""
        return self.put(b"\n".join(map(_json, documents)))


def pack(rules: Sequence[Rule], places: Sequence[tuple[int, int]] = (), more: Mapping[str, Any] | None = None) -> bytes:
    """The index of `rules`: a line of JSON that says where everything is, then the text that `matrix.index.Index` reads.

    Args:
        rules: In file order.
        places: Where the text of each rule is: offset and length.
        more: What else the first line holds.
    """
    text = Text()
    # by their text: conditions may hold lists, and `1` and `true` are not the same
    distinct_conditions = {repr(item): item for rule in rules for item in conditions_of(rule)}
    packages = sorted({item.fields for item in distinct_conditions.values() if item.kind == PACKAGE})
    others = [item for item in distinct_conditions.values() if item.kind != PACKAGE]
    numbers = {repr(Condition(PACKAGE, one)): place for place, one in enumerate(packages)}
    numbers |= {repr(item): place for place, item in enumerate(others)}
    rests: dict[Rest, int] = {}
    rows = [_row(place, rule, numbers, rests) for place, rule in enumerate(rules)]
    good = frozenset(place for place, rule in enumerate(rules) if rule.status == "good")
    housed, free = _housed(rows, packages)
    directory = {
        **(more or {}),
        "rules": len(rules),
        "absent": {name: place for place, (name, spec) in enumerate(packages) if spec == ABSENT},
        "packages": _packages(text, packages, housed, good),
        "free": text.put(_rows(free)),
        "free good": text.put(_rows(row for row in free if row.number in good)),
        "rests": text.lines(rests),
        "others": text.lines(others),
        "good": text.lines([sorted(good)]),
        "places": text.put("".join(f"{offset:0{WIDTH}}{length:0{WIDTH}}" for offset, length in places).encode()),
    }
    return _json(directory) + b"\n" + bytes(text.content)


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def _rows(rows: Iterable[Row]) -> bytes:
    """Rows, each with a comma behind it and without brackets around: several such pieces are read as one list."""
    return b"".join(_json([row.number, row.rest, *row.packages]) + b"," for row in rows)


def _row(place: int, rule: Rule, numbers: Mapping[str, int], rests: dict[Rest, int]) -> Row:
    items = list(conditions_of(rule))
    others = tuple(numbers[repr(item)] for item in items if item.kind != PACKAGE)
    rest = Rest(Sketch(rule.status, rule.effect, rule.unknown), len(rule.packages), others)
    return Row(place, rests.setdefault(rest, len(rests)), [numbers[repr(item)] for item in items if item.kind == PACKAGE])


def _housed(rows: Sequence[Row], packages: Sequence[tuple[str, ...]]) -> tuple[dict[int, list[Row]], list[Row]]:
    """The rules by the condition with which they stand, and those that ask for no package to be there."""
    often = Counter(packages[one][0] for row in rows for one in row.packages)
    housed: dict[int, list[Row]] = {}
    free: list[Row] = []
    for row in rows:
        there = [one for one in row.packages if packages[one][1] != ABSENT]
        if there:
            housed.setdefault(min(there, key=lambda one: often[packages[one][0]]), []).append(row)
        else:
            free.append(row)
    return housed, free


def _packages(
    text: Text, packages: Sequence[tuple[str, ...]], housed: Mapping[int, Sequence[Row]], good: Container[int],
) -> dict[str, tuple[int, int]]:  # fmt: skip
    """Of each package where its lines are.

    The first holds the number of the first condition, those that are no ranges, where it is said which ones hold, and where the
    texts of all are; then the positions at which conditions change their truth; the rows of known-good sets; and for each
    condition a line with its rows.
    """
    found = {}
    for name, group in groupby(enumerate(packages), key=lambda one: one[1][0]):
        specs = {place: spec for place, (_, spec) in group}
        first = min(specs)
        turning = {place - first: None if spec in (ANY, ABSENT) else turns(spec) for place, spec in specs.items()}
        positions, held = _held(turning)
        no_ranges = [(place, spec) for place, spec in specs.items() if turning[place - first] is None]
        rows = [housed.get(place, ()) for place in specs]
        found[name] = text.put(b"\n".join([
            _json([first, no_ranges, text.put(held)[0], text.lines([list(specs.values())])]),
            b",".join(positions),
            _rows(row for some in rows for row in some if row.number in good),
            *map(_rows, rows),
        ]))  # fmt: skip
    return found


def _held(turning: Mapping[int, list[Position] | None]) -> tuple[list[bytes], bytes]:
    """The positions at which ranges are entered or left, and the ranges that hold from each on, as bits in hexadecimal."""
    changing: dict[bytes, int] = {}
    for number, places in turning.items():
        for here in map(sortable, places or ()):
            changing[here] = changing.get(here, 0) ^ 1 << number
    positions = sorted(changing)
    held = accumulate((changing[here] for here in positions), operator.xor)
    return positions, "".join(f"{bits:0{hexadecimals(len(turning))}x}" for bits in held).encode()
