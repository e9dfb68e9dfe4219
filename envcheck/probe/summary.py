"""From an outcome to a report: table, findings with the rules that explain them, what was not examined. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from envcheck.findings import Finding, Fix, Report, Severity, Skip, StackRow
from envcheck.probe import explain
from envcheck.probe.attribution import Kind
from envcheck.probe.outcome import NO_DTYPE, is_kill

if TYPE_CHECKING:
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.rule import Rule
    from envcheck.probe.compare import Result, StepView
    from envcheck.probe.outcome import Outcome

SCHEMA = "envcheck.probe/1"

#: Packages whose versions a result depends on.
WATCHED = ("torch", "deepspeed", "transformers", "accelerate", "numpy", "pydantic", "peft", "triton")


def report(outcome: Outcome, ranks: int, matrix: Matrix, extra_findings: tuple[Finding, ...] = ()) -> Report:
    """The report of a probe run."""
    packages = outcome.packages or {}
    explained = {result.scenario.id: _rules(result, outcome, ranks, matrix) for result in outcome.results}
    findings = [finding(same, explained[same[0].scenario.id], packages) for same in grouped(outcome.results, explained)]
    return Report(
        findings=tuple(sorted([*findings, *extra_findings], key=lambda one: -one.severity)),  # else in the order of the mission
        skipped=tuple(_skips(outcome)),
        stack=tuple(_rows(outcome, ranks)),
        notes=tuple(_notes(outcome, packages, matrix)),
        extra=_data(outcome, ranks, explained),
    )


def _rules(result: Result, outcome: Outcome, ranks: int, matrix: Matrix) -> list[Rule]:
    if result.good or not result.looked:
        return []
    return explain.rules_for(result, outcome.packages or {}, ranks, matrix, outcome.device)


def grouped(results: tuple[Result, ...], explained: dict[str, list[Rule]]) -> list[list[Result]]:
    """Wrong results that are one and the same: stage, verdict in words, and the rules that explain it.

    A rank that was killed from outside says nothing of the packages and is left out.
    """
    groups: dict[tuple[object, ...], list[Result]] = {}
    for one in results:
        if one.looked and not one.good and not is_kill(one):
            stable = one.text if one.kind is not Kind.WRONG_REPORT else one.kind.value
            key = (one.scenario.stage, stable, tuple(rule.id for rule in explained[one.scenario.id]))
            groups.setdefault(key, []).append(one)
    return list(groups.values())


def finding(same: list[Result], rules: list[Rule], packages: dict[str, str]) -> Finding:
    """Results that are the same as one finding; the numbers are those of the worst of them."""
    worst = max(same, key=lambda one: one.error if math.isfinite(one.error) else math.inf)
    rule = rules[0] if rules else None
    observed = {name: packages[name] for name in WATCHED if name in packages}
    because = [f"in {len(same)} scenario{'s' if len(same) > 1 else ''}: " + ", ".join(one.scenario.id for one in same)]
    because += _because(worst)
    because += [f"the matrix explains it: {one.id}: {one.title}" for one in rules]
    if rule is None:
        because.append(
            "not in the matrix yet; to report it: " + ", ".join(f"{name} {version}" for name, version in observed.items())
        )
    return Finding(
        id=f"probe-{worst.kind.value.replace(' ', '-')}",
        severity=Severity.WARNING if worst.kind is Kind.WRONG_REPORT else Severity.ERROR,
        title=f"{_where(same)}: {worst.text}",
        subjects=tuple(dict.fromkeys([*(rule.subjects if rule else ("deepspeed",)), "zero_optimization.stage"])),
        observed=observed,
        because=tuple(because),
        fixes=explain.ways_out(rules) or _advice(),
        evidence=tuple(dict.fromkeys(item for one in rules for item in one.evidence)),
    )


def _where(same: list[Result]) -> str:
    """What the scenarios have in common: `ZeRO-2, accumulation 3, bare engine and Trainer`."""
    first = same[0].scenario
    parts = [f"ZeRO-{first.stage}"]
    dtypes = sorted({one.scenario.dtype for one in same})
    parts.append(" and ".join(dtypes))
    if len({one.scenario.accumulation for one in same}) == 1:
        parts.append(f"accumulation {first.accumulation}")
    paths = dict.fromkeys(explain.path_words(one.scenario) for one in same)
    return ", ".join([*parts, " and ".join(paths)])


def _advice() -> tuple[Fix, ...]:
    return (Fix("do", "report it with the versions above and the output of `envcheck probe --format json`"),)


def _because(result: Result) -> list[str]:
    lines = []
    if result.kind not in (Kind.CRASHED, Kind.HUNG) and math.isfinite(result.error):
        lines.append(
            f"largest relative error of an update {result.error:.3g}; worst ratio of lengths {result.ratio:.4g} (right: 1)"
        )
    if result.coefficients:
        listed = ", ".join(f"{value:g}" for value in result.coefficients[: result_count(result)])
        lines.append(f"fitted weight of each micro-batch, rank by rank (right: 1): {listed}")
    return [*lines, *_parameters(result), *result.notes]


def _parameters(result: Result) -> list[str]:
    """The first wrong parameters, each with its verdict where that is not the whole's."""
    whole = result.text.partition(", since step")[0]
    named = [f"`{name}`" if text == whole else f"`{name}` {text}" for name, text in result.parameters]
    return [f"parameters: {'; '.join(named[:4])}{' and more' if len(named) > 4 else ''}"] if len(named) > 1 else []  # noqa: PLR2004 - a line's worth


