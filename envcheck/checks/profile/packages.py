"""Packages and Python of a profile: missing, off the list, outside our bounds, or not allowed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from envcheck.checks.profile.subject import evidence
from envcheck.checks.torch_build import torch_build
from envcheck.facts.metadata import normalised
from envcheck.facts.model import Known
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.profile_requirements import APART, LIST, pinned
from envcheck.matrix.versions import inside, plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.profile.subject import Subject
    from envcheck.facts.model import Distribution
    from envcheck.matrix.profile import Bound
    from envcheck.matrix.profile_requirements import Wanted

#: Packages whose internals projects build on: off the pinned minor version they do not run.
INTERNALS = frozenset({"transformers", "trl", "vllm", "sglang"})

#: So many packages are named in a title.
NAMED = 4

LOWER = (">=", ">", "~=")


def check_python(subject: Subject) -> Iterator[Outcome]:
    """The interpreter against the profile's Python.

    Outside a range: cannot run. Another minor version than the one that upstream's scripts fix: degraded, unless
    the profile knows why no other works.
    """
    profile, python = subject.profile, subject.environment.text("python")
    if python is None:
        yield Skip("profile python", "Python version unknown")
        return
    if satisfies(python, profile.python) is not False:
        return
    fixed = profile.python.endswith(".*")
    why = [f"its scripts and wheels are for Python `{profile.python}`" if fixed else f"it asks for Python `{profile.python}`"]
    yield Finding(
        id="profile-python",
        severity=subject.severity(
            breaks=not fixed or bool(profile.python_only), inferred="python" in profile.provenance.inferred,
        ),
        title=f"{profile.name} is for Python `{profile.python}`, this is {python}",
        subjects=("python",),
        observed={"python": python},
        because=(*why, *([profile.python_only] if profile.python_only else [])),
        fixes=(Fix("do", f"make the environment with a Python in `{profile.python}`"),),
        evidence=subject.evidence,
    )  # fmt: skip


def check_missing(subject: Subject) -> Iterator[Outcome]:
    """Packages that are not there: one error for those it cannot do without, one warning for the others."""
    absent = [item for name, item in subject.wanted.items() if name not in subject.environment.packages]
    if not absent:
        return
    if not subject.environment.complete:
        yield Skip("profile packages", f"{len(absent)} packages of {subject.profile.name} are not in the snapshot")
        return
    needed = [item for item in absent if item.required and not item.origin.startswith("group ")]
    rest = [item for item in absent if item not in needed]
    if needed:
        yield _missing(subject, needed, breaks=True)
    if rest:
        yield _missing(subject, rest, breaks=False)


def _missing(subject: Subject, items: list[Wanted], *, breaks: bool) -> Finding:
    names = ", ".join(f"`{item.name}`" for item in items[:NAMED])
    names += f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    inferred = "requires" in subject.profile.provenance.inferred
    return Finding(
        id="profile-package-missing",
        severity=subject.severity(breaks=breaks, inferred=inferred),
        title=f"{subject.profile.name} needs {names}, which {'is' if len(items) == 1 else 'are'} not installed",
        subjects=tuple(item.name for item in items),
        because=tuple(f"`{item.name}{item.spec}` {_whence(item)}" for item in items),
        fixes=tuple(Fix("package", f"{item.name} @ {item.url}" if item.url else f"{item.name}{item.spec}") for item in items),
        evidence=subject.evidence, together=True,
    )  # fmt: skip


def _whence(item: Wanted) -> str:
    if item.origin == APART:
        return "is installed apart from its list"
    if item.origin.startswith("group "):
        return f"is in its optional group `{item.origin.removeprefix('group ')}`"
    return {"override": "is put in place by its install steps", "also": "is imported though no list names it"}.get(
        item.origin, "is on its list"
    )


def check_versions(subject: Subject) -> Iterator[Outcome]:
    """Versions that are off the list: an error each where it then cannot run, one warning for all others."""
    off: list[tuple[Wanted, str]] = []
    for item in subject.wanted.values():
        found = subject.environment.packages.get(item.name)
        if found is None or item.url.startswith("git+") or inside(found.version, item.spec) is not False:
            continue
        inferred = "requires" in subject.profile.provenance.inferred and item.origin == LIST
        if subject.severity(breaks=breaks(item, found.version), inferred=inferred) is Severity.ERROR:
            yield _wrong(subject, [(item, found.version)], Severity.ERROR)
        else:
            off.append((item, found.version))
    if off:
        yield _wrong(subject, off, Severity.WARNING)


def breaks(item: Wanted, version: str) -> bool:
    """Whether a version off the list means that the project cannot run, rather than that nobody tried it.

    Below a lower limit: yes. Off a pin: where the major version differs, or, for packages whose internals projects
    build on, the minor one. Above an upper limit: for those packages only.
    """
    have = plain(version)
    if have is None:
        return False
    pin = pinned(item.spec)
    if pin:
        try:
            want = Version(pin)
        except InvalidVersion:
            return False
        depth = 2 if item.name in INTERNALS else 1
        return have.version.release[:depth] != want.release[:depth]
    lower = [one for one in SpecifierSet(item.spec) if one.operator in LOWER or (one.operator == "==" and "*" in one.version)]
    below = any(have.version < Version(one.version.removesuffix(".*")) for one in lower)
    return below or item.name in INTERNALS


def _wrong(subject: Subject, off: list[tuple[Wanted, str]], severity: Severity) -> Finding:
    profile = subject.profile
    first, version = off[0]
    title = f"{profile.name} wants `{first.name}{first.spec}`, here is {version}"
    if len(off) > 1:
        title = f"{len(off)} packages are not at the versions that {profile.name} was tried with"
    return Finding(
        id="profile-package-version",
        severity=severity,
        title=title,
        subjects=tuple(item.name for item, _ in off),
        observed={item.name: found for item, found in off},
        because=tuple(f"`{item.name}{item.spec}` {_whence(item)}, here is {found}" for item, found in off),
        fixes=tuple(Fix("package", f"{item.name}{item.spec}") for item, _ in off),
        evidence=subject.evidence, together=True,
    )  # fmt: skip


def check_build(subject: Subject) -> Iterator[Outcome]:
    """A torch without CUDA, where the profile's needs are about NVIDIA GPUs."""
    build = torch_build(subject.context)
    needs = [need for need in subject.profile.needs if need.what != "driver"]
    if build is None or build.cuda != "" or not build.told or not needs or "rocm" in build.local or _for_amd(subject):
        return
    yield Finding(
        id="profile-torch-build",
        severity=subject.severity(breaks=subject.on_gpu),
        title=f"{subject.profile.name} needs an NVIDIA GPU, and torch {build.text} is built without CUDA",
        subjects=("torch",),
        observed={"torch": build.text},
        because=(f"torch {build.text} sees no GPU, whatever the machine has",),
        fixes=(Fix("do", "install torch from PyPI (on Linux), or from the index of a CUDA release that the driver runs"),),
        evidence=subject.evidence,
    )


