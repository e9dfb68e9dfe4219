from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from envcheck.checks.deep.cache_locks import STILL, held, stale_locks
from envcheck.checks.deep.caches import check_caches, include_folder
from envcheck.findings import Finding, Severity
from tests.deep.trees import install, site_of, target

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.checks.context import Outcome

#: As torch 2.13 writes it.
NINJA = """ninja_required_version = 1.3
cxx = c++

common_cflags = -DTORCH_EXTENSION_NAME=deepspeed_shm_comm -DTORCH_API_INCLUDE_EXTENSION_H \
-isystem {torch}/include -isystem {torch}/include/torch/csrc/api/include -isystem /usr/include/python3.11 -fPIC -std=c++17
"""


def outcomes(tmp_path: Path, *, quiet: float) -> list[Outcome]:
    site = site_of(tmp_path)
    install(site, "torch", "2.13.0", {"torch/__init__.py": "", "torch/include/torch.h": ""})
    variables = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}
    newest = max((path.stat().st_mtime for path in (tmp_path / "cache").rglob("*")), default=0.0)
    return list(check_caches(target(site, variables=variables), now=newest + quiet))


def build(tmp_path: Path, torch: str, folder: str = "deepspeed_shm_comm") -> Path:
    place = tmp_path / "cache" / folder
    place.mkdir(parents=True)
    (place / "build.ninja").write_text(NINJA.format(torch=torch))
    return place


def own(tmp_path: Path) -> str:
    return str(site_of(tmp_path) / "torch")


def test_a_build_for_this_torch_is_clean(tmp_path: Path) -> None:
    build(tmp_path, own(tmp_path))
    assert outcomes(tmp_path, quiet=1e6) == []


def test_no_cache_is_clean(tmp_path: Path) -> None:
    assert outcomes(tmp_path, quiet=0) == []


def test_a_lock_that_nobody_holds(tmp_path: Path) -> None:
    (build(tmp_path, own(tmp_path)) / "lock").touch()
    (found,) = outcomes(tmp_path, quiet=STILL + 1)
    assert isinstance(found, Finding)
    assert (found.id, found.severity, found.certain) == ("extension-cache-lock", Severity.ERROR, True)


def test_a_young_lock_that_nobody_here_holds_may_be_a_build_on_another_machine(tmp_path: Path) -> None:
    (build(tmp_path, own(tmp_path)) / "lock").touch()
    (found,) = outcomes(tmp_path, quiet=5)
    assert isinstance(found, Finding)
    assert (found.severity, found.certain) == (Severity.WARNING, False)


#: What torch's FileBaton does: the file made with O_EXCL stays open until the build ends.
BATON = """import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)
print("held", flush=True)
sys.stdin.read()
os.close(descriptor)
os.remove(sys.argv[1])
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc to see open files in")  # noqa: PTH112
def test_a_lock_is_a_build_while_it_is_held_and_left_over_once_that_was_killed(tmp_path: Path) -> None:
    path = build(tmp_path, own(tmp_path)) / "lock"
    with subprocess.Popen([sys.executable, "-c", BATON, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert held(str(path))
        assert outcomes(tmp_path, quiet=1e6) == []
        child.kill()
    assert not held(str(path))
    (found,) = outcomes(tmp_path, quiet=1e6)
    assert isinstance(found, Finding)
    assert found.id == "extension-cache-lock"


def test_without_proc_only_the_time_decides(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert not held(str(tmp_path / "lock"), proc=str(tmp_path / "none"))


@pytest.mark.parametrize("quiet", [5, STILL + 1])
def test_the_probe_and_the_deep_check_say_the_same_of_a_lock(quiet: float, tmp_path: Path) -> None:
    (build(tmp_path, own(tmp_path)) / "lock").touch()
    newest = max(path.stat().st_mtime for path in (tmp_path / "cache").rglob("*"))
    told = stale_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}, now=newest + quiet)
    assert list(told) == outcomes(tmp_path, quiet=quiet)
    assert len(told) == 1


def test_no_cache_holds_no_lock(tmp_path: Path) -> None:
    assert stale_locks({"XDG_CACHE_HOME": str(tmp_path)}) == stale_locks({}) == ()


def test_a_build_for_another_torch(tmp_path: Path) -> None:
    build(tmp_path, "/somewhere/else/torch")
    (found,) = outcomes(tmp_path, quiet=0)
    assert isinstance(found, Finding)
    assert (found.id, found.certain) == ("extension-cache-stale", True)


def test_builds_of_other_pythons_are_not_this_environments_business(tmp_path: Path) -> None:
    build(tmp_path, "/somewhere/else/torch", "py27_cu80/fused_adam")
    assert outcomes(tmp_path, quiet=0) == []


def test_the_default_place_is_the_users_cache(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    place = tmp_path / "home" / ".cache" / "torch_extensions" / "py310_cpu" / "op"
    place.mkdir(parents=True)
    (place / "lock").touch()
    there = target(site, variables={"HOME": str(tmp_path / "home")}, version="3.10.4")
    (found,) = check_caches(there, now=os.stat(place).st_mtime + STILL + 1)  # noqa: PTH116 - one number
    assert isinstance(found, Finding)


def test_headers_elsewhere_in_a_build_file_are_no_torch() -> None:
    assert include_folder("cflags = -isystem /usr/include -I/x/torch/include_old") is None
