"""Hold an environment against a profile: cannot run, will run degraded, or ready."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from envcheck.checks.profile.hardware import check_hardware
from envcheck.checks.profile.packages import (
    check_bounds,
    check_build,
    check_forbidden,
    check_missing,
    check_python,
    check_versions,
)
from envcheck.checks.profile.pins import check_pins
from envcheck.checks.profile.servers import check_servers
from envcheck.checks.profile.steps import Done, check_programs, check_steps, judge_steps
from envcheck.checks.profile.subject import Subject
from envcheck.checks.requirements import marker_environment
from envcheck.findings import Finding, Report, Severity, Skip, StackRow, sort_findings
from envcheck.matrix.profile_requirements import OVERRIDE, lock_python, wanted_packages
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from envcheck.checks.context import Context, Outcome
    from envcheck.matrix.profile import Profile, Step
    from envcheck.matrix.profile_requirements import Wanted


class Readiness(Enum):
    """Whether the project can run here; the value is how reports put it."""

    READY = "ready"
    DEGRADED = "will run degraded"
    CANNOT_RUN = "cannot run"
    UNDECIDED = "not decided"


@dataclass(frozen=True, slots=True)
class ProfileOutcome:
    """What came of holding an environment against a profile.

    Attributes:
        profile: The profile.
        wanted: Its packages for this environment.
        areas: Readiness of `python`, `packages`, `servers` and `hardware`.
        steps: Its steps, with what can be said of each.
        findings: Findings of the profile checks.
        skips: What they could not decide.
    """

    profile: Profile
    wanted: dict[str, Wanted]
    areas: dict[str, Readiness]
    steps: list[tuple[Step, Done]]
    findings: tuple[Finding, ...]
    skips: tuple[Skip, ...]

    @property
    def readiness(self) -> Readiness:
        """The worst of the findings; without any, `not decided` where too little is known of the packages."""
        worst = max((finding.severity for finding in self.findings), default=Severity.INFO)
        return of_severity(worst) if worst is not Severity.INFO else self.areas["packages"]


def of_severity(severity: Severity) -> Readiness:
    """An error means that it cannot run, a warning that it runs degraded."""
    return {Severity.ERROR: Readiness.CANNOT_RUN, Severity.WARNING: Readiness.DEGRADED}.get(severity, Readiness.READY)


def hold_against(
    context: Context, profile: Profile, deep: Iterable[Finding] | None = None, *, pins: bool = True,
) -> ProfileOutcome:  # fmt: skip
    """Run every profile check; `deep` is what the deep checks found, None where they were not run.

    Without `pins` the profile's own list is not held against the matrix: that never changes the verdict, and takes longest.
    """
    python = context.environment.text("python") or f"{lock_python(profile)}.0"
    wanted = wanted_packages(profile, marker_environment(context.environment, python))
    subject = Subject(context, profile, wanted, None if deep is None else tuple(deep))
    steps = judge_steps(subject)
    areas = {
        "python": list(check_python(subject)),
        "packages": [
            *check_missing(subject), *check_versions(subject), *check_build(subject), *check_bounds(subject),
            *check_forbidden(subject),
        ],
        "servers": list(check_servers(subject)),
        "hardware": list(check_hardware(subject)),
    }  # fmt: skip
    outcomes = [item for found in areas.values() for item in found]
    findings = [item for item in outcomes if isinstance(item, Finding)]
    findings += [*check_programs(subject), *check_steps(subject, steps), *(check_pins(subject) if pins else ())]
    return ProfileOutcome(
        profile=profile,
        wanted=wanted,
        areas={name: area(found) for name, found in areas.items()} | {"packages": packages_area(subject, areas["packages"])},
        steps=steps,
        findings=tuple(findings),
        skips=tuple(item for item in outcomes if isinstance(item, Skip)),
    )


def area(outcomes: Sequence[Outcome]) -> Readiness:
    """What the outcomes about one area come to: the worst finding; without any, undecided where something was skipped."""
    worst = max((item.severity for item in outcomes if isinstance(item, Finding)), default=None)
    if worst is not None:
        return of_severity(worst)
    return Readiness.UNDECIDED if outcomes else Readiness.READY


def packages_area(subject: Subject, outcomes: Sequence[Outcome]) -> Readiness:
    """As `area`, but a few packages that a snapshot does not list do not leave the whole list undecided.

    Decided is a list of which at least half of the packages with a version are known.
    """
    found = area(outcomes)
    if found is not Readiness.UNDECIDED:
        return found
    bounded = [name for name, item in subject.wanted.items() if item.spec] or list(subject.wanted)
    known = sum(name in subject.environment.packages for name in bounded)
    return Readiness.READY if 2 * known >= len(bounded) else Readiness.UNDECIDED


def attach(report: Report, outcome: ProfileOutcome) -> Report:
    """The report with the profile's verdict in its stack, notes and data.

    Conflicts that the project makes on purpose are told as such, and an error elsewhere in the report keeps a profile
    from being called ready.
    """
    findings = sort_findings([expected(item, outcome) for item in report.findings])
    elsewhere = errors_elsewhere(findings, outcome)
    readiness = readiness_beside(outcome, elsewhere)
    note = f"profile {outcome.profile.name}: {readiness.value} ({_sentence(outcome)})"
    if elsewhere:
        note += f"; the matrix has {len(elsewhere)} error{'s' if len(elsewhere) > 1 else ''} against this environment"
    return report._replace(
        findings=findings,
        skipped=(*report.skipped, *outcome.skips),
        stack=(*report.stack, StackRow("profile", f"{outcome.profile.name} [{outcome.profile.id}]", outcome.profile.file)),
        notes=(*report.notes, note),
        extra={**report.extra, "profile": data(outcome, readiness)},
    )


def errors_elsewhere(findings: Iterable[Finding], outcome: ProfileOutcome) -> list[Finding]:
    """The errors that are not the profile's own, and that it does not make on purpose."""
    found = (expected(item, outcome) for item in findings)
    return [item for item in found if item.severity is Severity.ERROR and item not in outcome.findings]


