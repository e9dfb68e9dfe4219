"""The wheel built from the sdist, and the setup script, as a newcomer meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.network]


def run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)), cwd=cwd, env={**os.environ, **(env or {})},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def checkout(folder: Path) -> Path:
    """A copy of what a clone holds."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def uv() -> str:
    found = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    assert Path(found).exists()
    return found


def test_a_wheel_from_the_sdist_works_with_its_matrices_inside(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, checkout(tmp_path / "src"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = dist.glob("*.whl")
    run(uv(), "venv", "--python", sys.executable, tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    done = run(uv(), "pip", "install", "--python", python, wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(tmp_path / "venv" / "bin" / "envcheck", "check", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    matrix = json.loads(done.stdout)["matrix"]
    assert matrix["origin"] == "packaged"
    assert matrix["rules"] > 100
    done = run(tmp_path / "venv" / "bin" / "envcheck", "matrix", "lint", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_setup_script_is_idempotent_and_survives_being_killed(tmp_path: Path) -> None:
    source = checkout(tmp_path / "src")
    script = ["bash", "environment_setup.sh"]
    child = subprocess.Popen(script, cwd=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(1.0)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    first = run(*script, cwd=source)
    assert first.returncode == 0, first.stderr
    assert "verdict: ok" in first.stdout
    stamp = (source / ".venv" / ".envcheck" / "stamp").stat().st_mtime_ns
    second = run(*script, cwd=source)
    assert second.returncode == 0
    assert "up to date" in second.stderr
    assert (source / ".venv" / ".envcheck" / "stamp").stat().st_mtime_ns == stamp


def test_the_setup_script_installs_uv_where_there_is_none(tmp_path: Path) -> None:
    source = checkout(tmp_path / "src")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "rm", "env", "uname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    done = run("bash", "environment_setup.sh", cwd=source, env={"PATH": str(tools), "PYTHON": str(base)})
    assert done.returncode == 0, done.stderr
    assert "installing uv" in done.stderr


@pytest.mark.parametrize(("argv", "env", "code"), [(["--nonsense"], {}, 2), ([], {"PYTHON": "/bin/false"}, 4)])
def test_the_setup_script_says_what_is_wrong(argv: list[str], env: dict[str, str], code: int, tmp_path: Path) -> None:
    done = run("bash", "environment_setup.sh", *argv, cwd=checkout(tmp_path), env=env)
    assert done.returncode == code
    assert "environment_setup: " in done.stderr


def test_the_setup_script_passes_shellcheck() -> None:
    done = run(Path(sys.executable).with_name("shellcheck"), "environment_setup.sh", ".ci/run", "tests/run.sh", cwd=ROOT)
    assert done.returncode == 0, done.stdout
