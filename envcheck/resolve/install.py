"""Carrying out a change: staged first, then a restore point, then the installer (uv, or the environment's pip)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.errors import EnvcheckError, ToolError, UsageError
from envcheck.process import run
from envcheck.resolve.restore import distributions, home, points, save
from envcheck.resolve.undo import tidy, undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from envcheck.process import Completed
    from envcheck.resolve.restore import Point, Touched
    from envcheck.resolve.undo import Undone

#: Seconds for one run of the installer; building a source distribution takes minutes.
DEADLINE = 3600.0

#: Seconds to wait for an installer that still runs, after envcheck itself was killed.
PATIENCE = 300.0

#: Both installers read requirements from here.
INPUT = "/dev/stdin"

EXACTLY = ("--no-deps", "--require-hashes", "-r", INPUT)


@dataclass(frozen=True, slots=True)
class Installer:
    """Who installs.

    Attributes:
        name: `uv` or `pip`.
        start: The command up to the options, for the environment it installs into.
        isolated: False where source distributions are built with what the environment holds.
    """

    name: str
    start: tuple[str, ...]
    isolated: bool = True

    def command(self, *options: str) -> tuple[str, ...]:
        """The command that installs exactly the requirements on its standard input, hashes required."""
        return (*self.start, *(() if self.isolated else ("--no-build-isolation",)), *options, *EXACTLY)

    def again(self) -> tuple[str, ...]:
        """The option under which versions that are there already are installed again."""
        return ("--reinstall" if self.name == "uv" else "--force-reinstall",)

    def removal(self, names: Sequence[str]) -> tuple[str, ...]:
        """The command that uninstalls these packages."""
        place = self.start.index("install")
        start = (*self.start[:place], "uninstall", *self.start[place + 1 :])
        return (*start, *(("--yes",) if self.name == "pip" else ()), *names)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        requirements: Pinned and hashed, one for each package that is to be installed; may be empty.
        packages: What changes, with the versions before and after.
    """

    requirements: str
    packages: tuple[Touched, ...]

    @property
    def removed(self) -> list[str]:
        """What goes."""
        return [item.name for item in self.packages if not item.after]

    def commands(self, installer: Installer) -> list[tuple[tuple[str, ...], str]]:
        """Each command with what it reads: first what goes, then what comes."""
        again = installer.again() if any(item.before == item.after for item in self.packages) else ()
        going = [(installer.removal(self.removed), "")] if self.removed else []
        return [*going, *([(installer.command(*again), self.requirements)] if self.requirements else [])]

    def shown(self, installer: Installer) -> str:
        """The whole commands for a shell, requirements and hashes included."""
        lines = [
            shlex.join(command) + (f" <<'END'\n{text.rstrip()}\nEND" if text else "")
            for command, text in self.commands(installer)
        ]  # fmt: skip
        return "\n".join(lines)


def find_uv() -> str | None:
    """The uv beside our interpreter, else the one on PATH."""
    own = Path(sys.executable).with_name("uv")
    return str(own) if own.is_file() and os.access(own, os.X_OK) else shutil.which("uv")


def choose(python: str, wanted: str | None) -> Installer:
    """The installer for the environment of `python`: the one wanted, else uv, else pip.

    Raises:
        ToolError: There is none.
    """
    uv = find_uv() if wanted != "pip" else None
    if uv:
        return Installer("uv", (uv, "pip", "install", "--python", python))
    if wanted != "uv" and has_pip(python):
        return Installer("pip", (python, "-m", "pip", "install"))
    missing = {"uv": "uv was not found", "pip": "the environment has no pip"}.get(wanted or "", "neither uv nor pip was found")
    raise ToolError(missing, where=python, hints=("install uv beside envcheck: pip install uv",))


def has_pip(python: str) -> bool:
    """Whether the interpreter's environment has pip."""
    return run([python, "-m", "pip", "--version"], timeout=60).returncode == 0


