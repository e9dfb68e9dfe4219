"""The C++ compiler that a build of an extension would use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.errors import ToolError
from envcheck.facts.model import Absent, Known, Unreadable
from envcheck.facts.programs import version_text

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

#: torch's extension builder takes CXX, else `c++` (torch/utils/cpp_extension.py, `get_cxx_compiler`).
PROGRAMS = ("c++", "g++", "gcc")


def compiler_facts(machine: Machine) -> dict[str, Fact]:
    """The fact `gcc`; absent where there is no compiler, or where it is not GCC."""
    return {"gcc": _gcc(machine)}


def _gcc(machine: Machine) -> Fact:
    words = machine.variables.get("CXX", "").split()
    if words and not words[0].endswith("ccache"):
        path = machine.which(words[0])
        return _version_of(machine, path, f"CXX={path}") if path else Unreadable(f"CXX={words[0]}", "no such program")
    for program in PROGRAMS:
        path = machine.which(program)
        if path is not None:
            return _version_of(machine, path, path)
    return Absent(("CXX", *(f"{program} on PATH" for program in PROGRAMS)))


def _version_of(machine: Machine, path: str, source: str) -> Fact:
    try:
        return read_version(version_text(machine, path), source)
    except ToolError as error:
        return Unreadable(source, error.message)


def read_version(text: str, source: str) -> Fact:
    """The GCC version in the output of `g++ --version`; absent for clang and other compilers.

    The first line is `NAME (PACKAGE) VERSION [DATE (VENDOR VERSION)]`; the package may hold spaces and
    versions. Only GCC prints the copyright of the Free Software Foundation.
    """
    if "Free Software Foundation" not in text:
        return Absent((f"{source} is not GCC",))
    first = text.lstrip().partition("\n")[0]
    without = re.sub(r"\([^()]*\)", " ", first)
    found = re.search(r"(?<![\w.])(\d+\.\d+(?:\.\d+)?)(?![\w.])", without)
    return Known(found[1], source) if found else Unreadable(source, "no version in the output of `--version`")
