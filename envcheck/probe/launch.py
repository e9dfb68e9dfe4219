"""Run the ranks: start them, watch their journals, end them all at the deadline, say how each ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from envcheck.errors import ToolError
from envcheck.probe import spec
from envcheck.process import kill_group, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Bytes kept of the head and of the tail of what a rank prints; the rest is read and dropped.
KEEP = 64 * 1024

#: Characters of a dumped Python stack that are kept.
TRACE_KEEP = 64 * 1024

#: Seconds the others get to notice that a rank died, before they are killed too.
GRACE = 3.0

#: Seconds without a word from any rank, once the process group stands, after which they are called hung.
STALL = 60.0

#: The worker's exit statuses (probe_worker.main).
RESTART, NO_IMPORT = 75, 76

#: Sets of processes that are started at most for one probe.
MOST_SETS = 6

WORKER = Path(__file__).parent / "target" / "run.py"


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended.

    Attributes:
        status: Exit status; negative for a signal; None when it was killed at the deadline or with the others.
        last: The stage it last said it was beginning.
        scenario: The scenario of that stage, or an empty string.
        output: Head and tail of what it printed.
        trace: Python stack at the end, where there is one.
    """

    status: int | None
    last: str
    scenario: str
    output: str
    trace: str = ""

    @property
    def outcome(self) -> str:
        """`exit 0`, `SIGSEGV`, `ended with the others`."""
        if self.status is None:
            return "ended by the probe"
        return signal_name(-self.status) if self.status < 0 else f"exit {self.status}"


@dataclass(slots=True)
class RunLog:
    """What a probe run left: records of all ranks over all sets of processes.

    Attributes:
        records: (rank, record), in the order each rank wrote them.
        ends: For every set of processes, how its ranks ended.
        hung: Scenario -> where, for scenarios that made no progress.
        deadline: True when the whole probe ran out of time.
        seconds: Wall time.
    """

    records: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    ends: list[list[RankEnd]] = field(default_factory=list)
    hung: dict[str, str] = field(default_factory=dict)
    deadline: bool = False
    seconds: float = 0.0

    def of(self, scenario: str, rank: int | None = None) -> list[dict[str, Any]]:
        """The records of one scenario, of one rank or of all."""
        return [one for who, one in self.records if one["scenario"] == scenario and (rank is None or who == rank)]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run.

    Attributes:
        python: The target interpreter.
        scenarios: What to run, in order.
        world_size: Number of ranks.
        device: cpu or cuda.
        timeout: Seconds for everything.
        scratch: An existing folder of our own.
        environ: The environment to start from.
        stall: Seconds without progress that mean a hang.
    """

    python: str
    scenarios: Sequence[spec.Scenario]
    world_size: int
    device: str
    timeout: float
    scratch: Path
    environ: Mapping[str, str]
    stall: float = STALL


def run(plan: Plan, progress: Callable[[str, dict[str, Any]], None] | None = None) -> RunLog:
    """Run every scenario, in as many sets of processes as crashes make necessary.

    Args:
        plan: What to run.
        progress: Called with `begin` and `end` records of rank 0.

    Raises:
        ToolError: The interpreter cannot be started.
    """
    log = RunLog()
    begin = time.monotonic()
    left = list(plan.scenarios)
    for number in range(MOST_SETS):
        remaining = plan.timeout - (time.monotonic() - begin)
        if not left or remaining <= 0:
            log.deadline = log.deadline or bool(left)
            break
        one = _Set(plan, left, number, log, progress)
        one.run(remaining)
        begun = {record["scenario"] for _, record in log.records if record["event"] == "begin"}
        rest = [item for item in left if item.id not in begun]
        if len(rest) == len(left) or log.deadline:
            break  # nothing of this set ran: it would not run again
        left = rest
    log.seconds = time.monotonic() - begin
    return log


def environment(base: Mapping[str, str], plan: Plan, rank: int, extensions: Path) -> dict[str, str]:
    """A rank's environment: own extension cache, no port but an unused one, loopback, one thread, no network."""
    env = {key: value for key, value in base.items() if key not in ("PYTHONHOME", "LOCAL_WORLD_SIZE", "MASTER_PORT")}
    env.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(plan.world_size),
        LOCAL_SIZE=str(plan.world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
        TORCH_EXTENSIONS_DIR=str(extensions),
        OMP_NUM_THREADS="1",
        GLOO_SOCKET_IFNAME="lo",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        WANDB_DISABLED="true",
        PYTHONUNBUFFERED="1",
    )
    if plan.device == "cpu":
        env["DS_ACCELERATOR"] = "cpu"
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


