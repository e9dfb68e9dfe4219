"""Requirement consistency of the whole installed set: missing, conflicting, with the chain; like `pip check`.

Requirement lines of installed distributions are many (thousands) and mostly fulfilled, so each distinct line is
parsed once and the common plain form (`name`, `name>=1,<2`) is read without the full grammar.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from envcheck.facts.metadata import normalised
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip
from envcheck.matrix.remembered import remembered
from envcheck.matrix.versions import specifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.checks.context import Context, Outcome
    from envcheck.facts.model import Distribution, Environment

PLAIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*\(?\s*((?:[<>=!~]=?=?\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*)\)?\s*")
EXTRA_ONLY = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
EVIDENCE = (Evidence("docs", "PyPA specifications: Core metadata, Requires-Dist"),)

#: Packages whose conflicts usually break training; conflicts of others are a warning.
WATCHED = frozenset({
    "torch", "torchvision", "torchaudio", "deepspeed", "transformers", "accelerate", "peft", "trl", "tokenizers",
    "huggingface-hub", "safetensors", "numpy", "pydantic", "triton", "flash-attn", "xformers", "bitsandbytes",
    "datasets",
})  # fmt: skip


#: A chain of requirers is shown up to this length.
LONGEST_CHAIN = 8


class Need(NamedTuple):
    """A requirement line: normalised name, extras asked for, specifier, marker and URL, each empty where there is none."""

    name: str
    extras: frozenset[str] = frozenset()
    spec: str = ""
    marker: str = ""
    url: str = ""


@lru_cache(maxsize=16384)
def parse(line: str) -> Need | None:
    """A `Requires-Dist` line; None where it does not follow PEP 508."""
    found = PLAIN.fullmatch(line)
    if found:
        return Need(normalised(found[1]), spec=found[2].strip().strip(","))
    parts = _parts(line)
    if parts is None:
        return None
    name, extras, spec, marker, url = parts
    return Need(name, frozenset(extras), spec, marker, url)


@remembered
def _parts(line: str) -> tuple[str, list[str], str, str, str] | None:
    """The fields of `Need`, by the full grammar."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - slow to import

    try:
        parsed = Requirement(line)
    except (InvalidRequirement, RecursionError):
        return None
    marker = str(parsed.marker) if parsed.marker else ""
    return normalised(parsed.name), sorted(map(normalised, parsed.extras)), str(parsed.specifier), marker, parsed.url or ""


def check_requirements(context: Context) -> Iterator[Outcome]:
    """Requirements of installed distributions that the installed set does not fulfil, and `Requires-Python`."""
    environment = context.environment
    if not environment.complete:
        if any(package.requires for package in environment.packages.values()):
            yield Skip("requirements", "the list of packages is not complete: missing requirements were not looked for")
        else:
            return
    python = environment.text("python")
    for package in environment.packages.values():
        yield from _python(package, python)
    if python is not None:
        yield from _walk(environment, marker_environment(environment, python))


def marker_environment(environment: Environment, python: str) -> dict[str, str]:
    """Values for environment markers: what the interpreter said, else what follows from the facts (Linux x86_64)."""
    system = environment.text("system") or "Linux"
    defaults = {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_name": "cpython",
        "implementation_version": python,
        "platform_python_implementation": "CPython",
        "platform_system": system,
        "sys_platform": {"Linux": "linux", "Windows": "win32", "Darwin": "darwin"}.get(system, "linux"),
        "os_name": "nt" if system == "Windows" else "posix",
        "platform_machine": environment.text("machine") or "x86_64",
        "platform_release": "",
        "platform_version": "",
    }
    return {**defaults, **environment.markers}


def _python(package: Distribution, python: str | None) -> Iterator[Finding]:
    if not package.requires_python or python is None:
        return
    if _inside(python, package.requires_python) is False:
        yield Finding(
            id="python-not-supported",
            severity=Severity.WARNING,
            title=f"`{package.name}` {package.version} does not support this Python",
            subjects=(package.name, "python"),
            observed={package.name: package.version, "python": python},
            because=(f"it declares `Requires-Python: {package.requires_python}`",),
            fixes=(Fix("do", f"use a Python in `{package.requires_python}`, or another release of `{package.name}`"),),
            evidence=EVIDENCE,
        )


def _walk(environment: Environment, markers: Mapping[str, str]) -> Iterator[Finding]:
    """Check every requirement line, following the extras that requirements ask for."""
    asked: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    work = [(package, "") for package in environment.packages.values()]
    while work:
        package, extra = work.pop()
        if (package.name, extra) in seen:
            continue
        seen.add((package.name, extra))
        for line in package.requires:
            if not extra and "extra" in line and _only_for_extra(line):
                continue
            need = parse(line)
            if need is None:
                if not extra:
                    yield _unreadable(package, line)
                continue
            if not applies(need, extra, markers):
                continue
            target = environment.packages.get(need.name)
            yield from _judge(environment, package, extra, need, target)
            if target is not None:
                for wanted in need.extras - asked.setdefault(need.name, set()):
                    asked[need.name].add(wanted)
                    work.append((target, wanted))


