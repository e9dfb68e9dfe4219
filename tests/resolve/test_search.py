"""The search against enumeration: complete, never a forbidden set, deterministic, and sparing with questions."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from envcheck.findings import Fix
from envcheck.resolve.nogoods import Nogood, Step, Term
from envcheck.resolve.search import Answer, GaveUpError, NoSolution, Search, Solution
from tests.resolve.universe import Need, Universe, draw_nogoods, draw_universe

if TYPE_CHECKING:
    from collections.abc import Sequence

RANDOMS = st.integers(0, 2**32).map(Random)


def search(
    universe: Universe, nogoods: Sequence[Nogood], *, known: bool = True, limit: int | None = None,
) -> Solution | NoSolution:  # fmt: skip
    def judge(answer: Answer) -> list[Nogood]:
        return [nogood for nogood in nogoods if nogood.violated(answer.versions)]

    return Search(universe, judge, universe.wanted, nogoods if known else (), limit=limit).run()


def check_case(random: Random) -> None:
    universe = draw_universe(random)
    nogoods = draw_nogoods(random, universe)
    found = search(universe, nogoods, known=random.random() < 0.8)
    possible = universe.allowed(nogoods)
    if possible is None:
        assert isinstance(found, NoSolution), found
        assert found.dead_ends
    else:
        assert isinstance(found, Solution), (universe, nogoods, possible)
        assert not found.unavoided
        assert not any(nogood.violated(found.answer.versions) for nogood in nogoods)


@settings(max_examples=300)
@given(RANDOMS)
def test_a_set_is_found_exactly_when_there_is_one_and_never_a_forbidden_one(random: Random) -> None:
    check_case(random)


@pytest.mark.slow
def test_ten_thousand_universes() -> None:
    for seed in range(10_000):
        check_case(Random(seed))  # noqa: S311 - a seeded universe, no secret


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_the_same_request_is_answered_by_the_same_questions(seed: int) -> None:
    runs = []
    for _ in range(2):
        random = Random(seed)  # noqa: S311 - a seeded universe, no secret
        universe = draw_universe(random)
        runs.append((search(universe, draw_nogoods(random, universe)), universe.asked))
    assert runs[0] == runs[1]


@settings(max_examples=150)
@given(RANDOMS)
def test_soft_nogoods_never_refuse(random: Random) -> None:
    universe = draw_universe(random, packages=5, versions=5)
    nogoods = draw_nogoods(random, universe, most=10, soft=0.5)
    hard = [nogood for nogood in nogoods if not nogood.soft]
    found = search(universe, nogoods)
    assert isinstance(found, Solution) is (universe.allowed(hard) is not None)
    if isinstance(found, Solution):
        assert not any(nogood.violated(found.answer.versions) for nogood in hard)
        assert set(found.unavoided) == {nogood for nogood in nogoods if nogood.violated(found.answer.versions)}


@settings(max_examples=100)
@given(RANDOMS)
def test_enumeration_agrees_with_the_naive_product(random: Random) -> None:
    universe = draw_universe(random, packages=3, versions=3)
    nogoods = draw_nogoods(random, universe, most=5)
    pruned = list(universe.sets(nogoods=nogoods))
    naive = [chosen for chosen in universe.sets() if not any(nogood.violated(chosen) for nogood in nogoods)]
    assert pruned == naive


def bad(name: str, *terms: tuple[str, str], **more: object) -> Nogood:
    return Nogood(name, "", tuple(Term(*term) for term in terms), **more)  # type: ignore[arg-type]


def test_a_known_range_costs_no_question() -> None:
    universe = Universe({"a": 8}, {"a": SpecifierSet("<=6")})
    found = search(universe, [bad("x", ("a", ">=4,<6")), bad("y", ("a", "==6"))])
    assert isinstance(found, Solution)
    assert found.answer.versions == {"a": "3"}
    assert found.questions == 1
    assert [str(decision.step) for decision in found.branch.decisions] == ["a!=6", "a<4"]


def test_one_more_question_a_conflict() -> None:
    universe = Universe({"a": 8, "b": 8}, {"a": SpecifierSet(""), "b": SpecifierSet("")})
    found = search(universe, [bad("x", ("a", ">=5"), ("b", ">=5"))])
    assert isinstance(found, Solution)
    assert found.questions == 2


def test_ranges_and_not_versions_are_excluded() -> None:
    universe = Universe({"a": 8, "b": 8}, {"a": SpecifierSet("")}, [Need("a", 1, "b", "<=7")])
    found = search(universe, [bad("x", ("b", ">=2"))], known=False)
    assert isinstance(found, Solution)
    assert found.answer.versions["b"] == "1"
    assert found.questions == 2


def test_the_dearest_package_is_kept() -> None:
    universe = Universe({"a": 4, "b": 4}, {"a": SpecifierSet(""), "b": SpecifierSet("")})
    nogood = bad("x", ("a", ">=3"), ("b", ">=3"))

    def judge(answer: Answer) -> list[Nogood]:
        return [nogood] if nogood.violated(answer.versions) else []

    for kept, other in (("a", "b"), ("b", "a")):

        def price(step: Step, kept: str = kept) -> int:
            return int(step.name != kept)

        found = Search(universe, judge, universe.wanted, [nogood], price).run()
        assert isinstance(found, Solution)
        assert (found.answer.versions[kept], found.answer.versions[other]) == ("4", "2")


def test_the_rules_own_fix_goes_first() -> None:
    universe = Universe({"a": 8}, {"a": SpecifierSet("<=7")}, [])
    older = bad("x", ("a", ">=4,<7"), ("a", "!=7"), fixes=(Fix("package", "a<4"), Fix("package", "a>=7")))
    universe.wanted["a"] = SpecifierSet("!=8,!=7")
    found = search(universe, [older], known=False)
    assert isinstance(found, Solution)
    assert found.answer.versions == {"a": "3"}


def test_a_missing_package_is_added() -> None:
    universe = Universe({"a": 3, "setuptools": 2}, {"a": SpecifierSet("==3")})
    found = search(universe, [bad("x", ("a", ">=2"), ("setuptools", "absent"))])
    assert isinstance(found, Solution)
    assert found.answer.versions == {"a": "3", "setuptools": "2"}
    assert found.questions == 1


def test_the_end_names_the_nogoods_and_the_refusals() -> None:
    universe = Universe({"a": 4, "b": 4}, {"a": SpecifierSet("==4"), "b": SpecifierSet("")}, [Need("a", 4, "b", ">=3")])
    found = search(universe, [bad("x", ("a", "==4"), ("b", ">=2"))])
    assert isinstance(found, NoSolution)
    assert [nogood.id for nogood in found.nogoods] == ["x"]
    assert [dead.reason for dead in found.dead_ends] == ["nothing fits"]
    assert found.dead_ends[0].branch.steps == {Step("b", "<2")}


def test_a_limit_is_an_error_and_not_an_answer() -> None:
    universe = Universe({"a": 4, "b": 4}, {"a": SpecifierSet(""), "b": SpecifierSet("")})
    with pytest.raises(GaveUpError):
        search(universe, [bad("x", ("a", ">=2"), ("b", ">=2"))], known=False, limit=1)
