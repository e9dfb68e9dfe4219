"""An environment held against a lock: the same packages, the same facts, and a matrix that still has nothing against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.version import InvalidVersion, Version

from envcheck.checks.lock_facts import compare_facts, compare_python, matrix_objections
from envcheck.checks.requirements import marker_environment
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.locked import Lock, LockedPackage
    from envcheck.facts.model import Environment
    from envcheck.facts.origins import Origin

EVIDENCE = (Evidence("docs", "PyPA specifications: pylock.toml"),)

#: Installers are no part of what a lock describes, unless it names them.
INSTALLERS = frozenset({"pip", "setuptools", "wheel", "uv"})


def check_lock(context: Context, lock: Lock, origins: Mapping[str, Origin] | None) -> Iterator[Outcome]:
    """Everything in which the environment is not what the lock says.

    Args:
        context: The environment, the matrix, the settings.
        lock: The lock.
        origins: Where installed packages say they came from; None where that cannot be read (a snapshot).
    """
    environment = context.environment
    wanted = list(_applying(environment, lock))
    yield from _versions(environment, wanted)
    yield from _missing(environment, wanted)
    yield from _extra(environment, lock)
    yield from _files(environment, wanted, origins)
    yield from compare_python(environment, lock)
    if lock.provenance is None:
        yield Skip("lock facts", "the lock does not say for which machine it was solved: only its packages were compared")
        return
    yield from compare_facts(environment, lock.provenance)
    yield from matrix_objections(context, wanted, lock.provenance)


def _applying(environment: Environment, lock: Lock) -> Iterator[LockedPackage]:
    """The packages that the lock installs here."""
    solved = lock.provenance.python if lock.provenance else ""
    markers = marker_environment(environment, environment.text("python") or solved or "3.11")
    for package in lock.packages:
        if not package.marker or _holds(package.marker, markers):
            yield package


def _holds(marker: str, markers: Mapping[str, str]) -> bool:
    try:
        return Marker(marker).evaluate({**markers, "extras": frozenset(), "dependency_groups": frozenset()}, context="lock_file")
    except (InvalidMarker, InvalidVersion, UndefinedEnvironmentName):
        return True


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _versions(environment: Environment, wanted: Sequence[LockedPackage]) -> Iterator[Finding]:
    for package in wanted:
        found = environment.packages.get(package.name)
        if found is not None and package.version and not _same(found.version, package.version):
            yield Finding(
                id="lock-other-version",
                severity=Severity.ERROR,
                title=f"`{package.name}` is {found.version}, the lock says {package.version}",
                subjects=(package.name,),
                observed={package.name: found.version},
                because=(f"locked: `{package.name}=={package.version}`", f"installed: {found.version}"),
                fixes=(Fix("package", f"{package.name}=={package.version}"),),
                evidence=EVIDENCE,
            )


def _missing(environment: Environment, wanted: Sequence[LockedPackage]) -> Iterator[Outcome]:
    lost = [package for package in wanted if package.name not in environment.packages]
    if not lost:
        return
    if not environment.complete:
        yield Skip("lock packages", f"the list of packages is not complete: {len(lost)} locked packages are not in it")
        return
    pins = [f"{package.name}=={package.version}" if package.version else package.name for package in lost]
    yield Finding(
        id="lock-missing",
        severity=Severity.ERROR,
        title=f"{_count(lost)} of the lock {'is' if len(lost) == 1 else 'are'} not installed",
        subjects=tuple(package.name for package in lost),
        because=(f"locked, not installed: {', '.join(f'`{pin}`' for pin in pins)}",),
        fixes=tuple(Fix("package", pin) for pin in pins),
        evidence=EVIDENCE, together=True,
    )  # fmt: skip


def _extra(environment: Environment, lock: Lock) -> Iterator[Finding]:
    named = {package.name for package in lock.packages} | INSTALLERS
    more = [item for name, item in sorted(environment.packages.items()) if name not in named]
    if more:
        yield Finding(
            id="lock-extra",
            severity=Severity.WARNING,
            title=f"{_count(more)} {'is' if len(more) == 1 else 'are'} installed and not in the lock",
            subjects=tuple(item.name for item in more),
            observed={item.name: item.version for item in more},
            because=(f"installed, not locked: {', '.join(f'`{item.name}` {item.version}' for item in more)}",),
            fixes=(Fix("do", "install the lock into an environment of its own, or lock again with them"),),
            evidence=EVIDENCE,
        )


def _count(items: Sequence[object]) -> str:
    return f"{len(items)} package{'' if len(items) == 1 else 's'}"


def _files(
    environment: Environment, wanted: Sequence[LockedPackage], origins: Mapping[str, Origin] | None,
) -> Iterator[Outcome]:  # fmt: skip
    """Recorded hashes and origins; what no installer recorded is counted as not verified."""
    unverified = 0
    for package in wanted:
        if package.name not in environment.packages:
            continue
        origin = (origins or {}).get(package.name)
        recorded = {f"{name}:{value}" for name, value in origin.hashes.items()} if origin else set()
        comparable = {text for text in recorded if any(text.split(":")[0] == known.split(":")[0] for known in package.hashes)}
        if comparable and not comparable & set(package.hashes):
            yield _other_file(package, environment, f"its archive has {', '.join(sorted(comparable))}", "another file")
        elif package.direct and (origins is not None) and not _from(package.direct, origin):
            came = origin.url if origin else "an index"
            yield _other_file(package, environment, f"it came from {came}, the lock says {package.direct}", "another place")
        unverified += not comparable
    if unverified:
        total = sum(package.name in environment.packages for package in wanted)
        yield Skip("lock hashes", f"no hash recorded: {unverified} of {total} packages (installers keep hashes for URLs alone)")


def _from(direct: str, origin: Origin | None) -> bool:
    """Whether a recorded origin is the one locked; a local folder decides nothing."""
    if "://" not in direct and not direct.startswith("git+"):
        return True
    if origin is None:
        return False
    if origin.commit:
        return f"@{origin.commit}" in direct
    return _bare(origin.url) == _bare(direct)


def _bare(url: str) -> str:
    """A URL without user, query and fragment."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".partition("#")[0].partition("?")[0]


def _other_file(package: LockedPackage, environment: Environment, reason: str, what: str) -> Finding:
    version = environment.packages[package.name].version
    return Finding(
        id="lock-other-file",
        severity=Severity.ERROR,
        title=f"`{package.name}` {version} was installed from {what} than the lock's",
        subjects=(package.name,),
        observed={package.name: version},
        because=(reason, f"locked: {', '.join(package.hashes) or package.direct}"),
        fixes=(Fix("do", f"install `{package.name}` from the lock again"),),
        evidence=EVIDENCE,
    )


def compare_with_pip(ours: Mapping[str, str], seen: Mapping[str, str] | str) -> Iterator[Outcome]:
    """Where pip's own listing differs from what was read here (name -> version); a text is the reason why pip was not asked."""
    if isinstance(seen, str):
        yield Skip("pip's own view", f"pip was not asked: {seen}")
        return
    for name in sorted(ours.keys() | seen.keys()):
        here, there = ours.get(name, "not there"), seen.get(name, "not there")
        if not _same(here, there):
            yield Finding(
                id="pip-sees-otherwise",
                severity=Severity.WARNING,
                title=f"pip and the metadata folders disagree about `{name}`",
                subjects=(name,),
                observed={name: here},
                because=(f"metadata folders: {here}", f"pip lists: {there}"),
                fixes=(Fix("do", f"reinstall `{name}`: pip uninstall it until it is gone, then install the lock again"),),
                evidence=(Evidence("docs", "pip list"),),
            )
