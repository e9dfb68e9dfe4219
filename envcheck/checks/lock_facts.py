"""The machine and the matrix that a lock was solved for, against those that are here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from envcheck.checks.context import Context
from envcheck.checks.registry import run_all
from envcheck.facts.model import Absent, Distribution, Environment, Gpu, Known
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip
from envcheck.matrix.conditions import lookup
from envcheck.matrix.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envcheck.checks.context import Outcome
    from envcheck.checks.locked import Lock, LockedPackage, SolvedFor
    from envcheck.facts.model import Fact

EVIDENCE = (Evidence("docs", "the `[tool.envcheck]` table of the lock"),)

#: Facts of which a later version serves what was locked for an earlier one.
UPWARD = frozenset({"glibc", "driver", "driver_cuda"})

#: Facts that matter only where something is compiled.
BUILD_ONLY = frozenset({"cuda_toolkit", "cuda_compat"})

#: How a lock writes that something is absent, and that it could not be read.
NONE, UNREAD = "none", "unknown"


def compare_python(environment: Environment, lock: Lock) -> Iterator[Outcome]:
    """Another Python than the lock's."""
    here = environment.text("python")
    solved = lock.provenance.python if lock.provenance else ""
    if here is None:
        if solved or lock.requires_python:
            yield Skip("lock python", "python unknown: not compared with the lock's", asked=True)
        return
    if solved and not f"{here}.".startswith(f"{solved}."):
        yield _other_fact("python", solved, here, Severity.ERROR)
    elif lock.requires_python and not _inside(here, lock.requires_python):
        yield _other_fact("python", lock.requires_python, here, Severity.ERROR)


def _inside(version: str, spec: str) -> bool:
    try:
        return SpecifierSet(spec).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True


def compare_facts(environment: Environment, solved: SolvedFor) -> Iterator[Outcome]:
    """Every machine fact that is not the lock's; what is not known here could not be compared."""
    for name, locked in solved.facts.items():
        if locked == UNREAD:
            continue
        here = fact_text(environment, name)
        if here is None:
            yield Skip("lock facts", f"{name} unknown: not compared with the lock's {locked}", asked=True)
        elif here != locked:
            yield _other_fact(name, locked, here, weight(name, locked, here))


def fact_text(environment: Environment, name: str) -> str | None:
    """A fact as a lock writes it: `none` for what is absent, lists joined; None where it is not known."""
    if name == "gpu.compute_capability" and environment.gpus is not None:
        kinds = sorted({gpu.compute_capability for gpu in environment.gpus if gpu.compute_capability})
        return ", ".join(kinds) if kinds else (None if environment.gpus else NONE)
    fact = lookup(environment, name)
    if isinstance(fact, Known):
        return fact.value if isinstance(fact.value, str) else ", ".join(fact.value)
    return NONE if isinstance(fact, Absent) else None


def weight(name: str, locked: str, here: str) -> Severity:
    """How bad another fact is: a warning where what was locked still runs, or only builds differ."""
    if name in BUILD_ONLY or locked == NONE:
        return Severity.WARNING
    if name in UPWARD and here != NONE:
        try:
            return Severity.WARNING if Version(here) > Version(locked) else Severity.ERROR
        except InvalidVersion:
            return Severity.ERROR
    return Severity.ERROR


def _other_fact(name: str, locked: str, here: str, severity: Severity) -> Finding:
    return Finding(
        id="lock-other-facts",
        severity=severity,
        title=f"the lock was solved for {name} {locked}, here it is {here}",
        subjects=(name.partition(".")[0],),
        observed={name.partition(".")[0]: here},
        because=(f"locked for: {locked}", f"here: {here}"),
        fixes=(Fix("do", "lock again for this machine"),),
        evidence=EVIDENCE,
    )


def matrix_objections(context: Context, wanted: Sequence[LockedPackage], solved: SolvedFor) -> Iterator[Outcome]:
    """What the matrix says now of the locked set under the facts and settings it was solved for, where it has changed since."""
    if solved.matrix == context.matrix.digest:
        return
    packages = {package.name: Distribution(package.name, package.version) for package in wanted if package.version}
    environment = _solved_environment(packages, solved)
    found: dict[tuple[str, str], Finding] = {}
    for settings in _settings(solved):
        for finding in run_all(Context(environment, context.matrix, settings))[0]:
            found.setdefault((finding.id, finding.title), finding)
    for finding in found.values():
        if finding.severity is Severity.ERROR and finding.id not in solved.waived:
            yield Finding(
                id="lock-matrix-objects",
                severity=Severity.ERROR,
                title=f"the matrix has changed since the lock was made, and now objects: {finding.title}",
                subjects=finding.subjects,
                observed=finding.observed,
                because=(f"rule or check: `{finding.id}`", *finding.because),
                fixes=(Fix("do", "lock again"), *finding.fixes),
                evidence=finding.evidence,
                symptom=finding.symptom,
            )


def _solved_environment(packages: dict[str, Distribution], solved: SolvedFor) -> Environment:
    """The environment that the lock describes; not complete, because installers and the system's packages are not in it."""
    facts: dict[str, Fact] = {
        name: Absent(("the lock",)) if text == NONE else Known(text, "the lock")
        for name, text in {"python": solved.python, **solved.facts}.items()
        if text and text != UNREAD and not name.startswith("gpu.")
    }
    kinds = solved.facts.get("gpu.compute_capability", UNREAD)
    gpus = None if kinds == UNREAD else tuple(Gpu("", kind) for kind in kinds.split(", ") if kind != NONE)
    return Environment(packages=packages, facts=facts, gpus=gpus, source="the lock")


def _settings(solved: SolvedFor) -> list[Settings]:
    return [Settings(dict(values), uses=frozenset(solved.uses)) for values in (solved.settings, *solved.others)]
