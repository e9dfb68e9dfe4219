"""Whatever the ranks do, the probe ends within its deadline, names it, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envcheck.errors import ToolError
from envcheck.probe import launch, session, spec
from envcheck.probe.attribution import Kind
from envcheck.probe.launch import KEEP, Drain, JournalReader
from envcheck.probe.target.probe_worker import main as worker

if TYPE_CHECKING:
    from envcheck.probe.outcome import Outcome

Fake = Callable[[str], str]

TWO = [spec.scenario("engine", "mlp", 2, "fp32", 3), spec.scenario("engine", "mlp", 1, "fp32", 3)]
PLAY_ALL = "start()\nfor one in request['scenarios']: play(one)\nwrite('done')\n"


def probe(python: str, timeout: float = 60.0) -> Outcome:
    begin = time.monotonic()
    found = session.probe(python, TWO, world_size=2, device="cpu", timeout=timeout, environ=os.environ)
    assert time.monotonic() - begin < timeout + 8
    return found


class Clock:
    """The time for the probe: half a second after a file has so many lines it leaps.

    So no deadline has to be waited for, and none comes too soon on a busy machine.
    """

    def __init__(self, leap: float, path: Path, count: int) -> None:
        self.leap, self.path, self.count = leap, path, count
        self.since: float | None = None
        self.sleep = time.sleep

    def monotonic(self) -> float:
        now = time.monotonic()
        if self.since is None and len(lines(self.path)) == self.count:
            self.since = now
        return now + (self.leap if self.since is not None and now > self.since + 0.5 else 0.0)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def kinds(found: Outcome) -> list[Kind]:
    return [one.kind for one in found.results]


def test_ranks_that_compute_rightly_are_equal(fake: Fake) -> None:
    found = probe(fake(PLAY_ALL))
    assert kinds(found) == [Kind.EQUAL, Kind.EQUAL]
    assert (found.failure, found.device, found.python) == ("", "cpu, gloo", "3.11.7")


def test_ranks_that_compute_a_third_are_named(fake: Fake) -> None:
    found = probe(fake(PLAY_ALL.replace("play(one)", "play(one, 1 / 3)")))
    assert [one.text for one in found.results] == ["scaled by 1/3: divided by the accumulation steps (3) twice in `w`"] * 2


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_rank_that_dies_by_a_signal_is_named_with_its_place_and_the_rest_still_runs(fake: Fake, name: str) -> None:
    body = (
        "start()\n"
        "if first:\n"
        "    one = request['scenarios'][0]; write('begin', one['id']); doing('step 1: optimizer step', one['id'])\n"
        f"    if rank == 1: os.kill(os.getpid(), signal.{name})\n"
        "    time.sleep(60)\n"
        "for one in request['scenarios']: play(one)\n"
    )
    found = probe(fake(body))
    assert kinds(found) == [Kind.CRASHED, Kind.EQUAL]
    assert f"rank 1 ended by {name} in `step 1: optimizer step`" in found.results[0].text
    assert found.killed is (name == "SIGKILL")


def test_a_rank_that_hangs_in_a_collective_is_named_with_its_place(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    monkeypatch.setattr(launch, "time", Clock(launch.STALL + 1, there, 2))
    body = (
        "start()\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "if first:\n"
        "    one = request['scenarios'][0]; write('begin', one['id']); doing('step 2: micro-batch 1 of 3', one['id'])\n"
        "    if rank: write('end', one['id'])\n"
        f"    open({str(there)!r}, 'a').write('.\\n'); time.sleep(600)\n"
        "for one in request['scenarios']: play(one)\n"
    )
    found = probe(fake(body), timeout=600)
    assert kinds(found) == [Kind.HUNG, Kind.EQUAL]
    assert "rank 0 in `step 2: micro-batch 1 of 3`" in found.results[0].text


def test_the_deadline_ends_everything(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setattr(launch, "time", Clock(600, pids, 4))
    body = (
        f"open({str(pids)!r}, 'a').write(str(os.getpid()) + '\\n')\n"
        "import subprocess\n"
        f"child = subprocess.Popen(['sleep', '600']); open({str(pids)!r}, 'a').write(str(child.pid) + '\\n')\n"
        "start()\ntime.sleep(600)\n"
    )
    found = probe(fake(body), timeout=600)
    assert kinds(found) == [Kind.SKIPPED, Kind.SKIPPED]
    assert "deadline" in found.failure
    assert len(pids.read_text().split()) == 4
    for pid in pids.read_text().split():
        assert not running(int(pid))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_probe_that_is_told_to_end_takes_its_ranks_and_its_folder_along(
    fake: Fake, tmp_path: Path, how: signal.Signals
) -> None:
    pids, scratch = tmp_path / "pids", tmp_path / "scratch"
    scratch.mkdir()
    body = f"open({str(pids)!r}, 'a').write(str(os.getpid()) + '\\n')\nstart()\ntime.sleep(600)\n"
    # A shell that starts a job in the background has it ignore SIGINT, and so would every child.
    start = f"import signal; signal.signal({int(how)}, signal.default_int_handler if {int(how)} == 2 else signal.SIG_DFL)"
    argv = [sys.executable, "-c", f"{start}; from envcheck.cli.main import entry; entry()", "probe"]
    argv += ["--python", fake(body), "--path", "engine"]
    env = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(lines(pids)) == 2)
        process.send_signal(how)
        assert process.wait(60) in (128 + how, 130)
    assert not any(running(int(pid)) for pid in pids.read_text().split())
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_rank_does_not_outlive_a_probe_that_was_killed() -> None:
    target = Path(session.__file__).parent / "target"
    rank = "import time, probe_worker.main as rank; rank.die_with_parent(); print('up', flush=True); time.sleep(600)"
    probe_itself = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {rank!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    with subprocess.Popen([sys.executable, "-c", probe_itself], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert running(pid)
        process.kill()
    wait_for(lambda: not running(pid))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_megabytes_on_stderr_block_nobody(fake: Fake) -> None:
    body = PLAY_ALL.replace("start()\n", "start()\nfor _ in range(300): sys.stderr.write('x' * 65536)\n", 1)
    assert kinds(probe(fake(body))) == [Kind.EQUAL, Kind.EQUAL]


def test_an_import_that_fails_is_could_not_look(fake: Fake) -> None:
    body = (
        "doing('import torch')\n"
        "write('failed', type='ImportError', message='libcudart.so.12: cannot open shared object file', trace=[])\nsys.exit(76)\n"
    )
    found = probe(fake(body))
    assert kinds(found) == [Kind.SKIPPED, Kind.SKIPPED]
    assert found.failure == (
        "`torch` cannot be imported in the target environment: ImportError: libcudart.so.12: cannot open shared object file"
    )


def test_an_import_that_crashes_is_named_with_what_was_printed(fake: Fake) -> None:
    found = probe(fake("doing('import torch')\nprint('Illegal instruction!', flush=True)\nos.kill(os.getpid(), signal.SIGILL)\n"))
    assert "SIGILL in `import torch`, last printed: Illegal instruction!" in found.failure


def test_an_interpreter_that_is_none_is_a_tool_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot run"):
        probe(str(tmp_path / "nothing"))


def test_ranks_out_of_step_are_started_again(fake: Fake) -> None:
    body = (
        "start()\n"
        "if first:\n"
        "    one = request['scenarios'][0]; write('begin', one['id'])\n"
        "    write('failed', one['id'], type='RuntimeError', message='Connection closed by peer', trace=[])\n"
        "    write('end', one['id'], ok=False); sys.exit(75)\n"
        "for one in request['scenarios']: play(one)\n"
    )
    found = probe(fake(body))
    assert kinds(found) == [Kind.CRASHED, Kind.EQUAL]
    assert found.results[0].text == "crashed: RuntimeError: Connection closed by peer"


@pytest.mark.parametrize(
    ("kind", "message", "words"),
    [
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'numactl'", "the program `numactl`"),
        ("RuntimeError", "Output 0 of X is a view and is being modified inplace", "modifies a view in place"),
        ("RuntimeError", "Error building extension 'cpu_adam'", "an op could not be compiled"),
        ("RuntimeError", "Ninja is required to load C++ extensions", "an op could not be compiled"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'c++'", "an op could not be compiled"),
        ("ValueError", "CPU_Accelerator requires intel_extension_for_pytorch, which is not installed", "Intel's extension"),
        ("ValueError", "Type fp16 is not supported on your device.", "does not do fp16"),
    ],
)
def test_a_lack_of_the_machine_is_skipped_and_no_fault(fake: Fake, kind: str, message: str, words: str) -> None:
    body = (
        "start()\nfor one in request['scenarios']:\n"
        f"    write('begin', one['id']); write('failed', one['id'], type={kind!r}, message={message!r}, trace=[])\n"
        "    write('end', one['id'], ok=False)\n"
    )
    found = probe(fake(body))
    assert kinds(found) == [Kind.SKIPPED, Kind.SKIPPED]
    assert words in found.results[0].text


def test_an_own_model_that_cannot_be_built_is_could_not_look_and_no_fault(fake: Fake) -> None:
    body = (
        "start()\nfor one in request['scenarios']:\n    write('begin', one['id'])\n"
        "    write('doing', one['id'], stage='deepspeed.initialize' if one['stage'] == 1 else 'build model')\n"
        "    write('failed', one['id'], type='RuntimeError', message='boom', trace=[]); write('end', one['id'], ok=False)\n"
    )
    own = [replace(one, model="train:build") for one in TWO]
    found = session.probe(fake(body), own, world_size=2, device="cpu", timeout=60, environ=os.environ)
    assert kinds(found) == [Kind.SKIPPED, Kind.CRASHED]
    assert found.results[0].text == "skipped: `--model train:build` made no model: RuntimeError: boom"
    assert kinds(probe(fake(body))) == [Kind.CRASHED, Kind.CRASHED]
    found = session.probe(fake(body), own[:1], world_size=2, device="cpu", timeout=60, environ=os.environ)
    assert found.failure == "`--model train:build` made no model: RuntimeError: boom"


def test_running_out_of_memory_is_named_and_no_fault_of_the_packages(fake: Fake) -> None:
    message = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"
    body = (
        "start()\nfor one in request['scenarios']:\n"
        f"    write('begin', one['id']); write('failed', one['id'], type='RuntimeError', message={message!r}, trace=[])\n"
        "    write('end', one['id'], ok=False)\n"
    )
    found = probe(fake(body))
    assert kinds(found) == [Kind.CRASHED, Kind.CRASHED]
    assert all(one.text.startswith("crashed: out of memory") for one in found.results)
    assert found.killed


def test_a_deepspeed_without_a_cpu_backend_is_could_not_look(fake: Fake) -> None:
    message = "CPU_Accelerator requires intel_extension_for_pytorch, which is not installed on this system."
    body = f"doing('import deepspeed')\nwrite('failed', type='ValueError', message={message!r}, trace=[])\nsys.exit(76)\n"
    found = probe(fake(body))
    assert kinds(found) == [Kind.SKIPPED, Kind.SKIPPED]
    assert "`deepspeed` cannot be imported in the target environment" in found.failure
    assert "intel_extension_for_pytorch" in found.failure


def test_an_asynchronous_gather_has_ended_when_it_returns() -> None:
    waited = []

    class Handle:
        def wait(self) -> None:
            waited.append(True)

    handle = Handle()
    assert worker._waiting(lambda given: given)(handle) is handle
    assert worker._waiting(lambda: None)() is None  # a synchronous one
    assert waited == [True]


def test_a_drain_keeps_head_and_tail() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        drain = Drain(stream)
        with os.fdopen(writer, "wb") as out:
            out.write(b"begin" + b"x" * (8 * KEEP) + b"end")
        drain.thread.join(5)
        text = drain.text()
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "bytes left out" in text
    assert len(text) < 5 * KEEP


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader = JournalReader(path)
    assert reader.new() == []
    path.write_text('{"event": "a", "scenario": ""}\nnot json\n{"event": "b", ', encoding="utf-8")
    assert [one["event"] for one in reader.new()] == ["a"]
    with path.open("a", encoding="utf-8") as out:
        out.write('"scenario": ""}\n')
    assert [one["event"] for one in reader.new()] == ["b"]
