"""Name the causes in a process of envcheck's own: `python -m envcheck.monitor.explain`, observations on standard input.

A training environment that `envcheck run` starts need not have envcheck's dependencies; the interpreter that has them answers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from envcheck.errors import ToolError
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.monitor.diagnosis import Diagnosis
from envcheck.monitor.journal import plain
from envcheck.monitor.observation import Kind, Observation
from envcheck.monitor.records import Run
from envcheck.process import run as run_child
from envcheck.report.jsonform import finding_data

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds that the answer may take.
PATIENCE = 60.0

Explained = list[tuple[Finding, tuple[Observation, ...]]]


def ask(python: str, run: Run, seen: Sequence[Observation]) -> Explained:
    """The findings as the interpreter `python`, which has envcheck, makes them of the observations.

    Raises:
        ToolError: It cannot be started, or its answer is none.
    """
    question = {
        "run": {item.name: plain(getattr(run, item.name)) for item in fields(Run)},
        "seen": [{item.name: plain(getattr(one, item.name)) for item in fields(Observation)} for one in seen],
    }
    done = run_child([python, "-m", "envcheck.monitor.explain"], timeout=PATIENCE, stdin=json.dumps(question))
    if done.returncode != 0:
        raise ToolError(f"`{python}` could not name the causes: {done.outcome}: {done.stderr.strip()[-300:]}")
    try:
        answer = json.loads(done.stdout)
        return [(_finding(one["finding"]), tuple(seen[index] for index in one["behind"])) for one in answer]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ToolError(f"`{python}` gave no answer that could be read: {error}") from error


def _finding(data: dict[str, Any]) -> Finding:
    return Finding(
        id=data["id"], severity=Severity[data["severity"].upper()], title=data["title"], subjects=tuple(data["subjects"]),
        observed=data["observed"], because=tuple(data["because"]), certain=data["certain"],
        fixes=tuple(Fix(one["kind"], one["change"]) for one in data["fixes"]),
        evidence=tuple(Evidence(one["kind"], one["ref"]) for one in data["evidence"]),
    )  # fmt: skip


def answer(question: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings of a question, as plain data; `behind` are places in the list of observations."""
    run = Run(**question["run"])
    seen = [Observation(**{**one, "kind": Kind(one["kind"]), "parameters": tuple(one["parameters"])}) for one in question["seen"]]
    found = Diagnosis(run, elsewhere=None).findings(seen)
    return [{"finding": finding_data(finding), "behind": [seen.index(one) for one in behind]} for finding, behind in found]


def main() -> int:
    """Answer one question."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
