"""Small universes of packages: a resolver over them, an enumeration of their allowed sets, and random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import TYPE_CHECKING, NamedTuple

from packaging.specifiers import SpecifierSet

from envcheck.matrix.versions import satisfies
from envcheck.resolve.nogoods import INSTALLED, Nogood, Step, Term
from envcheck.resolve.search import Answer, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random


class Need(NamedTuple):
    """From version `since` on, `name` needs `target` in `spec`."""

    name: str
    since: int
    target: str
    spec: str


@dataclass
class Universe:
    """Packages with versions 1 to n, which pull in others.

    Attributes:
        sizes: Name -> number of versions.
        wanted: What is asked for by name.
        needs: Dependencies.
        asked: The questions so far.
    """

    sizes: dict[str, int]
    wanted: dict[str, SpecifierSet]
    needs: list[Need] = field(default_factory=list)
    asked: list[frozenset[Step]] = field(default_factory=list)

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        """The newest closed set under the conditions."""
        self.asked.append(steps)
        found = next(self.sets(steps), None)
        return Refusal("nothing fits") if found is None else Answer(found)

    def sets(self, steps: frozenset[Step] = frozenset(), nogoods: Sequence[Nogood] = ()) -> Iterator[dict[str, str]]:
        """Every set that holds what is wanted or needed and nothing else, newest first, under conditions and nogoods."""
        clauses: dict[str, tuple[str, ...]] = {name: (str(spec),) for name, spec in self.wanted.items()}
        for step in steps:
            clauses[step.name] = (*clauses.get(step.name, ()), step.clause)
        roots = sorted({*self.wanted, *(step.name for step in steps if step.clause == INSTALLED)})
        yield from self._extend({}, roots, clauses, nogoods)

    def _extend(
        self, chosen: dict[str, str], pending: list[str], clauses: dict[str, tuple[str, ...]], nogoods: Sequence[Nogood],
    ) -> Iterator[dict[str, str]]:  # fmt: skip
        if not pending:
            if not any(nogood.violated(chosen) for nogood in nogoods):
                yield dict(chosen)
            return
        name, rest = pending[0], pending[1:]
        for number in range(self.sizes[name], 0, -1):
            version = str(number)
            if not all(satisfies(version, clause) for clause in clauses.get(name, ())):
                continue
            more = [need for need in self.needs if need.name == name and number >= need.since]
            longer = {**chosen, name: version}
            if any(need.target in longer and not satisfies(longer[need.target], need.spec) for need in more):
                continue
            if any(_certain(nogood, longer) for nogood in nogoods):
                continue
            tighter = dict(clauses)
            for need in more:
                tighter[need.target] = (*tighter.get(need.target, ()), need.spec)
            queue = rest + sorted({need.target for need in more} - longer.keys() - set(rest))
            yield from self._extend(longer, queue, tighter, nogoods)

    def allowed(self, nogoods: Sequence[Nogood]) -> dict[str, str] | None:
        """Some set without a violated nogood, where packages that a nogood misses may be added; by enumeration."""
        missed = sorted({term.name for nogood in nogoods for term in nogood.terms if term.spec == "absent"} - self.wanted.keys())
        for extra in chain.from_iterable(combinations(missed, count) for count in range(len(missed) + 1)):
            steps = frozenset(Step(name, INSTALLED) for name in extra)
            found = next(self.sets(steps, nogoods), None)
            if found is not None:
                return found
        return None


def _certain(nogood: Nogood, chosen: dict[str, str]) -> bool:
    """Whether a partial set already holds the nogood (a package not chosen yet may still come)."""
    return all(term.name in chosen for term in nogood.terms) and nogood.violated(chosen)


def draw_spec(random: Random, size: int) -> str:
    """A specifier set over versions 1 to `size`."""
    low, high = sorted((random.randint(1, size), random.randint(1, size)))
    between, holed = f">={low},<={high}", f">={low},<{high + 1},!={high}"
    return random.choice([between, f"=={low}", f"!={low}", f"<{high + 1}", f">={low}", holed])


def draw_universe(random: Random, packages: int = 8, versions: int = 8) -> Universe:
    """A universe of at most that many packages and versions, with some dependencies."""
    names = "abcdefgh"[: random.randint(1, packages)]
    sizes = {name: random.randint(1, versions) for name in names}
    roots = sorted(random.sample(names, random.randint(1, len(names))))
    wanted = {name: SpecifierSet(draw_spec(random, sizes[name]) if random.random() < 0.4 else "") for name in roots}
    needs = []
    for _ in range(random.randint(0, len(names))):
        source, target = random.choice(names), random.choice(names)
        if source != target:
            spec = draw_spec(random, sizes[target]) if random.random() < 0.6 else ""
            needs.append(Need(source, random.randint(1, sizes[source]), target, spec))
    return Universe(sizes, wanted, needs)


def draw_nogoods(random: Random, universe: Universe, most: int = 20, soft: float = 0.0) -> list[Nogood]:
    """Nogoods of arity 1 to 4 over the universe; some are about any version, or about a package that is absent."""
    return [
        Nogood(f"n{number}", "", tuple(_terms(random, universe)), soft=random.random() < soft)
        for number in range(random.randint(0, most))
    ]


def _terms(random: Random, universe: Universe) -> Iterator[Term]:
    names = sorted(universe.sizes)
    for name in random.sample(names, min(random.randint(1, 4), len(names))):
        rare = random.random() < 0.08
        yield Term(name, random.choice(["*", "absent"]) if rare else draw_spec(random, universe.sizes[name]))
