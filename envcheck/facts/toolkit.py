"""The CUDA toolkit that a build would use: CUDA_HOME, CUDA_PATH, nvcc on PATH, the usual folders, conda's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from envcheck.errors import ToolError
from envcheck.facts.model import Absent, Known, Unreadable
from envcheck.facts.programs import version_text

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

#: In this order (torch/utils/cpp_extension.py, `_find_cuda_home`).
VARIABLES = ("CUDA_HOME", "CUDA_PATH")


def toolkit_facts(machine: Machine, prefix: str = "") -> dict[str, Fact]:
    """The fact `cuda_toolkit`: release (`12.1`) of the nvcc that a build would call.

    Args:
        machine: Where to look.
        prefix: `sys.prefix` of the interpreter; a conda environment keeps nvcc in its `bin`.
    """
    return {"cuda_toolkit": _toolkit(machine, prefix)}


def _toolkit(machine: Machine, prefix: str) -> Fact:
    for variable in VARIABLES:
        home = machine.variables.get(variable, "").rstrip("/")
        if home:
            # This is where builds look, whatever else there is: no falling through to another toolkit.
            if not machine.exists(f"{home}/bin/nvcc"):
                return Absent((f"{variable}={home} (no bin/nvcc)",))
            return release(machine, home, f"{home}/bin/nvcc", f"{variable}={home}")
    for home, nvcc, source in _candidates(machine, prefix):
        if machine.exists(nvcc):
            return release(machine, home, nvcc, source)
    return Absent((*VARIABLES, "nvcc on PATH", "/usr/local/cuda*", *([f"{prefix}/bin"] if prefix else [])))


def _candidates(machine: Machine, prefix: str) -> list[tuple[str, str, str]]:
    """Home, nvcc and source of each place where a toolkit may be."""
    found = []
    nvcc = machine.which("nvcc")
    if nvcc is not None:
        found.append((machine.real(nvcc).rpartition("/")[0].rpartition("/")[0], nvcc, nvcc))
    versioned = [name for name in machine.names("/usr/local") if name.startswith("cuda-")]
    homes = [
        "/usr/local/cuda",
        *(f"/usr/local/{name}" for name in sorted(versioned, key=_numbers, reverse=True)),
    ]
    if prefix:
        homes.append(prefix.rstrip("/"))
    return [*found, *((home, f"{home}/bin/nvcc", home) for home in homes)]


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", name)]


def release(machine: Machine, home: str, nvcc: str, source: str) -> Fact:
    """The toolkit's release from its version file or header; only without those is nvcc run."""
    readers = (("version.json", from_json), ("version.txt", from_text), ("include/cuda.h", from_header))
    for name, reader in readers:
        text = machine.text(f"{home}/{name}")
        found = reader(text) if text else None
        if found:
            return Known(found, f"{source}, {name}")
    try:
        found = from_nvcc(version_text(machine, nvcc))
    except ToolError as error:
        return Unreadable(source, error.message)
    if found:
        return Known(found, f"{source}, `nvcc --version`")
    return Unreadable(source, "`nvcc --version`: no release in it")


def from_json(text: str) -> str | None:
    """`12.1` of a toolkit's version.json: nvcc's own entry, else the toolkit's."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for name in ("cuda_nvcc", "cuda"):
        entry = parts.get(name) if isinstance(parts, dict) else None
        version = entry.get("version") if isinstance(entry, dict) else None
        found = re.match(r"(\d+\.\d+)", version) if isinstance(version, str) else None
        if found:
            return found[1]
    return None


def from_text(text: str) -> str | None:
    """`10.2` of `CUDA Version 10.2.89`, the version.txt of releases before 11.1."""
    found = re.search(r"CUDA Version (\d+\.\d+)", text)
    return found[1] if found else None


def from_header(text: str) -> str | None:
    """`12.1` of `#define CUDA_VERSION 12010` in cuda.h."""
    found = re.search(r"^#define\s+CUDA_VERSION\s+(\d{4,6})\s*$", text, re.MULTILINE)
    return cuda_release(int(found[1])) if found else None


def from_nvcc(text: str) -> str | None:
    """`12.1` of the output of `nvcc --version`."""
    found = re.search(r"\brelease (\d+\.\d+)", text)
    return found[1] if found else None


def cuda_release(number: int) -> str:
    """`12.1` of 12010, the way CUDA writes releases as one number."""
    return f"{number // 1000}.{number % 1000 // 10}"
