"""Programs on PATH that projects need beside their Python packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.facts.model import Known

if TYPE_CHECKING:
    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Fact

#: The programs that profiles name; each is looked for, none is started.
WATCHED = ("adb", "ffmpeg", "git-lfs", "hdc")


def program_facts(machine: Machine) -> dict[str, Fact]:
    """`programs`: those of `WATCHED` that PATH gives."""
    return {"programs": Known(tuple(name for name in WATCHED if machine.which(name)), "PATH")}
