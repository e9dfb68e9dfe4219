"""Machines made of a few files below a temporary folder, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.facts.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = Path(__file__).parent.parent / "data" / "facts"


def data(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def machine_of(root: Path, files: Mapping[str, str | bytes] | None = None, **variables: str) -> Machine:
    """A machine with these files (absolute path -> content) and variables, and nothing on PATH but `/bin`."""
    for path, content in (files or {}).items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return Machine(variables={"PATH": "/bin", **variables}, root=str(root))


def program(root: Path, path: str, script: str) -> None:
    """A shell script that stands for a program."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    target.chmod(0o755)


def prints(text: str) -> str:
    """Shell text that prints `text` as it is."""
    return f"cat <<'END-OF-TEXT'\n{text}\nEND-OF-TEXT"
