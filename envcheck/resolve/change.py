"""The smallest change of an installed set that makes its check free of errors.

Fewest packages first, then the smallest steps. What is wrong is a list of nogoods, each of which has to lose a package: only
sets of packages that hit them all come into question, smallest sets first, every other installed package pinned, each package
of the set once towards older and once towards newer releases (uv then gives the nearest). Where no set of a size will do,
the others may move as far as they have to; what moved joins the candidates, so that a smaller choice among them is still found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from envcheck.checks.context import Context
from envcheck.checks.registry import run_all
from envcheck.checks.rules import speaking
from envcheck.facts.model import Distribution
from envcheck.findings import Severity, Skip
from envcheck.resolve.installed import Direction, Installed, Move
from envcheck.resolve.nogoods import Nogood, Term
from envcheck.resolve.search import Answer, GaveUpError, Search, Solution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from envcheck.facts.model import Environment
    from envcheck.findings import Finding
    from envcheck.resolve.installed import Target

#: Findings that say that installed versions contradict each other.
CONFLICTS = ("requirement-conflict",)

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
    """

    changes: tuple[Change, ...]
    passed_over: tuple[Nogood, ...] = ()
    questions: int = 0
    smallest: bool = True

    @property
    def versions(self) -> dict[str, str]:
        """What is to be installed: name -> version."""
        return {change.name: change.after for change in self.changes if change.after}


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why no change of versions will do, one sentence each."""

    reasons: tuple[str, ...]
    questions: int = 0


def to_fix(context: Context, silenced: Callable[[Finding], bool]) -> list[Finding]:
    """The errors and requirement conflicts of an environment that no waiver silences."""
    findings, _ = run_all(context)
    return [item for item in findings if (item.severity is Severity.ERROR or item.id in CONFLICTS) and not silenced(item)]


def conflicting(findings: Iterable[Finding]) -> frozenset[str]:
    """The packages that requirement conflicts want in another version."""
    return frozenset(item.subjects[1] for item in findings if item.id in CONFLICTS)


def nogoods_of(context: Context, findings: Iterable[Finding]) -> list[Nogood]:
    """What each finding forbids: the version ranges of its rule, else the versions of the packages it is about."""
    findings = list(findings)
    wanted = {finding.id for finding in findings}
    packages = context.environment.packages
    ruled: dict[str, dict[str, Term]] = {}
    for outcome in speaking(context):
        if not isinstance(outcome, Skip) and outcome.rule.id in wanted:
            terms = {name: Term(name, spec) for name, spec in outcome.rule.packages.items()}
            ruled[outcome.rule.id] = terms
    nogoods = []
    for finding in findings:
        own = {name: exact(name, packages[name].version) for name in finding.subjects if name in packages}
        terms = {**own, **ruled.get(finding.id, {})}
        nogoods.append(Nogood(
            finding.id, finding.title, tuple(terms.values()), because=finding.because, fixes=finding.fixes,
            evidence=finding.evidence,
        ))  # fmt: skip
    return nogoods


def exact(name: str, version: str) -> Term:
    """The term that holds for this version alone."""
    return Term(name, f"=={version}")


def changed(environment: Environment, versions: Mapping[str, str]) -> Environment:
    """The environment with other versions; what the old versions' metadata and files said is then not known."""
    packages = {}
    for name, version in versions.items():
        old = environment.packages.get(name)
        packages[name] = old if old and old.version == version else Distribution(name, version)
    elsewhere = {name: item for name, item in environment.packages.items() if name not in packages}
    moved = {name for name in packages if packages[name] is not environment.packages.get(name)}
    stale = tuple(f"{name.replace('-', '_')}_" for name in moved)
    facts = {name: fact for name, fact in environment.facts.items() if not (stale and name.startswith(stale))}
    return environment._replace(packages={**elsewhere, **packages}, facts=facts)


