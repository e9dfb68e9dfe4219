"""Matrix rules against the environment: what speaks, how loudly, and what was left undecided."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from envcheck.findings import Finding, Severity, Skip
from envcheck.matrix.index import COMPARE, FACT, PACKAGE, USE
from envcheck.matrix.match import match, observed, reasons
from envcheck.matrix.rule import LOUD, subject_of_fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.facts.model import Environment
    from envcheck.matrix.index import Candidates
    from envcheck.matrix.match import Match
    from envcheck.matrix.settings import Settings


def check_rules(context: Context) -> Iterator[Outcome]:
    """Every bad, suspect and changed combination; one skip for each fact, package or usage that kept rules open."""
    environment = context.matrix.completed(context.environment)
    for outcome in speaking(context):
        yield outcome if isinstance(outcome, Skip) else finding(outcome, environment, context.settings)


def speaking(context: Context, wanted: Callable[[Candidates], bool] | None = None) -> Iterator[Match | Skip]:
    """The matches that have something to say, then one skip for each reason that kept rules open.

    Args:
        context: The facts, the matrix and the settings.
        wanted: Which rules to consider at all; every one where left out.
    """
    matrix = context.matrix
    environment = matrix.completed(context.environment)
    told = matrix.told
    open_by: Counter[str] = Counter()
    numbers: list[int] = []
    for alike in matrix.possible(environment, context.settings):
        if alike.sketch.status == "good" or not (wanted is None or wanted(alike)):
            continue
        blocker = blocked_by(alike, told) if alike.open else ""
        if blocker:
            open_by[blocker] += len(alike.numbers)
        else:
            numbers += alike.numbers
    for number in sorted(numbers):
        if found := match(matrix.rule(number), environment, context.settings, matrix.kinds):
            yield found
    for name, count in sorted(open_by.items(), key=lambda entry: (-entry[1], entry[0])):
        yield Skip(f"rules about {name}", f"{name} unknown: {count} rule{'s' if count > 1 else ''}")


def blocked_by(candidates: Candidates, told: frozenset[str]) -> str:
    """What keeps rules out of the report, or an empty string.

    Machine facts, packages and uses that nobody gave never speak. A setting that nobody gave speaks where the
    rule says so, and for silent effects of certain releases; a loud fault will announce itself, and a rule about
    settings alone has nothing to say while they are not known.
    """
    first = candidates.open[0]  # packages, facts, comparisons, uses, settings: in this order
    if first.kind == PACKAGE:
        return "other packages"
    if first.kind in (FACT, COMPARE):
        name = subject_of_fact(first.fields[0])
        return "what only a deep check or you can tell" if name in told else name
    if first.kind == USE:
        return "what your code does"
    return _blocked_by_setting(candidates)


def _blocked_by_setting(candidates: Candidates) -> str:
    sketch = candidates.sketch
    if any(item.name == "model_type" for item in candidates.open):
        return "the model's type"
    if sketch.status == "change":
        return "settings whose meaning changed"
    if sketch.unknown:
        return ""
    if not candidates.packages:
        return "settings"
    return "settings of faults that announce themselves" if sketch.effect in LOUD else ""


def severity(found: Match) -> Severity:
    """The severity of a match.

    The rule's own when everything is known and the versions are plain releases; a warning at most for a pre-release;
    for open settings a warning where the rule says `unknown = "warn"`, else info.
    """
    own = found.rule.severity
    if found.open_settings:
        own = min(own, Severity.WARNING if found.rule.unknown == "warn" else Severity.INFO)
    return min(own, Severity.WARNING) if found.inexact else own


def finding(found: Match, environment: Environment, settings: Settings) -> Finding:
    """The report's form of a match."""
    rule = found.rule
    return Finding(
        id=rule.id,
        severity=severity(found),
        title=rule.title,
        subjects=rule.subjects,
        observed=observed(rule, environment, settings),
        because=reasons(found, environment, settings),
        certain=found.decided and not found.inexact,
        fixes=tuple(fix.as_fix() for fix in rule.fix),
        evidence=rule.evidence,
        symptom=rule.symptom,
    )
