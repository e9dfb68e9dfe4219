"""The smallest change, against brute force: a resolver that is a table, rules of any arity, every set of versions tried."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from envcheck.checks.context import Context
from envcheck.facts.model import Distribution, Environment
from envcheck.matrix.database import load
from envcheck.resolve.change import NoPlan, Plan, Planner, cost, distance, to_fix
from envcheck.resolve.installed import Direction, Installed, Target
from envcheck.resolve.nogoods import INSTALLED, NEVER, Step
from envcheck.resolve.search import Answer, Refusal
from tests.resolve.matrices import matrix_folder, rule_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAMES = ("alpha", "beta", "gamma", "delta")
RELEASES = ("1.0", "1.1", "1.2", "2.0")


def matrix_of(folder: Path, rules: list[dict[str, str]]) -> Path:
    """A matrix folder with these rules, each a specifier for each package."""
    return matrix_folder(folder, [rule_text(f"rule-{number}", rule) for number, rule in enumerate(rules)])


@dataclass(frozen=True)
class Universe:
    """What is installed, what there is, what each release needs of others, and what must not be together."""

    installed: Mapping[str, str]
    needs: Mapping[tuple[str, str], Mapping[str, str]]
    rules: list[dict[str, str]]

    def sets(self) -> Iterator[dict[str, str]]:
        for versions in product(RELEASES, repeat=len(self.installed)):
            yield dict(zip(self.installed, versions, strict=True))

    def consistent(self, versions: Mapping[str, str]) -> bool:
        needs = [need for item in versions.items() for need in self.needs.get(item, {}).items()]
        return all(SpecifierSet(spec).contains(versions[name]) for name, spec in needs)

    def allowed(self, versions: Mapping[str, str]) -> bool:
        return not any(all(SpecifierSet(spec).contains(versions[name]) for name, spec in rule.items()) for rule in self.rules)


UNIVERSE: list[Universe] = []


class Table(Installed):
    """As uv answers: what is installed where possible, else the newest, or the oldest where asked for."""

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        universe = UNIVERSE[-1]
        wanted = {name: [spec] for name, spec in self.specifiers().items()}
        for step in steps:
            assert step.clause not in (INSTALLED, NEVER)
            wanted.setdefault(step.name, []).append(step.clause)
        lowest = any(move.direction is Direction.NEWER for move in self.moves)

        def rank(name: str, version: str) -> tuple[bool, int]:
            place = RELEASES.index(version)
            return version != self.target.versions[name], place if lowest else -place

        fitting = [
            versions for versions in universe.sets()
            if universe.consistent(versions)
            and all(SpecifierSet(",".join(filter(None, specs))).contains(versions[name]) for name, specs in wanted.items())
        ]  # fmt: skip
        if not fitting:
            return Refusal("nothing fits")
        return Answer(min(fitting, key=lambda versions: [rank(name, version) for name, version in versions.items()]))


specs = st.sampled_from(["==1.0", "==1.1", ">=1.1", "<1.2", ">=1.1,<2", "<2", "==2.0", ">=1.2"])
rules = st.lists(st.dictionaries(st.sampled_from(NAMES), specs, min_size=1, max_size=3), min_size=1, max_size=6)
needs = st.dictionaries(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(RELEASES)), st.dictionaries(st.sampled_from(NAMES), specs, max_size=2),
    max_size=5,
)  # fmt: skip
installed_sets = st.fixed_dictionaries({name: st.sampled_from(RELEASES) for name in NAMES})


def plan_for(universe: Universe, folder: Path) -> Plan | NoPlan | None:
    """The plan for a universe; None where nothing is wrong."""
    matrix = load(str(matrix_of(folder, universe.rules)), cache=False)
    packages = {name: Distribution(name, version) for name, version in universe.installed.items()}
    context = Context(Environment(packages, complete=True), matrix)
    wrong = to_fix(context, lambda _: False)
    if not wrong:
        return None
    UNIVERSE[:] = [universe]
    target = Target("uv", (), dict(universe.installed))
    return Planner(context, target, wrong, lambda _: False, resolver=Table).plan()


def after(universe: Universe, plan: Plan) -> dict[str, str]:
    return {**universe.installed, **plan.versions}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(installed=installed_sets, forbidden=rules)
def test_without_dependencies_the_change_is_the_smallest_there_is(
    installed: dict[str, str], forbidden: list[dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    universe = Universe(installed, {}, forbidden)
    found = plan_for(universe, tmp_path)
    good = [versions for versions in universe.sets() if universe.allowed(versions)]
    if found is None:
        assert universe.allowed(installed)
    elif isinstance(found, NoPlan):
        assert not good
    else:
        assert universe.allowed(after(universe, found))
        assert cost(installed, after(universe, found)) == min(cost(installed, versions) for versions in good)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(installed=installed_sets, forbidden=rules, needed=needs)
def test_with_dependencies_the_change_is_allowed_and_consistent(
    installed: dict[str, str], forbidden: list[dict[str, str]], needed: dict[tuple[str, str], dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    universe = Universe(installed, needed, forbidden)
    found = plan_for(universe, tmp_path)
    good = [versions for versions in universe.sets() if universe.allowed(versions) and universe.consistent(versions)]
    if isinstance(found, NoPlan):
        assert not good
    elif found is not None:
        versions = after(universe, found)
        assert universe.allowed(versions)
        assert universe.consistent(versions)
        assert len(found.changes) == min(cost(installed, versions).packages for versions in good)


@pytest.mark.parametrize(
    ("installed", "forbidden", "after_alpha"),
    [("1.1", "==1.1", "1.2"), ("1.1", ">=1.1,<2", "1.0"), ("1.1", "<2", "2.0"), ("2.0", ">=1.2", "1.1")],
)
def test_the_nearest_version_wins_and_the_newer_of_two_as_near(
    installed: str, forbidden: str, after_alpha: str, tmp_path: Path,
) -> None:  # fmt: skip
    universe = Universe({"alpha": installed}, {}, [{"alpha": forbidden}])
    found = plan_for(universe, tmp_path)
    assert isinstance(found, Plan)
    assert found.versions == {"alpha": after_alpha}
    assert found.changes[0].answers == ("rule-0",)


def test_no_version_will_do_and_the_reasons_are_said(tmp_path: Path) -> None:
    found = plan_for(Universe({"alpha": "1.0", "beta": "1.0"}, {}, [{"alpha": "<3"}]), tmp_path)
    assert isinstance(found, NoPlan)
    assert any("rule-0" in reason or "nothing fits" in reason for reason in found.reasons)


def test_a_package_that_was_built_here_stays(tmp_path: Path) -> None:
    universe = Universe({"alpha": "1.0", "beta": "1.0"}, {}, [{"alpha": "==1.0", "beta": "==1.0"}])
    matrix = load(str(matrix_of(tmp_path, universe.rules)), cache=False)
    packages = {name: Distribution(name, version) for name, version in universe.installed.items()}
    context = Context(Environment(packages, complete=True), matrix)
    UNIVERSE[:] = [universe]
    wrong = to_fix(context, lambda _: False)
    target = Target("uv", (), dict(universe.installed), fixed=frozenset({"alpha"}))
    found = Planner(context, target, wrong, lambda _: False, resolver=Table).plan()
    assert isinstance(found, Plan)
    assert [change.name for change in found.changes] == ["beta"]
    both = Target("uv", (), dict(universe.installed), fixed=frozenset({"alpha", "beta"}))
    refused = Planner(context, both, wrong, lambda _: False, resolver=Table).plan()
    assert isinstance(refused, NoPlan)
    assert "built or linked here" in refused.reasons[0]


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [("0.17.6", "0.17.5", (0, 0, 1)), ("0.17.6", "0.19.6", (0, 2, 0)), ("4.57.6", "5.0.0", (1, 0, 0)), ("1.0", "1.0", (0, 0, 0))],
)
def test_distance(old: str, new: str, steps: tuple[int, int, int]) -> None:
    assert distance(Version(old), Version(new)) == steps
