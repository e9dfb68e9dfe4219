"""Run one child process: argument list, environment, deadline, the whole group killed, both streams drained."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from envcheck.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Output beyond this many bytes per stream is dropped from the middle; the head and the tail are kept.
KEEP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Completed:
    """How a child ended.

    Attributes:
        argv: What was run.
        returncode: Exit status; negative for a signal; None when the deadline passed and the group was killed.
        stdout: Decoded text, undecodable bytes replaced, at most about 1 MiB.
        stderr: Likewise.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str
    stderr: str

    @property
    def timed_out(self) -> bool:
        """True when the deadline passed."""
        return self.returncode is None

    @property
    def outcome(self) -> str:
        """How it ended in words: `exit 0`, `SIGSEGV`, `no answer within the deadline`."""
        if self.returncode is None:
            return "no answer within the deadline"
        if self.returncode < 0:
            return signal_name(-self.returncode)
        return f"exit {self.returncode}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal N` where the number has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole process group and reap the child; silent when it is already gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run `argv` to its end or for `timeout` seconds.

    The child gets its own session, so that everything it started dies with it. Streams go to unnamed temporary
    files: a child that prints gigabytes, or a grandchild that keeps the stream open, cannot block us. `pass_fds` are
    descriptors that the child keeps open, such as that of a lock which it is to hold as long as it lives.

    Raises:
        ToolError: The program does not exist or may not be run.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write((stdin or "").encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=given,
                stdout=out,
                stderr=err,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ToolError(f"cannot run `{argv[0]}`: {reason}") from error
        code = _wait(process, timeout)
        return Completed(tuple(argv), code, _read(out), _read(err))


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    try:
        code = process.wait(_watch(process, timeout))
    except subprocess.TimeoutExpired:
        kill_group(process)
        return None
    except BaseException:
        kill_group(process)
        raise
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever the child left behind
    return code


def _watch(process: subprocess.Popen[bytes], timeout: float) -> float:
    """Wait for the end without polling, where the system can; gives the seconds that are left, or all where it cannot.

    `Popen.wait` looks every 50 ms, which a program of half a second feels.
    """
    began = time.monotonic()
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, an old kernel, or a sandbox
        return timeout
    try:
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        ready.poll(max(timeout, 0.0) * 1000)
    finally:
        os.close(descriptor)
    return max(timeout - (time.monotonic() - began), 0.05)


def _read(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= KEEP_BYTES:
        return stream.read().decode(errors="replace")
    head = stream.read(KEEP_BYTES // 2)
    stream.seek(size - KEEP_BYTES // 2)
    tail = stream.read()
    dropped = size - len(head) - len(tail)
    return f"{head.decode(errors='replace')}\n[{dropped} bytes left out]\n{tail.decode(errors='replace')}"
