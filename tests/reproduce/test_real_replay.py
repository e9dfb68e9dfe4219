"""Real releases from the index: locked, installed by the script and in process, killed at random moments, told apart.

`ENVCHECK_KILLS` is how often each of the two is killed (default 10).
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envcheck.cli.main import main
from tests.reproduce.test_replay import kill_at, tree

pytestmark = [pytest.mark.slow, pytest.mark.network]

ASKED = ("numpy", "packaging", "requests", "tokenizers", "safetensors", "psutil", "pyyaml", "einops", "sentencepiece")
KILLS = int(os.environ.get("ENVCHECK_KILLS", "10"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lock of real releases and its script."""
    place = tmp_path_factory.mktemp("real")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for words in (["lock", *ASKED, "-o", "pylock.toml"], ["setup", "write", "--lock", "pylock.toml", "-o", "s.sh"]):
        done = subprocess.run(
            [sys.executable, "-m", "envcheck", *words], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return place


def command(how: str) -> list[str]:
    if how == "script":
        return ["bash", "s.sh", "--no-check"]
    return [sys.executable, "-m", "envcheck", "setup", "run", "--lock", "pylock.toml"]


@pytest.mark.long
@pytest.mark.parametrize("how", ["script", "run"])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("UV_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.setenv("PYTHON", sys.executable)
    shutil.rmtree(".venv", ignore_errors=True)
    begin = time.monotonic()
    subprocess.run(command(how), check=True, capture_output=True)
    needed = time.monotonic() - begin
    whole = tree(folder / ".venv")
    assert len(whole) > 1000
    before = {path: path.stat().st_mtime_ns for path in (folder / ".venv").rglob("*.py")}
    subprocess.run(command(how), check=True, capture_output=True)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / ".venv").rglob("*.py")}, "a second run changes nothing"
    (folder / ".venv").rename(folder / f"undisturbed-{how}")
    dice = random.Random(how)  # noqa: S311 - moments, not secrets
    cut_off = completed = 0
    while completed < KILLS:
        shutil.rmtree(".venv", ignore_errors=True)
        for _ in range(dice.randint(1, 2)):
            kill_at(command(how), dice.uniform(0, needed), group=dice.random() < 0.5)
            completed += 1
        cut_off += not (folder / ".venv" / ".envcheck" / "stamp").exists()
        done = subprocess.run(command(how), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert tree(folder / ".venv") == whole
        undisturbed = f"undisturbed-{how}/.envcheck/manifest.json"
        assert main(["setup", "verify", "--manifest", undisturbed, "--python", ".venv"]) == 0
        needed = max(1.0, needed * 0.9)  # what is downloaded already makes later runs shorter
    assert cut_off * 3 >= KILLS, "too few runs were cut off: the test looked at little"
    capsys.readouterr()
    site = next((folder / ".venv").glob("lib/python3*/site-packages"))
    file = site / "numpy" / "version.py"
    content = file.read_bytes()
    file.unlink()  # it may be a hard link into uv's cache
    file.write_bytes(content + b"#")
    assert main(["setup", "verify", "--manifest", undisturbed, "--python", ".venv"]) == 1
    assert "numpy/version.py" in capsys.readouterr().out
