"""The machine as the collectors see it: files below a root, environment variables, programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envcheck.process import Completed

#: Seconds that a program which only states its version may take.
PROGRAM_TIMEOUT = 2.0

#: Files are read up to this many bytes unless the caller says otherwise.
READ_LIMIT = 1 << 16


def read_start(path: str, limit: int = READ_LIMIT) -> bytes:
    """The first `limit` bytes of a file; a named pipe without a writer reads as empty instead of blocking.

    Raises:
        OSError: Not there, not readable, a folder.
        ValueError: A path with a null character.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        content = os.read(descriptor, limit)
        while 0 < len(content) < limit:
            more = os.read(descriptor, limit - len(content))
            if not more:
                break
            content += more
        return content
    finally:
        os.close(descriptor)


class Machine(NamedTuple):
    """What collectors may look at.

    Attributes:
        variables: Environment variables.
        root: Folder that stands for `/`; another one in tests.
        system: `Linux`, `Darwin`, `Windows`.
    """

    variables: Mapping[str, str]
    root: str = "/"
    system: str = "Linux"

    def at(self, path: str) -> str:
        """Where an absolute path really lies."""
        return path if self.root == "/" else self.root.rstrip("/") + path

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes | None:
        """The start of a file; None where there is no such file.

        Raises:
            OSError: It is there and cannot be read.
        """
        try:
            return read_start(self.at(path), limit)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return None

    def text(self, path: str, limit: int = READ_LIMIT) -> str | None:
        """As `read`, decoded; undecodable bytes are replaced."""
        content = self.read(path, limit)
        return None if content is None else content.decode(errors="replace")

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        try:
            return os.path.exists(self.at(path))  # noqa: PTH110 - pathlib is slow
        except ValueError:
            return False

    def names(self, path: str) -> list[str]:
        """The sorted names in a folder; empty where there is none or it cannot be read."""
        try:
            return sorted(os.listdir(self.at(path)))  # noqa: PTH208 - as above
        except (OSError, ValueError):
            return []

    def real(self, path: str) -> str:
        """The path with symbolic links followed, as seen from the root."""
        found = os.path.realpath(self.at(path))
        root = os.path.realpath(self.root)
        return found if root == "/" else found.removeprefix(root)

    def which(self, program: str) -> str | None:
        """The full path of a program: itself when it has a folder, else the first on PATH that may be run."""
        if "/" in program:
            return program if os.access(self.at(program), os.X_OK) else None
        for folder in self.variables.get("PATH", os.defpath).split(os.pathsep):
            path = f"{folder.rstrip('/')}/{program}"
            if folder.startswith("/") and self._runs(path):
                return path
        return None

    def _runs(self, path: str) -> bool:
        try:
            real = self.at(path)
            return os.path.isfile(real) and os.access(real, os.X_OK)  # noqa: PTH113 - as above
        except ValueError:
            return False

    def folders(self, variable: str) -> list[str]:
        """The absolute folders of a list variable (LD_LIBRARY_PATH), without repeats."""
        entries = self.variables.get(variable, "").replace(";", ":").split(":")
        return list(dict.fromkeys(entry.rstrip("/") or "/" for entry in entries if entry.startswith("/")))

    def run(self, argv: Sequence[str], timeout: float = PROGRAM_TIMEOUT) -> Completed:
        """Run a program that states something; its messages in English.

        Raises:
            ToolError: It does not exist or may not be run.
        """
        from envcheck.process import run  # noqa: PLC0415 - subprocess is slow to import

        env = {**self.variables, "LC_ALL": "C"}
        return run([self.at(argv[0]), *argv[1:]], timeout=timeout, env=env)
