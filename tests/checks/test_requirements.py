from __future__ import annotations

import pytest

from envcheck.checks.context import Context
from envcheck.checks.requirements import check_requirements, parse
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.findings import Finding
from envcheck.matrix.database import load


def findings(*packages: Distribution, python: str = "3.11.7", complete: bool = True) -> list[tuple[str, str]]:
    environment = Environment(
        packages={item.name: item for item in packages}, complete=complete, facts={"python": Known(python)},
    )  # fmt: skip
    outcomes = check_requirements(Context(environment, load(environ={})))
    return [(item.id, item.title) for item in outcomes if isinstance(item, Finding)]


def dist(name: str, version: str, *requires: str, python: str = "") -> Distribution:
    return Distribution(name, version, requires=requires, requires_python=python)


@pytest.mark.parametrize(
    ("line", "name", "spec"),
    [
        ("numpy", "numpy", ""),
        ("numpy>=1.17", "numpy", ">=1.17"),
        ("numpy (>=1.17,<2)", "numpy", ">=1.17,<2"),
        ("Huggingface_Hub<1.0,>=0.34", "huggingface-hub", "<1.0,>=0.34"),
        ("x ; python_version < '3.8'", "x", ""),
        ("x[a,B_c]>=1", "x", ">=1"),
    ],
)
def test_lines(line: str, name: str, spec: str) -> None:
    need = parse(line)
    assert need is not None
    assert need.name == name
    assert set(need.spec.split(",")) == set(spec.split(","))


@pytest.mark.parametrize("line", ["", "=", "x >", "[]", "x" * 10 + " @", "a b c"])
def test_lines_that_are_none(line: str) -> None:
    assert parse(line) is None


def test_a_consistent_set_is_silent() -> None:
    assert findings(dist("a", "1", "b>=1,<2"), dist("b", "1.5+local")) == []


def test_a_conflict_names_both_sides() -> None:
    assert findings(dist("a", "1", "b>=2"), dist("b", "1.5")) == [("requirement-conflict", "`a` wants `b>=2`, but b is 1.5")]


def test_a_missing_requirement() -> None:
    assert [item[0] for item in findings(dist("a", "1", "b"))] == ["requirement-missing"]
    assert findings(dist("a", "1", "b"), complete=False) == []


@pytest.mark.parametrize(
    ("marker", "counts"),
    [
        ("python_version < '3.8'", False),
        ("python_version >= '3.8'", True),
        ("sys_platform == 'win32'", False),
        ("extra == 'x'", False),
    ],
)
def test_markers(marker: str, counts: bool) -> None:
    assert bool(findings(dist("a", "1", f"b; {marker}"))) is counts


def test_an_extra_that_somebody_asks_for_counts() -> None:
    asks = dist("top", "1", "a[x]")
    extra = dist("a", "1", "b>=2; extra == 'x'")
    assert findings(extra, dist("b", "1")) == []
    assert findings(asks, extra, dist("b", "1")) == [("requirement-conflict", "`a` wants `b>=2`, but b is 1")]


def test_a_python_outside_requires_python() -> None:
    assert [item[0] for item in findings(dist("a", "1", python=">=3.12"))] == ["python-not-supported"]


def test_the_chain_of_requirers_is_told() -> None:
    environment = Environment(
        packages={
            item.name: item for item in (dist("top", "1", "mid"), dist("mid", "1", "low>=2"), dist("low", "1"))
        },
        complete=True, facts={"python": Known("3.11")},
    )  # fmt: skip
    outcomes = check_requirements(Context(environment, load(environ={})))
    (finding,) = (item for item in outcomes if isinstance(item, Finding))
    assert any("`top`" in text for text in finding.because)


def test_rings_of_requirements_end() -> None:
    assert findings(dist("a", "1", "b[x]"), dist("b", "1", "a[y]; extra == 'x'", "c>=3"), dist("c", "1")) != []
