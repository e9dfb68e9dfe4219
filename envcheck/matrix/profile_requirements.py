"""What a profile comes to as requirements: for a check, as pins, and for a lock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from envcheck.facts.metadata import normalised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from envcheck.matrix.profile import LeftOut, Profile

MINOR = re.compile(r"==(3\.\d+)\.\*")

#: Where a wanted package stands in its profile.
LIST, OVERRIDE, APART, ALSO, SERVER = "list", "override", "apart", "also", "server"


class Wanted(NamedTuple):
    """One package that a profile wants.

    Attributes:
        name: Normalised name.
        spec: Specifier set; empty for any version.
        origin: `LIST`, `OVERRIDE`, `APART`, `ALSO`, or `group NAME`.
        url: Where it comes from, for a git or URL requirement.
        required: False where the project works without it, or without some of its uses.
        replaced: The listed requirement that an override contradicts, or an empty string.
    """

    name: str
    spec: str
    origin: str
    url: str = ""
    required: bool = True
    replaced: str = ""


class Pin(NamedTuple):
    """A package at exactly one version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class LockRequest:
    """What a resolver is to be asked for a profile.

    Attributes:
        python: `major.minor` to solve for.
        requirements: Requirement lines.
        overrides: Lines that win over what dependencies ask.
        constraints: Bounds that install nothing.
        build_constraints: Bounds on what builds source distributions.
        left_out: What the lock cannot hold, and what to do about it.
        platform: uv's name of the platform to solve for, or an empty string for the machine's own.
        note: What to know of the lock; may be empty.
        refused: Why there can be no lock; empty where there can.
    """

    python: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...]
    constraints: tuple[str, ...]
    build_constraints: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    platform: str = ""
    note: str = ""
    refused: str = ""


def wanted_packages(profile: Profile, markers: Mapping[str, str]) -> dict[str, Wanted]:
    """Every package the profile wants, by name; overrides win over the list.

    Args:
        profile: The profile.
        markers: Values of the environment markers (PEP 508).
    """
    found: dict[str, Wanted] = {}
    for origin, line in _lines(profile):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            name = normalised(requirement.name)
            one = Wanted(name, str(requirement.specifier), origin, requirement.url or "")
            found[name] = _both(found[name], one) if name in found else one
    for item in profile.apart:
        requirement = Requirement(item.spec)
        name = normalised(requirement.name)
        spec = str(requirement.specifier) or (found[name].spec if name in found else "")
        found[name] = Wanted(name, spec, APART, item.url, required=item.required)
    for line in profile.overrides:
        requirement = Requirement(line)
        name = normalised(requirement.name)
        listed = found.get(name)
        against = listed is not None and (requirement.specifier & SpecifierSet(listed.spec)).is_unsatisfiable()
        replaced = f"{name}{listed.spec}" if listed is not None and against else ""
        found[name] = Wanted(name, str(requirement.specifier), OVERRIDE, requirement.url or "", name in found, replaced)
    return found


def _lines(profile: Profile) -> Iterator[tuple[str, str]]:
    yield from ((LIST, line) for line in profile.requires)
    for group in profile.groups:
        yield from ((f"group {group}", line) for line in profile.optional[group])
    yield from ((ALSO, line) for line in profile.also)


def _both(first: Wanted, second: Wanted) -> Wanted:
    """Two lines about one package: both limits hold."""
    spec = str(SpecifierSet(first.spec) & SpecifierSet(second.spec))
    return first._replace(spec=spec, url=first.url or second.url)


def pins(wanted: Iterable[Wanted]) -> list[Pin]:
    """The packages whose version is fixed."""
    return [Pin(item.name, version) for item in wanted if (version := pinned(item.spec))]


def pinned(spec: str) -> str:
    """The version that a specifier set fixes, or an empty string."""
    fixed = [item.version for item in SpecifierSet(spec) if item.operator == "==" and not item.version.endswith(".*")]
    return fixed[0] if len(fixed) == 1 else ""


def lock_python(profile: Profile) -> str:
    """The `major.minor` a lock is solved for: the one the profile fixes, else the one it names for locking."""
    found = MINOR.fullmatch(profile.python)
    return found[1] if found else profile.lock.python


def lock_markers(python: str) -> dict[str, str]:
    """Environment markers of Linux on x86_64 with a Python of that minor version."""
    return {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython",
        "implementation_version": f"{python}.0", "platform_python_implementation": "CPython", "platform_system": "Linux",
        "sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64", "platform_release": "",
        "platform_version": "", "extra": "",
    }  # fmt: skip


def lock_request(profile: Profile) -> LockRequest:
    """What a resolver is to be asked; git and URL requirements and packages built against torch are left out."""
    if profile.lock.refused:
        return LockRequest(lock_python(profile), (), (), (), (), (), refused=profile.lock.refused)
    out = {item.what for item in profile.lock.left_out}
    overrides = tuple(line for line in profile.overrides if _name(line) not in out)
    replaced = {_name(line) for line in overrides}
    lines = [line for _, line in _lines(profile) if _name(line) not in out | replaced]
    apart = [item.spec for item in profile.apart if _name(item.spec) not in out]
    server = [] if profile.server != "required" else [item.requirement for item in profile.servers if item.package][:1]
    return LockRequest(
        python=lock_python(profile),
        requirements=tuple(dict.fromkeys([*lines, *apart, *server, *overrides, *profile.lock.stand_ins])),
        overrides=overrides,
        constraints=tuple(item.spec for item in profile.bounds),
        build_constraints=profile.build,
        left_out=profile.lock.left_out,
        platform=profile.lock.platform,
        note=profile.lock.note,
    )


def _name(line: str) -> str:
    return normalised(Requirement(line).name)
