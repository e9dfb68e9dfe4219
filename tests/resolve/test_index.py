"""Locks from a real index by a real uv: what must be chosen, and that installers accept what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envcheck.cli.main import main
from envcheck.resolve.install import find_uv
from envcheck.resolve.lockfile import read_lock

DATA = Path(__file__).parents[1] / "data" / "resolve"
UV = find_uv() or "uv"
#: Names a folder for real environments of several GiB each; without it VILA is locked and not installed.
ENVIRONMENTS = os.environ.get("ENVCHECK_LOCK_ENVS", "")

pytestmark = [pytest.mark.network, pytest.mark.slow]

FOUR = ["transformers", "torch", "accelerate", "--python-version", "3.11"]
STAGE2 = ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"]
STAGE3 = ["--set", "zero_optimization.stage=3", "--set", "gradient_accumulation_steps=4"]


def lock(place: Path, *arguments: str) -> dict[str, str]:
    assert main(["lock", *arguments, "-o", str(place / "pylock.toml")]) == 0
    return read_lock(str(place / "pylock.toml")).versions()


def call(*argv: str, **environ: str) -> None:
    ended = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environ}, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_zero2_goes_back_to_0175_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    assert lock(tmp_path, "deepspeed<=0.18.3", *FOUR, *STAGE2)["deepspeed"] == "0.17.5"
    still = ["deepspeed<=0.18.3", *FOUR, *STAGE2, "--exclude-newer", "2026-10-01"]  # an index may change between two calls
    assert lock(tmp_path, *still)["deepspeed"] == "0.17.5"
    first = (tmp_path / "pylock.toml").read_bytes()
    lock(tmp_path, *still)
    assert (tmp_path / "pylock.toml").read_bytes() == first


def test_zero3_may_have_what_zero2_may_not(tmp_path: Path) -> None:
    assert lock(tmp_path, "deepspeed<=0.18.3", *FOUR, *STAGE3)["deepspeed"] in ("0.18.2", "0.18.3")


def test_a_pin_to_0176_is_refused_and_a_waiver_lets_it_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "pylock.toml")
    assert main(["lock", "deepspeed==0.17.6", *FOUR, *STAGE2, "-o", target, "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["id"] == "deepspeed-zero2-last-micro-batch"
    assert "deepspeedai/DeepSpeed#7718" in [item["ref"] for item in finding["evidence"]]
    waiver = "deepspeed-zero2-last-micro-batch=tried by a test"
    assert lock(tmp_path, "deepspeed==0.17.6", *FOUR, *STAGE2, "--waive", waiver)["deepspeed"] == "0.17.6"
    assert "tried by a test" in (tmp_path / "pylock.toml").read_text()


def test_an_old_driver_keeps_torch_at_cuda_12(tmp_path: Path) -> None:
    assert lock(tmp_path, "torch", "torchvision", "--driver", "535.104.05", "--python-version", "3.11")["torch"] == "2.10.0"


def test_installers_accept_the_locks(tmp_path: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    wanted = ["requests", "numpy<3", "--python-version", version]
    lock(tmp_path, *wanted)
    assert main(["lock", *wanted, "-o", str(tmp_path / "requirements.txt")]) == 0
    call(UV, "venv", "-q", "--seed", "--python", sys.executable, str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    call(python, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1")
    call(python, "-m", "pip", "install", "-q", "-r", str(tmp_path / "pylock.toml"))
    call(python, "-c", "import requests, numpy")
    call(UV, "venv", "-q", "--seed", "--clear", "--python", sys.executable, str(tmp_path / "venv"))
    call(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", str(tmp_path / "requirements.txt"))
    call(UV, "pip", "sync", "-q", "--python", python, str(tmp_path / "pylock.toml"))
    call(python, "-c", "import requests, numpy")


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "deepspeed"
dynamic = ["version"]
[tool.setuptools]
packages = []
[tool.setuptools.dynamic]
version = { file = "VERSION" }
"""


def test_a_repository_is_judged_by_the_version_that_it_builds_and_a_folder_is_said_not_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "pyproject.toml").write_text(PROJECT)
    (repository / "VERSION").write_text("0.17.6")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "x"]):
        call("git", "-C", str(repository), *words)
    target = str(tmp_path / "pylock.toml")
    rest = ["--python-version", "3.11", *STAGE2, "-o", target, "--format", "json"]
    assert main(["lock", f"deepspeed @ git+{repository.as_uri()}", *rest]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["id"] == "deepspeed-zero2-last-micro-batch"
    assert main(["lock", f"deepspeed @ {repository.as_uri()}", *rest]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["id"] == "locked-version-unknown"
    assert "# not judged: its version is not known before it is built" in Path(target).read_text()


def test_a_repository_that_cannot_be_reached_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "deepspeed @ git+http://127.0.0.1:9/o/r"
    assert main(["lock", asked, "--python-version", "3.11", "-o", str(tmp_path / "pylock.toml")]) == 4
    said = capsys.readouterr().err
    assert "127.0.0.1:9/o/r" in said
    assert "hint: what a repository holds, its version too, is known only from it" in said
    assert not (tmp_path / "pylock.toml").exists()


def test_without_a_network_it_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["lock", "idna", "--python-version", "3.11", "-o", str(tmp_path / "pylock.toml")]) == 4
    assert "may not use the network" in capsys.readouterr().err
    assert not (tmp_path / "pylock.toml").exists()


@pytest.mark.parametrize(
    ("name", "more", "imports"),
    [
        ("vila-1.5", [], "torch, torchvision, transformers, accelerate, peft, deepspeed, gradio, timm, datasets"),
        (
            "nvila", ["--override", "triton==3.1.0", "--override", "protobuf==3.20.*"],
            "torch, torchvision, transformers, accelerate, peft, deepspeed, gradio, timm, datasets, xgrammar",
        ),
    ],
)  # fmt: skip
@pytest.mark.skipif(not ENVIRONMENTS, reason="ENVCHECK_LOCK_ENVS names no folder for environments of several GiB")
def test_vila_is_locked_installed_checked_and_imported(name: str, more: list[str], imports: str) -> None:
    place = Path(ENVIRONMENTS) / name
    place.mkdir(parents=True, exist_ok=True)
    files = ["-r", str(DATA / f"{name}.in"), "-c", str(DATA / f"{name}.constraints"), "--python-version", "3.10"]
    lock(place, *files, *more, "--set", "zero_optimization.stage=3")
    call(UV, "venv", "-q", "--clear", "--python", "3.10", str(place / "venv"))
    python = str(place / "venv" / "bin" / "python")
    call(UV, "pip", "sync", "-q", "--python", python, str(place / "pylock.toml"))
    assert main(["check", "--python", python, "--set", "zero_optimization.stage=3"]) == 0
    call(python, "-c", f"import {imports}")
