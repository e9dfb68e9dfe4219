"""Follow a plan in process: the same steps as the script, with the same keeper, so that either completes what the other began."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from envcheck.errors import ToolError, UsageError
from envcheck.files import write_whole
from envcheck.process import run
from envcheck.reproduce.shell import UV_LEAST, index_options, lock_form, program
from envcheck.resolve.install import find_uv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from envcheck.process import Completed
    from envcheck.reproduce.plan import Plan

#: Seconds for asking an interpreter, and for an installation: gigabytes over a slow line.
SHORT, LONG = 120.0, 6 * 3600.0

#: Seconds to wait for another run on the same environment.
TURN = 7200


@dataclass(slots=True)
class Replay:
    """One run of a plan.

    Attributes:
        plan: What to do.
        folder: The environment.
        base: The folder that the plan's paths start from.
        python: Interpreter that the environment is made with, or None to look for one.
        tell: Told the number of the step, how many there are, and what is being done.
    """

    plan: Plan
    folder: Path
    base: Path
    python: Path | None = None
    tell: Callable[[int, int, str], None] = field(default=lambda *_: None)
    step: int = 0
    held: IO[str] | None = None

    @property
    def state(self) -> Path:
        """Where the keeper keeps what was begun and finished."""
        return self.folder / ".envcheck"

    @property
    def there(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return 4 + bool(self.plan.patches)

    def next(self, text: str) -> None:
        """Announce the next step."""
        self.step += 1
        self.tell(self.step, self.steps, text)

    def run(self) -> bool:
        """Make or complete the environment; returns False where it was up to date.

        Raises:
            ToolError: A step failed; running again completes what is missing.
            UsageError: No interpreter or machine that the lock is for.
        """
        self.next(f"looking for {self.plan.pythons.words}")
        self.fits_machine()
        python = self.find_python()
        self.keep(python, "prepare", str(self.folder), str(self.state))
        with self.turn():
            lock = self.place_lock()
            project = [str(self.base / self.plan.editable / "pyproject.toml")] if self.plan.editable else []
            wanted = self.keep(python, "digest", self.plan.digest(), str(lock), *project)
            self.next(f"the environment {self.folder}")
            standing = self.standing(python, wanted)
            if standing == "done":
                self.step = self.steps
                self.tell(self.step, self.steps, f"{self.folder} is up to date")
                return False
            self.keep(python, "begin", str(self.state))
            if not self.there.exists():
                self.make(python)
            self.install(lock, again=standing == "again")
            self.finish(python, wanted)
        return True

    def fits_machine(self) -> None:
        """Refuse a machine that the lock's wheels are not for."""
        uname = os.uname()
        for wanted, found in ((self.plan.system, uname.sysname), (self.plan.machine, uname.machine)):
            if wanted and wanted != found:
                raise UsageError(f"the lock is for {wanted}, and this is {found}")

    def suits(self, python: Path | str) -> bool:
        """Whether an interpreter runs and is one that the lock is for."""
        with contextlib.suppress(ToolError):
            code = f"import sys; sys.exit(not ({self.plan.pythons.condition}))"
            return run([str(python), "-I", "-S", "-c", code], timeout=SHORT).returncode == 0
        return False

    def find_python(self) -> Path:
        """The interpreter that was named, else the first on PATH that fits, else what uv knows."""
        words = self.plan.pythons.words
        if self.python is not None:
            if not self.suits(self.python):
                raise UsageError(f"`{self.python}` is not a {words}")
            return self.python
        for name in self.plan.pythons.names:
            found = shutil.which(name)
            if found and self.suits(found):
                return Path(found)
        with contextlib.suppress(ToolError):
            request = f"3.{self.plan.pythons.highest}"
            done = run([usable_uv(), "python", "find", "--no-project", "--no-python-downloads", request], timeout=SHORT)
            if done.returncode == 0 and self.suits(done.stdout.strip()):
                return Path(done.stdout.strip())
        raise UsageError(f"no {words} on PATH", hints=("name one with --with-python PATH",))

    def keep(self, python: Path, *arguments: str) -> str:
        """One command of the keeper; its answer is the last line, since a `.pth` file may print before it."""
        alone = ["-I"] if python == self.there else ["-I", "-S"]
        done = self.child([str(python), *alone, "-c", program("target/keeper.py"), *arguments], SHORT + TURN)
        return (done.stdout.strip().splitlines() or [""])[-1]

    def child(self, argv: Sequence[str], timeout: float) -> Completed:
        """Run one child, which keeps our turn; raises ToolError where it fails."""
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        variables["UV_PYTHON_DOWNLOADS"] = "never"
        keep = (self.held.fileno(),) if self.held is not None else ()
        done = run(argv, timeout=timeout, env=variables, cwd=str(self.base), pass_fds=keep)
        if done.returncode != 0:
            text = (done.stderr.strip() or done.stdout.strip() or done.outcome)[-2000:]
            shown = Path(argv[0]).name
            raise ToolError(
                f"`{shown}` failed ({done.outcome}): {text.removeprefix('error: ')}",
                where=str(self.folder),
                hints=("run it again: what is finished is kept",),
            )
        return done

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the environment's lock; children inherit it, so that what a killed run left at work still holds it."""
        import fcntl  # noqa: PLC0415 - POSIX only, like the scripts

        with (self.state / "lock").open("w") as self.held:
            try:
                fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.tell(self.step, self.steps, "waiting for another run on this environment")
                fcntl.flock(self.held, fcntl.LOCK_EX)
            yield
        self.held = None

    def place_lock(self) -> Path:
        """The lock as a file: beside the script, or written into the state folder."""
        lock = self.plan.lock
        if lock.path:
            return self.base / lock.path
        path = self.state / lock.file
        write_whole(str(path), lock.text, "lock")
        return path

    def standing(self, python: Path, wanted: str) -> str:
        """`done`, `open`, or `again`; an environment of ours that was cut off or changed is cleared first."""
        found = self.keep(python, "state", str(self.state), wanted)
        fits = self.suits(self.there)
        if found == "done" and fits:
            by_hand = " ".join(self.plan.by_hand.packages) if self.plan.by_hand else ""
            found = self.keep(self.there, "state", str(self.state), wanted, "manifest", by_hand)
        if found == "begun" or ((self.folder / "bin").exists() and not fits):
            text = "a run was cut off, or something was changed since: beginning anew, from what is downloaded already"
            self.tell(self.step, self.steps, text)
            self.keep(python, "clear", str(self.folder), str(self.state))
            return "open"
        return found

    def make(self, python: Path) -> None:
        """The empty environment."""
        self.child(
            [usable_uv(), "venv", "--quiet", "--allow-existing", "--no-project", "--python", str(python), "--", str(self.folder)],
            LONG,
        )

    def install(self, lock: Path, *, again: bool) -> None:
        """The packages, the project, the patches."""
        ours = (self.state / "made").exists()
        self.next(f"installing {self.plan.lock.packages} packages")
        options = [
            "--compile-bytecode",
            "--python",
            str(self.there),
            "--quiet",
            *index_options(self.plan),
            *lock_form(self.plan.lock.kind),
        ]
        if self.plan.build:
            limits = self.state / "build.txt"
            write_whole(str(limits), "".join(f"{line}\n" for line in self.plan.build), "build constraints")
            options += ["--build-constraints", str(limits)]
        what = ["sync", *options, str(lock)] if ours else ["install", *options, "-r", str(lock)]
        self.child([usable_uv(), "pip", *what, *(["--reinstall"] if again else [])], LONG)
        if self.plan.editable:
            place = [
                "--python",
                str(self.there),
                "--no-deps",
                "--no-build-isolation",
                "--editable",
                str(self.base / self.plan.editable),
            ]
            self.child([usable_uv(), "pip", "install", "--quiet", *place], LONG)
        if self.plan.patches:
            self.next("files copied over installed ones")
            self.keep(self.there, "patch", str(self.base), self.plan.patches_json)

    def finish(self, python: Path, wanted: str) -> None:
        """The manifest, and the mark that all is done."""
        manifest = self.state / "manifest.json"
        self.next(f"writing {manifest}")
        self.keep(self.there, "manifest", str(manifest), self.plan.digest(), self.plan.patches_json)
        self.keep(python, "finish", str(self.state), wanted)


def usable_uv() -> str:
    """The uv that locks were solved with, where it is new enough.

    Raises:
        ToolError: There is none, or it is too old.
    """
    found = find_uv()
    if not found:
        raise ToolError(
            "uv is not installed", hints=("pip install 'envcheck-ml[lock]'", "a script of `setup write` installs it by itself")
        )
    said = run([found, "--version"], timeout=SHORT).stdout
    if not _at_least(said):
        raise ToolError(f"uv is too old: at least {UV_LEAST} is needed, and this is `{said.strip()}`", where=found)
    return found


def _at_least(said: str) -> bool:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - slow to import

    try:
        return Version((said.split() or ["", ""])[1]) >= Version(UV_LEAST)
    except (InvalidVersion, IndexError):
        return False


def refuse_unwritable(folder: Path) -> None:
    """Say early that an environment cannot be made there.

    Raises:
        UsageError: Neither the folder nor the nearest one above it that exists can be written to.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UsageError("the environment's folder cannot be made: this is a file", where=str(nearest))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"the environment's folder cannot be written: {error.strerror}", where=str(nearest)) from error
