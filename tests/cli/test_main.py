from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envcheck.cli.main import main, split

if TYPE_CHECKING:
    from pathlib import Path

BAD = {"packages": {"deepspeed": "0.17.6"}}
ZERO2 = ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"]


@pytest.fixture
def snapshot(tmp_path: Path) -> str:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(BAD))
    return str(path)


def run_child(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "envcheck", *argv],
        capture_output=True, text=True, env={**os.environ, **env}, check=False,
    )  # fmt: skip


def test_a_bare_call_checks() -> None:
    assert split([]) == ["check"]
    assert split(["--python", "x"]) == ["check", "--python", "x"]
    assert split(["matrix", "lint"]) == ["matrix", "lint"]
    assert split(["--version"]) == ["--version"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ([], 0),
        (ZERO2, 1),
        ([*ZERO2, "--fail-on", "never"], 0),
        (["--fail-on", "warning"], 1),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "markdown", "sarif"])
def test_exit_codes_are_the_same_in_every_format(
    argv: list[str], code: int, form: str, snapshot: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["check", "--snapshot", snapshot, "--format", form, *argv]) == code
    assert "deepspeed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"packages": 3}', b"[" * 200_000, b"1e999999",
        b'{"schema": "envcheck.snapshot/9"}', b'{"packages": {"torch": null, "x": [1]}}', b'{"packages": {"a": "1"}',
    ],
)  # fmt: skip
def test_a_bad_snapshot_is_a_usage_error(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    assert main(["check", "--snapshot", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("envcheck: ")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("option", ["--ds-config", "--training-args"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\x80", b'{"a": ' * 50_000])
def test_a_bad_settings_file_is_a_usage_error(
    option: str, content: bytes, snapshot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "c.json"
    path.write_bytes(content)
    assert main(["check", "--snapshot", snapshot, option, str(path)]) == 2
    assert "c.json" in capsys.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_no_snapshot_crashes_the_check(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    assert main(["check", "--snapshot", str(path), "--format", "json"]) in (0, 1, 2)
    capsys.readouterr()


NAMES = st.sampled_from(["torch", "deepspeed", "Flash_Attn", "", "../x", "x" * 300, "numpy\n"])
VERSIONS = st.sampled_from(["2.3.0+cu121", "0.9.5", "2.5.0a0+nv", "1!2", "nope"])
VALUES = st.text(max_size=10) | VERSIONS | st.integers() | st.none()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packages=st.dictionaries(NAMES, VALUES, max_size=5), driver=VALUES, complete=st.booleans() | st.text(max_size=3))
def test_no_package_set_crashes_the_check(
    packages: dict[str, object], driver: object, complete: object, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"packages": packages, "driver": driver, "complete": complete}))
    assert main(["check", "--snapshot", str(path), "--format", "json", *ZERO2]) in (0, 1, 2)
    capsys.readouterr()


@pytest.mark.parametrize("argv", [["--set", "novalue"], ["--snapshot", "/no/such"], ["--matrices", "/no/such"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *argv]) == 2
    assert capsys.readouterr().err.startswith("envcheck: ")


def test_an_interpreter_that_is_none_could_not_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--python", "/nonexistent/python"]) == 3
    assert "hint:" in capsys.readouterr().err


def test_a_deepspeed_file_from_standard_input_is_read_once(snapshot: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "envcheck", "check", "--snapshot", snapshot, "--ds-config", "-", "--format", "json"],
        input='{"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 4}',
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [item["id"] for item in json.loads(done.stdout)["findings"] if item["severity"] == "error"] == [
        "deepspeed-zero2-last-micro-batch"
    ]


def test_output_replaces_the_file_whole(snapshot: str, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    assert main(["check", "--snapshot", snapshot, "--format", "json", "--output", str(target)]) == 0
    assert json.loads(target.read_text())["schema"] == "envcheck.report/1"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_output_that_cannot_be_written(snapshot: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--snapshot", snapshot, "--output", f"{snapshot}/x"]) == 2
    assert "cannot write the report" in capsys.readouterr().err


def test_the_check_imports_neither_torch_nor_rich() -> None:
    code = (
        "import sys\nfrom envcheck.cli.main import main\nmain(['check'])\n"
        "heavy = {'torch', 'rich', 'transformers', 'deepspeed', 'pip', 'pip_api', 'asyncio'}\n"
        "print(sorted(sys.modules.keys() & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("env", [{"HOME": "/proc/nowhere"}, {"HOME": ""}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_odd_surroundings_change_nothing(env: dict[str, str], snapshot: str) -> None:
    done = run_child("check", "--snapshot", snapshot, *ZERO2, **env)
    assert done.returncode == 1, done.stderr
    assert "deepspeed-zero2-last-micro-batch" in done.stdout


def test_a_closed_pipe_is_no_traceback(snapshot: str) -> None:
    command = f"{sys.executable} -m envcheck check --snapshot {snapshot} | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_matrix_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "show", "deepspeed-zero2-last-micro-batch"]) == 0
    assert "deepspeedai/DeepSpeed#7718" in capsys.readouterr().out
    assert main(["matrix", "show", "deepspeed-zero2-last-microbatch"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["matrix", "list", "--package", "deepspeed", "--status", "bad"]) == 0
    assert "deepspeed-0183-divides-twice" in capsys.readouterr().out
    assert main(["matrix", "--format", "json", "stats"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] > 100
    assert main(["matrix", "lint"]) == 0


def test_matrix_lint_names_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.toml").write_text("[[rule]]\nid = 3\n")
    assert main(["matrix", "--matrices", str(tmp_path), "lint"]) == 1
    assert "rules/a.toml" in capsys.readouterr().out
