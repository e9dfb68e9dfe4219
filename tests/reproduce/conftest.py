from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.reproduce.wheels import Wheel, pylock, tiny_index


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """uv on PATH, with a cache of its own and without a network."""
    found = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    assert Path(found).is_file()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{Path(found).parent}:/usr/bin:/bin")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "PIP_FIND_LINKS", "PYTHON", "ENVCHECK_VENV", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def wheels(tmp_path: Path) -> list[Wheel]:
    return tiny_index(tmp_path / "index", 4, 6)


@pytest.fixture
def project(tmp_path: Path, wheels: list[Wheel], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lock over the wheels, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pylock.toml").write_text(pylock(wheels))
    monkeypatch.chdir(folder)
    return folder
