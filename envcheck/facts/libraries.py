"""Where the dynamic loader finds a shared library: LD_LIBRARY_PATH, the loader's cache, the usual folders."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Known, Unreadable

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

CACHE = "/etc/ld.so.cache"
CACHE_LIMIT = 8 << 20

#: Start of the present cache format, its header's size, and one entry: flags, name, path, osversion, hwcap
#: (glibc, sysdeps/generic/dl-cache.h).
MAGIC = b"glibc-ld.so.cache1.1"
HEADER_SIZE = 48
ENTRY = struct.Struct("=iIIIQ")

#: The architecture part of an entry's flags (glibc, sysdeps/generic/ldconfig.h).
ARCHITECTURES = {"x86_64": 0x0300, "aarch64": 0x0A00}

#: Looked at after the cache: the loader's own folders, then where WSL and NixOS keep the driver's libraries.
FOLDERS = (
    "/lib64", "/usr/lib64", "/lib/{machine}-linux-gnu", "/usr/lib/{machine}-linux-gnu", "/lib", "/usr/lib",
    "/usr/lib/wsl/lib", "/run/opengl-driver/lib",
)  # fmt: skip


def find_library(machine: Machine, name: str, architecture: str, *, variables: bool = True) -> str | None:
    """The path of the library `name` that would be loaded, before symbolic links are followed.

    Args:
        machine: Where to look.
        name: Its soname, `libcuda.so.1`.
        architecture: `x86_64`, `aarch64`.
        variables: Whether LD_LIBRARY_PATH counts.
    """
    for folder in machine.folders("LD_LIBRARY_PATH") if variables else ():
        if machine.exists(f"{folder}/{name}"):
            return f"{folder}/{name}"
    cached = cached_path(machine.read(CACHE, CACHE_LIMIT) or b"", name, ARCHITECTURES.get(architecture))
    if cached is not None and machine.exists(cached):
        return cached
    for pattern in FOLDERS:
        path = f"{pattern.format(machine=architecture)}/{name}"
        if machine.exists(path):
            return path
    return None


def cached_path(cache: bytes, name: str, architecture: int | None) -> str | None:
    """What the loader's cache says about a library; None where it says nothing or is of another format."""
    start = cache.find(MAGIC)
    if start < 0 or len(cache) < start + HEADER_SIZE:
        return None
    (count,) = struct.unpack_from("=I", cache, start + len(MAGIC))
    first = start + HEADER_SIZE
    entries = cache[first : first + count * ENTRY.size]
    wanted = name.encode() + b"\0"
    for flags, key, value, _, hwcap in ENTRY.iter_unpack(entries[: len(entries) // ENTRY.size * ENTRY.size]):
        fits = architecture is None or flags & 0xFF00 == architecture
        if fits and not hwcap and cache.startswith(wanted, start + key):
            return cache[start + value : cache.find(b"\0", start + value)].decode(errors="replace")
    return None


def versioned(machine: Machine, name: str, path: str | None) -> Fact:
    """The version in the real file name of a driver library: `535.104.05` of `libcuda.so.535.104.05`."""
    if path is None:
        return Absent(("LD_LIBRARY_PATH", CACHE, "the loader's usual folders"))
    real = machine.real(path)
    found = re.search(r"\.so\.(\d{3,}\.\d+(?:\.\d+)?)$", real)
    if found is None:
        return Unreadable(path, f"the file `{real.rpartition('/')[2]}` of {name} has no version in its name")
    return Known(found[1], real)
