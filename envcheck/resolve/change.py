"""The smallest change of an installed set that makes its check free of errors and its requirements fulfilled.

Fewest packages first, then the smallest steps. What is wrong is a list of nogoods, each of which has to lose a package: only
sets of packages that hit them all come into question, smallest sets first, every other installed package pinned, each package
of the set once towards older and once towards newer releases (uv then gives the nearest), a missing one installed. Where no set
of a size will do, the others may move as far as they have to; what moved joins the candidates, so that a smaller choice among
them is still found. A package goes only where a rule's own fix says so, or where no versions answer an error about it and
nothing requires it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from envcheck.checks.requirements import parse
from envcheck.matrix.rule import ABSENT
from envcheck.resolve.cost import Found, cheapest, cost
from envcheck.resolve.installed import Direction, Installed, Move
from envcheck.resolve.judgement import convene
from envcheck.resolve.search import Answer, GaveUpError, Search, Solution
from envcheck.resolve.solve import KEPT
from envcheck.resolve.wrong import CONFLICT, MISSING, charged, to_fix, unfulfilled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from envcheck.checks.context import Context
    from envcheck.resolve.installed import Target
    from envcheck.resolve.judgement import Court
    from envcheck.resolve.nogoods import Nogood
    from envcheck.resolve.wrong import Wrong

#: Questions to uv in all, and in one search; a question takes some tenths of a second.
QUESTIONS, SEARCH_QUESTIONS = 150, 40

#: The sets of packages that are tried have at most so many members, beside what has to move with them.
LARGEST = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One package before and after (empty where it is not there), and the findings that this answers."""

    name: str
    before: str
    after: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A change that makes the check clean.

    Attributes:
        changes: By name.
        passed_over: What forbade nearer versions of the changed packages.
        questions: How often uv was asked.
        smallest: False where the search ended early, so that a smaller change may exist.
        left: What it does not answer, and why, one sentence each.
        told: The packages that go because a rule's own fix says so.
        answered: The titles of the findings that it answers.
    """

    changes: tuple[Change, ...]
    passed_over: tuple[Nogood, ...] = ()
    questions: int = 0
    smallest: bool = True
    left: tuple[str, ...] = ()
    told: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()

    @property
    def versions(self) -> dict[str, str]:
        """What is to be installed: name -> version."""
        return {change.name: change.after for change in self.changes if change.after}

    @property
    def removed(self) -> tuple[str, ...]:
        """What is to be uninstalled."""
        return tuple(change.name for change in self.changes if not change.after)


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why no change of versions will do, one sentence each."""

    reasons: tuple[str, ...]
    questions: int = 0


def plan_for(
    context: Context, target: Target, waived: frozenset[str], say: Callable[[str], None] = lambda _: None,
    resolver: Callable[..., Installed] = Installed,
) -> Plan | NoPlan:  # fmt: skip
    """The smallest change that answers what is wrong: every error, and the requirements as far as they can be fulfilled.

    Args:
        context: The environment, the matrix, the settings.
        target: The environment as uv sees it.
        waived: Ids of findings that do not count.
        say: Told in a few words what is being tried.
        resolver: What is asked.

    Raises:
        ToolError: uv failed.
    """
    environment = context.environment
    elsewhere = frozenset(environment.packages.keys() - target.versions.keys())
    court = convene(context.matrix, environment, context.settings, waived, elsewhere=elsewhere)
    wrong = list(charged(court, to_fix(context, waived)))
    able = [item for item in wrong if not immovable(item, target)]
    left = [immovable(item, target) for item in wrong if item not in able]
    if not able:
        return NoPlan(tuple(left))
    waived |= {item.finding.id for item in wrong if item not in able}
    court = convene(context.matrix, environment, context.settings, waived, elsewhere=elsewhere)
    known = [item.finding for item in wrong]

    def planner(answered: Sequence[Wrong]) -> Planner:
        asked = [item.finding for item in answered]
        eased = unfulfilled((item for item in known if item not in asked), CONFLICT)
        seen = replace(target, unseen=target.unseen - unfulfilled(asked, MISSING), eased=eased)
        return Planner(court, seen, [item.nogood for item in answered if item.nogood], say, resolver)

    def choices() -> Iterator[list[Wrong]]:
        """What to answer: all of it; else what can be answered by itself; else what has to be."""
        if len(able) == 1 or planner(able).conceivable():
            yield able
        yield [item for item in able if item.firm or planner([item]).conceivable()]
        yield [item for item in able if item.firm]

    found: Plan | NoPlan = NoPlan(())
    tried: list[list[Wrong]] = [[]]
    for choice in choices():
        if choice not in tried:
            tried.append(choice)
            found = planner(choice).plan()
        if isinstance(found, Plan):
            break
    answered = tried[-1]
    if isinstance(found, Plan):
        left += [f"`{item.finding.id}`: {item.finding.title}" for item in able if item not in answered]
        return replace(found, left=tuple(left))
    others = [f"`{item.finding.id}`: {item.finding.title}, and uv finds no set" for item in able if item not in answered]
    return replace(found, reasons=(*found.reasons, *left, *others))


