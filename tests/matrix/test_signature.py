"""The signature table: its form, its lint, and the law by which one signature explains another away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli

from envcheck.errors import InputError
from envcheck.matrix import signature
from envcheck.matrix.signature import Sighting

if TYPE_CHECKING:
    from pathlib import Path

KINDS = frozenset({"loss-zero", "lr-zero", "lr-ended", "norm-zero", "norm-jump"})

GOOD = """
[[signature]]
id = "one"
title = "One"
severity = "error"
when = [ { seen = ["loss-zero"], from_start = true, values = { norm = "zero" } }, { seen = ["lr-zero", "lr-ended"] } ]
unless = [ { seen = ["norm-zero"], at_least = 3 } ]
explains = ["norm-jump"]
means = "it"
causes = ["this"]
evidence = [ { kind = "issue", ref = "a/b#1" } ]
[[signature]]
id = "two"
title = "Two"
severity = "warning"
when = [ { seen = ["norm-jump"] } ]
means = "it"
causes = ["this"]
evidence = [ { kind = "issue", ref = "a/b#1" } ]
[cause.this]
says = "what"
decide = "do"
rules = ["a-rule"]
when.packages = { deepspeed = "<1" }
"""


def load(text: str) -> tuple[signature.Signatures, list[str]]:
    mistakes: list[str] = []
    return signature.parse(tomli.loads(text), "file", mistakes), mistakes


def test_a_good_file_has_no_mistakes() -> None:
    found, mistakes = load(GOOD)
    assert not mistakes
    assert [one.id for one in found.signatures] == ["one", "two"]
    assert not signature.audit(found, frozenset({"a-rule"}), KINDS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('severity = "error"', 'severity = "bad"', "`severity` must be one of"),
        ('means = "it"', "", "`means` is missing"),
        ('causes = ["this"]', 'causes = ["that"]', "`causes` names `that`"),
        ("from_start = true", 'from_start = "yes"', "`from_start` must be true or false"),
        ('explains = ["norm-jump"]', "explain = 1", "unknown key `explain`"),
        ('decide = "do"', "", "`decide` is missing"),
        ('"<1"', '"new"', "not a specifier set"),
        ("[cause.this]", '[cause.more]\nsays = "x"\ndecide = "y"\n[cause.this]', "no signature names it"),
        ('evidence = [ { kind = "issue", ref = "a/b#1" } ]', "", "`evidence` is missing"),
    ],
)
def test_mistakes_are_named(old: str, new: str, words: str) -> None:
    _, mistakes = load(GOOD.replace(old, new, 1))
    assert any(words in one for one in mistakes), mistakes


def test_lint_knows_rules_and_kinds() -> None:
    found, _ = load(GOOD)
    problems = signature.audit(found, frozenset({"one"}), frozenset({"loss-zero"}))
    assert any("no rule `a-rule`" in one for one in problems)
    assert any("`norm-jump` is no kind" in one for one in problems)
    assert any("the id is taken" in one for one in problems)


def sightings(*kinds: str, **values: Any) -> list[Sighting]:
    return [Sighting(kind, from_start=True, values=values) for kind in kinds]


def test_conditions() -> None:
    found, _ = load(GOOD)
    one = found.signatures[0]
    assert one.holds(sightings("loss-zero", "lr-ended", norm="zero"))
    assert not one.holds(sightings("loss-zero", "lr-ended", norm="sentinel"))
    assert not one.holds(sightings("loss-zero", norm="zero"))
    assert one.holds([*sightings("loss-zero", "lr-zero", norm="zero"), Sighting("norm-zero", count=2)])
    assert not one.holds([*sightings("loss-zero", "lr-zero", norm="zero"), Sighting("norm-zero", count=3)])


def test_what_is_explained_is_not_said_again() -> None:
    found, _ = load(GOOD)
    assert [one.id for one in found.matching(sightings("norm-jump"))] == ["two"]
    assert [one.id for one in found.matching(sightings("loss-zero", "lr-zero", "norm-jump", norm="zero"))] == ["one"]


def test_a_broken_file_names_all_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "signatures").mkdir()
    (tmp_path / "signatures" / "a.toml").write_text("[[signature]]\nid = 'x'\n", encoding="utf-8")
    (tmp_path / "signatures" / "b.toml").write_text("= broken", encoding="utf-8")
    with pytest.raises(InputError) as raised:
        signature.load(tmp_path)
    assert any("b.toml" in problem for problem in raised.value.problems)
    assert len(raised.value.problems) > 3
