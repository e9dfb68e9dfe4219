"""GPUs: the devices of a machine, and which of them CUDA_VISIBLE_DEVICES leaves visible."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from envcheck.facts.model import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envcheck.facts.machine import Machine

GPUS = "/proc/driver/nvidia/gpus"


class Device(NamedTuple):
    """One GPU as the driver numbers it, in PCI order; `uuid` is `GPU-...`, or empty where it is not known."""

    uuid: str
    gpu: Gpu


class Seen(NamedTuple):
    """What one source says about driver and GPUs; texts are empty where it does not say.

    Attributes:
        source: The source's name.
        driver: Driver version.
        driver_cuda: Highest CUDA version that the driver supports.
        devices: GPUs in PCI order; None where the source could not list them.
    """

    source: str
    driver: str = ""
    driver_cuda: str = ""
    devices: tuple[Device, ...] | None = None


class NotSeenError(Exception):
    """A source of GPU facts gave nothing; the message says why."""


def visible(devices: Sequence[Device], variables: Mapping[str, str]) -> tuple[Gpu, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; None where that cannot be told.

    CUDA reads the list up to its first invalid entry. Indices count in CUDA's own order, the fastest GPU
    first, unless CUDA_DEVICE_ORDER is PCI_BUS_ID: with different GPUs in one machine the two differ, and the
    answer is None (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    wanted = variables.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(device.gpu for device in devices)
    chosen: list[int] = []
    by_index = False
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.startswith("MIG-"):
            return None  # a slice of a GPU; which one, its name does not say
        index = _index(entry, devices)
        by_index = by_index or entry.isdigit()
        if index is None:
            break
        if index in chosen:
            return None  # what CUDA makes of a repeated device is not documented
        chosen.append(index)
    gpus = tuple(devices[index].gpu for index in chosen)
    if by_index and 0 < len(gpus) < len(devices) and not _order_known(devices, variables):
        return None
    return gpus


def _index(entry: str, devices: Sequence[Device]) -> int | None:
    """The device that an entry means: a number, or the beginning of one UUID; None where it is invalid."""
    if re.fullmatch(r"[0-9]{1,4}", entry):
        return int(entry) if int(entry) < len(devices) else None
    if not entry.startswith("GPU-"):
        return None
    found = [number for number, device in enumerate(devices) if device.uuid.lower().startswith(entry.lower())]
    return found[0] if len(found) == 1 else None


def _order_known(devices: Sequence[Device], variables: Mapping[str, str]) -> bool:
    return variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({device.gpu for device in devices}) == 1


def from_proc(machine: Machine) -> tuple[Device, ...] | None:
    """GPUs by the kernel module's own files: names only; None where it has no such folder.

    The files list every GPU of the machine, also inside a container that was given none: only those whose
    device node is there count.
    """
    if not machine.exists(GPUS):
        return None
    texts = (machine.text(f"{GPUS}/{name}/information") or "" for name in machine.names(GPUS))
    found = [read_information(text) for text in texts]
    if not all(minor for minor, _ in found):
        return None  # old drivers do not say which device node is whose
    return tuple(device for minor, device in found if machine.exists(f"/dev/nvidia{minor}"))


def read_information(text: str) -> tuple[str, Device]:
    """Minor number and device of one `information` file: lines of `Key: <tabs> value`."""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    uuid = fields.get("GPU UUID", "")
    device = Device(uuid if "?" not in uuid else "", Gpu(name=fields.get("Model", "")))
    return fields.get("Device Minor", ""), device


def amd_count(machine: Machine) -> int:
    """How many AMD GPUs the kernel's compute driver knows: its nodes with SIMD units; the others are CPUs."""
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    texts = (machine.text(f"{nodes}/{name}/properties") or "" for name in machine.names(nodes))
    return sum(1 for text in texts if re.search(r"^simd_count [1-9]", text, re.MULTILINE))