@dataclass(slots=True)
class Planner:
    """One search for a change.

    Attributes:
        context: The environment, the matrix, the settings.
        target: The environment as uv sees it.
        wrong: What is to be fixed.
        silenced: Whether a waiver silences a finding.
        say: Told in a few words what is being tried.
        resolver: What is asked.
    """

    context: Context
    target: Target
    wrong: Sequence[Finding]
    silenced: Callable[[Finding], bool]
    say: Callable[[str], None] = lambda _: None
    resolver: Callable[..., Installed] = Installed
    _questions: int = 0
    _gave_up: bool = False
    _reasons: dict[str, None] = field(default_factory=dict)
    _met: dict[Nogood, None] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)

    def plan(self) -> Plan | NoPlan:
        """The smallest change, or why there is none.

        Raises:
            ToolError: uv failed.
        """
        nogoods = nogoods_of(self.context, self.wrong)
        for nogood in nogoods:
            if not any(self._movable(term.name) for term in nogood.terms):
                self._reasons[self._immovable(nogood)] = None
        if self._reasons:
            return NoPlan(tuple(self._reasons), self._questions)
        found = self._smallest(nogoods)
        if found is None:
            return NoPlan(tuple(self._reasons) or ("no set of versions was found",), self._questions)
        before = self.target.versions
        after = found.versions
        changes = tuple(
            Change(name, before.get(name, ""), after.get(name, ""), tuple(
                nogood.id for nogood in nogoods if any(term.name == name for term in nogood.terms)
            ))
            for name in found.cost.names
        )  # fmt: skip
        known = {nogood.id for nogood in nogoods}
        over = {(item.id, item.text): item for item in self._met if item.id not in known and _concerns(item, found.cost.names)}
        return Plan(changes, tuple(over.values()), self._questions, smallest=not self._gave_up)

    def _movable(self, name: str) -> bool:
        return name in self.target.versions and name not in self.target.fixed

    def _immovable(self, nogood: Nogood) -> str:
        fixed = [term.name for term in nogood.terms if term.name in self.target.fixed]
        if fixed:
            names = ", ".join(f"`{name}`" for name in fixed)
            return f"`{nogood.id}`: {names} was built or linked here, not installed from an index"
        return f"`{nogood.id}`: it is about no installed package that another version could replace"

    def _smallest(self, nogoods: list[Nogood]) -> Found | None:
        """Set by set, smallest first; once an answer is known only sets that could be smaller, or as small with less steps."""
        best: Found | None = None
        size = 1
        while size <= min(len(self._pool(nogoods)), LARGEST) and (best is None or size <= best.cost.packages):
            tried: set[tuple[str, ...]] = set()
            while fresh := {names for names in combinations(self._pool(nogoods), size) if hits(names, nogoods)} - tried:
                tried |= fresh
                best = cheapest([best, *(self._attempt(moves) for names in sorted(fresh) for moves in both_ways(names))])
                if best and best.cost.packages == size:
                    return best
            if best is None:
                loose = [self._attempt(moves, loose=True) for names in sorted(tried) for moves in both_ways(names)]
                best = cheapest(loose)
            size += 1
        return best

    def _pool(self, nogoods: list[Nogood]) -> list[str]:
        """The packages whose change may help: those of the nogoods, of what was met on the way, and what moved with them."""
        met = {term.name for nogood in (*nogoods, *self._met) for term in nogood.terms}
        return sorted(name for name in met | self._moved if self._movable(name))

    def _attempt(self, moves: tuple[Move, ...], *, loose: bool = False) -> Found | None:
        """The nearest allowed set for these moves, with its cost."""
        self.say(f"trying {', '.join(f'{move.name} {_word(move)}' for move in moves)}")
        answer = self._search(self.resolver(self.target, moves, loose))
        if answer is None:
            return None
        if loose or len(moves) > 1:
            answer = self._nearest(answer)
        self._moved |= {name for name, version in self.target.versions.items() if answer.get(name) != version}
        return Found(cost(self.target.versions, answer), answer)

    def _search(self, backend: Installed) -> dict[str, str] | None:
        left = min(SEARCH_QUESTIONS, QUESTIONS - self._questions)
        wanted = {name: SpecifierSet(spec) for name, spec in backend.specifiers().items()}
        search = Search(backend, self._judge, wanted, list(self._met), limit=max(left, 0))
        try:
            found = search.run()
        except GaveUpError as error:
            self._reasons[str(error)] = None
            self._questions += max(left, 0)
            self._gave_up = True
            return None
        self._questions += found.questions
        if isinstance(found, Solution):
            return dict(found.answer.versions)
        for end in found.dead_ends:
            if end.reason:
                self._reasons[f"uv: {end.reason}"] = None
            elif end.nogood:
                self._reasons[f"`{end.nogood.id}` forbids {end.nogood.text}"] = None
        return None

    def _judge(self, answer: Answer) -> list[Nogood]:
        environment = changed(self.context.environment, answer.versions)
        context = Context(environment, self.context.matrix, self.context.settings)
        errors = [item for item in to_fix(context, self.silenced) if item.severity is Severity.ERROR]
        violated = [nogood for nogood in nogoods_of(context, errors) if nogood.terms]
        self._met.update(dict.fromkeys(violated))
        return violated

    def _nearest(self, answer: dict[str, str]) -> dict[str, str]:
        """Each changed package in turn as near to the installed version as the others allow."""
        for name, before in self.target.versions.items():
            after = answer.get(name)
            if after is not None and after != before:
                direction = Direction.OLDER if Version(after) < Version(before) else Direction.NEWER
                pins = {other: version for other, version in answer.items() if other != name}
                nearer = self._search(self.resolver(self.target, (Move(name, direction),), pins=pins))
                if nearer is not None and cost(self.target.versions, nearer) < cost(self.target.versions, answer):
                    answer = nearer
        return answer


