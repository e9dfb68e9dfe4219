"""What is to be said of a lock beyond the matrix: a profile's, why there is none, what it leaves out; withdrawn releases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from envcheck.checks.profile.packages import check_build
from envcheck.checks.profile.subject import Subject
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.matrix.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.checks.context import Context
    from envcheck.matrix.profile import Profile


def recipes(profile: Profile, told: Settings) -> list[Settings]:
    """The settings that a set for this profile has to serve: those of its own scripts, each under what the user told.

    A DeepSpeed file or TrainingArguments that the user gave take the place of the scripts' own. What was told alone where the
    profile has no settings.
    """
    found: list[Settings] = []
    for recipe in profile.settings:
        own = replace(
            recipe, deepspeed={} if told.deepspeed_complete else recipe.deepspeed,
            trainer={} if told.trainer_complete else recipe.trainer,
        ).settings()  # fmt: skip
        complete = told.deepspeed_complete or own.deepspeed_complete
        merged = Settings({**own.values, **told.values}, complete, told.trainer_complete, told.uses)
        found += [] if merged in found else [merged]
    return found or [told]


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


def wrong_build(profile: Profile, locked: Context) -> Iterator[Finding]:
    """A CPU build of torch in the lock of a project that needs a GPU: the index that was found first has it."""
    for finding in check_build(Subject(locked, profile, {})):
        if isinstance(finding, Finding):
            way_out = Fix("do", "`--torch-backend cu130` (or what the driver runs), or leave out the index of CPU builds")
            yield finding._replace(severity=min(finding.severity, Severity.WARNING), fixes=(way_out,))


def withdrawn(yanked: Mapping[str, str]) -> Iterator[Finding]:
    """The releases of the lock that their authors withdrew: taken only because something pins them exactly."""
    for release, reason in yanked.items():
        name, _, version = release.partition("==")
        yield Finding(
            id="lock-yanked",
            severity=Severity.INFO,
            title=f"`{release}` was withdrawn (yanked) by its authors; it is taken because it is pinned exactly",
            subjects=(name,),
            observed={name: version},
            because=(f"the reason given: {reason}" if reason else "no reason is given",),
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
