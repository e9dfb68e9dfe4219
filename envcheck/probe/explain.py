"""Which rules of the matrix explain a verdict, and what the device could not show. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.facts.model import Distribution, Environment
from envcheck.matrix.audit import span
from envcheck.matrix.match import match
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.settings import Settings, combine
from envcheck.probe.attribution import Kind
from envcheck.probe.spec import ENGINE, TRAINER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envcheck.findings import Fix
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.rule import Rule, RuleFix
    from envcheck.probe.compare import Result
    from envcheck.probe.spec import Scenario

#: Effects of rules that can explain a computed difference, and those that can explain a crash or a hang.
NUMERIC = frozenset({"wrong-gradient", "zero-gradient", "nan", "wrong-loss"})
LOUD = frozenset({"crash", "import-error", "hang", "build-failure"})

#: Rules on these words are about divisions too many: they explain nothing that is missing and otherwise of the right size.
DIVIDES = frozenset({"own-training-loop", "model-returns-logits"})

#: A rule about these settings is about streams, which the CPU does not have.
RACE_KEY = "zero_optimization.overlap_comm"


def environment(packages: Mapping[str, str]) -> Environment:
    """The target's packages as the matrix sees them."""
    return Environment({name: Distribution(name, version) for name, version in packages.items()}, complete=True)


def settings(scenario: Scenario, ranks: int, device: str = "") -> Settings:
    """What a scenario sets, in the matrix's terms."""
    told: dict[str, Any] = {
        "world_size": ranks,
        "gradient_accumulation_steps": 1 if scenario.backward_calls != "engine" else scenario.accumulation,
        "bf16.enabled": scenario.dtype == "bf16",
        "fp16.enabled": scenario.dtype == "fp16",
    }
    if scenario.model.startswith("llama"):
        told["model_type"] = "llama"
    return combine(scenario.config, scenario.training_args or None, told, uses(scenario, device))


def uses(scenario: Scenario, device: str = "") -> frozenset[str]:
    """The matrix's usage words that the scenario's own loop, and the device it ran on, confirm."""
    words = {"deepspeed-on-cpu"} if device.startswith("cpu") else set()
    if scenario.model == "mlp-outputs" or not scenario.model.startswith("mlp"):
        words.add("own-training-loop" if scenario.path == ENGINE else "model-returns-logits")
    if scenario.path == TRAINER and scenario.model == "llama-head":  # one matrix without a bias
        words.add("empty-param-group")
    if scenario.backward_calls != "engine":
        words.add("several-backward-per-step")
    return frozenset(words)


def rules_for(result: Result, packages: Mapping[str, str], ranks: int, matrix: Matrix, device: str = "") -> list[Rule]:
    """The bad rules whose whole condition holds for the scenario and whose effect is of the verdict's kind."""
    wanted = LOUD if result.kind in (Kind.CRASHED, Kind.HUNG) else NUMERIC
    where = environment(packages)
    given = settings(result.scenario, ranks, device)
    if result.kind is Kind.DROPPED and result.text and "scaled" not in result.text:
        given = given._replace(uses=given.uses - DIVIDES)
    found = []
    for rule in matrix.candidates(where):
        if rule.status == "bad" and rule.effect in wanted:
            seen = match(rule, where, given, matrix.kinds)
            if seen is not None and seen.decided and _about(rule, result.scenario):
                found.append(rule)
    return sorted(found, key=lambda rule: -len(rule.settings))


def ways_out(rules: Sequence[Rule]) -> tuple[Fix, ...]:
    """The fixes that take every one of the rules out; where there is none, those of the first."""
    every = dict.fromkeys(fix for rule in rules for fix in rule.fix)
    chosen = [fix for fix in every if all(_answers(fix, rule) for rule in rules)] or list(rules[0].fix if rules else ())
    return tuple(fix.as_fix() for fix in chosen)


def _answers(fix: RuleFix, rule: Rule) -> bool:
    if fix in rule.fix:
        return True
    spec = rule.packages.get(fix.name, ANY) if fix.kind == "package" else ANY
    return ANY not in (spec, fix.to) and ABSENT not in (spec, fix.to) and span(spec).is_disjoint(span(str(fix.to)))


def _about(rule: Rule, scenario: Scenario) -> bool:
    """Is the rule about something that takes part in the scenario? The bare engine uses neither the Trainer nor accelerate."""
    taking_part = {"deepspeed", "torch"} | ({"transformers", "accelerate"} if scenario.path == TRAINER else set())
    return set(rule.packages) <= taking_part


def not_examined(packages: Mapping[str, str], matrix: Matrix) -> list[Rule]:
    """Rules about races between streams that fit the installed packages: a CPU run says nothing of them."""
    where = environment(packages)
    return [
        rule
        for rule in matrix.candidates(where)
        if rule.status in ("bad", "suspect") and any(item.key == RACE_KEY for item in rule.settings)
    ]


def path_words(scenario: Scenario) -> str:
    """`the Trainer` or `the bare engine`."""
    return "the Trainer" if scenario.path == TRAINER else "the bare engine"
