"""A small environment, made by uv from wheels made here: what `pip check` and `uv pip check` call fine, and `--deep` names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main
from tests.deep.elves import shared_object
from tests.reproduce.wheels import make_wheel

if TYPE_CHECKING:
    from collections.abc import Callable

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))

WHEELS: dict[str, dict[str, bytes]] = {
    "torch": {
        "torch/__init__.py": b"__version__ = '2.13.0'\n",
        "torch/version.py": b"__version__ = '2.13.0'\ncuda = None\n",
        "torch/lib/libc10.so": shared_object(soname="libc10.so", gives=["_ZN3c105thereE"]),
        "torch/include/torch.h": b"",
    },
    "nvidia-nccl-cu13": {"nvidia/nccl/lib/libnccl.so.2": shared_object(soname="libnccl.so.2", gives=["ncclNew"])},
    "some-model": {"some_model/__init__.py": b"import torch\n", "some_model/layers.py": b"WIDTH = 64\n"},
}
OTHER_NCCL = {"nvidia/nccl/lib/libnccl.so.2": shared_object(soname="libnccl.so.2", gives=["ncclOld"])}
OTHER_TORCH = {
    "some_ops/__init__.py": b"",
    "some_ops/_C.so": shared_object(needed=["libc10.so"], runpath="$ORIGIN/../torch/lib", wants=["_ZN3c104goneE"]),
}


def uv(*words: str) -> None:
    subprocess.run([UV, *words], check=True, capture_output=True, env={**os.environ, "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment without damage."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "env"))
    add(tmp_path / "env", WHEELS)
    return tmp_path / "env"


def add(home: Path, wheels: dict[str, dict[str, bytes]]) -> None:
    version = {"torch": "2.13.0"}
    made = [str(make_wheel(home.parent / "index", name, version.get(name, "1.0"), files).path) for name, files in wheels.items()]
    uv("pip", "install", "--quiet", "--link-mode", "copy", "--python", str(home / "bin" / "python"), "--no-deps", *made)


def site(home: Path) -> Path:
    return next(home.glob("lib/python3*/site-packages"))


def flip(home: Path) -> None:
    path = site(home) / "some_model" / "layers.py"
    path.write_bytes(path.read_bytes().replace(b"64", b"65"))


def left_lock(home: Path) -> None:
    folder = home.parent / "extensions" / "fused_adam"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    os.utime(folder / "lock", (1e9, 1e9))


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "one byte changed": (flip, "record-files-altered", "some_model/layers.py"),
    "one file deleted": (lambda home: (site(home) / "some_model/layers.py").unlink(), "record-files-missing", "layers.py"),
    "overwritten": (lambda home: add(home, {"nvidia-nccl-cu12": OTHER_NCCL}), "record-files-overwritten", "libnccl.so.2"),
    "another torch": (lambda home: add(home, {"some-ops": OTHER_TORCH}), "extension-undefined-symbol", "c10::gone"),
    "stale lock": (left_lock, "extension-cache-lock", "fused_adam"),
}


def deep(home: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    main(["check", "--deep", "--python", str(home), "--format", "json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return [item for item in found if item["severity"] == "error"]


@pytest.mark.parametrize(("damage", "finding", "word"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damage_that_the_installers_do_not_see_is_named(
    damage: Callable[[Path], None], finding: str, word: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deep(home, capsys) == []
    damage(home)
    python = str(home / "bin" / "python")
    for argv in ([sys.executable, "-m", "pip", "--python", python, "check"], [UV, "pip", "check", "--python", python]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    found = deep(home, capsys)
    assert finding in {item["id"] for item in found}
    assert word in json.dumps(found), found
