from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from envcheck.facts.model import Distribution, Environment
from envcheck.matrix.conditions import package_holds
from envcheck.matrix.database import load
from envcheck.matrix.index import PACKAGE, Index, conditions_of, holds
from envcheck.matrix.pack import pack
from envcheck.matrix.settings import Settings
from envcheck.matrix.spans import distinct, position, sortable, turns
from envcheck.matrix.versions import plain, satisfies
from tests.matrix.rules import GOOD, KINDS, parsed

if TYPE_CHECKING:
    from envcheck.matrix.index import Candidates
    from envcheck.matrix.rule import Rule

NUMBERS = st.sampled_from(["0", "1", "2", "10"])
RELEASES = st.lists(NUMBERS, min_size=1, max_size=4).map(".".join)
TAILS = st.sampled_from(["", "", "", ".post0", ".post1", ".post2", "rc1", ".dev1", "a0", ".post1.dev2", "rc1.post1"])
VERSIONS = st.tuples(st.sampled_from(["", "", "1!"]), RELEASES, TAILS).map("".join)
INSTALLED = st.tuples(VERSIONS, st.sampled_from(["", "", "+cu124"])).map("".join) | st.sampled_from(["", "git-1", "2.0-final-x"])
ORDERED = st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), VERSIONS).map("".join)
PREFIXES = st.tuples(st.sampled_from(["==", "!="]), st.sampled_from(["", "1!"]), RELEASES, st.just(".*")).map("".join)
COMPATIBLE = st.tuples(st.just("~="), RELEASES, st.just("."), NUMBERS, st.sampled_from(["", ".post1", "rc1"])).map("".join)
RANGES = st.lists(ORDERED | PREFIXES | COMPATIBLE, min_size=1, max_size=3).map(",".join)
SPECS = RANGES | st.sampled_from(["*", "absent", "===1.0", "==1.0+cu124"])

MATRIX = load(cache=False)
RULES = list(MATRIX.rules())


@given(RANGES, VERSIONS)
@example(">1.7", "1.7.post1")
@example(">1.7,<2", "1.7.0.1")
@example("<1.7.post1", "1.7.post0")
@example("==1.7.*", "1.8.dev1")
def test_a_span_holds_what_packaging_says_is_in_the_range(spec: str, text: str) -> None:
    places = turns(spec)
    version = plain(text)
    assert places is not None
    assert version is not None
    entered_and_left = bisect_right(places, position(version.version))
    assert (entered_and_left % 2 == 1) is satisfies(text, spec)


PLACES = st.tuples(
    st.integers(0, 11), st.lists(st.integers(0) | st.integers(0, 11), max_size=4), st.just([0]) | st.just([2])
    | st.tuples(st.just(1), st.integers(0) | st.integers(0, 11)).map(list),
).map(list)  # fmt: skip


@given(PLACES, PLACES)
def test_positions_and_their_texts_have_the_same_order(one: list[Any], other: list[Any]) -> None:
    assert (one < other) is (sortable(one) < sortable(other))
    assert (one == other) is (sortable(one) == sortable(other))


def test_texts_are_no_range() -> None:
    assert turns("===1.0") is None


def test_distinct_positions_are_in_the_order_of_versions() -> None:
    texts = ["1!0", "1.10", "1.9", "1.9.0", "1.9.post2", "1.9.0.1", "0"]
    here = [position(version.version) for text in texts if (version := plain(text))]
    assert distinct(here) == [here[number] for number in (6, 2, 4, 5, 1, 0)]


def by_brute_force(rules: list[Rule], environment: Environment, settings: Settings) -> list[tuple[int, list[str]]]:
    found = []
    for number, rule in enumerate(rules):
        truths = {repr(item): holds(item, environment, settings, KINDS) for item in conditions_of(rule)}
        if False not in truths.values():
            found.append((number, [item for item, truth in truths.items() if truth is None]))
    return found


def shown(candidates: list[Candidates]) -> list[tuple[int, list[str]]]:
    return sorted((number, list(map(repr, alike.open))) for alike in candidates for number in alike.numbers)


