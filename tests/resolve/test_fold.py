"""Folding against matching: a nogood is violated exactly where `envcheck check` would report an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envcheck.checks.rules import blocked_by, severity
from envcheck.facts.model import Environment, Known
from envcheck.findings import Severity
from envcheck.matrix.audit import example_environment, example_settings
from envcheck.matrix.database import load
from envcheck.matrix.index import Index
from envcheck.matrix.match import match
from envcheck.matrix.pack import pack
from envcheck.matrix.settings import Settings
from envcheck.resolve.fold import fold, fold_rules

if TYPE_CHECKING:
    from envcheck.matrix.rule import Rule

MATRIX = load(cache=False)
RULES = {rule.id: rule for rule in MATRIX.rules()}
BAD = [rule for rule in RULES.values() if rule.packages and rule.severity is Severity.ERROR]


def is_error(rule: Rule, environment: Environment, settings: Settings) -> bool:
    found = match(rule, environment, settings, MATRIX.kinds)
    candidates = Index(pack([rule])).candidates(environment, settings, MATRIX.kinds)
    blocked = any(blocked_by(candidate, MATRIX.told) for candidate in candidates if candidate.open)
    return found is not None and not blocked and severity(found) is Severity.ERROR


def of_packages(rule: Rule) -> bool:
    """Whether a rule's comparisons speak of packages, which folding leaves to the judgement of an answer."""
    return any("package:" in f"{item.left}{item.right}" for item in rule.compare)


@pytest.mark.parametrize("rule", [rule for rule in BAD if not of_packages(rule)], ids=lambda rule: rule.id)
def test_a_folded_rule_says_of_its_examples_what_the_check_says(rule: Rule) -> None:
    for example in (*rule.matches, *rule.clear):
        environment, settings = example_environment(example), example_settings(example)
        machine = environment._replace(packages={}, complete=False)
        versions = {name: package.version for name, package in environment.packages.items()}
        nogood = fold(rule, machine, settings, MATRIX.kinds)
        violated = nogood is not None and not nogood.soft and nogood.violated(versions)
        assert violated is is_error(rule, environment, settings), example


def test_a_waived_rule_is_no_nogood() -> None:
    settings = Settings({"zero_optimization.stage": 2, "gradient_accumulation_steps": 4})
    ids = {item.id for item in fold_rules(MATRIX, Environment(), settings, frozenset())}
    kept = {item.id for item in fold_rules(MATRIX, Environment(), settings, {"deepspeed-zero2-last-micro-batch"})}
    assert ids - kept == {"deepspeed-zero2-last-micro-batch"}


def test_an_unknown_setting_makes_a_soft_nogood_only_where_the_rule_says_so() -> None:
    nogoods = {item.id: item for item in fold_rules(MATRIX, Environment(), Settings(), frozenset())}
    assert nogoods["deepspeed-zero2-last-micro-batch"].soft
    assert "deepspeed-zero2-offload-drops-middle" not in nogoods
    assert all(RULES[item.id].unknown == "warn" for item in nogoods.values() if item.soft)


def test_facts_are_folded_and_unknown_ones_leave_no_nogood() -> None:
    known = Environment(facts={"python": Known("3.12.1")})
    ids = {item.id for item in fold_rules(MATRIX, known, Settings(), frozenset())}
    assert "deepspeed-no-distutils" in ids
    assert "deepspeed-no-distutils" not in {item.id for item in fold_rules(MATRIX, Environment(), Settings(), frozenset())}


def test_what_was_folded_in_is_said() -> None:
    settings = Settings({"zero_optimization.stage": 2, "gradient_accumulation_steps": 4})
    nogood = next(
        item for item in fold_rules(MATRIX, Environment(), settings, frozenset()) if item.id == "deepspeed-zero2-last-micro-batch"
    )
    assert nogood.because == ("`zero_optimization.stage` is 2", "`gradient_accumulation_steps` is 4")
    assert nogood.text == "deepspeed>=0.17.6,<0.18.3"
    assert nogood.evidence
