"""Interpreters with a real DeepSpeed, for the slow tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    if not (home / "ready").exists() and not _usable(python):
        make(home, python, version)
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
    uv = installer()
    env = {**os.environ, "DS_BUILD_OPS": "0"}
    if not env.get("UV_FIND_LINKS"):
        env.setdefault("UV_TORCH_BACKEND", "cpu")
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", "3.11", str(home)],
        [*install, *WITH],
        [*install, "--no-build-isolation", f"deepspeed=={version}"],
    ):
        subprocess.run(command, check=True, env=env, timeout=1200)
    (home / "ready").touch()
