"""The search: ask a resolver, judge its answer, exclude one package of what must not be combined, ask again. Pure.

Best first and complete: every violated nogood is left by each of its ways out in turn, the cheapest open branch is asked
next, and a branch is given up only when the resolver refuses it or two of its conditions exclude each other. Where answers are
measured, the search goes on until no open branch can give a smaller one: a branch gives none smaller than the answer it left.
Sets of conditions only grow along a branch, so the tree is finite, and one that contains a refused set is refused as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.versions import specifier
from envcheck.resolve.nogoods import INSTALLED, NEVER, Nogood, Step, Term

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

#: How many further questions are spent on avoiding soft nogoods once an allowed answer is there.
PATIENCE = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolver chose: name -> version, and whatever else it gave, for the caller."""

    versions: Mapping[str, str]
    payload: object = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The resolver's reason why no set fulfils the conditions."""

    reason: str


class Backend(Protocol):
    """A resolver: complete for version conditions, ignorant of nogoods."""

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        """A set that fulfils the request under further conditions, or why there is none."""


#: The nogoods that a chosen set violates.
Judge = Callable[[Answer], Sequence[Nogood]]

#: The price class of a way out; class 0 is the dearest.
Price = Callable[[Step], int]

#: How large an answer is, given how many soft nogoods it violates; smaller is better.
Measure = Callable[[Answer, int], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Decision:
    """A nogood and the way out of it that was taken; `forced` where there was no other."""

    nogood: Nogood
    step: Step
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """A set of conditions and the decisions that led to it."""

    steps: frozenset[Step] = frozenset()
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """A branch without an answer: refused by the resolver, or `reason` empty where its own conditions exclude each other."""

    branch: Branch
    reason: str
    nogood: Nogood | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """An allowed set, the decisions that led to it, what it could not avoid, and how often the resolver was asked.

    `smallest` is False where the limit of questions ended a measured search: a smaller set may exist.
    """

    answer: Answer
    branch: Branch
    unavoided: tuple[Nogood, ...]
    questions: int
    smallest: bool = True


@dataclass(frozen=True, slots=True)
class NoSolution:
    """Every branch ended; `nogoods` are those that took part."""

    dead_ends: tuple[DeadEnd, ...]
    nogoods: tuple[Nogood, ...]
    questions: int


class GaveUpError(Exception):
    """The limit of questions was reached before the search ended."""


@dataclass(slots=True)
class Search:
    """One run over a request.

    Attributes:
        backend: The resolver.
        judge: What an answer violates.
        wanted: The packages asked for by name, with the versions asked for.
        nogoods: Known beforehand: those with one way out become conditions before the first question.
        price: What a way out costs.
        limit: Most questions, or None.
        measure: How large an answer is; None where the first allowed one will do.
    """

    backend: Backend
    judge: Judge
    wanted: Mapping[str, SpecifierSet]
    nogoods: Sequence[Nogood] = ()
    price: Price = lambda _: 0
    limit: int | None = None
    measure: Measure | None = None
    _questions: int = 0
    _refused: list[frozenset[Step]] = field(default_factory=list)
    _dead_ends: list[DeadEnd] = field(default_factory=list)
    _involved: dict[Nogood, None] = field(default_factory=dict)

    def run(self) -> Solution | NoSolution:
        """The first allowed set, best branch first; where answers are measured, the smallest.

        Raises:
            GaveUpError: The limit was reached before there was an allowed set.
        """
        heap: list[tuple[tuple[Any, ...], int, Branch]] = [((), 0, Branch())]
        seen = {frozenset[Step]()}
        best: Solution | None = None
        while heap and not (best and self._enough(best, heap[0][0])):
            branch = self._settle(heapq.heappop(heap)[2])
            try:
                answer = self._ask(branch) if branch else None
            except GaveUpError:
                if best is None:
                    raise
                return replace(best, questions=self._questions, smallest=False)
            if branch is None or answer is None:
                continue
            violated = self.judge(answer)
            hard = [nogood for nogood in violated if not nogood.soft]
            if not hard:
                found = Solution(answer, branch, tuple(violated), best.questions if best else self._questions)
                best = found if best is None or self._size(found) < self._size(best) else best
            for child in self._children(branch, hard or violated) if violated else ():
                if child.steps not in seen:
                    seen.add(child.steps)
                    bound = self.measure(answer, 0) if self.measure else self._cost(child)
                    heapq.heappush(heap, (bound, len(seen), child))
        found_none = NoSolution(tuple(self._dead_ends), tuple(self._involved), self._questions)
        return replace(best, questions=self._questions) if best else found_none

    def _size(self, found: Solution) -> tuple[Any, ...]:
        soft = len(found.unavoided)
        return self.measure(found.answer, soft) if self.measure else (soft,)

    def _enough(self, best: Solution, bound: tuple[Any, ...]) -> bool:
        """Whether no open branch is worth a question any more: `bound` is the least of theirs."""
        if self.measure:
            return bound >= self._size(best)
        return not best.unavoided or self._questions >= best.questions + PATIENCE

    def _ask(self, branch: Branch) -> Answer | None:
        if any(refused <= branch.steps for refused in self._refused):
            return None
        if self.limit is not None and self._questions >= self.limit:
            raise GaveUpError(f"no allowed set among the first {self.limit} answers")
        self._questions += 1
        answer = self.backend.ask(branch.steps)
        if isinstance(answer, Answer):
            return answer
        self._refused.append(branch.steps)
        self._dead_ends.append(DeadEnd(branch, answer.reason))
        return None

    def _settle(self, branch: Branch) -> Branch | None:
        """The branch with every condition that follows from it; None where two exclude each other."""
        while True:
            forced = self._forced(branch)
            if forced is None:
                return branch
            nogood, steps = forced
            self._involved[nogood] = None
            if not steps:
                self._dead_ends.append(DeadEnd(branch, "", nogood))
                return None
            decision = Decision(nogood, steps[0], forced=True)
            branch = Branch(branch.steps | {decision.step}, (*branch.decisions, decision))

    def _forced(self, branch: Branch) -> tuple[Nogood, list[Step]] | None:
        """A nogood that the branch leaves one way out of, or none."""
        for nogood in self.nogoods:
            if nogood.soft or any(self._false(branch, term) for term in nogood.terms):
                continue
            open_terms = [term for term in nogood.terms if not self._true(branch, term)]
            steps = [step for term in open_terms for step in self._feasible(branch, term.ways_out())]
            if len(open_terms) <= 1 and len(steps) <= 1:
                return nogood, steps
        return None

    def _children(self, branch: Branch, violated: Sequence[Nogood]) -> list[Branch]:
        """The branches out of the most constraining violated nogood."""
        options = [(list(self._feasible(branch, nogood.ways_out())), nogood) for nogood in violated]
        steps, nogood = min(options, key=lambda item: (len(item[0]), item[1].id, item[1].text))
        self._involved[nogood] = None
        if not steps:
            self._dead_ends.append(DeadEnd(branch, "", nogood))
        steps.sort(key=lambda step: _hinted(nogood, step))
        return [
            Branch(branch.steps | {step}, (*branch.decisions, Decision(nogood, step, forced=len(steps) == 1)))
            for step in steps
        ]  # fmt: skip

    def _cost(self, branch: Branch) -> tuple[int, ...]:
        """How many conditions of each price class the branch chose, the dearest class first; smaller is better."""
        classes = [self.price(decision.step) for decision in branch.decisions if not decision.forced]
        return tuple(classes.count(number) for number in range(max(classes, default=-1) + 1))

    def _feasible(self, branch: Branch, steps: Iterable[Step]) -> Iterable[Step]:
        """The steps that do not contradict what the branch says of a package that has to be there."""
        for step in steps:
            if step in branch.steps:
                continue
            clauses = [*self._clauses(branch, step.name), step.clause]
            required = self._required(branch, step.name) or step.clause == INSTALLED
            if not (required and specifier(",".join(filter(None, clauses))).is_unsatisfiable()):
                yield step

    def _required(self, branch: Branch, name: str) -> bool:
        return name in self.wanted or Step(name, INSTALLED) in branch.steps

    def _clauses(self, branch: Branch, name: str) -> list[str]:
        found = sorted(step.clause for step in branch.steps if step.name == name and step.clause)
        return [str(self.wanted[name]), *found] if name in self.wanted else found

    def _span(self, branch: Branch, name: str) -> SpecifierSet:
        return specifier(",".join(filter(None, self._clauses(branch, name))))

    def _true(self, branch: Branch, term: Term) -> bool:
        """Whether the term holds in every answer to this branch (releases; a request for pre-releases decides nothing)."""
        if term.spec == ABSENT or not self._required(branch, term.name):
            return term.spec == ABSENT and Step(term.name, NEVER) in branch.steps
        span = self._span(branch, term.name)
        return not span.prereleases and (term.spec == ANY or span.to_range().is_subset(specifier(term.spec).to_range()))

    def _false(self, branch: Branch, term: Term) -> bool:
        """Whether the term holds in no answer to this branch."""
        if term.spec == ABSENT:
            return self._required(branch, term.name)
        if Step(term.name, NEVER) in branch.steps:
            return True
        if term.spec == ANY:
            return False
        return self._span(branch, term.name).to_range().is_disjoint(specifier(term.spec).to_range())


def _hinted(nogood: Nogood, step: Step) -> int:
    """The place of a way out among the rule's own fixes; after all of them where it is none."""
    for place, fix in enumerate(nogood.fixes):
        name, _, _ = fix.change.replace("<", " ").replace(">", " ").replace("=", " ").replace("!", " ").partition(" ")
        if fix.kind == "package" and name == step.name and _agrees(step.clause, fix.change[len(name) :].strip()):
            return place
    return len(nogood.fixes)


def _agrees(clause: str, change: str) -> bool:
    """Whether a fix points the same way as a clause: both to newer versions, or both to older ones."""
    return not clause or not change or clause[0] == change[0] or "=" in (clause[0], change[0])
