"""The NVIDIA driver: kernel module, its user-space libraries, NVSwitch and the fabric manager."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from envcheck.errors import ToolError
from envcheck.facts.gpu import NotSeenError, Seen, amd_count, from_proc, visible
from envcheck.facts.libraries import find_library, versioned
from envcheck.facts.model import Absent, Gpu, Known, Unreadable
from envcheck.facts.programs import version_text

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

PROC = "/proc/driver/nvidia/version"
SYS = "/sys/module/nvidia/version"
CUDA = "libcuda.so.1"
NVML = "libnvidia-ml.so.1"

#: Any of these means that a driver is, or was, installed for this machine.
SIGNS = ("/proc/driver/nvidia", "/sys/module/nvidia", "/dev/nvidiactl", "/dev/dxg")

FABRIC_MANAGER = "nv-fabricmanager"

#: Files that are there inside a container, where the host's processes cannot be seen.
IN_CONTAINER = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/.singularity.d")


class DriverState(NamedTuple):
    """Driver facts, and the visible GPUs; None where nobody could look."""

    facts: dict[str, Fact]
    gpus: tuple[Gpu, ...] | None


def driver_state(machine: Machine, architecture: str) -> DriverState:
    """Every fact about the NVIDIA driver, and the GPUs. May wait for the driver: run it beside other work.

    Facts: `driver`, `driver_cuda`, `kernel_module`, `kernel_module_flavour`, `libcuda`, `libnvidia_ml`,
    `cuda_compat`, `nvswitch`, `fabricmanager`, `fabricmanager_version`, `gpu.vendor`; for AMD `gpu.count`.
    """
    libcuda = find_library(machine, CUDA, architecture)
    libnvml = find_library(machine, NVML, architecture)
    facts: dict[str, Fact] = {
        "libcuda": versioned(machine, CUDA, libcuda),
        "libnvidia_ml": versioned(machine, NVML, libnvml),
        "cuda_compat": _compat(machine, libcuda),
        **kernel_module(machine),
    }
    smi = "nvidia-smi" if machine.which("nvidia-smi") else None
    if not (libnvml or smi or any(machine.exists(sign) for sign in SIGNS)):
        return _no_driver(machine, facts)
    seen, reasons = _ask(machine)
    facts["driver"] = _driver(facts["kernel_module"], seen, reasons)
    facts["driver_cuda"] = _driver_cuda(seen, reasons)
    facts.update(fabric(machine))
    return DriverState(facts, _gpus(machine, seen, facts))


def _no_driver(machine: Machine, facts: dict[str, Fact]) -> DriverState:
    absent = Absent((*SIGNS, NVML, "nvidia-smi on PATH"))
    for name in ("driver", "driver_cuda", "nvswitch", "fabricmanager", "fabricmanager_version"):
        facts[name] = absent
    count = amd_count(machine)
    if not count:
        return DriverState(facts, ())
    source = "/sys/class/kfd"
    return DriverState({**facts, "gpu.vendor": Known("amd", source), "gpu.count": Known(str(count), source)}, None)


def _ask(machine: Machine) -> tuple[Seen | None, list[str]]:
    """The first of NVML and nvidia-smi that answers, and why those before it did not."""
    from envcheck.facts.nvidia_smi import ask_nvidia_smi  # noqa: PLC0415 - only where there is a driver
    from envcheck.facts.nvml import ask_nvml  # noqa: PLC0415 - as above

    reasons: list[str] = []
    for source in (ask_nvml, lambda: ask_nvidia_smi(machine)):
        try:
            return source(), reasons
        except NotSeenError as error:
            reasons.append(str(error))
    return None, reasons


def kernel_module(machine: Machine) -> dict[str, Fact]:
    """`kernel_module` and `kernel_module_flavour`, from the module's own files."""
    text = machine.text(PROC)
    version, flavour = read_module(text or "")
    if version:
        return {"kernel_module": Known(version, PROC), "kernel_module_flavour": Known(flavour, PROC)}
    from_sys = re.match(r"\d+\.[\d.]*\d", machine.text(SYS) or "")
    if from_sys:
        unread = Unreadable(SYS, "the file does not say which flavour the module is")
        return {"kernel_module": Known(from_sys[0], SYS), "kernel_module_flavour": unread}
    fact: Fact = Unreadable(PROC, "no version in it") if text else Absent((PROC, SYS))
    return {"kernel_module": fact, "kernel_module_flavour": fact}


