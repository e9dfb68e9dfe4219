"""A lock as a value, and its two files: PEP 751 `pylock.toml`, and a hashed `requirements.txt`.

The same lock always gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.resolve.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that may be installed.

    Attributes:
        name: File name.
        url: Where it is.
        hashes: Algorithm -> hex digest.
    """

    name: str
    url: str
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package of a lock.

    Attributes:
        name: Normalised name.
        version: As locked; empty where only the source decides it (an unbuilt folder or repository).
        marker: When it is installed, or an empty string.
        wheels: The wheels that may be installed.
        sdist: The source archive, or None.
        direct: The URL of a direct reference (archive, repository, folder), or an empty string.
        because: Why this version, one sentence each: comments of the file, which are not read back.
        table: The package's table as it stands in a `pylock.toml`, without `tool`.
    """

    name: str
    version: str
    marker: str = ""
    wheels: tuple[Artifact, ...] = ()
    sdist: Artifact | None = None
    direct: str = ""
    because: tuple[str, ...] = ()
    table: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hashes(self) -> tuple[str, ...]:
        """`sha256:...` of every file, sorted."""
        files = [*self.wheels, *([self.sdist] if self.sdist else [])]
        return tuple(sorted({f"{name}:{value}" for file in files for name, value in file.hashes.items()}))

    @property
    def requirement(self) -> str:
        """`torch==2.3.0`, or `name @ url` for a direct reference; without its marker."""
        return f"{self.name} @ {self.direct}" if self.direct else f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Lock:
    """A solved set of packages.

    Attributes:
        packages: Sorted by name.
        requires_python: Specifier set, or an empty string.
        provenance: What it was solved for; None in a lock that envcheck did not write.
        created_by: The tool that wrote it.
        yanked: `name==version` of the withdrawn releases in it -> the reason that the index gives; known while solving.
    """

    packages: tuple[LockedPackage, ...]
    requires_python: str = ""
    provenance: Provenance | None = None
    created_by: str = "envcheck"
    yanked: Mapping[str, str] = field(default_factory=dict)

    def versions(self) -> dict[str, str]:
        """Name -> version."""
        return {package.name: package.version for package in self.packages}


def read_lock(path: str) -> Lock:
    """A `*.toml` as PEP 751, anything else as hashed requirements.

    Raises:
        InputError: Not there, not readable, or not a lock.
    """
    from envcheck.resolve import pinned, pylock  # noqa: PLC0415 - they import this module

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"cannot read the lock: {reason}", where=path) from error
    return pylock.parse(text, path) if path.endswith(".toml") else pinned.parse(text, path)


def lock_text(lock: Lock, path: str) -> str:
    """The lock in the form that the file's name asks for.

    Raises:
        UsageError: The form cannot hold the lock.
    """
    from envcheck.resolve import pinned, pylock  # noqa: PLC0415 - they import this module

    return pylock.render(lock) if path.endswith(".toml") else pinned.render(lock)