def readiness_beside(outcome: ProfileOutcome, elsewhere: Sequence[Finding]) -> Readiness:
    """The verdict where the matrix has errors against the environment: then nothing is ready."""
    calm = outcome.readiness in (Readiness.READY, Readiness.UNDECIDED)
    return Readiness.DEGRADED if elsewhere and calm else outcome.readiness


def expected(finding: Finding, outcome: ProfileOutcome) -> Finding:
    """A requirement conflict that an override of the profile makes on purpose, as info; everything else unchanged."""
    if finding.id != "requirement-conflict":
        return finding
    for name, version in finding.observed.items():
        item = outcome.wanted.get(name)
        if item is not None and item.origin == OVERRIDE and name == finding.subjects[-1] and satisfies(version, item.spec):
            why = f"expected: {outcome.profile.name} puts `{name}{item.spec}` in place on purpose"
            return finding._replace(severity=Severity.INFO, because=(*finding.because, why), fixes=())
    return finding


def _sentence(outcome: ProfileOutcome) -> str:
    areas = [f"{name} {state.value}" for name, state in outcome.areas.items()]
    done = sum(state is Done.DONE for _, state in outcome.steps)
    return ", ".join([*areas, f"steps {done} of {len(outcome.steps)} seen to be done"])


def data(outcome: ProfileOutcome, readiness: Readiness) -> dict[str, Any]:
    """The verdict as plain data, for the report's `profile` field."""
    return {
        "id": outcome.profile.id,
        "name": outcome.profile.name,
        "readiness": readiness.value,
        "advisory": outcome.profile.advisory,
        "areas": {name: state.value for name, state in outcome.areas.items()},
        "steps": [{"text": step.text, "state": state.value} for step, state in outcome.steps],
    }