def read_module(text: str) -> tuple[str, str]:
    """Version and flavour of /proc/driver/nvidia/version; empty where it has another form.

    `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ...`, and of the open module
    `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build ...`.
    """
    found = re.search(r"^NVRM version:.*?\bKernel Module(?: for \S+)?\s+(\d+\.[\d.]*\d)\s", text, re.MULTILINE)
    if found is None:
        return "", ""
    return found[1], "open" if " Open Kernel Module" in found[0] else "proprietary"


def _driver(module: Fact, seen: Seen | None, reasons: list[str]) -> Fact:
    if isinstance(module, Known):
        return module
    if seen is not None and seen.driver:
        return Known(seen.driver, seen.source)
    return Unreadable("NVML, nvidia-smi", "; ".join(reasons) or "no driver version in the answer")


def _driver_cuda(seen: Seen | None, reasons: list[str]) -> Fact:
    if seen is not None and seen.driver_cuda:
        return Known(seen.driver_cuda, seen.source)
    return Unreadable("NVML, nvidia-smi", "; ".join(reasons) or "no CUDA version in the answer")


def _gpus(machine: Machine, seen: Seen | None, facts: dict[str, Fact]) -> tuple[Gpu, ...] | None:
    devices = seen.devices if seen is not None else None
    if devices is None:
        devices = from_proc(machine)
    if devices is None:
        return None
    gpus = visible(devices, machine.variables)
    if devices:
        facts["gpu.vendor"] = Known("nvidia", seen.source if seen is not None else "/proc/driver/nvidia/gpus")
    return gpus


def _compat(machine: Machine, libcuda: str | None) -> Fact:
    """Whether the libcuda found first is of a cuda-compat package, which keeps it in a folder `compat`."""
    if libcuda is None:
        return Absent((CUDA,))
    inside = "compat" in libcuda.split("/") or "compat" in machine.real(libcuda).split("/")
    return Known("yes" if inside else "no", libcuda)


def fabric(machine: Machine) -> dict[str, Fact]:
    """`nvswitch`, `fabricmanager`, `fabricmanager_version`; the last two are absent without an NVSwitch."""
    place = next(
        (path for path in ("/proc/driver/nvidia-nvswitch", "/dev/nvidia-nvswitchctl") if machine.exists(path)),
        None,
    )
    if place is None:
        absent = Absent(("no NVSwitch",))
        return {
            "nvswitch": Known("no", "/proc/driver"),
            "fabricmanager": absent,
            "fabricmanager_version": absent,
        }
    return {
        "nvswitch": Known("yes", place),
        "fabricmanager": _fabric_manager(machine),
        "fabricmanager_version": _fabric_version(machine),
    }


def _fabric_manager(machine: Machine) -> Fact:
    for name in machine.names("/proc"):
        if name.isdigit() and (machine.text(f"/proc/{name}/comm") or "").startswith(FABRIC_MANAGER[:15]):
            return Known("running", f"process {name}")
    if any(machine.exists(path) for path in IN_CONTAINER) or "KUBERNETES_SERVICE_HOST" in machine.variables:
        return Unreadable("/proc", "inside a container the host's processes cannot be seen")
    return Known("stopped", "/proc")


def _fabric_version(machine: Machine) -> Fact:
    path = machine.which(FABRIC_MANAGER)
    if path is None:
        return Absent((f"{FABRIC_MANAGER} on PATH",))
    try:
        found = re.search(r"\b(\d{3,}\.[\d.]*\d)", version_text(machine, path))
    except ToolError as error:
        return Unreadable(path, error.message)
    return Known(found[1], path) if found else Unreadable(path, "`--version`: no version in it")
