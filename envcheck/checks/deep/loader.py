"""Which file each DT_NEEDED name of a shared object means in this environment (ld.so(8), and what torch loads first)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from envcheck.checks.deep.elf import Elf, NotElfError, read_elf
from envcheck.facts.libraries import find_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.checks.deep.target import Target

#: Libraries of the GPU driver: absent where there is no GPU, and no business of the environment.
DRIVER = re.compile(r"lib(?:cuda|nvidia-\w[\w-]*|nvcuvid|nvoptix|hsa-runtime64|ze_loader|GLX\w*|EGL_nvidia)\.so(?:\.\d+)*$")


class Loader:
    """Reads each shared object once and finds what it needs."""

    def __init__(self, target: Target) -> None:
        """A loader for the processes of this environment's interpreter."""
        self.architecture = target.interpreter.markers.get("platform_machine", "x86_64")
        self._machine = target.machine
        self._read: dict[str, Elf | None] = {}
        self._found: dict[str, str | None] = {}
        self.first = dict(_loaded_first(target.roots))
        self.base = f"{target.interpreter.base_prefix.rstrip('/')}/lib"
        self.interpreter = os.path.realpath(target.interpreter.executable)

    def elf(self, path: str) -> Elf | None:
        """The tables of a file; None where it cannot be read or is no ELF file."""
        if path not in self._read:
            try:
                self._read[path] = read_elf(path)
            except (OSError, NotElfError):
                self._read[path] = None
        return self._read[path]

    def closure(self, path: str, beside: dict[str, str]) -> tuple[list[str], list[str]]:
        """The files that are loaded with `path`, itself first, breadth first; and the names that nothing answers to.

        Args:
            path: A shared object.
            beside: File name -> path of the other shared objects of its distribution.
        """
        loaded, missing = [os.path.realpath(path)], []
        queue = [(loaded[0], ())]
        seen = {os.path.basename(path)}  # noqa: PTH119 - pathlib is slow, here and below
        while queue:
            current, inherited = queue.pop(0)
            elf = self.elf(current)
            if elf is None:
                continue
            rpath: tuple[str, ...] = () if elf.runpath else (*_expanded(elf.rpath, current), *inherited)
            for name in elf.needed:
                if name in seen:
                    continue
                seen.add(name)
                found = self._find(name, (*rpath, *_expanded(elf.runpath, current)), beside)
                if found is None:
                    missing.append(name)
                else:
                    loaded.append(found)
                    queue.append((found, rpath))  # type: ignore[arg-type]
        return loaded, missing

    def _find(self, name: str, folders: Iterable[str], beside: dict[str, str]) -> str | None:
        for folder in folders:
            path = f"{folder}/{name}"
            if os.path.exists(path):  # noqa: PTH110
                return os.path.realpath(path)
        known = self.first.get(name) or self._system(name) or beside.get(name)
        return os.path.realpath(known) if known else None

    def _system(self, name: str) -> str | None:
        if name not in self._found:
            path = f"{self.base}/{name}"
            there = path if os.path.exists(path) else None  # noqa: PTH110
            self._found[name] = find_library(self._machine, name, self.architecture) or there
        return self._found[name]

    def interpreter_symbols(self) -> frozenset[str]:
        """What the interpreter itself gives to extensions."""
        given: frozenset[str] = frozenset()
        for path in self.closure(self.interpreter, {})[0]:
            elf = self.elf(path)
            given |= elf.given if elf else frozenset()
        return given


def _loaded_first(roots: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Soname -> path of torch's libraries and those of the nvidia wheels, which torch loads before any extension."""
    for root in roots:
        for folder in (f"{root}/torch/lib", *_nvidia(f"{root}/nvidia")):
            try:
                with os.scandir(folder) as entries:
                    yield from ((entry.name, entry.path) for entry in entries if ".so" in entry.name)
            except OSError:
                continue


def _nvidia(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (f"{entry.path}/lib" for entry in entries if entry.is_dir())
    except OSError:
        return


def _expanded(folders: Iterable[str], path: str) -> tuple[str, ...]:
    """The folders with `$ORIGIN` put in."""
    origin = os.path.dirname(path)  # noqa: PTH120
    replaced = (folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for folder in folders)
    return tuple(os.path.normpath(folder) for folder in replaced if "$" not in folder)
