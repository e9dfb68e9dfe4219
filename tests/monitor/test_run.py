"""`envcheck run`: refusal, exec with the monitor on, the exit code, the ranks of a node."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envcheck.cli import local_ranks, probe, run
from envcheck.cli.local_ranks import Place
from envcheck.cli.remembered import Remembered
from envcheck.errors import CouldNotLookError, UsageError

ROOT = Path(__file__).parent.parent.parent
BAD = {"packages": {"deepspeed": "0.17.6"}}
SETTINGS = ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.json"
    path.write_text('{"packages": {}}', encoding="utf-8")
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(BAD), encoding="utf-8")
    return path


def start(arguments: list[str], tmp_path: Path, **environ: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key not in local_ranks.LOCAL_RANK and not key.startswith("SLURM")}
    env.update(PYTHONPATH=str(ROOT), TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"), **environ)
    return subprocess.Popen(
        [sys.executable, "-m", "envcheck", "run", *arguments],
        env=env, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_the_exit_code_and_the_streams_are_the_commands(good: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(37)"]
    code, out, err = finish(start(["--snapshot", str(good), "--", *command], tmp_path))
    assert (code, out) == (37, "out\n")
    assert err.splitlines()[-1] == "err"


def test_a_signal_that_ends_the_command_is_passed_on(good: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
    assert finish(start(["--snapshot", str(good), "--", *command], tmp_path))[0] == -signal.SIGTERM


def test_the_monitor_is_switched_on_and_an_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import os; os.environ['OWN'] = 'ran'\n", encoding="utf-8")
    code = (
        "import os, sys; import envcheck.monitor.activation as a;"
        "print(os.environ['ENVCHECK_MONITOR'], os.environ['OWN'], sorted(a.WAITING), 'torch' in sys.modules)"
    )
    environ = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "own")])}
    env = {**os.environ, **run.monitored(environ)}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.split("\n")[0] == "1 ran ['deepspeed', 'transformers.trainer'] False"


@pytest.mark.parametrize("first", ["import torch; import deepspeed", "import deepspeed", "from deepspeed import initialize"])
def test_an_engine_is_watched_whoever_imports_torch(tmp_path: Path, first: str) -> None:
    (tmp_path / "torch.py").write_text("import envcheck_startup; envcheck_startup.activate()\n", encoding="utf-8")
    source = "import torch\ndef initialize(): return ['engine']\n"
    (tmp_path / "deepspeed.py").write_text(source, encoding="utf-8")
    code = f"{first}; import deepspeed as d; print(d.initialize.__name__, type(d).__name__, d.initialize.__wrapped__()[0])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "ENVCHECK_MONITOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("watched module engine\n", "")


def test_envcheck_is_found_where_it_is_not_installed(tmp_path: Path) -> None:
    env = {**os.environ, **run.monitored({})}
    code = "import envcheck.monitor.activation as a; import importlib.util as u; print(len(a.WAITING), u.find_spec('tests'))"
    bare = str(Path(sys.executable).resolve())  # outside the venv, in which this checkout may be installed
    done = subprocess.run([bare, "-c", code], env=env, text=True, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["2", "None"]


def test_an_error_refuses_with_the_report_and_starts_nothing(bad: Path, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    code, out, err = finish(start(["--snapshot", str(bad), *SETTINGS, "--", "touch", str(mark)], tmp_path))
    assert code == 1
    assert "deepspeed-zero2-last-micro-batch" in out
    assert "the command was not started" in err
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no command to run"),
        (["--", "no-such-program-anywhere"], 4, "not found on PATH"),
        (["--snapshot", "absent.json", "--", "true"], 2, "cannot read the snapshot"),
    ],
)
def test_usage(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    found, _, err = finish(start(arguments, tmp_path))
    assert found == code
    assert words in err


SAY = "import os; print('rank', os.environ['LOCAL_RANK'])"


def launched(count: int, snapshot: Path, tmp_path: Path, more: list[str]) -> list[tuple[int, str, str]]:
    ranks = [
        start(
            ["--snapshot", str(snapshot), *more, "--", sys.executable, "-c", SAY],
            tmp_path, LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_PORT="29500",
        )
        for rank in reversed(range(count))
    ]  # fmt: skip
    return [finish(one) for one in reversed(ranks)]


def test_one_rank_of_a_node_checks_and_all_start(good: Path, tmp_path: Path) -> None:
    found = launched(3, good, tmp_path, [])
    assert [(code, out) for code, out, _ in found] == [(0, f"rank {rank}\n") for rank in range(3)]
    assert ["the command starts" in err for _, _, err in found] == [True, False, False]


def test_all_ranks_of_a_node_refuse_and_one_reports(bad: Path, tmp_path: Path) -> None:
    found = launched(3, bad, tmp_path, SETTINGS)
    assert [code for code, _, _ in found] == [1, 1, 1]
    assert ["deepspeed-zero2-last-micro-batch" in out for _, out, _ in found] == [True, False, False]


def test_a_rank_whose_first_one_never_comes_gives_up(good: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    code, _, err = finish(start(["--snapshot", str(good), "--wait", "1", "--", "true"], tmp_path, LOCAL_RANK="1"))
    assert code == 3
    assert "said nothing within 1 s" in err
    assert time.monotonic() - begin < 30


def test_a_first_rank_that_dies_is_noticed_long_before_the_deadline(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "examiner").write_text(json.dumps({"pid": gone.pid}), encoding="utf-8")
    begin = time.monotonic()
    with pytest.raises(CouldNotLookError, match="without a word"):
        local_ranks.await_word(tmp_path, 600)
    assert time.monotonic() - begin < 20


def test_a_defect_in_the_examination_is_told_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    def broken() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Place(0, "job").decide(broken, 1)
    assert Place(1, "job").decide(lambda: 0, 1) == 4


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "2"}
TORCHRUN = {"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "abc", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_PORT": "1"}
DEEPSPEED = {"LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500", "WORLD_SIZE": "4"}


ALONE = {"SLURM_LOCALID": "0"}  # in an allocation, outside srun


@pytest.mark.parametrize(("environ", "rank"), [(SLURM, 2), (TORCHRUN, 1), (DEEPSPEED, 1), ({}, None), (ALONE, None)])
def test_the_launchers_tell_the_rank(environ: dict[str, str], rank: int | None) -> None:
    assert Place.from_environment(environ).rank == rank


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        Place.from_environment({"LOCAL_RANK": "first"})


@pytest.mark.parametrize("environ", [SLURM, TORCHRUN, DEEPSPEED])
def test_ranks_of_one_start_meet_and_those_of_the_next_do_not(environ: dict[str, str]) -> None:
    other = {**environ, "LOCAL_RANK": "0", "SLURM_LOCALID": "0"}
    assert local_ranks.job_name(environ, "1@5") == local_ranks.job_name(other, "1@5")
    again = {**environ, "SLURM_STEP_ID": "1"} if "SLURM_STEP_ID" in environ else {**environ, "TORCHELASTIC_RESTART_COUNT": "1"}
    assert local_ranks.job_name(environ, "1@5") != local_ranks.job_name(again, "1@6")


def test_the_interpreter_is_that_of_the_command(tmp_path: Path) -> None:
    script = tmp_path / "torchrun"
    for line, found in (
        (f"#!{sys.executable}\n", sys.executable),
        ("#!/bin/sh\n", None),
        ("", None),
        ("#!", None),
        ("#!/no/such/bin/python3.11 -u\n", "/no/such/bin/python3.11"),
    ):
        script.write_text(line, encoding="utf-8")
        assert run.interpreter_of(str(script)) == found
    assert run.interpreter_of("/a/bin/python3.10") == "/a/bin/python3.10"
    assert run.interpreter_of("/no/such/file") is None


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    return parser.parse_args([*argv, "--probe", "--", "true"])


def test_the_probe_is_told_all_settings_that_the_check_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = "deepspeed train.py --deepspeed zero2.json --bf16 True --gradient_accumulation_steps 2"
    for told, accumulation in ([], 2), (["--set", "gradient_accumulation_steps=4"], 4):
        found = probe.choose(run.probe_arguments(parsed("--training-args-cmd", command, *told)))
        assert {(one.stage, one.dtype, one.accumulation, one.label) for one in found} == {(2, "bf16", accumulation, "yours")}


def test_a_clean_probe_is_remembered_for_its_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.json").write_text('{"deepspeed": "ds.json"}', encoding="utf-8")
    paths = set()
    for stage, told in ((2, []), (3, []), (3, ["--set", "gradient_accumulation_steps=4"])):
        (tmp_path / "ds.json").write_text(f'{{"zero_optimization": {{"stage": {stage}}}}}', encoding="utf-8")
        paths.add(Remembered.of(parsed("--training-args", "args.json", *told)).path)
    assert len(paths) == 3
