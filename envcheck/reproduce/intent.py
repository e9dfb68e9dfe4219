"""What a script comes to: every package it asks for, by which line, and what stands at the end."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Distribution, Environment, Known
from envcheck.matrix.versions import satisfies
from envcheck.reproduce.project import Listed, read_conda_file, read_project, read_requirements
from envcheck.reproduce.steps import Install, MakeEnvironment, Step
from envcheck.reproduce.wanted import Kind, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envcheck.facts.model import Fact

TORCH_INDEX = re.compile(r"/whl/(?:nightly/)?(cu(\d{2,3})|cpu)/?$")


@dataclass(frozen=True, slots=True)
class Asked:
    """One requirement, the step that brings it, and the file it stands in (empty: the command line itself)."""

    wanted: Wanted
    step: Install
    file: str = ""

    @property
    def line(self) -> int:
        """The line of the step."""
        return self.step.command.line


@dataclass(frozen=True, slots=True)
class Intent:
    """What the script asks for.

    Attributes:
        asked: Every requirement in the order in which it comes.
        listed: The files that were read or could not be, with the step that names them.
        constraints: What constraint files say.
        python: Python's version where the script says it, or an empty string.
    """

    asked: tuple[Asked, ...]
    listed: tuple[tuple[Install, Listed], ...]
    constraints: tuple[Wanted, ...]
    python: str = ""

    @property
    def pinned_by_constraints(self) -> frozenset[str]:
        """Names that constraint files pin."""
        return frozenset(wanted.name for wanted in self.constraints if wanted.kind is Kind.PINNED)

    def final(self) -> dict[str, Asked]:
        """By name, what decides the version at the end: the last one that is not met by what stands there already."""
        last: dict[str, Asked] = {}
        for item in self.asked:
            name = item.wanted.name
            if name and not (name in last and _met(item, last[name].wanted)):
                last[name] = item
        return last


def _met(item: Asked, before: Wanted) -> bool:
    """Whether pip leaves a package alone that an earlier line brought, as far as is known."""
    if {"-U", "--upgrade"} & item.step.flags:
        return False
    if item.wanted.kind is Kind.BARE:
        return True
    return item.wanted.kind is Kind.RANGE and bool(before.version) and satisfies(before.version, item.wanted.specifier) is True


@dataclass(slots=True)
class _Gathering:
    folder: Path
    written: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    listed: list[tuple[Install, Listed]] = field(default_factory=list)
    constraints: list[Wanted] = field(default_factory=list)
    python: str = ""


def gather(steps: list[Step], folder: Path) -> Intent:
    """Put together what the steps ask for; `folder` is the script's."""
    state = _Gathering(folder)
    for step in steps:
        _written(state, step)
        match step:
            case Install():
                _install(state, step)
            case MakeEnvironment(python=python) if python:
                state.python = python
            case _:
                pass
    return Intent(tuple(state.asked), tuple(state.listed), tuple(state.constraints), state.python)


def _install(state: _Gathering, step: Install) -> None:
    for wanted in step.wanted:
        if step.tool.startswith("conda") and wanted.name == "python":
            state.python = wanted.version or _first_version(wanted.specifier)
        elif wanted.kind is Kind.LOCAL:
            _add_listed(state, step, _project(state, step, wanted))
        else:
            state.asked.append(Asked(wanted, step))
    for name in step.files:
        if not step.tool.startswith("uv sync"):
            _add_listed(state, step, _file(state, step, name))
    for name in step.constraints:
        state.constraints += _file(state, step, name).wanted


def _written(state: _Gathering, step: Step) -> None:
    """Remember what `cat > FILE <<END` writes, where all of it is known."""
    command = step.command
    name = posixpath.normpath(command.writes) if command.writes else ""
    plain = bool(command.given) and "$" not in command.given and "`" not in command.given
    if command.name == "cat" and not command.arguments and plain and name and not name.startswith(("/", "..")):
        state.written[name] = command.given


def _first_version(specifier: str) -> str:
    found = re.search(r"\d+\.\d+", specifier)
    return found[0] if found else ""


def _add_listed(state: _Gathering, step: Install, listed: Listed) -> None:
    state.listed.append((step, listed))
    if step.tool.startswith("conda"):
        python = next((item for item in listed.wanted if item.name == "python"), None)
        state.python = python.version or _first_version(python.specifier) if python else state.python
    if "--no-deps" not in step.flags or not listed.file.endswith(("pyproject.toml", "setup.cfg", "setup.py")):
        own = replace(step, indexes=(*step.indexes, *listed.indexes))
        state.asked += [Asked(wanted, own, listed.file) for wanted in listed.wanted if wanted.name != "python"]


def place_of(folder: Path, step: Install, name: str) -> tuple[Path, str] | None:
    """A path that the script in `folder` names, and how it is shown; None where it is not known or leads elsewhere."""
    if step.folder is None or name.startswith(("/", "~", "$", "<")) or "$" in name:
        return None
    shown = posixpath.normpath(posixpath.join(step.folder, name))
    return (folder / shown, shown) if not shown.startswith("..") else None


def _project(state: _Gathering, step: Install, wanted: Wanted) -> Listed:
    place = place_of(state.folder, step, wanted.url)
    if place is None:
        return Listed(f"{wanted.url}/pyproject.toml", reason="where it lies is not known from the script")
    path, shown = place
    return read_project(path, "" if shown == "." else f"{shown}/", wanted.extras)


def _file(state: _Gathering, step: Install, name: str) -> Listed:
    place = place_of(state.folder, step, name)
    if place is None:
        return Listed(name, reason="where it lies is not known from the script")
    path, shown = place
    if step.tool.startswith("conda") and name.endswith((".yml", ".yaml")):
        return read_conda_file(path, shown)
    if path.name in ("pyproject.toml", "setup.cfg", "setup.py"):
        return read_project(path.parent, shown.removesuffix(path.name), step.extras)
    return read_requirements(path, shown, text=state.written.get(shown))


def environment(intent: Intent, given: Environment | None = None) -> Environment:
    """The environment that the script's own pins describe, as far as they do, on the facts `given`."""
    base = given or Environment()
    packages = dict(base.packages)
    final = intent.final()
    for name, item in final.items():
        wanted = item.wanted
        if wanted.version:
            url = wanted.url if wanted.kind is Kind.WHEEL else ""
            packages[name] = Distribution(name, wanted.version, direct_url=url)
    facts: dict[str, Fact] = dict(base.facts)
    if intent.python:
        facts["python"] = Known(intent.python, "the script")
    if "torch" in final and "torch" in packages:
        facts.update(_torch_facts(final["torch"]))
    return Environment(packages, facts=facts, gpus=base.gpus, markers=base.markers, source="what the script installs")


def _torch_facts(item: Asked) -> Iterator[tuple[str, Fact]]:
    indexes = [found for index in item.step.indexes if (found := TORCH_INDEX.search(index))]
    if indexes:
        yield "torch_source", Known("pytorch-index", "the script")
        digits = indexes[-1][2]
        yield "torch_cuda", Known(f"{digits[:-1]}.{digits[-1]}", "the script") if digits else Absent(("the script",))
    elif item.wanted.kind is Kind.PINNED and not item.step.indexes and not item.step.tool.startswith("conda"):
        yield "torch_source", Known("pypi", "the script names no other index")
