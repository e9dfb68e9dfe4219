"""The matrix without its words: every distinct condition once, and for each rule the numbers of its own.

A check evaluates each distinct condition once and drops the rules of which one is false; the text of a rule is read only
when it has something to say. Of the index itself (`matrix.pack` writes it) only what stands with the packages that are there,
in ranges that fit, is parsed, and rules that are alike beside their packages are judged together: what a growing database
costs is little more than the rules that might speak.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.conditions import comparison_holds, fact_holds, package_holds, setting_holds
from envcheck.matrix.rule import Comparison, SettingCondition
from envcheck.matrix.spans import position, sortable
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from envcheck.facts.model import Environment
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings

PACKAGE, FACT, COMPARE, USE, SETTING = "p", "f", "c", "u", "s"

#: Digits of an offset and of a length in the list of where the rules' texts are.
WIDTH = 10

#: Of the digits of a binary number makes what `itertools.compress` takes.
ZERO_AND_ONE = bytes.maketrans(b"01", b"\0\1")


class Condition(NamedTuple):
    """One part of a rule's condition: what kind it is, and the fields of that kind in the order of `matrix.rule`."""

    kind: str
    fields: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The package, fact, usage word or setting it is about; a comparison in full."""
        return str(Comparison(*self.fields)) if self.kind == COMPARE else str(self.fields[0])


class Sketch(NamedTuple):
    """What decides how a rule speaks, without its text: `rule.status`, `rule.effect`, `rule.unknown`."""

    status: str
    effect: str
    unknown: str


class Rest(NamedTuple):
    """A rule without its packages: how it speaks, of how many packages, and the numbers of its other conditions."""

    sketch: Sketch
    packages: int
    others: tuple[int, ...]


class Candidates(NamedTuple):
    """Rules of which nothing is false, alike in how they speak and in what is open.

    Attributes:
        numbers: Their places in the matrix.
        sketch: How each speaks.
        open: The parts of the condition of which it is not known whether they hold; in the rules' order.
        packages: How many parts are about packages.
        others: The parts that are not.
    """

    numbers: list[int]
    sketch: Sketch
    open: tuple[Condition, ...]
    packages: int
    others: tuple[Condition, ...]

    def opened(self, kind: str) -> list[Condition]:
        """The open parts of one kind."""
        return [item for item in self.open if item.kind == kind]


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """The parts of a rule's condition, in the order in which a report speaks of them."""
    for name, spec in rule.packages.items():
        yield Condition(PACKAGE, (name, spec))
    for name, text in rule.facts.items():
        yield Condition(FACT, (name, text))
    for item in rule.compare:
        yield Condition(COMPARE, (item.left, item.operator, item.right))
    for word in rule.uses:
        yield Condition(USE, (word,))
    for setting in rule.settings:
        yield Condition(
            SETTING, (setting.key, setting.operator, setting.operand, setting.or_unset, setting.or_unknown),
        )  # fmt: skip


def holds(item: Condition, environment: Environment, settings: Settings, kinds: Mapping[str, str]) -> bool | None:
    """Whether one part holds; None where it is not known."""
    if item.kind == PACKAGE:
        return package_holds(environment, *item.fields)
    if item.kind == FACT:
        name, text = item.fields
        return fact_holds(environment, kind_of(kinds, name), name, text)
    if item.kind == COMPARE:
        return comparison_holds(environment, Comparison(*item.fields))
    if item.kind == USE:
        return True if item.fields[0] in settings.uses else None
    return setting_holds(settings, SettingCondition(*item.fields))


def kind_of(kinds: Mapping[str, str], name: str) -> str:
    """The kind of a fact; environment variables are words."""
    return "word" if name.startswith("env.") else kinds.get(name, "word")


class _Seen(NamedTuple):
    """What the versions of the packages decide.

    Attributes:
        true: The numbers of the package conditions that hold.
        unknown: Those of which it is not known whether they hold.
        here: Those on packages that are installed.
        rows: The rules that no package condition rules out.
        good: The known-good sets that stand with packages that are there, fitting or not.
    """

    true: set[int]
    unknown: dict[int, Condition]
    here: set[int]
    rows: list[list[Any]]
    good: list[list[Any]]


