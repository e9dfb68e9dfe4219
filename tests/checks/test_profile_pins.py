"""What is said of pins that contradict the matrix: the ways out of several contradictions are needed together."""

from __future__ import annotations

from dataclasses import replace

from envcheck.checks.context import Context
from envcheck.checks.profile import pins
from envcheck.checks.profile.steps import Done, check_steps
from envcheck.checks.profile.subject import Subject
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from tests.test_known_good import MATRIX, PINNED, PROFILES


def subject(identity: str) -> Subject:
    profile = PROFILES[identity]
    wanted = wanted_packages(profile, lock_markers(lock_python(profile)))
    return Subject(Context(PINNED[identity], MATRIX), profile, wanted)


def test_ways_out_of_several_contradictions_are_together_and_one_each() -> None:
    several = 0
    for identity in PINNED:
        held = subject(identity)
        against = pins.contradictions(held.profile, held.wanted.values(), MATRIX)
        for finding in pins.check_pins(held):
            assert finding.together is (len(against) > 1), identity
            if finding.together:
                several += 1
                assert len(finding.fixes) <= len(against), identity
    assert several


def test_one_step_is_one_step() -> None:
    held = next(subject(identity) for identity in PINNED if len(PROFILES[identity].steps) > 1)
    one, two = held.profile.steps[:2]
    plain = [replace(step, verify=None) for step in (one, two)]
    (single,) = check_steps(held, [(plain[0], Done.UNSEEN)])
    (both,) = check_steps(held, [(step, Done.UNSEEN) for step in plain])
    assert "1 step of" in single.title
    assert "2 steps of" in both.title
