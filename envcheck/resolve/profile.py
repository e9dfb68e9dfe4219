"""What is to be said of a profile's lock: why there is none, and what it has to leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.matrix.profile import Profile


def refusal(profile: Profile) -> Finding:
    """Why a profile whose lock is refused cannot be locked."""
    return Finding(
        id="profile-not-lockable",
        severity=Severity.ERROR,
        title=f"{profile.name} cannot be locked",
        subjects=(profile.id,),
        because=(profile.lock.refused,),
        fixes=(Fix("do", f"install it by hand: `envcheck profiles show {profile.id}` has the steps"),),
        evidence=(Evidence("docs", profile.lock.source),),
    )


def remarks(profile: Profile) -> Iterator[Finding]:
    """What is left to do after the lock, and what to know of it."""
    lock = profile.lock
    if lock.left_out:
        names = ", ".join(f"`{item.what}`" for item in lock.left_out)
        yield Finding(
            id="profile-left-out",
            severity=Severity.INFO,
            title=f"the lock is without {names}: put {'it' if len(lock.left_out) == 1 else 'them'} in afterwards",
            subjects=tuple(item.what for item in lock.left_out),
            because=tuple(f"`{item.what}`: {item.why}; {item.do}" for item in lock.left_out),
        )
    if lock.note:
        yield Finding("profile-lock-note", Severity.INFO, f"about the lock of {profile.name}: {lock.note}", (profile.id,))