class Index:
    """What `matrix.pack` wrote, read as far as it is asked for."""

    def __init__(self, packed: bytes) -> None:
        """Take what `pack` gave."""
        self._packed = packed
        self._start = packed.index(b"\n") + 1
        self.directory: dict[str, Any] = json.loads(packed[: self._start])
        self._asked: tuple[Environment, _Seen] | None = None

    def __len__(self) -> int:
        """The number of rules."""
        count: int = self.directory["rules"]
        return count

    def place(self, number: int) -> tuple[int, int]:
        """Where the text of a rule is: offset and length."""
        text = self._piece(self.directory["places"][0] + 2 * WIDTH * number, 2 * WIDTH)
        return int(text[:WIDTH]), int(text[WIDTH:])

    def candidates(self, environment: Environment, settings: Settings, kinds: Mapping[str, str]) -> list[Candidates]:
        """The rules of which nothing is false; those that are alike together.

        Package conditions come first: most rules fall by them, and the other parts are then looked at only where they matter.
        """
        seen = self._seen(environment)
        alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number, rest, *packages in seen.rows:
            opened = tuple([place for place in packages if place in seen.unknown]) if seen.unknown else ()
            alike.setdefault((rest, opened), []).append(number)
        rests = self._lines("rests", {rest for rest, _ in alike})
        others = {
            place: Condition(kind, tuple(fields))
            for place, (kind, fields) in self._lines("others", {place for rest in rests.values() for place in rest[2]}).items()
        }
        truths = {place: holds(item, environment, settings, kinds) for place, item in others.items()}
        found = []
        for (rest, unknown), numbers in alike.items():
            sketch, packages, places = rests[rest]
            held = [truths[place] for place in places]
            if False not in held:
                parts = tuple([others[place] for place in places])
                opened = tuple([item for item, truth in zip(parts, held, strict=True) if truth is None])
                known = tuple([seen.unknown[place] for place in unknown])
                found.append(Candidates(numbers, Sketch(*sketch), (*known, *opened), packages, parts))
        return found

    def fitting(self, environment: Environment) -> list[int]:
        """The numbers of the rules that no package condition rules out, in file order."""
        return sorted(row[0] for row in self._seen(environment).rows)

    def good(self) -> list[int]:
        """The numbers of the known-good combinations, in file order."""
        numbers: list[int] = json.loads(self._piece(*self.directory["good"]))
        return numbers

    def good_present(self, environment: Environment) -> Iterator[tuple[int, int, list[bool]]]:
        """The known-good combinations of which every package is installed.

        Of each its number, of how many packages it speaks, and of those that it wants installed whether the version fits.
        """
        seen, absent = self._seen(environment), frozenset(self.directory["absent"].values())
        for number, _, *packages in sorted(seen.good):
            present = [place for place in packages if place not in absent]
            if seen.here.issuperset(present):
                yield number, len(packages), [place in seen.true for place in present]

    def _seen(self, environment: Environment) -> _Seen:
        """What the packages decide; the last answer is kept."""
        if self._asked is None or self._asked[0] is not environment:
            self._asked = environment, self._look(environment)
        return self._asked[1]

    def _look(self, environment: Environment) -> _Seen:
        where, installed = self.directory["packages"], environment.packages
        true = {place for name, place in self.directory["absent"].items() if environment.complete and name not in installed}
        unknown, here = dict[int, Condition](), set[int]()
        rows, good = [self._piece(*self.directory["free"])], [self._piece(*self.directory["free good"])]
        for name in where.keys() & installed.keys() if environment.complete else where:
            head, positions, good_here, *rows_here = self._piece(*where[name]).split(b"\n")
            first, no_ranges, bits, texts = json.loads(head)
            numbers = range(first, first + len(rows_here))
            rank = _rank(environment, name, positions)
            held = bytearray(len(numbers)) if rank is None else self._held(bits, rank, len(numbers))
            opened = bytearray([rank is None]) * len(numbers)
            for place, spec in no_ranges:
                truth = package_holds(environment, name, spec)
                held[place - first], opened[place - first] = truth is True, truth is None
            true.update(compress(numbers, held))
            rows += compress(rows_here, held)
            if any(opened):
                specs = json.loads(self._piece(*texts))
                unknown.update({place: Condition(PACKAGE, (name, specs[place - first])) for place in compress(numbers, opened)})
                rows += compress(rows_here, opened)
            if name in installed:
                here.update(numbers)
                good.append(good_here)
        possible = true | unknown.keys()
        return _Seen(true, unknown, here, [row for row in _parsed(rows) if possible.issuperset(row[2:])], _parsed(good))

    def _held(self, bits: int, rank: int, count: int) -> bytearray:
        """Which of a package's `count` conditions hold behind so many positions: 0 or 1 for each."""
        width = hexadecimals(count)
        here = int(self._piece(bits + (rank - 1) * width, width), 16) if rank else 0
        return bytearray(f"{here:0{count}b}".encode().translate(ZERO_AND_ONE)[::-1])

    def _lines(self, name: str, wanted: Iterable[int]) -> dict[int, Any]:
        """Some of the lines of a piece, by their numbers."""
        lines, numbers = self._piece(*self.directory[name]).split(b"\n"), list(wanted)
        return dict(zip(numbers, json.loads(b"[%b]" % b",".join([lines[number] for number in numbers])), strict=True))

    def _piece(self, offset: int, length: int) -> bytes:
        start = self._start + offset
        return self._packed[start : start + length]


def hexadecimals(count: int) -> int:
    """How many hexadecimal digits so many bits take."""
    return -(-count // 4)


def _rank(environment: Environment, name: str, positions: bytes) -> int | None:
    """How many of the positions are not above the installed version; None where there is none that can be compared."""
    found = environment.packages.get(name)
    version = plain(found.version) if found else None
    if version is None:
        return None
    return bisect_right(positions.split(b",") if positions else (), sortable(position(version.version)))


def _parsed(rows: Iterable[bytes]) -> list[list[Any]]:
    """Pieces of rows, each with a comma behind it, as one list."""
    parsed: list[list[Any]] = json.loads(b"[%b]" % b"".join(rows).rstrip(b","))
    return parsed
