"""`envcheck.report/1`: the report as data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envcheck.findings import Finding, Report

SCHEMA = "envcheck.report/1"


def as_data(report: Report, schema: str = SCHEMA) -> dict[str, Any]:
    """The report as plain data; keys as in the contract, more may be added."""
    return {
        "schema": schema,
        "verdict": report.verdict.value,
        "findings": [finding_data(finding) for finding in report.findings],
        "skipped": [{"check": skip.check, "reason": skip.reason} for skip in report.skipped],
        "notes": list(report.notes),
        "waived": [{"finding": finding_data(item.finding), "reason": item.reason, "until": item.until} for item in report.waived],
        "stack": {row.name: row.value for row in report.stack},
        **report.extra,
    }


def finding_data(finding: Finding) -> dict[str, Any]:
    """One finding as plain data."""
    data: dict[str, Any] = {
        "id": finding.id,
        "severity": finding.severity.label,
        "title": finding.title,
        "subjects": list(finding.subjects),
        "observed": dict(finding.observed),
        "because": list(finding.because),
        "certain": finding.certain,
        "fixes": [{"kind": fix.kind, "change": fix.change} for fix in finding.fixes],
        "evidence": [{"kind": item.kind, "ref": item.ref} for item in finding.evidence],
    }
    if finding.symptom:
        data["symptom"] = finding.symptom
    if finding.place:
        data["place"] = finding.place
    if finding.together:
        data["together"] = True
    return data


def render(report: Report, schema: str = SCHEMA) -> str:
    """The report as JSON text; ASCII only, so that no hidden character reaches a terminal."""
    return json.dumps(as_data(report, schema), indent=2) + "\n"