class _Set:
    """One set of rank processes."""

    def __init__(
        self,
        plan: Plan,
        scenarios: list[spec.Scenario],
        number: int,
        log: RunLog,
        progress: Callable[[str, dict[str, Any]], None] | None,
    ) -> None:
        self.plan = plan
        self.folder = plan.scratch / f"set{number}"
        self.folder.mkdir()
        self.log = log
        self.progress = progress
        request = spec.request(scenarios, plan.world_size, plan.device, str(self.folder), str(self.folder / "rendezvous"))
        (self.folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.drains: list[Drain] = []
        self.readers = [JournalReader(self.folder / f"rank{rank}.jsonl") for rank in range(plan.world_size)]
        self.last = [("start the interpreter", "")] * plan.world_size
        self.joined = False

    def run(self, seconds: float) -> None:
        """Start, watch, end; the log gets everything."""
        try:
            for rank in range(self.plan.world_size):
                self._start(rank)
            hung = self._watch(seconds)
        except BaseException:
            self._kill()
            raise
        self._end(hung)

    def _start(self, rank: int) -> None:
        env = environment(self.plan.environ, self.plan, rank, self.plan.scratch / "extensions")
        argv = [
            self.plan.python,
            str(WORKER),
            str(self.folder / "request.json"),
            str(rank),
            str(self.folder / f"rank{rank}.jsonl"),
        ]
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.plan.environ.get("PWD") or None,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ToolError(f"cannot run `{self.plan.python}`: {reason}") from error
        self.processes.append(process)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        self.drains.append(Drain(process.stdout))

    def _watch(self, seconds: float) -> str:
        """Wait for the end; returns why the ranks had to be ended: `deadline`, `stall`, or an empty string."""
        end = time.monotonic() + seconds
        quiet_since = time.monotonic()
        first_death: float | None = None
        while True:
            if self._read():
                quiet_since = time.monotonic()
            now = time.monotonic()
            states = [process.poll() for process in self.processes]
            if all(state is not None for state in states):
                return ""
            if any(state not in (None, 0) for state in states):
                first_death = first_death or now
                if now - first_death > GRACE:
                    return ""
            if now > end:
                self.log.deadline = True
                return "deadline"
            if self.joined and now - quiet_since > self.plan.stall:
                return "stall"
            time.sleep(0.02)

    def _read(self) -> bool:
        """Take in new journal lines; True when there were any."""
        news = False
        for rank, reader in enumerate(self.readers):
            for record in reader.new():
                news = True
                self.log.records.append((rank, record))
                if record["event"] == "doing":
                    self.last[rank] = (str(record["stage"]), str(record["scenario"]))
                    self.joined = self.joined or bool(record["scenario"])
                elif record["event"] in ("begin", "end") and rank == 0 and self.progress:
                    self.progress(str(record["event"]), record)
        return news

    def _end(self, why: str) -> None:
        statuses = [process.poll() for process in self.processes]
        if why:
            self._ask_for_traces(statuses)
        self._kill()
        self._read()
        traces = [_text(self.folder / f"rank{rank}.jsonl.trace") for rank in range(self.plan.world_size)]
        ends = [
            RankEnd(status, stage, scenario, drain.text(), trace)
            for status, (stage, scenario), drain, trace in zip(statuses, self.last, self.drains, traces, strict=True)
        ]
        self.log.ends.append(ends)
        if why:
            places = [f"rank {rank} in `{end.last}`" for rank, end in enumerate(ends) if end.status is None]
            self.log.hung[next((end.scenario for end in ends if end.status is None), "")] = ", ".join(places)

    def _ask_for_traces(self, statuses: list[int | None]) -> None:
        """Let the hung ranks write their Python stacks (faulthandler does so on SIGUSR1)."""
        for process, status, reader in zip(self.processes, statuses, self.readers, strict=True):
            if status is None and reader.seen:  # before its first line the handler may not stand
                process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)

    def _kill(self) -> None:
        for process in self.processes:
            kill_group(process)
        for drain in self.drains:
            drain.close()


class JournalReader:
    """Reads a growing file of JSON lines; a last line without an end is left for later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.seen = False

    def new(self) -> list[dict[str, Any]]:
        """The records written since the last call; a line that is not one is left out."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        self.seen = self.seen or bool(whole)
        return [record for line in whole.splitlines() if (record := _record(line))]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record and "scenario" in record else None


class Drain:
    """Reads a pipe to its end in a thread and keeps its head and tail, so that no rank blocks on what it prints."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = b""
        self.tail = b""
        self.dropped = 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while chunk := os.read(self.stream.fileno(), 65536):
            if len(self.head) < KEEP:
                self.head += chunk
                continue
            self.tail += chunk
            if len(self.tail) > 2 * KEEP:
                self.dropped += len(self.tail) - KEEP
                self.tail = self.tail[-KEEP:]

    def close(self) -> None:
        """Wait for the end; a pipe that a stranger keeps open is left behind."""
        self.thread.join(2.0)
        if not self.thread.is_alive():
            self.stream.close()

    def text(self) -> str:
        """What was kept."""
        gap = f"\n[{self.dropped} bytes left out]\n".encode() if self.dropped else b""
        return (self.head + gap + self.tail).decode(errors="replace")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-TRACE_KEEP:]
    except OSError:
        return ""
