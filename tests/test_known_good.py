"""Sets that real projects ship, or that a resolver gives for them, get no error, and few get a warning.

A false error is worse than a miss.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from envcheck.checks.context import Context
from envcheck.checks.known_good import WATCHED
from envcheck.checks.profile.pins import pinned_environment
from envcheck.checks.registry import run_all
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.findings import Severity
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from envcheck.matrix.profiles import load_profiles
from envcheck.matrix.settings import Settings

MATRIX = load(environ={})
PROFILES = {profile.id: profile for profile in load_profiles(MATRIX.folder)}

#: The exact pins of each profile that pins at least two of the packages that decide how training behaves.
PINNED = {
    identity: environment
    for identity, environment in (
        (profile.id, pinned_environment(profile, wanted_packages(profile, lock_markers(lock_python(profile))).values()))
        for profile in PROFILES.values()
    )
    if len(environment.packages.keys() & WATCHED) > 1
}

SETS: dict[str, str] = tomli.loads((Path(__file__).parent / "data" / "profile-sets.toml").read_text())

#: What uv resolved for each profile, with the bounds that its own list lacks: exact versions of everything watched.
RESOLVED = {
    identity: Environment(
        packages={name: Distribution(name, version) for name, version in (item.split("==") for item in text.split())},
        facts={"python": Known(f"{lock_python(PROFILES[identity])}.11"), "system": Known("Linux")},
    )
    for identity, text in SETS.items()
}

#: Warnings under a project's own settings that are right although it ships them, each with the argument.
ARGUED = {
    "deepspeed-max-grad-norm-ignored": "their DeepSpeed files leave gradient_clipping out, so the Trainer's max_grad_norm of "
    "1.0 clips nothing; training works, and not as its arguments say",
    "deepspeed-zero2-overlap-before-0143": "their ZeRO-2 files turn overlap_comm on with a DeepSpeed before 0.14.3: a race that "
    "needs unlucky timing, which is why it is a warning",
    "deepspeed-zero2-overlap-buffer-lifetime": "the same files with DeepSpeed 0.12.4 to 0.18.9: a race too",
}


def found(environment: Environment, settings: Settings | None = None) -> dict[Severity, set[str]]:
    findings, _ = run_all(Context(environment, MATRIX, settings or Settings()))
    return {level: {item.id for item in findings if item.severity is level} for level in Severity}


def test_enough_sets_are_complete_enough() -> None:
    assert len(PINNED) >= 18
    assert RESOLVED.keys() == PROFILES.keys()


@pytest.mark.parametrize("identity", PINNED)
def test_pins_give_no_error(identity: str) -> None:
    assert found(PINNED[identity])[Severity.ERROR] == set()


@pytest.mark.parametrize("identity", RESOLVED)
def test_resolved_sets_give_no_error(identity: str) -> None:
    assert found(RESOLVED[identity])[Severity.ERROR] == set()


@pytest.mark.parametrize("sets", [PINNED, RESOLVED], ids=["pins", "resolved"])
def test_warnings_on_fewer_than_one_in_ten(sets: dict[str, Environment]) -> None:
    warned = {identity: names for identity in sets if (names := found(sets[identity])[Severity.WARNING])}
    assert len(warned) * 10 < len(sets), warned


@pytest.mark.parametrize("identity", [identity for identity in PINNED if PROFILES[identity].settings])
def test_under_the_projects_own_settings_there_is_no_error_and_each_warning_is_argued(identity: str) -> None:
    for recipe in PROFILES[identity].settings:
        levels = found(PINNED[identity], recipe.settings())
        assert levels[Severity.ERROR] == set()
        assert levels[Severity.WARNING] <= ARGUED.keys()


def test_every_argument_is_needed() -> None:
    recipes = [(PINNED[identity], recipe.settings()) for identity in PINNED for recipe in PROFILES[identity].settings]
    assert set().union(*(found(*recipe)[Severity.WARNING] for recipe in recipes)) == ARGUED.keys()
