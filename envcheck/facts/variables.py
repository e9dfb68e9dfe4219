"""Environment variables that matter, and what LD_LIBRARY_PATH and PYTHONPATH bring in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.facts.interpreter import Interpreter
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

SOURCE = "process environment"

#: Libraries of the CUDA toolkit, cuDNN and NCCL, by the start of their file names.
CUDA_LIBRARY = re.compile(
    r"lib(?:cublas|cublasLt|cudart|cudnn\w*|cufft|curand|cusolver|cusparse|cusparseLt|nccl|nvJitLink|nvrtc)"
    r"\.so(?:\.|$)"
)

SHARED = re.compile(r"lib[\w+-]+\.so\.[\d.]+$")


def variable_facts(interpreter: Interpreter) -> dict[str, Fact]:
    """`env.NAME` for each variable that is set and matters; `env` says that the environment was read.

    A variable without a fact is therefore known not to be set.
    """
    facts: dict[str, Fact] = {"env": Known("read", SOURCE)}
    for name, value in sorted(interpreter.variables.items()):
        facts[f"env.{name}"] = Known(value, SOURCE)
    return facts


def path_facts(interpreter: Interpreter, machine: Machine) -> dict[str, Fact]:
    """`ld_library_path_cuda`, `ld_library_path_stubs`, `ld_shadows`, `pythonpath_site_packages`."""
    folders = machine.folders("LD_LIBRARY_PATH")
    names = {folder: machine.names(folder) for folder in folders}
    stubs = [folder for folder in folders if "stubs" in folder.split("/") and _any_library(names[folder])]
    cuda = [folder for folder in folders if any(CUDA_LIBRARY.match(name) for name in names[folder])]
    return {
        "ld_library_path_cuda": _yes("LD_LIBRARY_PATH", cuda),
        "ld_library_path_stubs": _yes("LD_LIBRARY_PATH", stubs),
        "ld_shadows": _shadows(interpreter, machine, names),
        "pythonpath_site_packages": _yes("PYTHONPATH", _foreign(interpreter)),
    }


def _yes(variable: str, found: list[str]) -> Fact:
    return Known("yes", f"{variable}: {', '.join(found)}") if found else Known("no", variable)


def _any_library(names: list[str]) -> bool:
    return any(name.startswith("lib") and ".so" in name for name in names)


def _shadows(interpreter: Interpreter, machine: Machine, names: dict[str, list[str]]) -> Fact:
    """Libraries that a wheel brings and that LD_LIBRARY_PATH gives first."""
    outside = {name for entries in names.values() for name in entries if SHARED.match(name)}
    if not outside:
        return Known((), "LD_LIBRARY_PATH")
    own = {name for folder in _wheel_folders(interpreter, machine) if folder not in names for name in machine.names(folder)}
    return Known(tuple(sorted(outside & own)), "LD_LIBRARY_PATH and site-packages/nvidia/*/lib")


def _wheel_folders(interpreter: Interpreter, machine: Machine) -> Iterator[str]:
    for entry in interpreter.path:
        if entry.rstrip("/").endswith("-packages"):
            yield from (f"{entry}/nvidia/{name}/lib" for name in machine.names(f"{entry}/nvidia"))
            yield f"{entry}/torch/lib"


def _foreign(interpreter: Interpreter) -> list[str]:
    """Entries of PYTHONPATH that are the site-packages of an environment other than this one."""
    entries = interpreter.variables.get("PYTHONPATH", "").split(":")
    inside = f"{interpreter.prefix.rstrip('/')}/"
    return [
        entry for entry in entries
        if entry.rstrip("/").endswith(("/site-packages", "/dist-packages")) and not entry.startswith(inside)
    ]  # fmt: skip


def nccl_fact(machine: Machine, location: str | None) -> Fact:
    """`nccl_file`: whether the libnccl.so.2 of the NCCL wheel is there; absent without the wheel."""
    if location is None:
        return Absent(("installed distributions: nvidia-nccl-cu*",))
    folder = f"{location}/nvidia"
    for name in ("nccl", *machine.names(folder)):
        path = f"{folder}/{name}/lib/libnccl.so.2"
        if machine.exists(path):
            return Known("yes", path)
    return Known("no", f"{folder}/*/lib/libnccl.so.2")