NAMES = ["torch", "deepspeed", "peft"]
SETTINGS = [
    "",
    "when.settings = [ { key = 'zero_optimization.stage', equals = 2 } ]",
    "when.settings = [ { key = 'zero_optimization.stage', not = 2 }, { key = 'fp16.enabled', equals = true } ]",
    "when.facts = { driver = '>=535' }",
    "when.uses = [ 'hf-trainer' ]",
]
PACKAGES = st.dictionaries(st.sampled_from(NAMES), SPECS, max_size=3)
CONDITIONS = st.lists(st.tuples(PACKAGES, st.sampled_from(SETTINGS)), min_size=1, max_size=8)
ENVIRONMENTS = st.builds(
    lambda versions, complete: Environment(
        {name: Distribution(name, text) for name, text in versions.items()}, complete=complete
    ),
    st.dictionaries(st.sampled_from(NAMES), INSTALLED),
    st.booleans(),
)
GIVEN = st.sampled_from([Settings(), Settings(values={"zero_optimization.stage": 2}), Settings(uses=frozenset({"hf-trainer"}))])


def written(number: int, packages: dict[str, str], more: str) -> str:
    table = ", ".join(f"{name} = {spec!r}" for name, spec in packages.items())
    text = GOOD.replace("deepspeed-a", f"rule-{number}").replace('{ deepspeed = ">=1,<2" }', f"{{ {table} }}")
    return text.replace('when.settings = [ { key = "zero_optimization.stage", equals = 2 } ]', more)


@given(CONDITIONS, ENVIRONMENTS, GIVEN)
def test_candidates_are_those_of_brute_force(
    conditions: list[tuple[dict[str, str], str]], environment: Environment, settings: Settings
) -> None:
    kept = [(packages, more) for packages, more in conditions if packages or "when.settings" in more or "when.facts" in more]
    rules = parsed("".join(written(number, *item) for number, item in enumerate(kept))) if kept else []
    index = Index(pack(rules))
    found = index.candidates(environment, settings, KINDS)
    assert shown(found) == by_brute_force(rules, environment, settings)
    for alike in found:
        for rule in (rules[number] for number in alike.numbers):
            assert alike.packages == len(rule.packages)
            assert alike.others == tuple(item for item in conditions_of(rule) if item.kind != PACKAGE)
            assert alike.sketch == (rule.status, rule.effect, rule.unknown)
    assert index.fitting(environment) == [
        number for number, rule in enumerate(rules)
        if not any(package_holds(environment, *item) is False for item in rule.packages.items())
    ]  # fmt: skip


@pytest.mark.parametrize("complete", [True, False])
@with_settings(max_examples=20)
@given(data=st.data())
def test_of_the_real_matrix_too(complete: bool, data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(RULES))
    versions = {**rule.matches[0].packages, **data.draw(st.sampled_from(RULES)).matches[0].packages}
    packages = {name: Distribution(name, text) for name, text in versions.items() if text != "absent"}
    environment = Environment(packages, complete=complete)
    settings = Settings(values=rule.matches[0].settings)
    expected = []
    for number, one in enumerate(RULES):
        truths = [(item, holds(item, environment, settings, MATRIX.kinds)) for item in conditions_of(one)]
        if all(truth is not False for _, truth in truths):
            expected.append((number, [repr(item) for item, truth in truths if truth is None]))
    assert shown(MATRIX.index.candidates(environment, settings, MATRIX.kinds)) == expected


@given(ENVIRONMENTS, st.lists(PACKAGES.filter(bool), max_size=6))
def test_good_sets_are_told_of_where_every_package_is_installed(environment: Environment, sets: list[dict[str, str]]) -> None:
    text = "".join(written(number, packages, "") for number, packages in enumerate(sets))
    rules = parsed(text.replace('"bad"', '"good"').replace('"wrong-gradient"', '"none"')) if sets else []
    expected = []
    for number, rule in enumerate(rules):
        wanted = {name: spec for name, spec in rule.packages.items() if spec != "absent"}
        if wanted.keys() <= environment.packages.keys():
            fit = [spec == "*" or bool(satisfies(environment.packages[name].version, spec)) for name, spec in wanted.items()]
            expected.append((number, len(rule.packages), fit))
    index = Index(pack(rules))
    assert list(index.good_present(environment)) == expected
    assert index.good() == list(range(len(sets)))
