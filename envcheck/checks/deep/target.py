"""What the deep checks look at: the interpreter, its metadata folders, and the tables they are judged by."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from envcheck.facts.machine import Machine, read_start
from envcheck.facts.metadata import is_name, normalised, read_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envcheck.checks.context import Context
    from envcheck.facts.interpreter import Interpreter

INFO = ".dist-info"


@dataclass(frozen=True, slots=True)
class InfoFolder:
    """One `dist-info` folder.

    Attributes:
        name: Normalised name.
        version: As its metadata, else its folder's name, gives it.
        path: The folder.
        root: The folder it lies in, which RECORD paths start from.
        installer: Content of `INSTALLER`, or an empty string.
    """

    name: str
    version: str
    path: str
    root: str
    installer: str = ""

    @property
    def shown(self) -> str:
        """`torch 2.3.0`, with the name in backquotes."""
        return f"`{self.name}` {self.version}"


@dataclass(frozen=True)
class Target:
    """One environment.

    Attributes:
        interpreter: As it described itself.
        context: Its facts, and the matrix.
        say: Told in a few words what is being done.
        machine: Where files and variables are looked up.
    """

    interpreter: Interpreter
    context: Context
    say: Callable[[str], None] = lambda _: None
    machine: Machine = field(default_factory=lambda: Machine(dict(os.environ)))

    @cached_property
    def infos(self) -> tuple[InfoFolder, ...]:
        """Every metadata folder on the path, also those that another one hides; half-removed ones are not among them."""
        return tuple(info for root in self.roots for info in _infos(root))

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The folders of `sys.path`, each once."""
        seen: dict[str, str] = {}
        for entry in self.interpreter.path:
            if entry and os.path.isdir(entry):  # noqa: PTH112 - pathlib is slow, here and below
                seen.setdefault(os.path.realpath(entry), entry.rstrip("/") or "/")
        return tuple(seen.values())

    @cached_property
    def allowed(self) -> tuple[str, ...]:
        """The folders below which an installed file may lie: the environment, its base, the user's scripts."""
        places = {self.interpreter.prefix, self.interpreter.base_prefix, *self.roots}
        if self.interpreter.user_site:
            places.add(self.interpreter.user_site.partition("/lib/")[0])
        return tuple(sorted(f"{os.path.normpath(place)}/" for place in places if place not in ("", "/")))


def _infos(root: str) -> Iterator[InfoFolder]:
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208 - as above
    except OSError:
        return
    for entry in names:
        stem = entry.removesuffix(INFO)
        if stem == entry or stem.startswith("~"):
            continue
        path = f"{root}/{entry}"
        name, version = _identity(path, stem)
        if is_name(name):
            yield InfoFolder(normalised(name), version, path, root, _installer(path))


def _identity(path: str, stem: str) -> tuple[str, str]:
    name, _, version = stem.partition("-")
    try:
        headers = read_headers(f"{path}/METADATA")
    except (OSError, ValueError):
        return name, version
    return headers.name if is_name(headers.name) else name, headers.version or version


def _installer(path: str) -> str:
    try:
        return read_start(f"{path}/INSTALLER", 100).decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""
