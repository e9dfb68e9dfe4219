"""The inference servers of a profile: one of them there, and recent enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.profile.subject import Subject
    from envcheck.matrix.profile import Server


def check_servers(subject: Subject) -> Iterator[Outcome]:
    """Servers at versions that do not work; none at all where the profile is for serving.

    A server that the packages of the profile name already is judged there.
    """
    packages = subject.environment.packages
    candidates = [item for item in subject.profile.servers if item.package and item.package not in subject.wanted]
    there = [item for item in candidates if item.package in packages]
    good = [item for item in there if satisfies(packages[item.package].version, item.spec) is not False]
    needed = subject.profile.server == "required"
    if good or not candidates:
        return
    for item in there:
        yield _too_old(subject, item, breaks=needed)
    if needed and not there:
        if subject.environment.complete:
            yield _none(subject, candidates)
        else:
            yield Skip("profile servers", f"which server {subject.profile.name} is to run on is not in the snapshot")


def _too_old(subject: Subject, server: Server, *, breaks: bool) -> Finding:
    version = subject.environment.packages[server.package].version
    return Finding(
        id="profile-server",
        severity=subject.severity(breaks=breaks) if breaks else Severity.WARNING,
        title=f"{subject.profile.name} needs `{server.requirement}`, here is {version}",
        subjects=(server.package,),
        observed={server.package: version},
        because=(f"`{server.package}` {version} is outside `{server.spec}`", *([server.note] if server.note else [])),
        fixes=(Fix("package", server.requirement),),
        evidence=subject.evidence,
    )


def _none(subject: Subject, servers: list[Server]) -> Finding:
    return Finding(
        id="profile-server",
        severity=subject.severity(breaks=True),
        title=f"none of the servers that {subject.profile.name} runs on is installed",
        subjects=tuple(item.package for item in servers),
        because=tuple(f"`{item.requirement}` would do" + (f": {item.note}" if item.note else "") for item in servers),
        fixes=tuple(Fix("package", item.requirement) for item in servers),
        evidence=subject.evidence,
    )