def _word(move: Move) -> str:
    return {Direction.OLDER: "older", Direction.NEWER: "newer", None: "other"}[move.direction]


def hits(names: tuple[str, ...], nogoods: Iterable[Nogood]) -> bool:
    """Whether every nogood has one of these packages."""
    return all(any(term.name in names for term in nogood.terms) for nogood in nogoods)


def both_ways(names: tuple[str, ...]) -> Iterable[tuple[Move, ...]]:
    """Every choice of a direction for each package; newer first."""
    for directions in product((Direction.NEWER, Direction.OLDER), repeat=len(names)):
        yield tuple(Move(name, direction) for name, direction in zip(names, directions, strict=True))


def _concerns(nogood: Nogood, names: tuple[str, ...]) -> bool:
    return any(term.name in names for term in nogood.terms)


@dataclass(frozen=True, slots=True, order=True)
class Cost:
    """How large a change is; compared field by field.

    Attributes:
        packages: Packages that change, are added, or go.
        steps: Differences of the first three release numbers, summed over the packages.
        older: Packages that become older.
        names: The packages, so that the choice does not hang on chance.
    """

    packages: int
    steps: tuple[int, int, int]
    older: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """An allowed set and what it costs to go there."""

    cost: Cost
    versions: dict[str, str]


def cheapest(found: Iterable[Found | None]) -> Found | None:
    """The set with the smallest cost; None where there is none."""
    return min((item for item in found if item), key=lambda item: item.cost, default=None)


def cost(before: Mapping[str, str], after: Mapping[str, str]) -> Cost:
    """The cost of going from one set of versions to another."""
    names = tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
    pairs = [(Version(before[name]), Version(after[name])) for name in names if name in before and name in after]
    distances = [distance(old, new) for old, new in pairs]
    major, minor, micro = (sum(column) for column in zip(*distances, strict=True)) if distances else (0, 0, 0)
    return Cost(len(names), (major, minor, micro), sum(new < old for old, new in pairs), names)


def distance(old: Version, new: Version) -> tuple[int, int, int]:
    """How far apart two versions are: major releases; within one, minor ones; within one, micro ones."""
    if old.major != new.major or old.epoch != new.epoch:
        return abs(old.major - new.major) + abs(old.epoch - new.epoch), 0, 0
    if old.minor != new.minor:
        return 0, abs(old.minor - new.minor), 0
    return 0, 0, abs(old.micro - new.micro)
