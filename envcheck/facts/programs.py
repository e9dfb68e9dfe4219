"""Programs beside the Python packages: which are on PATH, and what they say of their version."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envcheck.cache import cache_folder, digest, read_cached, write_cached
from envcheck.errors import ToolError
from envcheck.facts.model import Known

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

#: The programs that profiles name; each is looked for, none is started.
WATCHED = ("adb", "ffmpeg", "git-lfs", "hdc")


def program_facts(machine: Machine) -> dict[str, Fact]:
    """`programs`: those of `WATCHED` that PATH gives."""
    return {"programs": Known(tuple(name for name in WATCHED if machine.which(name)), "PATH")}


def version_text(machine: Machine, path: str) -> str:
    """What `PATH --version` writes to standard output; remembered while the file stays the same.

    Raises:
        ToolError: It cannot be run, or does not end well; the message says how it ended.
    """
    file = _remembered_in(machine, path)
    known = read_cached(file) if file else None
    if known is not None:
        return known.decode(errors="replace")
    ended = machine.run([path, "--version"])
    if ended.returncode != 0:
        raise ToolError(f"`{path.rpartition('/')[2]} --version`: {ended.outcome}")
    if file:
        write_cached(file, ended.stdout.encode(errors="replace"))
    return ended.stdout


def _remembered_in(machine: Machine, path: str) -> str | None:
    """A cache file named after the identity of the program's file, and of what a link or wrapper was reached by."""
    base = cache_folder(machine.variables)
    try:
        seen = os.stat(machine.at(path))  # noqa: PTH116 - pathlib is slow
    except (OSError, ValueError):
        return None
    identity = f"{path} {machine.real(path)} {seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}"
    return f"{base}/version-{digest(identity.encode(errors='surrogateescape'))}.txt" if base else None
