"""The checks, by name, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.checks.metadata import check_metadata
from envcheck.checks.requirements import check_requirements
from envcheck.checks.rules import check_rules
from envcheck.findings import Finding, Skip

if TYPE_CHECKING:
    from envcheck.checks.context import Check, Context

CHECKS: dict[str, Check] = {
    "rules": check_rules,
    "requirements": check_requirements,
    "metadata": check_metadata,
}


def run_all(context: Context) -> tuple[list[Finding], list[Skip]]:
    """Run every check; findings and skips in the order they came."""
    findings: list[Finding] = []
    skips: list[Skip] = []
    for check in CHECKS.values():
        for outcome in check(context):
            if isinstance(outcome, Finding):
                findings.append(outcome)
            else:
                skips.append(outcome)
    return findings, skips