@contextlib.contextmanager
def locked(prefix: Path, *, patience: float = PATIENCE, say: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold the environment's lock; gives its descriptor, for a child that is to hold it too.

    An installer whose envcheck was killed still holds it, so nobody puts files back under its hands.

    Raises:
        EnvcheckError: The environment cannot be written, or the lock is not free in time.
    """
    descriptor = _acquire(prefix, time.monotonic() + patience, say)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            (home(prefix) / "lock").unlink()
            home(prefix).rmdir()
        os.close(descriptor)


def _acquire(prefix: Path, until: float, say: Callable[[str], None] | None) -> int:
    path = home(prefix) / "lock"
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # another one tidied the folder away between the two steps
        except OSError as error:
            raise EnvcheckError(
                f"this environment cannot be written: {error.strerror}", where=str(path), hints=("nothing was changed",)
            ) from error
        if _try(descriptor) and _same(path, descriptor):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > until:
            raise EnvcheckError("another change of this environment is still running", where=str(path))
        if say:
            say("waiting for a change of this environment that is still running")
            say = None
        time.sleep(0.05)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Place:
    """Where packages are installed: the environment's prefix (no symbolic links in it) and its `site-packages`."""

    prefix: Path
    site: Path


def apply(
    place: Place, installer: Installer, order: Order, verify: Callable[[Path], None], say: Callable[[str], None],
) -> Point:  # fmt: skip
    """Do exactly what is ordered, with a way back.

    Args:
        place: The environment.
        installer: Who installs.
        order: What is to be done.
        verify: Called with the folder of the staged versions before anything is changed; raises where they are not right.
        say: Told in a few words what is being done.

    Raises:
        UsageError: The last change was interrupted and not undone.
        ToolError: The installer failed; the environment is as it was.
        EnvcheckError: No restore point could be written.
    """
    with locked(place.prefix, say=say) as lock:
        tidy(place.prefix)
        existing = points(place.prefix)
        if existing and not existing[-1].finished:
            raise UsageError("the last change was interrupted", where=str(place.prefix), hints=("`envcheck fix --undo` first",))
        staged = home(place.prefix) / "staged"
        try:
            if order.requirements:
                say("fetching and building the new versions")
                installer = stage(installer, staged, order.requirements, lock)
            verify(staged)
            point = save(place.prefix, place.site, staged, order.packages)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        say("installing" if order.requirements else "uninstalling")
        for command, text in order.commands(installer):
            ended = run(command, timeout=DEADLINE, stdin=text, pass_fds=(lock,))
            if ended.returncode != 0:
                undo(point, {})
                raise ToolError(f"{failure(installer, ended)}\nthe environment was put back as it was")
        point.finish()
        return point


def go_back(place: Place, say: Callable[[str], None], *, patience: float = PATIENCE) -> Undone | None:
    """Undo the latest change; None where one was stopped before it had changed anything.

    Raises:
        UsageError: There is nothing to undo, or a package was changed since.
        InputError, CouldNotLookError: The restore point is damaged; nothing was changed.
        EnvcheckError: The environment cannot be written.
    """
    with locked(place.prefix, patience=patience, say=say):
        unfinished = tidy(place.prefix)
        existing = points(place.prefix)
        if existing and (not unfinished or not existing[-1].finished):
            installed: dict[str, set[str]] = {}
            for headers, _ in distributions([place.site]):
                installed.setdefault(headers.name, set()).add(headers.version)
            return undo(existing[-1], installed)
        if not unfinished:
            raise UsageError("there is nothing to undo", where=str(place.prefix))
        return None


def stage(installer: Installer, staged: Path, requirements: str, lock: int) -> Installer:
    """Install below `staged`; the installer as it worked, isolated builds first.

    Raises:
        ToolError: Neither way works.
    """
    options = ["--prefix", str(staged), *(["--ignore-installed", "--no-warn-script-location"] if installer.name == "pip" else [])]
    ended = None
    for isolated in (True, False):
        shutil.rmtree(staged, ignore_errors=True)
        trial = Installer(installer.name, installer.start, isolated)
        ended = run(trial.command(*options), timeout=DEADLINE, stdin=requirements, pass_fds=(lock,))
        if ended.returncode == 0:
            return trial
        if "build" not in ended.stderr.lower():
            break
    raise ToolError(failure(installer, ended), hints=("nothing was changed",))


def failure(installer: Installer, ended: Completed | None) -> str:
    """Why an installer failed, with the last lines it wrote."""
    assert ended is not None  # noqa: S101 - a trial was made
    lines = [line for line in ended.stderr.strip().splitlines() if line.strip()][-12:]
    return "\n  ".join([f"{installer.name} failed ({ended.outcome})", *lines])
