"""The smallest change, against brute force: a resolver that is a table, rules of any arity, every set of versions tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from envcheck.checks.context import Context
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.findings import Severity
from envcheck.matrix.database import load
from envcheck.matrix.versions import satisfies
from envcheck.resolve import change
from envcheck.resolve.change import NoPlan, Plan
from envcheck.resolve.cost import cost, distance
from envcheck.resolve.installed import Direction, Installed, Target, missing
from envcheck.resolve.nogoods import INSTALLED, NEVER, Step, Term
from envcheck.resolve.search import Answer, Refusal
from envcheck.resolve.wrong import to_fix
from tests.resolve.matrices import matrix_folder, rule_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

NAMES = ("alpha", "beta", "gamma", "delta")
RELEASES = ("1.0", "1.1", "1.2", "2.0")
PYTHON = {"python": Known("3.11.7")}

#: What a release needs: (name, version) -> name -> specifier.
Needs = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Universe:
    """What is installed, what each release needs of others, and what must not be together; every name has every release."""

    installed: Mapping[str, str]
    needs: Needs
    rules: list[dict[str, str]]

    def sets(self, *, fewer: bool = False, more: bool = False) -> Iterator[dict[str, str]]:
        """Every set of the installed packages; `fewer`: also without some of them, `more`: also with others."""
        there, not_there = (*RELEASES, *([""] if fewer else [])), ("", *(RELEASES if more else ()))
        choices = [there if name in self.installed else not_there for name in NAMES]
        for versions in product(*choices):
            yield {name: version for name, version in zip(NAMES, versions, strict=True) if version}

    def lines(self, name: str, version: str) -> tuple[str, ...]:
        return tuple(f"{other}{spec}" for other, spec in self.needs.get((name, version), {}).items())

    def consistent(self, versions: Mapping[str, str], unseen: Container[str] = ()) -> bool:
        needs = [need for item in versions.items() for need in self.needs.get(item, {}).items()]
        return all(name in unseen or (name in versions and satisfies(versions[name], spec)) for name, spec in needs)

    def allowed(self, versions: Mapping[str, str]) -> bool:
        return not any(all(Term(*item).holds(versions.get(item[0])) for item in rule.items()) for rule in self.rules)

    def environment(self, versions: Mapping[str, str]) -> Environment:
        packages = {name: Distribution(name, version, self.lines(name, version)) for name, version in versions.items()}
        return Environment(packages, complete=True, facts=PYTHON)

    def context(self, folder: Path) -> Context:
        return Context(self.environment(self.installed), load(str(matrix_of(folder, self.rules)), cache=False))

    def target(self, **more: Any) -> Target:
        return Target("uv", (), dict(self.installed), unseen=frozenset(missing(self.environment(self.installed))), **more)


def matrix_of(folder: Path, rules: list[dict[str, str]]) -> Path:
    """A matrix folder with these rules, each a specifier for each package."""
    return matrix_folder(folder, [rule_text(f"rule-{number}", rule) for number, rule in enumerate(rules)])


UNIVERSE: list[Universe] = []


class Table(Installed):
    """As uv answers: what is installed where possible, else the newest, or the oldest where asked for; nothing unneeded."""

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        universe = UNIVERSE[-1]
        wanted = self.specifiers()
        clauses = [*wanted.items(), *((step.name, step.clause) for step in steps)]
        must = wanted.keys() | {step.name for step in steps if step.clause == INSTALLED}
        if any(step.clause == NEVER and step.name in must for step in steps):
            return Refusal("it stays")
        eased = {name: self.target.versions[name] for name in self.target.eased if name not in {move.name for move in self.moves}}
        lowest = any(move.direction is Direction.NEWER for move in self.moves)

        def fits(versions: Mapping[str, str]) -> bool:
            if not must <= versions.keys() or self.gone() & versions.keys():
                return False
            if not all(satisfies(versions[name], clause) for name, clause in clauses if clause and name in versions):
                return False
            if any(versions.get(name) != version for name, version in eased.items()):
                return False
            needed = {name for item in versions.items() for name in universe.needs.get(item, {})}
            hidden = (self.target.unseen - must) | eased.keys()
            return versions.keys() <= must | (needed - hidden) and universe.consistent(versions, hidden)

        def rank(name: str, version: str) -> tuple[bool, int]:
            place = RELEASES.index(version)
            return version != self.target.versions.get(name), place if lowest and name in must else -place

        fitting = [versions for versions in universe.sets(fewer=True, more=True) if fits(versions)]
        if not fitting:
            return Refusal("nothing fits")
        return Answer(min(fitting, key=lambda versions: (len(versions), [rank(*item) for item in versions.items()])))


specs = st.sampled_from(["==1.0", "==1.1", ">=1.1", "<1.2", ">=1.1,<2", "<2", "==2.0", ">=1.2"])
rare = st.sampled_from(["*", "absent"])
terms = st.integers(0, 7).flatmap(lambda number: specs if number else rare)
rules = st.lists(st.dictionaries(st.sampled_from(NAMES), specs, min_size=1, max_size=3), min_size=1, max_size=6)
any_rules = st.lists(st.dictionaries(st.sampled_from(NAMES), terms, min_size=1, max_size=3), max_size=5)
needs = st.dictionaries(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(RELEASES)), st.dictionaries(st.sampled_from(NAMES), specs, max_size=2),
    max_size=5,
)  # fmt: skip
installed_sets = st.fixed_dictionaries({name: st.sampled_from(RELEASES) for name in NAMES})
some_installed = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(RELEASES), min_size=1)


def plan_for(universe: Universe, folder: Path) -> Plan | NoPlan | None:
    """The plan for a universe; None where nothing is wrong."""
    context = universe.context(folder)
    if not to_fix(context, ()):
        return None
    UNIVERSE[:] = [universe]
    return change.plan_for(context, universe.target(), frozenset(), resolver=Table)


def after(universe: Universe, plan: Plan) -> dict[str, str]:
    kept = {name: version for name, version in universe.installed.items() if name not in plan.removed}
    return {**kept, **plan.versions}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(installed=installed_sets, forbidden=rules)
@example(  # the first way out of the third rule leads to a larger step than the second
    installed=dict.fromkeys(NAMES, "1.0"),
    forbidden=[{"alpha": "==1.0"}, {"delta": "==1.0"}, {"alpha": ">=1.1,<2", "beta": "==1.0", "delta": "==1.1"}],
)
def test_without_dependencies_the_change_is_the_smallest_there_is(
    installed: dict[str, str], forbidden: list[dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    universe = Universe(installed, {}, forbidden)
    found = plan_for(universe, tmp_path)
    good = [versions for versions in universe.sets() if universe.allowed(versions)]
    if found is None:
        assert universe.allowed(installed)
        return
    assert isinstance(found, Plan)  # without them all nothing is forbidden
    assert universe.allowed(after(universe, found))
    assert bool(found.removed) is not bool(good)
    if good:
        assert cost(installed, after(universe, found)) == min(cost(installed, versions) for versions in good)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(installed=installed_sets, forbidden=rules, needed=needs)
@example(
    installed={"alpha": "1.1", "beta": "1.1", "gamma": "1.0", "delta": "1.0"},
    forbidden=[{"alpha": "==1.0"}],
    needed={
        ("alpha", "1.1"): {"beta": "==1.0", "delta": "==1.0"},
        ("beta", "1.1"): {"delta": "==1.0", "alpha": "==1.0"},
        ("delta", "1.0"): {"alpha": "==1.1", "beta": "==1.1"},
    },
)  # two packages that each want another version of the other: neither is answered with the other in its place
@example(
    installed={"alpha": "1.1", "beta": "1.1", "gamma": "1.0", "delta": "1.0"},
    forbidden=[{"alpha": "==1.0", "beta": "==1.0"}],
    needed={("alpha", "1.1"): {"beta": "==1.0", "delta": "==1.0"}, ("beta", "1.1"): {"delta": "==1.1", "alpha": "==1.0"}},
)
def test_with_dependencies_the_change_is_allowed_and_consistent(
    installed: dict[str, str], forbidden: list[dict[str, str]], needed: dict[tuple[str, str], dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    universe = Universe(installed, needed, forbidden)
    found = plan_for(universe, tmp_path)
    good = [versions for versions in universe.sets() if universe.allowed(versions) and universe.consistent(versions)]
    if good and found is not None:
        assert isinstance(found, Plan)
        versions = after(universe, found)
        assert universe.allowed(versions)
        assert universe.consistent(versions)
        assert len(found.changes) == min(cost(installed, versions).packages for versions in good)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(installed=some_installed, forbidden=any_rules, needed=needs)
def test_after_a_change_the_check_has_no_error_and_nothing_new_is_missing(
    installed: dict[str, str], forbidden: list[dict[str, str]], needed: dict[tuple[str, str], dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    """Missing requirements, rules about what is absent or must not be there at all: judged by what `envcheck check` runs."""
    universe = Universe(installed, needed, forbidden)
    context = universe.context(tmp_path)
    before = to_fix(context, ())
    found = plan_for(universe, tmp_path)
    complete = [
        versions for versions in universe.sets(fewer=True, more=True)
        if universe.allowed(versions) and universe.consistent(versions)
    ]  # fmt: skip
    if isinstance(found, Plan):
        left = to_fix(context._replace(environment=universe.environment(after(universe, found))), ())
        assert not [item for item in left if item.severity is Severity.ERROR]
        assert {item.title for item in left} <= {item.title for item in before}
        assert bool(left) is bool(found.left)
    elif isinstance(found, NoPlan):
        assert any(item.id.startswith("rule") for item in before) or not complete


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


def test_what_no_version_answers_goes_where_nothing_requires_it(tmp_path: Path) -> None:
    found = plan_for(Universe({"alpha": "1.0", "beta": "1.0"}, {}, [{"alpha": "<3"}]), tmp_path)
    assert isinstance(found, Plan)
    assert found.removed == ("alpha",)
    assert not found.told


def test_what_another_package_requires_does_not_go_and_the_reasons_are_said(tmp_path: Path) -> None:
    needed = {("beta", version): {"alpha": ">=1.0"} for version in RELEASES}
    found = plan_for(Universe({"alpha": "1.0", "beta": "1.0"}, needed, [{"alpha": "<3"}]), tmp_path)
    assert isinstance(found, NoPlan)
    assert any("rule-0" in reason or "nothing fits" in reason for reason in found.reasons)


def test_torch_never_goes_unless_a_fix_says_so(tmp_path: Path) -> None:
    rule = rule_text("torch-bad", {"torch": "*"})
    for fix, expected in (('{ do = "x" }', NoPlan), ('{ package = "torch", to = "absent" }', Plan)):
        matrix = load(str(matrix_folder(tmp_path, [rule.replace('{ do = "x" }', fix)])), cache=False)
        context = Context(Environment({"torch": Distribution("torch", "1.0")}, complete=True, facts=PYTHON), matrix)
        UNIVERSE[:] = [Universe({}, {}, [])]
        found = change.plan_for(context, Target("uv", (), {"torch": "1.0"}), frozenset(), resolver=Table)
        assert isinstance(found, expected)
        assert getattr(found, "told", {"torch"}) == {"torch"}


def test_a_missing_requirement_is_installed_at_a_version_that_the_matrix_allows(tmp_path: Path) -> None:
    needed = {("alpha", "1.0"): {"beta": ">=1.1"}}
    found = plan_for(Universe({"alpha": "1.0"}, needed, [{"beta": "==2.0"}]), tmp_path)
    assert isinstance(found, Plan)
    assert [(item.name, item.before, item.after) for item in found.changes] == [("beta", "", "1.2")]
    assert found.changes[0].answers == ("requirement-missing",)


def test_a_missing_requirement_and_an_error_are_answered_together(tmp_path: Path) -> None:
    needed = {("alpha", version): {"beta": ""} for version in RELEASES}
    found = plan_for(Universe({"alpha": "1.1"}, needed, [{"alpha": "==1.1"}]), tmp_path)
    assert isinstance(found, Plan)
    assert found.versions == {"alpha": "1.2", "beta": "2.0"}


def test_a_package_that_a_rule_misses_is_added(tmp_path: Path) -> None:
    found = plan_for(Universe({"alpha": "1.0"}, {}, [{"alpha": "<3", "beta": "absent"}]), tmp_path)
    assert isinstance(found, Plan)
    assert found.versions == {"beta": "2.0"}


def test_what_cannot_be_fulfilled_does_not_keep_the_rest(tmp_path: Path) -> None:
    needed = {("alpha", version): {"beta": "<1"} for version in RELEASES} | {("gamma", "1.0"): {"delta": ""}}
    found = plan_for(Universe({"alpha": "1.0", "gamma": "1.0"}, needed, [{"gamma": "==2.0"}]), tmp_path)
    assert isinstance(found, Plan)
    assert found.versions == {"delta": "2.0"}
    assert len(found.left) == 1
    assert "`alpha` needs `beta`" in found.left[0]


def test_a_package_that_was_built_here_stays(tmp_path: Path) -> None:
    universe = Universe({"alpha": "1.0", "beta": "1.0"}, {}, [{"alpha": "==1.0", "beta": "==1.0"}])
    context = universe.context(tmp_path)
    UNIVERSE[:] = [universe]
    found = change.plan_for(context, universe.target(fixed=frozenset({"alpha"})), frozenset(), resolver=Table)
    assert isinstance(found, Plan)
    assert [item.name for item in found.changes] == ["beta"]
    refused = change.plan_for(context, universe.target(fixed=frozenset({"alpha", "beta"})), frozenset(), resolver=Table)
    assert isinstance(refused, NoPlan)
    assert "built or linked here" in refused.reasons[0]


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [("0.17.6", "0.17.5", (0, 0, 1)), ("0.17.6", "0.19.6", (0, 2, 0)), ("4.57.6", "5.0.0", (1, 0, 0)), ("1.0", "1.0", (0, 0, 0))],
)
def test_distance(old: str, new: str, steps: tuple[int, int, int]) -> None:
    assert distance(Version(old), Version(new)) == steps
