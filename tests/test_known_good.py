"""Sets that real projects ship give no error, and few warnings: a false error is worse than a miss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli

from envcheck.checks.context import Context
from envcheck.checks.registry import run_all
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.findings import Severity
from envcheck.matrix.database import load

PROJECTS = tomli.loads((Path(__file__).parent / "data" / "known-good-pins.toml").read_text())["project"]

#: Findings that are right although a project ships the set; each with the argument.
ARGUED: dict[tuple[str, str], str] = {}


def findings(project: dict[str, Any]) -> list[tuple[str, Severity]]:
    packages = {name: Distribution(name, version) for name, version in project["packages"].items()}
    facts = {"python": Known(project["python"])} if "python" in project else {}
    found, _ = run_all(Context(Environment(packages=packages, facts=dict(facts)), load(environ={})))
    return [(item.id, item.severity) for item in found if (project["id"], item.id) not in ARGUED]


@pytest.mark.parametrize("project", PROJECTS, ids=[project["id"] for project in PROJECTS])
def test_no_error(project: dict[str, Any]) -> None:
    assert [name for name, severity in findings(project) if severity is Severity.ERROR] == []


def test_warnings_on_fewer_than_one_in_ten() -> None:
    warned = {
        project["id"]: names
        for project in PROJECTS
        if (names := [name for name, severity in findings(project) if severity is Severity.WARNING])
    }
    assert len(warned) * 10 < len(PROJECTS), warned
