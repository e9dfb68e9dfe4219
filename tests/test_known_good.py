"""Sets that real projects ship give no error, and few warnings: a false error is worse than a miss."""

from __future__ import annotations

import pytest

from envcheck.checks.context import Context
from envcheck.checks.known_good import WATCHED
from envcheck.checks.profile.pins import pinned_environment
from envcheck.checks.registry import run_all
from envcheck.findings import Severity
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from envcheck.matrix.profiles import load_profiles

MATRIX = load(environ={})

#: The exact pins of each profile that pins at least two of the packages that decide how training behaves.
PROJECTS = {
    identity: environment
    for identity, environment in (
        (profile.id, pinned_environment(profile, wanted_packages(profile, lock_markers(lock_python(profile))).values()))
        for profile in load_profiles(MATRIX.folder)
    )
    if len(environment.packages.keys() & WATCHED) > 1
}

#: Findings that are right although a project ships the set; each with the argument.
ARGUED: dict[tuple[str, str], str] = {}


def findings(identity: str) -> list[tuple[str, Severity]]:
    found, _ = run_all(Context(PROJECTS[identity], MATRIX))
    return [(item.id, item.severity) for item in found if (identity, item.id) not in ARGUED]


def test_enough_projects_pin_their_stack() -> None:
    assert len(PROJECTS) >= 18


@pytest.mark.parametrize("identity", PROJECTS)
def test_no_error(identity: str) -> None:
    assert [name for name, severity in findings(identity) if severity is Severity.ERROR] == []


def test_warnings_on_fewer_than_one_in_ten() -> None:
    warned = {
        identity: names
        for identity in PROJECTS
        if (names := [name for name, severity in findings(identity) if severity is Severity.WARNING])
    }
    assert len(warned) * 10 < len(PROJECTS), warned
