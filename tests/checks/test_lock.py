"""An environment held against a lock."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.checks.context import Context
from envcheck.checks.lock import check_lock, compare_with_pip
from envcheck.cli.main import main
from envcheck.facts.model import Absent, Distribution, Environment, Fact, Gpu, Known
from envcheck.facts.origins import Origin, origin_of, read_origins
from envcheck.findings import Finding, Severity, Skip
from envcheck.matrix.database import load
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage
from envcheck.resolve.provenance import Provenance
from tests.resolve.matrices import matrix_folder, rule_text

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.matrix.database import Matrix

URL = "https://example.org/alpha-1.0-py3-none-any.whl"


PYLOCK = f"""
lock-version = "1.0"
created-by = "x"
[[packages]]
name = "alpha"
version = "1.0"
wheels = [{{ url = "{URL}", hashes = {{ sha256 = "aa" }} }}]
"""


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    rules = [rule_text("old-alpha", {"alpha": "<2"}, stage=2), rule_text("no-setuptools", {"alpha": "*", "setuptools": "absent"})]
    return load(str(matrix_folder(tmp_path / "matrices", rules)), cache=False)


def installed(**versions: str) -> dict[str, Distribution]:
    return {name: Distribution(name, version) for name, version in versions.items()}


def locked(**versions: str) -> tuple[LockedPackage, ...]:
    return tuple(LockedPackage(name, version) for name, version in versions.items())


def held(
    matrix: Matrix, packages: dict[str, Distribution], lock: Lock, origins: dict[str, Origin] | None = None, **more: Any,
) -> list[Finding | Skip]:  # fmt: skip
    environment = Environment(**{"packages": packages, "complete": True, "facts": {"python": Known("3.11.7")}, **more})
    return list(check_lock(Context(environment, matrix), lock, origins))


def ids(outcomes: list[Finding | Skip]) -> list[str]:
    return [item.id for item in outcomes if isinstance(item, Finding)]


def test_an_environment_that_is_the_lock_has_no_finding(matrix: Matrix) -> None:
    outcomes = held(matrix, installed(alpha="1.0", beta="2.0", pip="25.0"), Lock(locked(alpha="1.0", beta="2.0")), {})
    assert ids(outcomes) == []
    assert {item.check for item in outcomes if isinstance(item, Skip)} == {"lock hashes", "lock facts"}


@pytest.mark.parametrize(
    ("packages", "found", "subject"),
    [
        ({"alpha": "1.0"}, ["lock-missing"], "beta"),
        ({"alpha": "1.0", "beta": "2.1"}, ["lock-other-version"], "beta"),
        ({"alpha": "1.0+cpu", "beta": "2.0"}, ["lock-other-version"], "alpha"),
        ({"alpha": "1.0", "beta": "2.0", "gamma": "1"}, ["lock-extra"], "gamma"),
        ({"alpha": "1.0.0", "beta": "2"}, [], ""),
    ],
)
def test_other_packages(matrix: Matrix, packages: dict[str, str], found: list[str], subject: str) -> None:
    outcomes = held(matrix, installed(**packages), Lock(locked(alpha="1.0", beta="2.0")), {})
    assert ids(outcomes) == found
    assert [item.subjects for item in outcomes if isinstance(item, Finding)] == ([(subject,)] if subject else [])


def test_what_an_incomplete_snapshot_lacks_is_not_missing(matrix: Matrix) -> None:
    outcomes = held(matrix, installed(alpha="1.0"), Lock(locked(alpha="1.0", beta="2.0")), None, complete=False)
    assert ids(outcomes) == []
    assert any(isinstance(item, Skip) and "not complete" in item.reason for item in outcomes)


@pytest.mark.parametrize(("marker", "found"), [('sys_platform == "win32"', []), ('python_version >= "3.9"', ["lock-missing"])])
def test_a_marker_decides_what_is_wanted(matrix: Matrix, marker: str, found: list[str]) -> None:
    assert ids(held(matrix, {}, Lock((LockedPackage("alpha", "1.0", marker),)), {})) == found


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        (Origin(URL, {"sha256": "aa"}), []), (Origin(URL, {"sha256": "bb"}), ["lock-other-file"]), (Origin(URL), []),
        (Origin(URL, {"md5": "bb"}), []), (Origin("https://elsewhere.org/alpha.whl"), ["lock-other-file"]),
        (Origin("https://user:secret@example.org/alpha-1.0-py3-none-any.whl"), []), (None, ["lock-other-file"]),
    ],
)  # fmt: skip
def test_recorded_hashes_and_origins(matrix: Matrix, origin: Origin | None, found: list[str]) -> None:
    package = LockedPackage("alpha", "1.0", wheels=(Artifact("a.whl", URL, {"sha256": "aa"}),), direct=URL)
    origins = {"alpha": origin} if origin else {}
    assert ids(held(matrix, installed(alpha="1.0"), Lock((package,)), origins)) == found


@pytest.mark.parametrize(("commit", "found"), [("abc123", []), ("ffffff", ["lock-other-file"])])
def test_a_repository_is_compared_by_its_commit(matrix: Matrix, commit: str, found: list[str]) -> None:
    package = LockedPackage("alpha", "1.0", direct="git+https://example.org/alpha@abc123")
    origins = {"alpha": Origin("https://example.org/alpha", {}, commit)}
    assert ids(held(matrix, installed(alpha="1.0"), Lock((package,)), origins)) == found


@pytest.mark.parametrize(
    ("locked_facts", "here", "severity"),
    [
        ({"driver": "535.10"}, {"driver": Known("535.10")}, None),
        ({"driver": "535.10"}, {"driver": Known("550.1")}, Severity.WARNING),
        ({"driver": "535.10"}, {"driver": Known("470.1")}, Severity.ERROR),
        ({"driver": "535.10"}, {"driver": Absent()}, Severity.ERROR),
        ({"driver": "none"}, {"driver": Known("550.1")}, Severity.WARNING),
        ({"machine": "x86_64"}, {"machine": Known("aarch64")}, Severity.ERROR),
        ({"cuda_toolkit": "12.1"}, {"cuda_toolkit": Known("13.0")}, Severity.WARNING),
        ({"gpu.compute_capability": "8.0"}, {"driver": Absent()}, Severity.ERROR),
        ({"gpu.compute_capability": "unknown"}, {}, None),
    ],
)  # fmt: skip
def test_other_facts(matrix: Matrix, locked_facts: dict[str, str], here: dict[str, Fact], severity: Severity | None) -> None:
    solved = Provenance(python="3.11", facts=locked_facts, matrix=matrix.digest)
    facts = {"python": Known("3.11.7"), **here}
    gpus = (Gpu("", "9.0"),) if "gpu.compute_capability" in locked_facts else None
    outcomes = held(matrix, {}, Lock((), provenance=solved), {}, facts=facts, gpus=gpus)
    found = [item for item in outcomes if isinstance(item, Finding)]
    assert [item.severity for item in found] == ([] if severity is None else [severity])
    assert all(item.id == "lock-other-facts" for item in found)


def test_a_fact_that_nobody_knows_is_said_not_to_be_compared(matrix: Matrix) -> None:
    solved = Provenance(python="3.11", facts={"driver": "535.10"}, matrix=matrix.digest)
    outcomes = held(matrix, {}, Lock((), provenance=solved), {})
    assert [item.reason for item in outcomes if isinstance(item, Skip)] == ["driver unknown: not compared with the lock's 535.10"]


@pytest.mark.parametrize(
    ("python", "requires", "found"),
    [("3.11", "", 0), ("3.1", "", 1), ("3.11.7", "", 0), ("3.12", "", 1), ("", ">=3.12", 1), ("", ">=3.10", 0)],
)
def test_another_python(matrix: Matrix, python: str, requires: str, found: int) -> None:
    solved = Provenance(python=python, matrix=matrix.digest)
    assert len(ids(held(matrix, {}, Lock((), requires, solved), {}))) == found


def test_a_matrix_that_has_changed_and_now_objects(matrix: Matrix) -> None:
    solved = Provenance(python="3.11", settings={"zero_optimization.stage": 2}, matrix="another")
    lock = Lock(locked(alpha="1.0"), provenance=solved)
    outcomes = held(matrix, installed(alpha="1.0"), lock, {})
    assert ids(outcomes) == ["lock-matrix-objects"]
    assert "`old-alpha`" in next(item for item in outcomes if isinstance(item, Finding)).because[0]
    changes: list[dict[str, Any]] = [{"matrix": matrix.digest}, {"settings": {}}, {"waived": {"old-alpha": "known"}}]
    for change in changes:
        quiet = dataclasses.replace(solved, **change)
        assert ids(held(matrix, installed(alpha="1.0"), Lock(locked(alpha="1.0"), provenance=quiet), {})) == []


def test_pip_s_own_view() -> None:
    ours = {"alpha": "1.0", "beta": "2.0"}
    assert list(compare_with_pip(ours, {"alpha": "1.0.0", "beta": "2.0"})) == []
    found = [item for item in compare_with_pip(ours, {"alpha": "1.1", "gamma": "1"}) if isinstance(item, Finding)]
    assert [item.subjects for item in found] == [("alpha",), ("beta",), ("gamma",)]
    (skip,) = compare_with_pip(ours, "this environment has no pip")
    assert isinstance(skip, Skip)
    assert "no pip" in skip.reason


@pytest.mark.parametrize(
    ("document", "origin"),
    [
        ({"url": URL, "archive_info": {"hashes": {"sha256": "AA"}}}, Origin(URL, {"sha256": "aa"})),
        ({"url": URL, "archive_info": {"hash": "sha256=aa"}}, Origin(URL, {"sha256": "aa"})),
        ({"url": URL, "vcs_info": {"vcs": "git", "commit_id": "c0"}}, Origin(URL, {}, "c0")),
        ({"url": URL, "archive_info": []}, Origin(URL)),
    ],
)
def test_direct_url_is_read_in_both_spellings(document: dict[str, Any], origin: Origin) -> None:
    assert origin_of(document) == origin


@pytest.mark.parametrize("content", ["", "[]", "{", "\0", '{"url": 5}'])
def test_a_broken_direct_url_records_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "Al_pha-1.0.dist-info").mkdir()
    (tmp_path / "Al_pha-1.0.dist-info" / "direct_url.json").write_text(content)
    packages = {"al-pha": Distribution("al-pha", "1.0", location=str(tmp_path), direct_url=URL)}
    assert read_origins(Environment(packages=packages)) == {}


def test_the_command(tmp_path: Path, matrix: Matrix, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "s.json"
    snapshot.write_text(json.dumps({"python": "3.11.7", "complete": True, "packages": {"alpha": "1.0", "setuptools": "80"}}))
    lock = tmp_path / "requirements.txt"
    words = ["check", "--snapshot", str(snapshot), "--matrices", str(matrix.folder), "--format", "json", "--lock", str(lock)]
    lock.write_text("alpha==1.0 --hash=sha256:aa\n")
    assert main(words) == 0
    capsys.readouterr()
    lock.write_text("alpha==1.1 --hash=sha256:aa\n")
    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [item["id"] for item in found if item["severity"] == "error"] == ["lock-other-version"]
    pylock = tmp_path / "pylock.toml"
    pylock.write_text(PYLOCK)
    assert main([*words[:-1], str(pylock)]) == 0
    pylock.write_text(PYLOCK.replace("1.0-py3", "2.0-py3").replace('version = "1.0"\nwheels', 'version = "2.0"\nwheels'))
    assert main([*words[:-1], str(pylock)]) == 1
    for bad in ("", "alpha>=1", "lock-version = ["):
        (tmp_path / "bad.toml").write_text(bad)
        lock.write_text(bad)
        assert main([*words[:-1], str(tmp_path / "bad.toml")]) == 2
        assert main(words) == 2
    assert main([*words[:-1], str(tmp_path / "none.toml")]) == 2
