"""The matrix without its words: every distinct condition once, and for each rule the numbers of its own.

A check evaluates each distinct condition once and drops the rules of which one is false; the text of a rule is read only
when it has something to say. What a growing database costs is one set operation a rule.
"""

from __future__ import annotations

from itertools import chain, compress
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.conditions import comparison_holds, fact_holds, package_holds, setting_holds
from envcheck.matrix.rule import Comparison, SettingCondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from envcheck.facts.model import Environment
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings

PACKAGE, FACT, COMPARE, USE, SETTING = "p", "f", "c", "u", "s"


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
        whole: Where the other parts are.
    """

    number: int
    sketch: Sketch
    open: tuple[Condition, ...]
    whole: Index

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All parts of its condition."""
        return self.whole.conditions(self.number)

    def opened(self, kind: str) -> list[Condition]:
        """The open parts of one kind."""
        return [item for item in self.open if item.kind == kind]

    def has(self, kind: str) -> bool:
        """Whether any part is of that kind."""
        return any(item.kind == kind for item in self.conditions)


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


class Index:
    """Every distinct condition, and for each rule its sketch and the numbers of its conditions."""

    def __init__(self, packed: Mapping[str, Any]) -> None:
        """Take what `pack` gave, also after a way through JSON."""
        self._conditions = [Condition(kind, tuple(fields)) for kind, fields in packed["conditions"]]
        self._sketches = [Sketch(*item) for item in packed["sketches"]]
        self._rules: Sequence[Sequence[int]] = packed["rules"]
        self._sketch_of: Sequence[int] = packed["sketch_of"]

    def __len__(self) -> int:
        """The number of rules."""
        return len(self._rules)

    def sketch(self, number: int) -> Sketch:
        """How a rule speaks."""
        return self._sketches[self._sketch_of[number]]

    def conditions(self, number: int) -> tuple[Condition, ...]:
        """The parts of a rule's condition."""
        return tuple(self._conditions[place] for place in self._rules[number])

    def candidates(self, environment: Environment, settings: Settings, kinds: Mapping[str, str]) -> Iterator[Candidate]:
        """The rules of which nothing is false, in file order.

        Package conditions come first: most rules fall by them, and the other parts are then looked at only where they matter.
        """
        known = {
            place: package_holds(environment, *item.fields)
            for place, item in enumerate(self._conditions) if item.kind == PACKAGE
        }  # fmt: skip
        left = [self._rules[number] for number in self._left(_of(known, False))]
        for place in set(chain.from_iterable(left)).difference(known):
            known[place] = holds(self._conditions[place], environment, settings, kinds)
        unknown = _of(known, None)
        for number in self._left(_of(known, False)):
            opened = tuple(self._conditions[place] for place in self._rules[number] if place in unknown)
            yield Candidate(number, self.sketch(number), opened, self)

    def of_status(self, status: str) -> list[int]:
        """The numbers of the rules with a status."""
        wanted = {place for place, sketch in enumerate(self._sketches) if sketch.status == status}
        return [number for number, place in enumerate(self._sketch_of) if place in wanted]

    def fitting(self, environment: Environment) -> list[int]:
        """The numbers of the rules that no package condition rules out."""
        return self._left({
            place
            for place, item in enumerate(self._conditions)
            if item.kind == PACKAGE and package_holds(environment, *item.fields) is False
        })  # fmt: skip

    def _left(self, wrong: set[int]) -> list[int]:
        return list(compress(range(len(self._rules)), map(wrong.isdisjoint, self._rules)))


def _of(known: Mapping[int, bool | None], truth: bool | None) -> set[int]:
    return {place for place, found in known.items() if found is truth}


def pack(rules: Sequence[Rule]) -> dict[str, Any]:
    """The index of `rules` as plain data: for each rule its sketch's number, and those of its conditions."""
    conditions: dict[str, tuple[int, Condition]] = {}
    sketches: dict[Sketch, int] = {}
    sketch_of = [sketches.setdefault(Sketch(rule.status, rule.effect, rule.unknown), len(sketches)) for rule in rules]
    rows = [[conditions.setdefault(repr(item), (len(conditions), item))[0] for item in conditions_of(rule)] for rule in rules]
    distinct = [item for _, item in conditions.values()]
    return {"conditions": distinct, "sketches": list(sketches), "rules": rows, "sketch_of": sketch_of}
