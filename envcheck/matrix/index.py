"""The matrix without its words: every distinct condition once, and for each rule the numbers of its own.

A check evaluates each distinct condition once and drops the rules of which one is false; the text of a rule is read only
when it has something to say. Of the index itself (`matrix.pack` writes it) only what stands with the packages that are there,
in ranges that fit, is parsed: what a growing database costs is little more than the rules that might speak.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.conditions import comparison_holds, fact_holds, package_holds, setting_holds
from envcheck.matrix.rule import Comparison, SettingCondition
from envcheck.matrix.spans import position, rank_of
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.facts.model import Environment
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings

PACKAGE, FACT, COMPARE, USE, SETTING = "p", "f", "c", "u", "s"

#: Digits of an offset and of a length in the list of where the rules' texts are.
WIDTH = 10


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


class Candidate(NamedTuple):
    """A rule of which nothing is false.

    Attributes:
        number: Its place in the matrix.
        sketch: How it speaks.
        open: The parts of its condition of which it is not known whether they hold; in the rule's order.
        packages: How many parts are about packages.
        rest: The numbers of the other parts.
        whole: Where those are.
    """

    number: int
    sketch: Sketch
    open: tuple[Condition, ...]
    packages: int
    rest: list[int]
    whole: Index

    @property
    def others(self) -> tuple[Condition, ...]:
        """The parts that are not about packages."""
        return tuple(self.whole.others[place] for place in self.rest)

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
        rows: The rules that no package condition rules out, in file order.
    """

    true: set[int]
    unknown: dict[int, Condition]
    here: set[int]
    rows: list[list[Any]]


class Index:
    """What `matrix.pack` wrote, read as far as it is asked for."""

    def __init__(self, packed: bytes) -> None:
        """Take what `pack` gave."""
        line, _, self._text = packed.partition(b"\n")
        self.directory: dict[str, Any] = json.loads(line)
        self._sketches = [Sketch(*item) for item in self.directory["sketches"]]
        self._others: dict[int, Condition] = {}
        self._asked: tuple[Environment, _Seen] | None = None

    def __len__(self) -> int:
        """The number of rules."""
        count: int = self.directory["rules"]
        return count

    def place(self, number: int) -> tuple[int, int]:
        """Where the text of a rule is: offset and length."""
        start = self.directory["places"][0] + 2 * WIDTH * number
        return int(self._text[start : start + WIDTH]), int(self._text[start + WIDTH : start + 2 * WIDTH])

    def candidates(self, environment: Environment, settings: Settings, kinds: Mapping[str, str]) -> Iterator[Candidate]:
        """The rules of which nothing is false, in file order.

        Package conditions come first: most rules fall by them, and the other parts are then looked at only where they matter.
        """
        seen = self._seen(environment)
        known = {
            place: holds(self.others[place], environment, settings, kinds)
            for place in set[int]().union(*(row[3] for row in seen.rows))
        }  # fmt: skip
        wrong, sketches = _of(known, False), self._sketches
        unknown = {**seen.unknown, **{place: self.others[place] for place in _of(known, None)}}
        for number, sketch, packages, others in seen.rows:
            if wrong.isdisjoint(others):
                opened = tuple([unknown[place] for place in (*packages, *others) if place in unknown])
                yield Candidate(number, sketches[sketch], opened, len(packages), others, self)

    def fitting(self, environment: Environment) -> list[int]:
        """The numbers of the rules that no package condition rules out."""
        return [row[0] for row in self._seen(environment).rows]

    def good(self) -> list[int]:
        """The numbers of the known-good combinations, in file order."""
        return [row[0] for row in self._good()]

    def good_present(self, environment: Environment) -> Iterator[tuple[int, int, list[bool]]]:
        """The known-good combinations of which every package is installed.

        Of each its number, of how many packages it speaks, and of those that it wants installed whether the version fits.
        """
        seen, absent = self._seen(environment), frozenset(self.directory["absent"])
        for number, _, packages, _ in self._good():
            present = [place for place in packages if place not in absent]
            if seen.here.issuperset(present):
                yield number, len(packages), [place in seen.true for place in present]

    @property
    def others(self) -> dict[int, Condition]:
        """The conditions that are not about packages, by number."""
        if not self._others:
            listed = enumerate(self._read(*self.directory["others"]), self.directory["ranges"])
            self._others = {place: Condition(kind, tuple(fields)) for place, (kind, fields) in listed}
        return self._others

    def _good(self) -> list[list[Any]]:
        rows: list[list[Any]] = self._read(*self.directory["good"])
        return rows

    def _seen(self, environment: Environment) -> _Seen:
        """What the packages decide; the last answer is kept."""
        if self._asked is None or self._asked[0] is not environment:
            self._asked = environment, self._look(environment)
        return self._asked[1]

    def _look(self, environment: Environment) -> _Seen:
        where, installed = self.directory["packages"], environment.packages
        true, unknown, here = set[int](self.directory["absent"]), dict[int, Condition](), set[int]()
        pieces = [self._piece(*self.directory["free"])]
        for name in where.keys() & installed.keys() if environment.complete else where:
            first, starts, positions, changing, no_ranges, texts = self._read(*where[name])
            numbers = range(first, first + len(starts) - 1)
            rank = _rank(environment, name, positions)
            held: set[int] = set()
            for places in changing[: rank + 1] if rank is not None else ():
                held.symmetric_difference_update(places)
            open_here = set(numbers) if rank is None else set[int]()
            for place, spec in no_ranges:
                for truth, kept in ((True, held), (None, open_here)):
                    (kept.add if package_holds(environment, name, spec) is truth else kept.discard)(place)
            if open_here:
                specs = self._read(*texts)
                unknown.update({place: Condition(PACKAGE, (name, specs[place - first])) for place in open_here})
            if name in installed:
                here.update(numbers)
            true.difference_update(numbers)
            true |= held
            pieces += [self._text[starts[place - first] : starts[place - first + 1]] for place in held | open_here]
        wrong = set(range(self.directory["ranges"])) - true - unknown.keys()
        rows = json.loads(b"[" + b"".join(pieces).rstrip(b",") + b"]")
        return _Seen(true, unknown, here, sorted(row for row in rows if wrong.isdisjoint(row[2])))

    def _piece(self, offset: int, length: int) -> bytes:
        return self._text[offset : offset + length]

    def _read(self, offset: int, length: int) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self._piece(offset, length))


def _rank(environment: Environment, name: str, positions: list[Any]) -> int | None:
    """Between which of the positions the installed version lies; None where there is none that can be compared."""
    found = environment.packages.get(name)
    version = plain(found.version) if found else None
    return None if version is None else rank_of(positions, position(version.version))


def _of(known: Mapping[int, bool | None], truth: bool | None) -> set[int]:
    return {place for place, found in known.items() if found is truth}