def _for_amd(subject: Subject) -> bool:
    return isinstance(subject.environment.fact("torch_hip"), Known)


def check_bounds(subject: Subject) -> Iterator[Outcome]:
    """Our own limits: without them the list drifts today into what does not work."""
    for bound in subject.profile.bounds:
        found = _installed(subject, bound)
        if found is not None and satisfies(found.version, str(Requirement(bound.spec).specifier)) is False:
            yield _outside(subject, bound, found, f"`{found.name}` {found.version} does not go with {subject.profile.name}")


def check_forbidden(subject: Subject) -> Iterator[Outcome]:
    """Packages that must not be in the same environment."""
    for bound in subject.profile.forbids:
        found = _installed(subject, bound)
        if found is not None and satisfies(found.version, str(Requirement(bound.spec).specifier)) is True:
            yield _outside(subject, bound, found, f"`{found.name}` must not be beside {subject.profile.name}")


def _installed(subject: Subject, bound: Bound) -> Distribution | None:
    return subject.environment.packages.get(normalised(Requirement(bound.spec).name))


def _outside(subject: Subject, bound: Bound, found: Distribution, title: str) -> Finding:
    forbidden = bound in subject.profile.forbids
    remove = Fix("do", f"remove `{found.name}`, or give it an environment of its own")
    return Finding(
        id="profile-forbidden" if forbidden else "profile-bound",
        severity=subject.severity(breaks=bound.breaks),
        title=title,
        subjects=(found.name,),
        observed={found.name: found.version},
        because=(bound.why,),
        fixes=(remove if forbidden else Fix("package", bound.spec),),
        evidence=evidence(bound.source),
    )
