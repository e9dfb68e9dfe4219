"""The report as SARIF 2.1.0, for code-scanning views."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from envcheck import __version__
from envcheck.findings import Severity
from envcheck.report.escape import redacted, visible

if TYPE_CHECKING:
    from envcheck.findings import Finding, Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
PLACE = re.compile(r"(.+?):(\d+)(?::(\d+))?")

#: Findings about an environment have no file; SARIF viewers want one, and requirements live here.
NO_FILE = "environment"


def render(report: Report) -> str:
    """The report as SARIF text (ASCII)."""
    rules = {finding.id: _rule(finding) for finding in report.findings}
    waived = [(item.finding, item.reason) for item in report.waived]
    rules.update({finding.id: _rule(finding) for finding, _ in waived})
    results = [_result(finding) for finding in report.findings]
    results += [
        {**_result(finding), "suppressions": [{"kind": "external", "justification": clean(reason)}]} for finding, reason in waived
    ]
    notes = [{"level": "note", "message": {"text": clean(f"{skip.check}: {skip.reason}")}} for skip in report.skipped]
    run = {
        "tool": {"driver": {"name": "envcheck", "version": __version__, "rules": list(rules.values())}},
        "results": results,
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "properties": {"verdict": report.verdict.value},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def clean(text: str) -> str:
    """Foreign text for a viewer: no hidden characters, no home folders, no tokens."""
    return visible(redacted(text))


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": clean(finding.id),
        "shortDescription": {"text": clean(finding.title)},
        "fullDescription": {"text": clean(finding.symptom or finding.title)},
        "defaultConfiguration": {"level": LEVELS[finding.severity]},
        "help": {"text": clean("; ".join(item.shown for item in finding.evidence) or finding.title)},
    }


def _result(finding: Finding) -> dict[str, Any]:
    why = "; ".join(finding.because)
    fix = (", " if finding.together else " or ").join(item.change for item in finding.fixes)
    text = ". ".join(part for part in (finding.title, why, f"Fix: {fix}" if fix else "") if part)
    return {
        "ruleId": clean(finding.id),
        "level": LEVELS[finding.severity],
        "message": {"text": clean(text)},
        "locations": [_location(finding)],
        "properties": {"subjects": [clean(name) for name in finding.subjects], "certain": finding.certain},
    }


def _location(finding: Finding) -> dict[str, Any]:
    found = PLACE.fullmatch(finding.place) if finding.place else None
    uri = clean(found[1]) if found else NO_FILE
    place: dict[str, Any] = {"artifactLocation": {"uri": re.sub(r"[^\w./~-]", "_", uri)}}
    if found:
        place["region"] = {"startLine": max(int(found[2]), 1), "startColumn": max(int(found[3] or 1), 1)}
    return {"physicalLocation": place}