def immovable(item: Wrong, target: Target) -> str:
    """Why no change of versions answers a finding; an empty string where one may."""
    terms = item.nogood.terms if item.nogood else ()
    if any(movable(term.name, target) or (term.spec == ABSENT and term.name not in target.versions) for term in terms):
        return ""
    fixed = [term.name for term in terms if term.name in target.fixed]
    if fixed:
        names = ", ".join(f"`{name}`" for name in fixed)
        return f"`{item.finding.id}`: {names} was built or linked here, not installed from an index"
    return f"`{item.finding.id}`: it is about no installed package that another version could replace"


def movable(name: str, target: Target) -> bool:
    """Whether an installed package may change."""
    return name in target.versions and name not in target.fixed


@dataclass(slots=True)
class Planner:
    """One search for a change.

    Attributes:
        court: What answers are judged by.
        target: The environment as uv sees it.
        nogoods: What is to be answered.
        say: Told in a few words what is being tried.
        resolver: What is asked.
    """

    court: Court
    target: Target
    nogoods: Sequence[Nogood]
    say: Callable[[str], None] = lambda _: None
    resolver: Callable[..., Installed] = Installed
    _questions: int = 0
    _gave_up: bool = False
    _reasons: dict[str, None] = field(default_factory=dict)
    _met: dict[Nogood, None] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)
    _removable: frozenset[str] = frozenset()

    def plan(self) -> Plan | NoPlan:
        """The smallest change, or why there is none.

        Raises:
            ToolError: uv failed.
        """
        told = frozenset(name for name in self.target.versions if self._told_to_go(name))
        self._removable = told
        found = self._smallest()
        if found is None and not self._gave_up:
            self._removable = told | {name for name in self._in_errors() if self._dispensable(name)}
            found = self._smallest() if self._removable > told else None
        if found is None:
            return NoPlan(tuple(self._reasons) or ("no set of versions was found",), self._questions)
        before, after = self.target.versions, found.versions
        changes = tuple(
            Change(name, before.get(name, ""), after.get(name, ""), tuple(dict.fromkeys(
                nogood.id for nogood in self.nogoods if any(term.name == name for term in nogood.terms)
            )))
            for name in found.cost.names
        )  # fmt: skip
        known = {nogood.id for nogood in self.nogoods}
        over = {(item.id, item.text): item for item in self._met if item.id not in known and _concerns(item, found.cost.names)}
        return Plan(
            changes, tuple(over.values()), self._questions, smallest=not self._gave_up, told=told,
            answered=frozenset(nogood.title for nogood in self.nogoods),
        )  # fmt: skip

    def conceivable(self) -> bool:
        """Whether uv finds any set at all, every package free to move."""
        self.say(f"asking whether {', '.join(nogood.title for nogood in self.nogoods)} can be answered")
        return isinstance(self.resolver(self.target, (), loose=True).ask(frozenset()), Answer)

    def _told_to_go(self, name: str) -> bool:
        """Whether the own fix of a rule that is to be answered says that a package goes."""
        fixes = [fix for nogood in self.nogoods for fix in nogood.fixes if fix.kind == "package"]
        return movable(name, self.target) and any(fix.change == f"{name} {ABSENT}" for fix in fixes)

    def _in_errors(self) -> set[str]:
        """The packages that errors are about: for a requirement that nothing fulfils no package goes."""
        errors = (nogood for nogood in (*self.nogoods, *self._met) if nogood.id not in (CONFLICT, MISSING))
        return {term.name for nogood in errors for term in nogood.terms}

    def _dispensable(self, name: str) -> bool:
        """Whether a package may go as far as can be told here: uv then refuses where another one that it sees requires it."""
        packages = self.court.before.packages
        needs = {need.name for other in self.court.elsewhere for need in map(parse, packages[other].requires) if need}
        return movable(name, self.target) and name not in KEPT and name not in needs

    def _smallest(self) -> Found | None:
        """Set by set, smallest first; once an answer is known only sets that could be smaller, or as small with less steps."""
        best: Found | None = None
        size = 1
        while size <= min(len(self._pool()), LARGEST) and (best is None or size <= best.cost.packages):
            tried: set[tuple[str, ...]] = set()
            while fresh := {names for names in combinations(self._pool(), size) if hits(names, self.nogoods)} - tried:
                tried |= fresh
                best = cheapest([best, *(self._attempt(moves) for names in sorted(fresh) for moves in self._ways(names))])
                if best and best.cost.packages == size:
                    return best
            if best is None:
                best = cheapest([self._attempt(moves, loose=True) for names in sorted(tried) for moves in self._ways(names)])
            size += 1
        return best

    def _pool(self) -> list[str]:
        """The packages whose change may help: those of the nogoods, of what was met on the way, and what moved with them."""
        terms = [term for nogood in (*self.nogoods, *self._met) for term in nogood.terms]
        absent = {term.name for term in terms if term.spec == ABSENT and term.name not in self.target.versions}
        met = {term.name for term in terms} | self._moved
        return sorted(absent | {name for name in met if movable(name, self.target)})

    def _ways(self, names: tuple[str, ...]) -> Iterable[tuple[Move, ...]]:
        """Every choice of a direction for each package; newer first, going last; a missing one is added."""
        ways = [
            (Direction.NEWER, Direction.OLDER, *([Direction.GONE] if name in self._removable else []))
            if name in self.target.versions else (Direction.ADDED,)
            for name in names
        ]  # fmt: skip
        for directions in product(*ways):
            yield tuple(Move(name, direction) for name, direction in zip(names, directions, strict=True))

    def _attempt(self, moves: tuple[Move, ...], *, loose: bool = False) -> Found | None:
        """The nearest allowed set for these moves, with its cost."""
        self.say(f"trying {', '.join(f'{move.name} {move.direction.word}' for move in moves)}")
        found = self._search(self.resolver(self.target, moves, loose))
        if found is None:
            return None
        if loose or len(moves) > 1 or found.versions.keys() - self.target.versions.keys():
            found = self._nearest(found)
        self._moved |= {name for name in found.cost.names if name in found.versions}
        return found

    def _search(self, backend: Installed) -> Found | None:
        left = max(min(SEARCH_QUESTIONS, QUESTIONS - self._questions), 0)
        wanted = {name: SpecifierSet(spec) for name, spec in backend.specifiers().items()}
        before = self.target.versions
        search = Search(
            backend, self._judge, wanted, list(self._met), limit=left,
            measure=lambda answer, soft: cost(before, answer.versions, soft),
        )  # fmt: skip
        try:
            found = search.run()
        except GaveUpError as error:
            self._reasons[str(error)] = None
            self._questions += left
            self._gave_up = True
            return None
        self._questions += found.questions
        if isinstance(found, Solution):
            self._gave_up |= not found.smallest
            versions = dict(found.answer.versions)
            return Found(cost(before, versions, len(found.unavoided)), versions)
        for end in found.dead_ends:
            if end.reason:
                self._reasons[f"uv: {end.reason}"] = None
            elif end.nogood:
                self._reasons[f"`{end.nogood.id}` forbids {end.nogood.text}"] = None
        return None

    def _judge(self, answer: Answer) -> list[Nogood]:
        """What an answer violates; of what hangs on an unknown setting only what the set before does not hold already."""
        found = [nogood for nogood in self.nogoods if nogood.violated(answer.versions)]
        found += self.court.violated(answer.versions, {})
        violated = [item for item in dict.fromkeys(found) if not (item.soft and item.violated(self.target.versions))]
        self._met.update(dict.fromkeys(violated))
        return violated

    def _nearest(self, found: Found) -> Found:
        """Each changed package in turn as near to the installed version as the others allow; an added one the newest."""
        before = self.target.versions
        gone = tuple(Move(name, Direction.GONE) for name in before if name not in found.versions)
        for name in found.cost.names:
            after = found.versions.get(name)
            if after is not None and after != before.get(name):
                older = name in before and Version(after) < Version(before[name])
                direction = Direction.ADDED if name not in before else (Direction.OLDER if older else Direction.NEWER)
                pins = {other: version for other, version in found.versions.items() if other != name}
                nearer = self._search(self.resolver(self.target, (Move(name, direction), *gone), pins=pins))
                if nearer is not None and (nearer.cost < found.cost or (name not in before and nearer.cost <= found.cost)):
                    found = nearer
        return found


def hits(names: tuple[str, ...], nogoods: Iterable[Nogood]) -> bool:
    """Whether every nogood has one of these packages."""
    return all(any(term.name in names for term in nogood.terms) for nogood in nogoods)


def _concerns(nogood: Nogood, names: tuple[str, ...]) -> bool:
    return any(term.name in names for term in nogood.terms)