def result_count(result: Result) -> int:
    """How many of the fitted coefficients belong to this step's micro-batches."""
    each = result.scenario.accumulation
    return len(result.coefficients) // each * each


def _skips(outcome: Outcome) -> list[Skip]:
    if outcome.failure:
        return [Skip("probe", outcome.failure, asked=True)]
    skips: dict[tuple[str, bool], list[str]] = {}
    for result in outcome.results:
        if not result.looked:
            key = (result.text.removeprefix("skipped: "), not _beyond_the_device(result))
            skips.setdefault(key, []).append(result.scenario.id)
    return [Skip(names_text(names), reason, asked=asked) for (reason, asked), names in skips.items()]


def _beyond_the_device(result: Result) -> bool:
    """A dtype of our own set that the device lacks: nobody asked for it by name."""
    return result.text == f"skipped: {NO_DTYPE.format(result.scenario.dtype)}" and result.scenario.label != "yours"


def names_text(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rows(outcome: Outcome, ranks: int) -> list[StackRow]:
    packages = outcome.packages or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in WATCHED[:4] if name in packages)
    rows = [StackRow("environment", f"Python {outcome.python}, {versions}")] if versions else []
    if outcome.device:
        rows.append(StackRow("device", _device_text(outcome.device, ranks)))
    if outcome.failure:
        return rows  # one reason for all of them, which the report gives once
    return rows + [StackRow(result.scenario.id, verdict_text(result)) for result in outcome.results]


def _device_text(device: str, ranks: int) -> str:
    label = " (a CPU run; it is no proof for a GPU)" if device.startswith("cpu") else ""
    return f"{device}, {ranks} ranks{label}"


def verdict_text(result: Result) -> str:
    """`equal (ratio 1.000, error 7.2e-06)`, or the verdict in words."""
    if result.good:
        return f"equal  ratio {result.ratio:.4g}  error {result.error:.1e}"
    if not result.looked or result.kind in (Kind.CRASHED, Kind.HUNG):
        return result.text
    return f"{result.text}  ratio {result.ratio:.4g}  error {result.error:.2g}"


def _notes(outcome: Outcome, packages: dict[str, str], matrix: Matrix) -> list[str]:
    notes = [f"changed for the probe: {change}" for change in outcome.changes]
    for result in outcome.results:
        notes += [f"{result.scenario.id}: changed: {change}" for change in result.scenario.changes]
        if result.good:
            notes += [f"{result.scenario.id}: {note}" for note in result.notes]
    if outcome.device.startswith("cpu") and packages:
        notes.append(unseen_text(explain.not_examined(packages, matrix), packages))
    return notes


def unseen_text(rules: list[Rule], packages: dict[str, str]) -> str:
    """What a CPU cannot show."""
    head = "not examined on this device: races of overlap_comm between streams (a CPU has none)"
    if not rules:
        return f"{head}; the matrix knows of none with deepspeed {packages.get('deepspeed', 'of this release')}"
    return head + ": " + "; ".join(f"{rule.id} (deepspeed {rule.packages.get('deepspeed', '*')})" for rule in rules)


def _data(outcome: Outcome, ranks: int, explained: dict[str, list[Rule]]) -> dict[str, Any]:
    return {
        "device": outcome.device,
        "world_size": ranks,
        "python": outcome.python,
        "packages": {name: version for name, version in (outcome.packages or {}).items() if name in WATCHED},
        "changes": list(outcome.changes),
        "imports": outcome.imports or {},
        "seconds": round(outcome.seconds, 2),
        "scenarios": [scenario_data(result, explained[result.scenario.id]) for result in outcome.results],
    }


def scenario_data(result: Result, rules: list[Rule]) -> dict[str, Any]:
    """One scenario as plain data."""
    scenario = result.scenario
    return {
        "id": scenario.id,
        "path": scenario.path,
        "model": scenario.model,
        "stage": scenario.stage,
        "dtype": scenario.dtype,
        "accumulation": scenario.accumulation,
        "verdict": result.kind.value,
        "text": result.text,
        "ratio": finite(result.ratio),
        "error": finite(result.error),
        "parameters": [{"name": name, "verdict": text} for name, text in result.parameters],
        "coefficients": list(result.coefficients),
        "rules": [rule.id for rule in rules],
        "steps": [step_data(view) for view in result.steps],
        "notes": list(result.notes),
        "changes": list(scenario.changes),
        "config": scenario.config,
    }


def step_data(view: StepView) -> dict[str, Any]:
    """One step as plain data."""
    names = (
        "loss",
        "reference_loss",
        "lr",
        "expected_lr",
        "norm",
        "reference_norm",
        "ratio",
        "error",
        "gradient_ratio",
    )
    return {"step": view.step, **{name: finite(getattr(view, name)) for name in names}}


def finite(value: float | None) -> float | str | None:
    """A number that JSON can hold; the words nan, inf and -inf else."""
    if value is None:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else repr(value)
