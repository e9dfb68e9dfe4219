"""What a script's commands mean for an environment: a closed set of steps, the last of which is `not understood`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envcheck.reproduce.script import Command
    from envcheck.reproduce.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Install:
    """Packages put into an environment.

    Attributes:
        tool: pip, uv, conda or the like.
        wanted: What the command names.
        files: Requirement files (`-r`), or the environment file of conda.
        constraints: Files of `-c`.
        indexes: Addresses of package indexes and link pages.
        flags: Options without a value that matter, with their leading dashes.
        locked: True where the tool installs what a lock file says.
        folder: The folder the command runs in, relative to the script's; None where it is not known.
        extras: Of a project's file that is given with `-r`.
    """

    command: Command
    tool: str
    wanted: tuple[Wanted, ...] = ()
    files: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    locked: bool = False
    folder: str | None = ""
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MakeEnvironment:
    """An environment made: by conda, venv or uv; `python` is its version where the script says it."""

    command: Command
    tool: str
    python: str = ""


@dataclass(frozen=True, slots=True)
class TouchSitePackages:
    """Files copied, moved, removed or edited inside site-packages; `folder` is the one it runs in, None where not known."""

    command: Command
    verb: str
    target: str
    sources: tuple[str, ...] = ()
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file fetched; `digest` where the script compares one afterwards, `runs` where it is run at once."""

    command: Command
    url: str
    file: str = ""
    digest: bool = False
    runs: str = ""


@dataclass(frozen=True, slots=True)
class Clone:
    """A repository fetched; `ref` is the commit, tag or branch that the script names, here or in a later checkout."""

    command: Command
    url: str
    folder: str = ""
    ref: str = ""


@dataclass(frozen=True, slots=True)
class Remove:
    """Packages uninstalled."""

    command: Command
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """Packages of the operating system."""

    command: Command
    tool: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Harmless:
    """A command that changes no environment."""

    command: Command


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A command whose effect on the environment is not known."""

    command: Command
    reason: str


Step = Install | MakeEnvironment | TouchSitePackages | Download | Clone | Remove | System | Harmless | NotUnderstood
