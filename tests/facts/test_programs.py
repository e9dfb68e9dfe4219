from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.facts.machine import Machine
from envcheck.facts.model import Known
from envcheck.facts.programs import WATCHED, program_facts
from envcheck.matrix.database import load
from envcheck.matrix.profiles import load_profiles
from tests.facts.machines import machine_of, program

if TYPE_CHECKING:
    from pathlib import Path


def test_programs_on_path_are_found_and_not_started(tmp_path: Path) -> None:
    program(tmp_path, "/bin/ffmpeg", "touch started")
    program(tmp_path, "/elsewhere/adb", "exit 1")
    assert program_facts(machine_of(tmp_path)) == {"programs": Known(("ffmpeg",), "PATH")}
    assert not (tmp_path / "started").exists()


def test_an_empty_path_has_none(tmp_path: Path) -> None:
    assert program_facts(Machine(variables={}, root=str(tmp_path))) == {"programs": Known((), "PATH")}


def test_every_program_that_a_profile_names_is_looked_for() -> None:
    profiles = load_profiles(load(environ={}).folder)
    named = {name for profile in profiles for name in profile.programs}
    named |= {name for profile in profiles for step in profile.steps if step.verify for name in step.verify.program}
    assert named == set(WATCHED)
