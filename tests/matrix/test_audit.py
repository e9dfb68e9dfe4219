from __future__ import annotations

from pathlib import Path

import pytest

from envcheck.matrix.audit import audit
from envcheck.matrix.database import load
from tests.matrix.rules import GOOD, KINDS, parsed


def problems(text: str, uses: dict[str, str] | None = None) -> list[str]:
    return audit(parsed(text), KINDS, uses or {})


def test_the_projects_own_matrix_is_clean() -> None:
    matrix = load(str(Path(__file__).parents[2] / "matrices"), {}, cache=False)
    assert audit(list(matrix.rules()), matrix.kinds, matrix.uses) == []


def test_a_good_rule_passes() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('evidence = [ { kind = "issue", ref = "o/r#1" } ]', "", "has no evidence"),
        ('">=1,<2"', '">=2,<1"', "no version is in"),
        ('to = ">=2"', 'to = ">=1.5"', "overlaps the bad range"),
        ('{ deepspeed = "1.5" }', '{ deepspeed = "2.5" }', "matches[0] does not match"),
        ('{ deepspeed = "2.0" }', '{ deepspeed = "1.9" }', "clear[0] is not clear"),
        ('matches = [ { packages = { deepspeed = "1.5" }, settings = { "zero_optimization.stage" = 2 } } ]',
         'matches = [ { packages = { deepspeed = "1.5" } } ]', "undecided: zero_optimization.stage"),
        ("symptom", 'symptom = ""\n#', "needs a `fix` and a `symptom`"),
    ],
)  # fmt: skip
def test_each_defect_is_refused(old: str, new: str, says: str) -> None:
    assert old in GOOD
    assert any(says in text for text in problems(GOOD.replace(old, new, 1)))


def test_examples_are_needed_on_both_sides() -> None:
    lines = [line for line in GOOD.splitlines() if not line.startswith("clear")]
    assert any("both sides" in text for text in problems("\n".join(lines)))


def good_set(spec: str, settings: str = "") -> str:
    return (
        GOOD
        + f"""
[[rule]]
id = "set"
title = "a set"
status = "good"
effect = "none"
when.packages = {{ deepspeed = "{spec}", torch = "==2.0" }}
{settings}
evidence = [ {{ kind = "code", ref = "x" }} ]
bounds = "pins"
reviewed = 2026-11-24
"""
    )


def test_a_bad_rule_inside_a_good_combination_is_a_contradiction() -> None:
    stage = 'when.settings = [ { key = "zero_optimization.stage", equals = 2 } ]'
    assert any("calls part of this good combination bad" in text for text in problems(good_set("==1.5", stage)))
    assert not any("calls part" in text for text in problems(good_set("==2.5", stage)))
    assert not any("calls part" in text for text in problems(good_set("==1.5"))), "the stage is open there"


def test_a_rule_that_another_one_covers_is_shadowed() -> None:
    wider = GOOD.replace("deepspeed-a", "deepspeed-wide").replace(">=1,<2", ">=0.5,<2")
    assert any("deepspeed-a: `deepspeed-wide` always speaks" in text for text in problems(GOOD + wider))
    apart = GOOD.replace("deepspeed-a", "deepspeed-b").replace("equals = 2", "equals = 1")
    apart = apart.replace('stage" = 2', 'stage" = 1')
    assert problems(GOOD + apart) == []


def test_an_unused_usage_word_is_named() -> None:
    assert any("no rule uses this word" in text for text in problems(GOOD, {"fsdp": "trains with FSDP"}))
