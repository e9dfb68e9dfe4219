"""Compiled add-ons whose wheels are on no index: what the wheel's name must say where a lock holds their source archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.checks.torch_build import evidence, row_for, rows, torch_build
from envcheck.checks.wheels import TABLES, torch_abi
from envcheck.findings import Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context
    from envcheck.checks.torch_build import TorchBuild
    from envcheck.resolve.lockfile import Lock, LockedPackage


def compiled_here(lock: Lock, context: Context) -> Iterator[Finding]:
    """Add-ons that the lock holds as a source archive alone.

    Args:
        lock: The lock.
        context: The environment that it would give.
    """
    build = torch_build(context)
    for package in lock.packages:
        if package.name in TABLES and package.sdist and not package.wheels and not package.direct.endswith(".whl"):
            yield _from_source(package, build, context)


def _from_source(package: LockedPackage, build: TorchBuild | None, context: Context) -> Finding:
    table = TABLES[package.name]
    listed = row_for(rows(context, table), package.version) is not None
    tags = ", ".join(f"`{tag}`" for tag in wheel_tags(build, context)) if build else ""
    wheel = f"{package.name.replace('-', '_')}-{package.version}+...whl"
    return Finding(
        id="locked-as-source",
        severity=Severity.INFO,
        title=f"`{package.name}` {package.version} is locked as a source archive, which is compiled when it is installed",
        subjects=(package.name, "torch"),
        observed={package.name: package.version, **({"torch": build.text} if build else {})},
        because=(
            "its wheels are on its release page and not on an index",
            *((f"the wheel meant is `{wheel}` with {tags} in its name",) if tags else ()),
            *(() if listed else ("whether one was published for this version is not known",)),
        ),
        fixes=(Fix("do", f"name the wheel: `{package.name} @ URL`, or put it into a folder that --find-links names"),),
        evidence=evidence(context, table),
    )


def wheel_tags(build: TorchBuild, context: Context) -> Iterator[str]:
    """The parts of a wheel's name that must agree with the environment: torch, CUDA, C++ ABI and Python; known ones only."""
    yield f"torch{build.minor}"
    if build.cuda_major:
        yield f"cu{build.cuda_major}"
    abi = torch_abi(context, build)
    if abi:
        yield f"cxx11abi{abi.upper()}"
    python = context.environment.text("python")
    if python:
        yield f"cp{''.join(python.split('.')[:2])}"
