"""Driver and GPUs by running nvidia-smi, where NVML itself could not be asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.errors import ToolError
from envcheck.facts.gpu import Device, NotSeenError, Seen
from envcheck.facts.model import Gpu

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.process import Completed

SOURCE = "nvidia-smi"

#: Not on PATH under WSL.
PLACES = ("nvidia-smi", "/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")

#: Old drivers (470) do not know `compute_cap`. The name comes last: it alone could hold a comma.
QUERIES = ("uuid,memory.total,compute_cap,name", "uuid,memory.total,name")


def ask_nvidia_smi(machine: Machine) -> Seen:
    """What nvidia-smi says.

    Raises:
        NotSeenError: It is not there, or fails.
    """
    program = next(filter(None, map(machine.which, PLACES)), None)
    if program is None:
        raise NotSeenError("nvidia-smi is not on PATH")
    ended = _run(machine, [program])
    driver, driver_cuda = read_header(ended.stdout)
    if not driver:
        raise NotSeenError(f"nvidia-smi: {_complaint(ended)}")
    return Seen(SOURCE, driver=driver, driver_cuda=driver_cuda, devices=_devices(machine, program))


def _run(machine: Machine, argv: list[str]) -> Completed:
    try:
        return machine.run(argv)
    except ToolError as error:
        raise NotSeenError(error.message) from error


def _devices(machine: Machine, program: str) -> tuple[Device, ...] | None:
    for query in QUERIES:
        ended = _run(machine, [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"])
        if ended.returncode == 0:
            return read_table(ended.stdout, capability="compute_cap" in query)
        if "No devices were found" in ended.stdout:
            return ()
    return None


def _complaint(ended: Completed) -> str:
    """The first line that nvidia-smi printed instead of its table, or how it ended."""
    lines = (ended.stdout + "\n" + ended.stderr).split("\n")
    return next((line.strip() for line in lines if line.strip()), ended.outcome)[:200]


def read_header(text: str) -> tuple[str, str]:
    """Driver version and highest CUDA version in the header of nvidia-smi's table; empty where it says none.

    The labels are `Driver Version` and `CUDA Version`; in release 610 `KMD Version` and `CUDA UMD Version`.
    Old drivers (396) give no CUDA version; `N/A` or `ERR!` stands there where libcuda cannot be asked.
    """
    driver = re.search(r"\b(?:Driver|KMD) Version:\s*(\d+\.[\d.]*\d)", text)
    cuda = re.search(r"\bCUDA (?:UMD )?Version:\s*(\d+\.\d+)", text)
    return (driver[1] if driver else ""), (cuda[1] if cuda else "")


def read_table(text: str, *, capability: bool) -> tuple[Device, ...]:
    """Devices of the csv output: uuid, memory in MiB, compute capability where it was asked for, name."""
    columns = 4 if capability else 3
    rows = (line.split(",", columns - 1) for line in text.splitlines())
    return tuple(_device([cell.strip() for cell in row]) for row in rows if len(row) == columns)


def _device(row: list[str]) -> Device:
    uuid, memory, *capability, name = row
    stated = [value for value in capability if re.fullmatch(r"\d{1,3}\.\d{1,3}", value)]
    return Device(
        uuid if uuid.startswith("GPU-") else "",
        Gpu(
            name="" if name.startswith("[") else name,
            compute_capability=stated[0] if stated else "",
            memory_mib=int(memory) if re.fullmatch(r"[0-9]{1,9}", memory) else 0,
        ),
    )
