from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envcheck.checks.deep.caches import STILL, check_caches, include_folder
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


def test_a_lock_of_a_running_build_is_only_a_warning(tmp_path: Path) -> None:
    (build(tmp_path, own(tmp_path)) / "lock").touch()
    (found,) = outcomes(tmp_path, quiet=5)
    assert isinstance(found, Finding)
    assert (found.severity, found.certain) == (Severity.WARNING, False)


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
