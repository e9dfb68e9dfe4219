"""Write the index of the matrix as text of which a check parses only what concerns the installed packages.

Every distinct condition has a number: first those about packages, package by package, then the others. A rule is a row: its
place in the matrix, its sketch's number, the numbers of its package conditions and those of the others. It stands with the
condition on its rarest package, so that it is read only where that package is there and fits.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.index import PACKAGE, WIDTH, Condition, Sketch, conditions_of
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.spans import distinct, rank_of, turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envcheck.matrix.rule import Rule


class Row(NamedTuple):
    """A rule in the index: numbers of its sketch and of its conditions."""

    number: int
    sketch: int
    packages: list[int]
    others: list[int]


class Text:
    """Text in the making; each piece is known by its offset and length."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.content = bytearray()

    def put(self, text: str) -> tuple[int, int]:
        """Add a piece."""
        offset = len(self.content)
        self.content += text.encode()
        return offset, len(self.content) - offset

    def add(self, document: object) -> tuple[int, int]:
        """Add a piece of JSON."""
        return self.put(_json(document))

    def rows(self, rows: Iterable[Row]) -> tuple[int, int]:
        """Add rows, each with a comma behind it and without brackets around: several such pieces are read as one list."""
        return self.put("".join(f"{_json(row)}," for row in rows))


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
    numbers = {repr(item): place for place, item in enumerate([*(Condition(PACKAGE, one) for one in packages), *others])}
    sketches: dict[Sketch, int] = {}
    rows = [_row(place, rule, numbers, sketches) for place, rule in enumerate(rules)]
    housed, free = _housed(rows, packages)
    directory = {
        **(more or {}),
        "rules": len(rules),
        "sketches": list(sketches),
        "ranges": len(packages),
        "absent": [place for place, (_, spec) in enumerate(packages) if spec == ABSENT],
        "packages": _packages(text, packages, housed),
        "free": text.rows(free),
        "others": text.add(others),
        "good": text.add([row for row in rows if rules[row.number].status == "good"]),
        "places": text.put("".join(f"{offset:0{WIDTH}}{length:0{WIDTH}}" for offset, length in places)),
    }
    return _json(directory).encode() + b"\n" + bytes(text.content)


def _json(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), default=str)


def _row(place: int, rule: Rule, numbers: Mapping[str, int], sketches: dict[Sketch, int]) -> Row:
    sketch = sketches.setdefault(Sketch(rule.status, rule.effect, rule.unknown), len(sketches))
    items = list(conditions_of(rule))
    return Row(
        place, sketch,
        [numbers[repr(item)] for item in items if item.kind == PACKAGE],
        [numbers[repr(item)] for item in items if item.kind != PACKAGE],
    )  # fmt: skip


def _housed(rows: Sequence[Row], packages: Sequence[tuple[str, ...]]) -> tuple[dict[int, list[Row]], list[Row]]:
    """The rows by the condition with which they stand, and those that ask for no package to be there."""
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
    text: Text, packages: Sequence[tuple[str, ...]], housed: Mapping[int, Sequence[Row]],
) -> dict[str, tuple[int, int]]:  # fmt: skip
    """Of each package where its list is.

    In it: the number of the first condition; where the rows of each condition start, and where the last ones end; the positions
    at which conditions change their truth, and which ones do at each; those that are no ranges; where the texts of all are.
    """
    found = {}
    for name, group in groupby(enumerate(packages), key=lambda one: one[1][0]):
        conditions = [(place, spec) for place, (_, spec) in group]
        turning = {place: None if spec in (ANY, ABSENT) else turns(spec) for place, spec in conditions}
        positions = distinct(here for places in turning.values() for here in places or ())
        changing: list[list[int]] = [[] for _ in positions]
        for place, places in turning.items():
            for here in places or ():
                changing[rank_of(positions, here)].append(place)
        found[name] = text.add([
            conditions[0][0],
            [start for place, _ in conditions for start in text.rows(housed.get(place, ()))[:1]] + [len(text.content)],
            positions,
            changing,
            [(place, spec) for place, spec in conditions if turning[place] is None],
            text.add([spec for _, spec in conditions]),
        ])  # fmt: skip
    return found
