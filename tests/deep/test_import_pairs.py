"""The static import check on the real wheels of `import-pairs.toml`.

`ENVCHECK_IMPORT_WHEELS` names a folder for unpacked releases, `peft==0.16.0` and so on; what is not there is installed there with
uv (2 GB with the base). Without it the tests are skipped. `ENVCHECK_IMPORT_ROWS=sample` takes only the rows marked `sample`, and
skips where the index cannot be reached: what CI does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli

from envcheck.checks.deep.imports import Clash, entries, find_clashes, is_optional
from envcheck.checks.deep.static.world import World
from envcheck.facts.distributions import read_installed
from envcheck.facts.interpreter import other
from envcheck.facts.metadata import normalised
from envcheck.facts.model import Environment
from envcheck.resolve.uv import NETWORK, OFFLINE, environment
from tests.deep.trees import matrix

pytestmark = [pytest.mark.slow, pytest.mark.network]

SAMPLE = os.environ.get("ENVCHECK_IMPORT_ROWS") == "sample"
ALL = tomli.loads(Path(__file__).with_name("import-pairs.toml").read_text())
PAIRS = {kind: [row for row in rows if row.get("sample") or not SAMPLE] for kind, rows in ALL.items()}
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
BASE = (
    "torch==2.13.0", "numpy", "transformers==4.57.6", "accelerate==1.12.0", "peft==0.18.1", "datasets", "pydantic", "tyro",
    "rich", "hjson", "py-cpuinfo", "psutil", "einops", "ninja", "setuptools", "wheel", "packaging", "tqdm", "msgpack",
)  # fmt: skip


def folder() -> Path:
    named = os.environ.get("ENVCHECK_IMPORT_WHEELS")
    if not named:
        pytest.skip("ENVCHECK_IMPORT_WHEELS names no folder for unpacked releases")
    return Path(named)


def base() -> Path:
    """An interpreter with everything that stands behind the pairs."""
    home = folder() / "base"
    if not (home / "ready").exists():
        for step in (
            [UV, "venv", "--quiet", "--clear", "--python", "3.11", str(home)],
            [UV, "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), *BASE],
        ):
            install(step)
        (home / "ready").touch()
    return home / "bin" / "python"


def install(step: list[str]) -> None:
    """Run uv; a sample is skipped where the index cannot be reached."""
    env = {**environment(), "DS_BUILD_OPS": "0"}
    if not env.get("UV_FIND_LINKS"):
        env.setdefault("UV_TORCH_BACKEND", "cpu")
    done = subprocess.run(step, capture_output=True, text=True, check=False, env=env, timeout=1200)
    if done.returncode and SAMPLE and (NETWORK.search(done.stderr) or any(word in done.stderr for word in OFFLINE)):
        pytest.skip(f"the index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def unpacked(release: str) -> str:
    """The folder of one release without its requirements."""
    place = folder() / release
    if not place.exists():
        step = [UV, "pip", "install", "--quiet", "--python", str(base()), "--no-deps", "--no-build-isolation"]
        made = place.with_name(f".{release}")
        install([*step, "--target", str(made), release])
        made.rename(place)
    return str(place)


def clashes(row: dict[str, Any]) -> list[Clash]:
    """What the check says of the packages of a row."""
    interpreter = other(str(base()))
    path = (*(unpacked(release) for release in row["with"]), *interpreter.path)
    world = World(Environment(packages=read_installed(path).packages, complete=True), path, interpreter.version)
    table = matrix().table("watched_imports")
    named = {release.partition("==")[0] for release in row["with"]}
    wanted = [entry for entry in entries(world, table) if normalised(entry.module.partition(".")[0]) in named]
    found = find_clashes(world, wanted, frozenset(table["follow"]))
    return [clash for clash in found if not (clash.entry.lazy and is_optional(world, clash))]


@pytest.mark.parametrize("row", PAIRS["clash"], ids=["+".join(row["with"]) for row in PAIRS["clash"]])
def test_a_clash_is_named(row: dict[str, Any]) -> None:
    found = {clash.name or clash.module for clash in clashes(row) if not clash.likely}
    assert set(row["names"]) <= found


@pytest.mark.parametrize("row", PAIRS["good"], ids=["+".join(row["with"]) for row in PAIRS["good"]])
def test_no_false_alarm(row: dict[str, Any]) -> None:
    assert clashes(row) == []


@pytest.mark.parametrize("row", PAIRS["clash"][::4] + PAIRS["good"][::4], ids=lambda row: "+".join(row["with"]))
def test_a_sample_is_really_so(row: dict[str, Any]) -> None:
    entry = row.get("entry", row["with"][0].partition("==")[0])
    env = {**os.environ, "PYTHONPATH": ":".join(unpacked(release) for release in row["with"])}
    done = subprocess.run([base(), "-c", f"import {entry}"], env=env, capture_output=True, text=True, check=False, timeout=300)
    last = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    assert bool(done.returncode) == ("names" in row)
    if "names" in row:
        assert any(f"'{name}'" in last for name in row["names"])
