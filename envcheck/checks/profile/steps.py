"""Steps of a profile that a version check cannot see: seen to be done, seen not to be, or for you to verify."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from envcheck.facts.metadata import normalised
from envcheck.facts.model import Absent, Known
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.versions import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.profile.subject import Subject
    from envcheck.facts.model import Environment
    from envcheck.matrix.profile import Step, Verify


class Done(Enum):
    """What can be said of a step; the value is how reports put it."""

    DONE = "done"
    NOT_DONE = "not done"
    UNSEEN = "verify yourself"


def judge_steps(subject: Subject) -> list[tuple[Step, Done]]:
    """Every step with what can be said of it."""
    return [(step, judge(step.verify, subject.environment, subject.deep)) for step in subject.profile.steps]


def judge(verify: Verify | None, environment: Environment, deep: tuple[Finding, ...] | None) -> Done:
    """What the facts, and the deep checks where they were run, say of a step; `UNSEEN` where they say nothing."""
    if verify is None:
        return Done.UNSEEN
    if verify.installed:
        return _installed(verify.installed, environment)
    if verify.program:
        return _on_path(verify.program, environment)
    if verify.git:
        return _from_git(verify, environment)
    return _patched(verify.patched, deep)


def _installed(line: str, environment: Environment) -> Done:
    requirement = Requirement(line)
    found = environment.packages.get(normalised(requirement.name))
    if found is None:
        return Done.NOT_DONE if environment.complete else Done.UNSEEN
    held = inside(found.version, str(requirement.specifier))
    if held is None:
        return Done.UNSEEN
    return Done.DONE if held else Done.NOT_DONE


def _on_path(programs: tuple[str, ...], environment: Environment) -> Done:
    """One of the programs is enough; the fact `programs` lists those that were found."""
    fact = environment.fact("programs")
    if isinstance(fact, Known):
        return Done.DONE if set(programs) & set(fact.value) else Done.NOT_DONE
    return Done.NOT_DONE if isinstance(fact, Absent) else Done.UNSEEN


def _from_git(verify: Verify, environment: Environment) -> Done:
    """By the url and commit that the installer recorded (PEP 610); a hand-written snapshot does not hold them."""
    found = environment.packages.get(normalised(verify.git))
    if found is None:
        return Done.NOT_DONE if environment.complete else Done.UNSEEN
    if verify.instead and inside(found.version, verify.instead) is True:
        return Done.DONE
    if not found.direct_url:
        return Done.NOT_DONE if found.location else Done.UNSEEN
    same = _repository(found.direct_url) == _repository(verify.url)
    if same and verify.revision and not found.commit:
        return Done.UNSEEN
    return Done.DONE if same and found.commit.startswith(verify.revision) else Done.NOT_DONE


def _repository(url: str) -> str:
    """A repository's address without what may differ: scheme, credentials, case, `.git`."""
    rest = url.removeprefix("git+").partition("://")[2] or url
    return rest.rpartition("@")[2].lower().rstrip("/").removesuffix(".git")


def _patched(patches: tuple[str, ...], deep: tuple[Finding, ...] | None) -> Done:
    """Whether the deep checks found every one of the patches applied."""
    if deep is None:
        return Done.UNSEEN
    applied = {finding.observed.get("patch") for finding in deep if finding.id == "patch-applied"}
    return Done.DONE if applied >= set(patches) else Done.NOT_DONE


def check_programs(subject: Subject) -> Iterator[Finding]:
    """Programs that must be on PATH and are not."""
    missing = [name for name in subject.profile.programs if _on_path((name,), subject.environment) is Done.NOT_DONE]
    for name in missing:
        yield Finding(
            id="profile-program",
            severity=Severity.WARNING,
            title=f"{subject.profile.name} needs the program `{name}`, which is not on PATH",
            subjects=(name,),
            because=(f"`{name}` was looked for on PATH",),
            fixes=(Fix("do", f"install `{name}` with the system's package manager"),),
            evidence=subject.evidence,
        )


def check_steps(subject: Subject, steps: list[tuple[Step, Done]]) -> Iterator[Finding]:
    """A git install or a patch that is seen to be missing, and one list of what is left to verify."""
    for step, done in steps:
        if done is Done.NOT_DONE and step.verify and step.verify.git in subject.environment.packages:
            yield _wrong_source(subject, step, step.verify)
        if done is Done.NOT_DONE and step.verify and step.verify.patched:
            yield _not_patched(subject, step, step.verify)
    open_steps = [(step, done) for step, done in steps if done is not Done.DONE]
    if open_steps:
        yield Finding(
            id="profile-verify",
            severity=Severity.INFO,
            title=f"verify yourself: {_steps(len(open_steps))} of {subject.profile.name} that its versions do not show",
            subjects=(subject.profile.id,),
            because=tuple(_line(step, done) for step, done in open_steps),
            evidence=subject.evidence,
        )


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _line(step: Step, done: Done) -> str:
    seen = ""
    if done is Done.NOT_DONE and step.verify:
        looked_for = step.verify.installed or " or ".join(step.verify.program or step.verify.patched) or step.verify.git
        seen = f" (`{looked_for}` was not found here)"
    elif step.verify and step.verify.patched:
        seen = " (`envcheck check --deep` compares the files)"
    return f"{step.text}{seen}"


def _wrong_source(subject: Subject, step: Step, verify: Verify) -> Finding:
    found = subject.environment.packages[verify.git]
    revision = f"@{verify.revision}" if verify.revision else ""
    return Finding(
        id="profile-git-install",
        severity=subject.severity(breaks=True),
        title=f"{subject.profile.name} needs `{verify.git}` from git, here is {found.version} from elsewhere",
        subjects=(verify.git,),
        observed={verify.git: f"{found.version} ({found.direct_url or 'from an index'})"},
        because=(step.text,),
        fixes=(
            Fix("package", f"{verify.git} @ git+{verify.url}{revision}"),
            *([Fix("package", f"{verify.git}{verify.instead}")] if verify.instead else []),
        ),
        evidence=subject.evidence,
    )


def _not_patched(subject: Subject, step: Step, verify: Verify) -> Finding:
    return Finding(
        id="profile-patch",
        severity=Severity.WARNING,
        title=f"the files that {subject.profile.name} copies over installed packages are not all there",
        subjects=verify.patched,
        because=(step.text, f"looked for: {', '.join(f'`{name}`' for name in verify.patched)} (`patches/*.toml`)"),
        fixes=(Fix("do", "copy the project's files again, into this environment"),),
        evidence=subject.evidence,
    )
