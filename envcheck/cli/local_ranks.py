"""The ranks of one job on one node: the first checks, the others wait for its word, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.errors import CouldNotLookError, ExitCode, UsageError
from envcheck.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Where launchers put the rank on the node: torchrun and deepspeed, srun, Open MPI, MPICH and Intel MPI, MVAPICH.
LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")

#: What names one start of one job. A job of Slurm's or of torchrun with an id of its own is named by these alone; else the parent
#: process, which all ranks of a node share, is part of the name.
JOB = (
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
    "PMIX_NAMESPACE", "OMPI_COMM_WORLD_JOBID", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE",
)  # fmt: skip

#: Seconds between two looks.
INTERVAL = 0.1

#: Seconds that a first rank which has died leaves before the others give up: its last words may be on their way.
GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """This process among the ranks of its node.

    Attributes:
        rank: Rank on the node, or None where no launcher has started this process.
        job: Name of the job's start, the same for all ranks of the node.
    """

    rank: int | None
    job: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Place:
        """The place that the launcher's variables tell.

        Raises:
            UsageError: A rank that is not a number.
        """
        for name in LOCAL_RANK:
            text = environ.get(name)
            if text is None or (name == "SLURM_LOCALID" and "SLURM_STEP_ID" not in environ):
                continue
            if not text.isdigit():
                raise UsageError(f"`{name}` is `{text}`, not a rank")
            return cls(int(text), job_name(environ))
        return cls(None)

    def decide(self, examine: Callable[[], int], wait: float) -> int:
        """The exit code of the examination: made here by the first local rank, waited for by the others.

        Raises:
            CouldNotLookError: The first rank died without a word, or said nothing within `wait` seconds.
        """
        if self.rank is None:
            return examine()
        folder = rendezvous(self.job)
        if self.rank == 0:
            return self._examine(examine, folder)
        return await_word(folder, wait)

    def _examine(self, examine: Callable[[], int], folder: Path) -> int:
        _say(folder / "examiner", {"pid": os.getpid()})
        code = int(ExitCode.FAILED)
        try:
            code = examine()
        finally:
            _say(folder / "word", {"code": code})
        return code


def job_name(environ: Mapping[str, str], parent: str | None = None) -> str:
    """A name for this start of this job on this node."""
    parts = [f"{name}={environ[name]}" for name in JOB if name in environ]
    if "SLURM_STEP_ID" not in environ and environ.get("TORCHELASTIC_RUN_ID", "none") == "none":
        parts.append(parent_identity() if parent is None else parent)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def parent_identity() -> str:
    """The parent process and when it started: a number that is used again names another."""
    parent = os.getppid()
    with contextlib.suppress(OSError, IndexError):
        return f"{parent}@{Path(f'/proc/{parent}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()[19]}"
    return str(parent)


def rendezvous(job: str) -> Path:
    """The folder in which the ranks of the job meet; ours, and nobody else's.

    Raises:
        CouldNotLookError: It cannot be made, or belongs to somebody else.
    """
    home = Path(tempfile.gettempdir()) / f"envcheck-run-{os.getuid()}"
    folder = home / job
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise CouldNotLookError("the folder in which the ranks meet belongs to somebody else", where=str(home))
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CouldNotLookError(f"the ranks cannot meet: {error.strerror}", where=str(folder)) from error
    return folder


def await_word(folder: Path, wait: float) -> int:
    """The first rank's exit code.

    Raises:
        CouldNotLookError: It died without a word, or said nothing within `wait` seconds.
    """
    end = time.monotonic() + wait
    gone_since: float | None = None
    while True:
        word = _heard(folder / "word")
        code = word.get("code")
        if isinstance(code, int):
            return code
        now = time.monotonic()
        examiner = _heard(folder / "examiner").get("pid")
        if isinstance(examiner, int) and not _alive(examiner):
            gone_since = gone_since or now
            if now - gone_since > GRACE:
                raise CouldNotLookError("the first local rank ended without a word on this environment")
        if now > end:
            raise CouldNotLookError(f"the first local rank said nothing within {wait:g} s", hints=("`--wait S` waits longer",))
        time.sleep(INTERVAL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _say(path: Path, what: dict[str, int]) -> None:
    try:
        write_whole(str(path), json.dumps(what), "word to the other ranks")
    except UsageError as error:
        print(f"envcheck: {error}", file=sys.stderr)


def _heard(path: Path) -> dict[str, object]:
    try:
        heard = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return heard if isinstance(heard, dict) else {}
