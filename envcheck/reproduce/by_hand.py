"""What a project's profile leaves to be done after its lock, for a script to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.facts.metadata import normalised
from envcheck.reproduce.plan import ByHand

if TYPE_CHECKING:
    from envcheck.matrix.profile import Profile


def by_hand(profile: Profile) -> ByHand:
    """The packages that no lock of the profile holds, and its steps."""
    packages = [normalised(name) for name in (*(item.what for item in profile.lock.left_out), profile.project) if name]
    return ByHand(
        profile=profile.id,
        packages=tuple(dict.fromkeys(packages)),
        left_out=tuple(f"{item.what}: {item.do} ({item.why})" for item in profile.lock.left_out),
        steps=tuple(f"{number}. {step.text}" for number, step in enumerate(profile.steps, 1)),
    )
