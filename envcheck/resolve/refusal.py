"""Why there is no lock: the smallest set of rules and uv's own reasons that exclude every one, and what to relax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from envcheck.facts.metadata import normalised
from envcheck.resolve.request import parse_requirement
from envcheck.resolve.search import NoSolution, Solution
from envcheck.resolve.solve import open_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from envcheck.resolve.nogoods import Nogood
    from envcheck.resolve.request import Request
    from envcheck.resolve.solve import Case

#: Sets of more nogoods than this are reported as they are: reducing them asks uv about each.
REDUCED = 12

#: Subsets that are tried after deletion; most of their questions are answered already.
ENUMERATED = 60

#: So many requirements are tried without their bound.
TRIED = 4


@dataclass(frozen=True, slots=True)
class Impossible:
    """Why there is no lock.

    Attributes:
        nogoods: Rules that exclude every set together. Where `smallest`, without any one of them there is one, and up to some
            dozens of subsets no fewer rules do.
        refusals: uv's reasons for the branches that are left, each with the conditions it was asked under.
        relaxations: Requirements without whose bound there is a lock, with what it would hold; or these reasons fall, at least.
        smallest: False where the set of rules was too large to be reduced.
    """

    nogoods: tuple[Nogood, ...]
    refusals: tuple[str, ...]
    relaxations: tuple[str, ...]
    smallest: bool = True


def explain_refusal(case: Case, found: NoSolution, progress: Callable[[str], None]) -> Impossible:
    """Reduce the reasons of a search without solution, and try what could be relaxed.

    Raises:
        ToolError: uv failed, or a search was given up.
    """
    nogoods = [nogood for nogood in found.nogoods if not nogood.soft]
    smallest = len(nogoods) <= REDUCED
    if smallest:
        nogoods = _reduce(case, nogoods)
    last = case.search(nogoods) if smallest else found
    refusals = tuple(dict.fromkeys(_refusals(last if isinstance(last, NoSolution) else found)))
    relaxations = tuple(_relaxations(case, nogoods, refusals, progress))
    return Impossible(tuple(nogoods), refusals, relaxations, smallest)


def _reduce(case: Case, nogoods: Sequence[Nogood]) -> list[Nogood]:
    """A smallest subset that still excludes everything: by deletion, then, where they are few, smaller ones by enumeration."""
    kept = list(nogoods)
    for nogood in nogoods:
        fewer = [other for other in kept if other is not nogood]
        if isinstance(case.search(fewer), NoSolution):
            kept = fewer
    sizes = range(1, len(kept))
    if sum(comb(len(nogoods), size) for size in sizes) <= ENUMERATED:
        smaller = (list(found) for size in sizes for found in combinations(nogoods, size))
        kept = next((found for found in smaller if isinstance(case.search(found), NoSolution)), kept)
    return kept


def _refusals(found: NoSolution) -> Iterator[str]:
    for dead in found.dead_ends:
        if dead.reason:
            conditions = ", ".join(map(str, sorted(dead.branch.steps)))
            yield f"with {conditions}: {dead.reason}" if conditions else dead.reason


def _relaxations(
    case: Case, nogoods: Sequence[Nogood], refusals: Sequence[str], progress: Callable[[str], None],
) -> Iterator[str]:  # fmt: skip
    concerned = {term.name for nogood in nogoods for term in nogood.terms}
    text = " ".join(refusals)
    tried = 0
    for line in (*case.request.requirements, *case.request.constraints):
        parsed = parse_requirement(line)
        name = normalised(parsed.name)
        if not parsed.specifier or tried >= TRIED or not (name in concerned or name in text):
            continue
        tried += 1
        progress(f"trying without the bound of `{line}`")
        without = open_case(_without(case.request, line), case.matrix, progress)
        solved = without.search()
        if isinstance(solved, Solution):
            yield f"{line} -> {parsed.name} (would give {solved.answer.versions.get(name, 'no such package')})"
        elif isinstance(without.search(nogoods), Solution):
            yield f"{line} -> {parsed.name} (answers this; then other reasons are left)"


def _without(request: Request, line: str) -> Request:
    """The request with the bound of one line taken away; a constraint goes altogether."""
    parsed = parse_requirement(line)
    bare = f"{parsed.name}{'[' + ','.join(sorted(parsed.extras)) + ']' if parsed.extras else ''}"
    bare += f" ; {parsed.marker}" if parsed.marker else ""
    return replace(
        request,
        requirements=tuple(bare if item == line else item for item in request.requirements),
        constraints=tuple(item for item in request.constraints if item != line),
    )
