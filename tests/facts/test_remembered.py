from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envcheck.facts import distributions
from envcheck.facts.distributions import Installed, read_installed
from tests.facts.test_distributions import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envcheck.facts.model import Distribution

OLD = time.time() - 100


def settle(folder: Path) -> None:
    """What was written counts as written long ago; the change of that itself is hidden by the clock below."""
    for path in folder.rglob("*"):
        os.utime(path, (OLD, OLD))


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands a minute later, so that nothing was changed a moment ago."""
    now = time.time
    monkeypatch.setattr("envcheck.facts.remembered.time.time", lambda: now() + 60)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    put(folder, "torch-2.7.1", INSTALLER="uv\n")
    put(folder, "foo-1", "Name: foo\nVersion: 1\nRequires-Dist: torch>=2 ; extra == 'x'\nProvides-Extra: x\n")
    put(folder, "here-1", direct_url__json='{"url": "file:///here", "dir_info": {"editable": true}}')
    source = {"url": "https://e.org/vcs.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}
    put(folder, "vcs-1", direct_url__json=json.dumps(source))
    put(folder, "bad-1", "")
    put(folder, "~ip-23")
    return folder


def again(site: Path, cache: Path, *, reads: bool) -> Installed:
    """Read with the cache; whether a folder's metadata was read is as said."""
    seen: list[str] = []
    original = distributions._distributions

    def noted(folder: distributions._Folder) -> Iterator[Distribution]:
        seen.append(folder.path)
        return original(folder)

    patch = pytest.MonkeyPatch()
    patch.setattr(distributions, "_distributions", noted)
    try:
        found = read_installed([str(site)], {"ENVCHECK_CACHE": str(cache)})
    finally:
        patch.undo()
    assert bool(seen) is reads
    assert found == read_installed([str(site)])
    return found


def test_what_did_not_change_is_not_read_again(site: Path, tmp_path: Path) -> None:
    first = again(site, tmp_path / "cache", reads=True)
    assert again(site, tmp_path / "cache", reads=False) == first
    assert first.packages["torch"].installer == "uv"
    assert first.packages["here"].editable
    assert first.packages["vcs"].commit == "0123abc"
    assert {problem.kind for problem in first.problems} == {"broken", "leftover"}


CHANGES: dict[str, Callable[[Path], object]] = {
    "another version in the same number of bytes": lambda site: (site / "foo-1.dist-info" / "METADATA").write_text(
        "Name: foo\nVersion: 2\nRequires-Dist: torch>=2 ; extra == 'x'\nProvides-Extra: x\n"
    ),
    "a distribution more": lambda site: put(site, "new-3"),
    "a distribution less": lambda site: (site / "foo-1.dist-info").rename(site / "foo-1.gone"),
    "its metadata removed": lambda site: (site / "foo-1.dist-info" / "METADATA").unlink(),
    "an url in place": lambda site: (site / "here-1.dist-info" / "direct_url.json").write_text('{"url": "file:///hers"}'),
    "an url more": lambda site: (site / "foo-1.dist-info" / "direct_url.json").write_text('{"url": "file:///x"}'),
    "another installer": lambda site: (site / "torch-2.7.1.dist-info" / "INSTALLER").write_text("pi\n"),
    "no installer": lambda site: (site / "torch-2.7.1.dist-info" / "INSTALLER").unlink(),
    "the old form instead": lambda site: (site / "foo-1.dist-info" / "METADATA").rename(site / "foo-1.dist-info" / "PKG-INFO"),
    "a hook": lambda site: (site / "__editable__.foo-1.pth").write_text(""),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_read_again(what: str, site: Path, tmp_path: Path) -> None:
    again(site, tmp_path / "cache", reads=True)
    CHANGES[what](site)
    again(site, tmp_path / "cache", reads=True)
    again(site, tmp_path / "cache", reads=False)


def test_what_was_not_there_is_not_looked_for_again(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = again(site, tmp_path / "cache", reads=True)
    asked: list[str] = []
    original = os.stat

    def noted(path: str) -> os.stat_result:
        asked.append(path)
        return original(path)

    monkeypatch.setattr(os, "stat", noted)
    assert read_installed([str(site)], {"ENVCHECK_CACHE": str(tmp_path / "cache")}) == first
    assert {path for path in asked if "foo-1" in path} == {
        f"{site}/foo-1.dist-info", f"{site}/foo-1.dist-info/METADATA",
    }  # fmt: skip


def test_a_change_that_keeps_size_and_time_is_seen(site: Path, tmp_path: Path) -> None:
    file = site / "foo-1.dist-info" / "METADATA"
    settle(site)
    again(site, tmp_path / "cache", reads=True)
    file.write_text(file.read_text().replace("Version: 1", "Version: 9"))
    settle(site)
    assert again(site, tmp_path / "cache", reads=True).packages["foo"].version == "9"


def test_what_changed_a_moment_ago_is_not_remembered(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.facts.remembered.time.time", lambda: (site / "foo-1.dist-info").stat().st_ctime + 0.5)
    again(site, tmp_path / "cache", reads=True)
    again(site, tmp_path / "cache", reads=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.one_of(st.binary(max_size=60), st.integers(0, 900), st.sampled_from([b"[]", b"3", b'{"x": 1}'])))
def test_a_damaged_memory_is_no_memory(damage: bytes | int, site: Path, tmp_path: Path) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path / "cache")}
    right = read_installed([str(site)], environ)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(damage if isinstance(damage, bytes) else file.read_bytes()[:damage])
    assert read_installed([str(site)], environ) == right


@pytest.mark.parametrize("entry", [[], ["stamp"], ["stamp", [["a"]], []], ["stamp", 3, 4], None, {"a": 1}])
def test_an_entry_of_another_form_is_read_again(entry: object, site: Path, tmp_path: Path) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path / "cache")}
    right = read_installed([str(site)], environ)
    (file,) = (tmp_path / "cache").iterdir()
    stamp = json.loads(file.read_text())[str(site)][0]
    filled = [stamp if part == "stamp" else part for part in entry] if isinstance(entry, list) else entry
    file.write_text(json.dumps({str(site): filled}))
    assert read_installed([str(site)], environ) == right
