"""Real environments, each with one defect that `pip check` and `uv pip check` do not see.

`ENVCHECK_DEEP_ENVS` names a folder for them; what is not there is made there with uv (about 3 GB). Without it they are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.network]

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))

STACK = ("pip", "torch==2.13.0", "numpy", "transformers==4.57.6", "accelerate==1.12.0", "peft==0.18.1", "ninja")
NCCL = ("pip", "nvidia-nccl-cu12==2.27.5", "nvidia-nccl-cu13==2.32.3")
TEXT = ("pip", "torch==2.13.0", "numpy", "torchtext==0.18.0")
DEEPSPEED = ("pip", "torch==2.13.0", "numpy<2", "setuptools", "wheel", "ninja")


def environment(name: str, *requirements: str, then: tuple[str, ...] = ()) -> Path:
    """The folder of an environment with these requirements; `then` is installed last, built with what is there."""
    folder = os.environ.get("ENVCHECK_DEEP_ENVS")
    if not folder:
        pytest.skip("ENVCHECK_DEEP_ENVS names no folder for real environments")
    home = Path(folder) / name
    if not (home / "ready").exists():
        env = {**os.environ, "DS_BUILD_OPS": "0"}
        if not env.get("UV_FIND_LINKS"):
            env.setdefault("UV_TORCH_BACKEND", "cpu")
        install = [UV, "pip", "install", "--quiet", "--link-mode", "copy", "--python", str(home / "bin" / "python")]
        steps = [[UV, "venv", "--quiet", "--clear", "--python", "3.11", str(home)], [*install, *requirements]]
        steps += [[*install, "--no-build-isolation", *then]] if then else []
        for step in steps:
            subprocess.run(step, check=True, env=env, timeout=1200)
        (home / "ready").touch()
    return home


def site(home: Path) -> Path:
    return next(home.glob("lib/python3*/site-packages"))


def deep(home: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The findings of `--deep` that are more than info; the exit code must go with them."""
    capsys.readouterr()
    code = main(["check", "--deep", "--python", str(home), "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report["verdict"] == "error" else 0)
    return [item for item in report["findings"] if item["severity"] != "info"]


def assert_installers_see_nothing(home: Path) -> None:
    python = str(home / "bin" / "python")
    for argv in ([python, "-m", "pip", "check"], [UV, "pip", "check", "--python", python]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def changed(path: Path, change: Callable[[bytes], bytes] | None) -> Iterator[None]:
    """The file with another content, or without it; put back at the end."""
    kept = path.read_bytes()
    try:
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(kept))
        yield
    finally:
        path.write_bytes(kept)


def flip(content: bytes) -> bytes:
    """The content with one bit of its middle byte turned."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DEFECTS = {
    "byte": ("transformers/models/llama/modeling_llama.py", flip, "record-files-altered", "transformers"),
    "byte in a library": ("torch/lib/libtorch_cpu.so", flip, "record-files-altered", "torch"),
    "deleted": ("accelerate/utils/fsdp_utils.py", None, "record-files-missing", "accelerate"),
}


@pytest.mark.parametrize(("name", "change", "finding", "package"), DEFECTS.values(), ids=DEFECTS.keys())
def test_one_file(
    name: str, change: Callable[[bytes], bytes] | None, finding: str, package: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = environment("stack", *STACK)
    assert deep(home, capsys) == []
    with changed(site(home) / name, change):
        assert_installers_see_nothing(home)
        found = {item["id"]: item for item in deep(home, capsys)}
    assert package in found[finding]["subjects"]
    assert name in found[finding]["because"]


def test_nccl_of_two_cuda_majors(capsys: pytest.CaptureFixture[str]) -> None:
    home = environment("nccl", *NCCL)
    assert_installers_see_nothing(home)
    found = [item for item in deep(home, capsys) if item["id"] == "record-files-overwritten"]
    # An installer that unpacks in parallel may leave a file of each: then each is overwritten by the other.
    assert len(found) in (1, 2)
    assert all(set(item["subjects"]) == {"nvidia-nccl-cu12", "nvidia-nccl-cu13"} for item in found)
    assert sum("nvidia/nccl/lib/libnccl.so.2" in item["because"] for item in found) == 1


def test_an_extension_built_for_another_torch(capsys: pytest.CaptureFixture[str]) -> None:
    home = environment("text", *TEXT)
    assert_installers_see_nothing(home)
    (found,) = [item for item in deep(home, capsys) if item["id"] == "extension-undefined-symbol"]
    assert found["subjects"] == ["torchtext", "torch"]
    assert found["certain"]


def test_a_stale_lock(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = environment("stack", *STACK)
    folder = tmp_path / "deepspeed_shm_comm"
    folder.mkdir()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert deep(home, capsys) == []
    (folder / "lock").touch()
    os.utime(folder / "lock", (1e9, 1e9))
    assert_installers_see_nothing(home)
    assert [item["id"] for item in deep(home, capsys)] == ["extension-cache-lock"]


def test_a_deepspeed_that_does_not_import(capsys: pytest.CaptureFixture[str]) -> None:
    home = environment("deepspeed-0.14.0", *DEEPSPEED, then=("deepspeed==0.14.0",))
    assert_installers_see_nothing(home)
    (found,) = [item for item in deep(home, capsys) if item["id"] == "import-name-missing"]
    assert found["subjects"] == ["deepspeed", "torch"]
    assert found["certain"]
    assert "`log`" in found["title"]
    really = main(["check", "--import", "--python", str(home), "--format", "json"])
    imported = {item["id"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert really == 1
    assert "cannot import name 'log'" in imported["import-fails"]["because"][0]
