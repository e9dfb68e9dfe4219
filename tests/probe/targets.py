"""Interpreters with a real DeepSpeed, for the slow tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Its environment is made whole; those of other releases hold DeepSpeed alone and see the rest there, compiled once.
BASE = "0.19.8"

#: What stands beside DeepSpeed in these environments.
WITH = ("torch==2.13.0", "transformers==4.57.6", "accelerate==1.12.0", "numpy", "setuptools", "wheel")


def target(version: str) -> str:
    """The interpreter of an environment with that DeepSpeed.

    `ENVCHECK_PROBE_ENVS` names a folder with environments `ds-<version>`; what is not there is made there with uv. Without
    the variable the test is skipped: an environment takes a gigabyte.
    """
    folder = os.environ.get("ENVCHECK_PROBE_ENVS")
    if not folder:
        pytest.skip("ENVCHECK_PROBE_ENVS names no folder for environments with a real DeepSpeed")
    home = Path(folder) / f"ds-{version}"
    python = home / "bin" / "python"
    if (home / "ready").exists() or _usable(python):
        return str(python)
    if version == BASE:
        make(home, python, version)
    else:
        make_above(home, python, version, Path(target(BASE)))
    return str(python)


def _usable(python: Path) -> bool:
    return python.exists() and any(python.parent.parent.glob("lib/python*/site-packages/deepspeed"))


def laid_over(version: str, packages: list[str]) -> tuple[str, Path]:
    """The interpreter of that environment, and a folder with exactly these releases to be put before it on PYTHONPATH.

    The folder is made in `ENVCHECK_PROBE_ENVS` as environments are, in seconds: torch is not among them.
    """
    python = target(version)
    name = hashlib.sha256("\n".join([version, *packages]).encode()).hexdigest()[:12]
    folder = Path(os.environ["ENVCHECK_PROBE_ENVS"]) / f"over-{name}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        install = [installer(), "pip", "install", "--quiet", "--python", python, "--target", str(folder), "--no-deps"]
        env = {**os.environ, "DS_BUILD_OPS": "0"}
        subprocess.run([*install, "--no-build-isolation", *packages], check=True, env=env, timeout=600)
        (folder / "ready").touch()
    return python, folder


def installer() -> str:
    """Where uv is."""
    return shutil.which("uv") or str(Path(sys.executable).parent / "uv")


def make(home: Path, python: Path, version: str) -> None:
    """Make the environment; a CPU build of torch comes from UV_FIND_LINKS where that is set, else from its CPU index."""
    _uv("venv", "--quiet", "--clear", "--python", "3.11", str(home))
    _uv("pip", "install", "--quiet", "--python", str(python), *WITH)
    _uv("pip", "install", "--quiet", "--python", str(python), "--no-build-isolation", f"deepspeed=={version}")
    (home / "ready").touch()


def make_above(home: Path, python: Path, version: str, base: Path) -> None:
    """Make an environment that holds this DeepSpeed and sees what another one holds."""
    _uv("venv", "--quiet", "--clear", "--python", str(base), str(home))
    see(home, base)
    _uv("pip", "install", "--quiet", "--python", str(python), "--no-build-isolation", "--no-deps", f"deepspeed=={version}")
    (home / "ready").touch()


def see(home: Path, base: Path) -> None:
    """Have the environment see the packages of another one, and of those that that one sees, behind its own."""
    (site,) = home.glob("lib/python*/site-packages")
    (below,) = base.parent.parent.glob("lib/python*/site-packages")
    (site / "below.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n", encoding="utf-8")


def _uv(*argv: str) -> None:
    env = {**os.environ, "DS_BUILD_OPS": "0"}
    if not env.get("UV_FIND_LINKS"):
        env.setdefault("UV_TORCH_BACKEND", "cpu")
    subprocess.run([installer(), *argv], check=True, env=env, timeout=1200)
