"""Compiled add-ons whose wheels are on no index: which wheel a source archive stands for, and whether it can be had.

A release page has a wheel for each torch minor, CUDA, C++ ABI and Python, so the name follows from what else is locked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from envcheck.checks.context import Context
from envcheck.checks.torch_build import evidence, row_for, rows, torch_build
from envcheck.checks.wheels import TABLES, outside, torch_abi
from envcheck.errors import ToolError
from envcheck.facts.metadata import normalised
from envcheck.findings import Finding, Fix, Severity
from envcheck.resolve.request import parse_requirement
from envcheck.resolve.solve import Solved, solve
from envcheck.resolve.uv import UnbuiltError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from envcheck.checks.torch_build import TorchBuild
    from envcheck.matrix.database import Matrix
    from envcheck.resolve.lockfile import Lock, LockedPackage
    from envcheck.resolve.request import Request
    from envcheck.resolve.search import NoSolution
    from envcheck.resolve.solve import Case

#: Seconds to wait for a release page.
PATIENCE = 20.0

#: Tried for add-ons that have to be replaced by a wheel one after the other.
MOST = 4


@dataclass(frozen=True, slots=True)
class Meant:
    """The wheel that a source archive stands for.

    Attributes:
        package: Normalised name.
        version: Of the package.
        name: The wheel's file name, or as much of it as is known.
        tags: What must stand in a name that is not known in full.
        url: Where it is; empty where the name is not known in full.
        state: Why it is not in the lock, in words; empty where it is there.
    """

    package: str
    version: str
    name: str
    tags: str = ""
    url: str = ""
    state: str = ""

    @property
    def there(self) -> bool:
        """Whether it can be had."""
        return bool(self.url) and not self.state

    @property
    def text(self) -> str:
        """For messages."""
        return f"the wheel meant is `{self.name}`" + (f" with {self.tags} in its name" if self.tags else "")

    @property
    def requirement(self) -> str:
        """The line that asks for this wheel."""
        return f"{self.package} @ {self.url}"


def solve_with_wheels(
    request: Request, matrix: Matrix, *, progress: Callable[[str], None] = lambda _: None,
) -> tuple[Solved | tuple[Case, NoSolution], tuple[Meant, ...]]:  # fmt: skip
    """As `solve`, with add-ons taken from their release pages where the pages answer; and the wheels that could not be had.

    Raises:
        UsageError, ToolError: As `solve`; where uv cannot read a source archive without torch, with the wheel that is meant.
    """
    tried: dict[str, Meant] = {}
    best: Solved | None = None
    for _ in range(MOST):
        try:
            found = solve(request, matrix, progress=progress)
        except UnbuiltError as error:
            meant = _for_unbuilt(request, matrix, error, progress)
            if not meant.there:
                raise _unreachable(meant, error) from error
            fresh = {meant.package: meant}
        else:
            if not isinstance(found, Solved):
                return best or found, tuple(tried.values())
            best, context = found, Context(found.environment(), matrix)
            sources = [package for package in from_source(found.lock) if package.name not in tried]
            fresh = {package.name: asked(wheel_meant(package.name, package.version, context)) for package in sources}
            if not any(meant.there for meant in fresh.values()):
                return found, (*tried.values(), *fresh.values())
        tried |= fresh
        request = with_wheels(request, {name: meant for name, meant in tried.items() if meant.there})
    raise ToolError("the wheels of the add-ons could not be settled one after the other", hints=("name them: `NAME @ URL`",))


def from_source(lock: Lock) -> Iterator[LockedPackage]:
    """The add-ons that a lock holds as a source archive alone."""
    for package in lock.packages:
        if package.name in TABLES and package.sdist and not package.wheels and not package.direct.endswith(".whl"):
            yield package


def _for_unbuilt(request: Request, matrix: Matrix, error: UnbuiltError, progress: Callable[[str], None]) -> Meant:
    """The wheel of an add-on whose archive cannot be read: for the torch that is chosen without it."""
    lines = tuple(line for line in request.requirements if normalised(parse_requirement(line).name) != error.package)
    found = solve(replace(request, requirements=lines), matrix, progress=progress) if lines else None
    if not isinstance(found, Solved) or error.package not in TABLES:
        return Meant(error.package, error.version, f"{error.package.replace('-', '_')}-{error.version}+...")
    return asked(wheel_meant(error.package, error.version, Context(found.environment(), matrix)))


def _unreachable(meant: Meant, error: UnbuiltError) -> ToolError:
    where = f" ({meant.url})" if meant.url else ", for this torch, CUDA, C++ ABI and Python, from its release page"
    return ToolError(
        error.message,
        hints=(
            f"{meant.text}{where}{f': {meant.state}' if meant.state else ''}",
            f"name it: `{meant.package} @ URL`, or put it into a folder that --find-links names; nothing was written",
        ),
    )


def with_wheels(request: Request, meant: Mapping[str, Meant]) -> Request:
    """The request with these wheels in the place of what it asks of their packages."""
    lines = [line for line in request.requirements if normalised(parse_requirement(line).name) not in meant]
    return replace(request, requirements=(*lines, *(meant[name].requirement for name in sorted(meant))))


def wheel_meant(name: str, version: str, context: Context) -> Meant:
    """The wheel of an add-on for what else is in an environment."""
    build, table = torch_build(context), TABLES[name]
    row = row_for(rows(context, table), version)
    stem = f"{name.replace('-', '_')}-{version}"
    if build is None:
        return Meant(name, version, f"{stem}+...whl")
    if row is not None and (reasons := list(outside(context, build, row))):
        return Meant(name, version, f"{stem}+...whl", state=f"none was published for this combination: {'; '.join(reasons)}")
    local, tag = _label(name, version, build, context), _tag(context)
    if not local or not tag:
        tags = ", ".join(f"`{part}`" for part in wheel_tags(build, context))
        return Meant(name, version, f"{stem}+...whl", tags)
    file = f"{stem}+{local}-{tag}.whl"
    place = context.matrix.table(table)["wheels"]
    known = "" if row is not None else "whether one was published for this version is not known"
    return Meant(name, version, file, "", place.format(version=version, name=quote(file)), known)


def _label(name: str, version: str, build: TorchBuild, context: Context) -> str:
    """`cu12torch2.6cxx11abiFALSE`; empty where a part of it is not known."""
    labels = row_for(context.matrix.table(TABLES[name]).get("cuda_labels", []), version)
    cuda = labels["labels"].get(str(build.cuda_major)) if labels and build.cuda_major else None
    abi = torch_abi(context, build)
    return f"cu{cuda}torch{build.minor}cxx11abi{abi.upper()}" if cuda and abi else ""


def _tag(context: Context) -> str:
    """`cp310-cp310-linux_x86_64`; empty where Python is not known, and elsewhere than on Linux."""
    python, machine = context.environment.text("python"), context.environment.text("machine") or "x86_64"
    if not python or (context.environment.text("system") or "Linux") != "Linux":
        return ""
    minor = "cp" + "".join(python.split(".")[:2])
    return f"{minor}-{minor}-linux_{machine}"


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


def asked(meant: Meant) -> Meant:
    """The wheel with what its release page says of it."""
    if not meant.url or meant.state.startswith("none was"):
        return meant
    reason = "no network is to be used (UV_OFFLINE)" if os.environ.get("UV_OFFLINE") else refusal(meant.url)
    return replace(meant, state="; ".join(filter(None, (reason, meant.state))) if reason else "")


def refusal(url: str) -> str:
    """Why a file cannot be had, in words; empty where it can."""
    from urllib.error import HTTPError  # noqa: PLC0415 - only for an add-on
    from urllib.request import Request as Head  # noqa: PLC0415 - likewise
    from urllib.request import urlopen  # noqa: PLC0415 - likewise

    try:
        with urlopen(Head(url, method="HEAD"), timeout=PATIENCE):  # noqa: S310 - the address is the table's
            return ""
    except HTTPError as error:
        return f"its release page answers {error.code} ({error.reason})"
    except (OSError, ValueError) as error:
        return f"its release page cannot be reached ({getattr(error, 'reason', error)})"


def remarks(lock: Lock, context: Context, meant: tuple[Meant, ...]) -> Iterator[Finding]:
    """One finding for each add-on that the lock holds as a source archive alone."""
    known = {item.package: item for item in meant}
    build = torch_build(context)
    for package in from_source(lock):
        wheel = known.get(package.name) or wheel_meant(package.name, package.version, context)
        told = () if wheel.state.startswith("none was") else (wheel.text,)
        yield Finding(
            id="locked-as-source",
            severity=Severity.INFO,
            title=f"`{package.name}` {package.version} is locked as a source archive, which is compiled when it is installed",
            subjects=(package.name, "torch"),
            observed={package.name: package.version, **({"torch": build.text} if build else {})},
            because=("its wheels are on its release page and not on an index", *told, *((wheel.state,) if wheel.state else ())),
            fixes=(
                Fix("do", f"name the wheel: `{wheel.requirement if wheel.url else f'{package.name} @ URL'}`, or put it into a "
                          "folder that --find-links names"),
            ),
            evidence=evidence(context, TABLES[package.name]),
        )  # fmt: skip