def _only_for_extra(line: str) -> bool:
    """Cheap and one-sided: True only where the marker is an extra, alone or joined by `and`."""
    marker = line.partition(";")[2]
    return EXTRA_ONLY.search(marker) is not None and " or " not in marker


def applies(need: Need, extra: str, markers: Mapping[str, str]) -> bool:
    """Whether a requirement counts here: always without a marker when no extra is meant, else by its marker."""
    if not need.marker:
        return not extra
    return _holds(need.marker, extra, *(f"{name}={value}" for name, value in markers.items() if name in need.marker))


@remembered
def _holds(marker: str, extra: str, *values: str) -> bool:
    """Whether a marker holds with an extra and not without; `values` are `NAME=VALUE`."""
    from packaging.markers import Marker  # noqa: PLC0415 - slow to import

    environment = dict(value.split("=", 1) for value in values)
    try:
        parsed = Marker(marker)
        if extra and parsed.evaluate({**environment, "extra": ""}):
            return False  # it was judged without the extra
        return parsed.evaluate({**environment, "extra": extra})
    except Exception:  # noqa: BLE001 - a marker that cannot be evaluated must not stop the check
        return False


def _judge(
    environment: Environment, package: Distribution, extra: str, need: Need, target: Distribution | None,
) -> Iterator[Finding]:  # fmt: skip
    if target is None:
        if environment.complete and not extra:
            yield _missing(package, need)
        return
    if need.url or not need.spec or _inside(target.version, need.spec) is not False:
        return
    yield _conflict(environment, package, extra, need, target)


@remembered
def _inside(version: str, spec: str) -> bool | None:
    """Whether a version is in a specifier set, as pip sees it (pre-releases allowed); None where one cannot be read."""
    from packaging.specifiers import InvalidSpecifier  # noqa: PLC0415 - slow to import
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - likewise

    try:
        return specifier(spec).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def _missing(package: Distribution, need: Need) -> Finding:
    watched = package.name in WATCHED
    return Finding(
        id="requirement-missing",
        severity=Severity.WARNING,
        title=f"`{package.name}` needs `{need.name}`, which is not installed",
        subjects=(package.name, need.name),
        observed={package.name: package.version},
        because=(f"`{package.name}` {package.version} requires `{need.name}{need.spec}`",),
        certain=watched,
        fixes=(Fix("package", f"{need.name}{need.spec}"),),
        evidence=EVIDENCE,
    )


def _conflict(
    environment: Environment, package: Distribution, extra: str, need: Need, target: Distribution,
) -> Finding:  # fmt: skip
    severity = Severity.WARNING
    chain = " <- ".join(f"`{name}`" for name in required_by(environment, package.name))
    because = [f"`{package.name}{f'[{extra}]' if extra else ''}` {package.version} requires `{need.name}{need.spec}`"]
    if chain:
        because.append(f"`{package.name}` is needed by {chain}")
    return Finding(
        id="requirement-conflict",
        severity=severity,
        title=f"`{package.name}` wants `{need.name}{need.spec}`, but {need.name} is {target.version}",
        subjects=(package.name, need.name),
        observed={package.name: package.version, need.name: target.version},
        because=tuple(because),
        fixes=(Fix("package", f"{need.name}{need.spec}"),),
        evidence=EVIDENCE,
    )


def required_by(environment: Environment, name: str) -> tuple[str, ...]:
    """The shortest chain of installed distributions that need `name`, nearest first; empty for a top-level one."""
    chain: list[str] = []
    while len(chain) < LONGEST_CHAIN:
        parent = next(
            (
                package.name
                for package in environment.packages.values()
                if package.name not in chain and package.name != name and _needs(package, chain[-1] if chain else name)
            ),
            None,
        )
        if parent is None:
            break
        chain.append(parent)
    return tuple(chain)


def _needs(package: Distribution, name: str) -> bool:
    return any(need.name == name and not need.marker for need in map(parse, package.requires) if need)


def _unreadable(package: Distribution, line: str) -> Finding:
    return Finding(
        id="requirement-unreadable",
        severity=Severity.INFO,
        title=f"a requirement of `{package.name}` cannot be read",
        subjects=(package.name,),
        observed={package.name: package.version},
        because=(f"`{line[:200]}` does not follow PEP 508",),
        evidence=EVIDENCE,
    )
