"""Nogoods: what holds, and that the ways out are exactly the complement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.matrix.versions import satisfies
from envcheck.resolve.nogoods import Nogood, Term, opposites

VERSIONS = [f"{major}.{minor}{tail}" for major in range(3) for minor in range(4) for tail in ("", ".1", ".2")]
CLAUSES = st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.sampled_from(VERSIONS)).map("".join)
WILD = st.tuples(st.sampled_from(["==", "!=", "~="]), st.sampled_from(["0.1", "1.2", "2.0"])).map(
    lambda item: "".join(item) + ("" if item[0] == "~=" else ".*")
)


@given(st.lists(CLAUSES | WILD, min_size=1, max_size=3).map(",".join), st.sampled_from(VERSIONS))
def test_a_release_is_outside_a_specifier_exactly_when_a_way_out_admits_it(spec: str, version: str) -> None:
    admitted = any(satisfies(version, clause) for clause in opposites(spec))
    assert admitted is not satisfies(version, spec)


def test_newer_versions_come_first() -> None:
    assert opposites(">=0.17.6,<0.18.3") == (">=0.18.3", "<0.17.6")


@pytest.mark.parametrize(
    ("spec", "version", "holds"),
    [
        (">=2,<3", "2.6.0+cu124", True),
        (">=2,<3", "2.6.0rc1", False),
        (">=2,<3", "3.0", False),
        (">=2,<3", None, False),
        (">=2,<3", "not a version", False),
        ("*", "1.0", True),
        ("*", "1.0.dev3", False),
        ("*", None, False),
        ("absent", None, True),
        ("absent", "1.0", False),
    ],
)
def test_holds(spec: str, version: str | None, holds: bool) -> None:
    assert Term("torch", spec).holds(version) is holds


def test_a_nogood_needs_all_of_its_terms() -> None:
    nogood = Nogood("x", "x", (Term("torch", "<2.4"), Term("transformers", ">=5"), Term("setuptools", "absent")))
    assert nogood.violated({"torch": "2.3.1", "transformers": "5.1"})
    assert not nogood.violated({"torch": "2.3.1", "transformers": "5.1", "setuptools": "80"})
    assert not nogood.violated({"torch": "2.3.1"})
    assert [str(step) for step in nogood.ways_out()] == ["torch>=2.4", "transformers<5", "setuptools (any version)"]
    assert nogood.text == "torch<2.4 with transformers>=5 with no setuptools"
