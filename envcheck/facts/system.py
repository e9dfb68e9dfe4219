"""Python, operating system, C and C++ libraries, memory, conda."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from envcheck.facts.libraries import find_library
from envcheck.facts.model import Absent, Known, Unreadable

if TYPE_CHECKING:
    from envcheck.facts.interpreter import Interpreter
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

LIBSTDCXX = "libstdc++.so.6"


def system_facts(interpreter: Interpreter, machine: Machine) -> dict[str, Fact]:
    """`python`, `system`, `machine`, `glibc`, `libstdcxx`, `ram_gib`, `venv`, `conda`, `conda_packages`."""
    where = interpreter.executable
    markers = interpreter.markers
    venv = interpreter.prefix != interpreter.base_prefix
    return {
        "python": Known(interpreter.version, where),
        "system": Known(markers.get("platform_system", machine.system), where),
        "machine": Known(markers.get("platform_machine", ""), where),
        "glibc": _glibc(interpreter),
        "libstdcxx": _libstdcxx(interpreter, machine),
        "ram_gib": _memory(machine),
        "venv": Known("yes" if venv else "no", "sys.prefix and sys.base_prefix"),
        **_conda(interpreter, machine),
    }


def _glibc(interpreter: Interpreter) -> Fact:
    source = "confstr CS_GNU_LIBC_VERSION"
    return Known(interpreter.glibc, source) if interpreter.glibc else Absent((source,))


def _libstdcxx(interpreter: Interpreter, machine: Machine) -> Fact:
    """`3.4.30` of `libstdc++.so.6.0.30`: the two count together (GCC manual, "ABI Policy and Guidelines")."""
    architecture = interpreter.markers.get("platform_machine", "")
    path = find_library(machine, LIBSTDCXX, architecture, variables=False)
    if path is None:
        return Absent(("/etc/ld.so.cache", "the loader's usual folders"))
    real = machine.real(path)
    found = re.search(r"\.so\.6\.0\.(\d+)$", real)
    return Known(f"3.4.{found[1]}", real) if found else Unreadable(real, "no version in the file name")


def _memory(machine: Machine) -> Fact:
    found = re.search(r"^MemTotal:\s+(\d+) kB", machine.text("/proc/meminfo") or "", re.MULTILINE)
    if found:
        return Known(f"{int(found[1]) / (1 << 20):.1f}", "/proc/meminfo")
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return Unreadable("sysconf SC_PHYS_PAGES", "not known on this system")
    return Known(f"{total / (1 << 30):.1f}", "sysconf SC_PHYS_PAGES")


def _conda(interpreter: Interpreter, machine: Machine) -> dict[str, Fact]:
    """Conda keeps one `name-version-build.json` for each package in `conda-meta`."""
    folder = f"{interpreter.base_prefix.rstrip('/')}/conda-meta"
    if not machine.exists(folder):
        return {"conda": Known("no", f"no {folder}"), "conda_packages": Known((), f"no {folder}")}
    stems = [name.removesuffix(".json") for name in machine.names(folder) if name.endswith(".json")]
    packages = {stem.rsplit("-", 2)[0] for stem in stems if stem.count("-") > 1}
    return {"conda": Known("yes", folder), "conda_packages": Known(tuple(sorted(packages)), folder)}
