"""Why there is no lock, against enumeration: a set that excludes everything, and no smaller one."""

from __future__ import annotations

from itertools import combinations
from random import Random

from envcheck.facts.model import Environment
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings
from envcheck.resolve.judgement import Court
from envcheck.resolve.refusal import explain_refusal
from envcheck.resolve.request import Request
from envcheck.resolve.search import NoSolution
from envcheck.resolve.solve import Case
from tests.resolve.universe import Universe, draw_nogoods, draw_universe

MATRIX = load(cache=False)


def case(universe: Universe) -> Case:
    return Case(Request((), "3.11"), MATRIX, universe, Court(MATRIX, Environment(), Settings()), None, universe.wanted)


def reasons(random: Random) -> int | None:
    """How many rules the refusal of a random request names, checked against enumeration; None where it is not refused."""
    universe = draw_universe(random, packages=4, versions=3)
    nogoods = draw_nogoods(random, universe, most=9)
    found = case(universe).search(nogoods)
    if not isinstance(found, NoSolution):
        return None
    told = explain_refusal(case(universe), found, lambda _: None)
    assert told.smallest
    assert universe.allowed(told.nogoods) is None
    for size in range(len(told.nogoods)):
        assert all(universe.allowed(fewer) is not None for fewer in combinations(found.nogoods, size))
    return len(told.nogoods)


def test_the_reasons_exclude_every_set_and_no_fewer_of_them_do() -> None:
    sizes = {reasons(Random(seed)) for seed in range(500)}  # noqa: S311 - seeded universes, no secret
    assert {None, 0, 1, 2, 3} <= sizes
