"""`envcheck lock` as a command: files, reports, exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from envcheck.cli.lock import choose_backend, parse_waiver
from envcheck.cli.main import main
from envcheck.errors import UsageError
from envcheck.facts.model import Absent, Environment, Known
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import lock_request
from envcheck.matrix.profiles import load_profiles, open_profile
from envcheck.resolve import uv
from envcheck.resolve.lockfile import read_lock
from tests.resolve.fakeuv import write_uv

if TYPE_CHECKING:
    from pathlib import Path

TARGET = ["--python-version", "3.11", "--driver", "580.65"]
STAGE2 = ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"]
UNREACHABLE = "error: Request failed after 3 retries\n  cause: Failed to fetch: https://pypi.org/simple/torch/\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    program = str(write_uv(tmp_path))
    monkeypatch.setattr(uv, "find_uv", lambda: program)
    return tmp_path


def test_a_lock_is_written_and_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "deepspeed<=0.18.3", "transformers", "torch", *TARGET, *STAGE2]) == 0
    out = capsys.readouterr().out
    assert "deepspeed-zero2-last-micro-batch" in out
    lock = read_lock(str(place / "pylock.toml"))
    assert lock.versions()["deepspeed"] == "0.17.5"
    assert lock.requires_python == "==3.11.*"
    assert lock.provenance is not None
    assert lock.provenance.facts["driver"] == "580.65"
    assert lock.provenance.settings == {"zero_optimization.stage": 2, "gradient_accumulation_steps": 4}
    assert lock.provenance.matrix == load().digest


def test_hashed_requirements_by_name_and_standard_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "torch", "-o", "requirements.txt", *TARGET]) == 0
    assert "--hash=sha256:" in (place / "requirements.txt").read_text()
    capsys.readouterr()
    assert main(["lock", "torch", "-o", "-", *TARGET]) == 0
    assert capsys.readouterr().out.startswith("lock-version") is False
    assert main(["lock", "torch", "--format", "json", *TARGET]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lock"]["packages"]["torch"] == "2.13.0" or report["lock"]["packages"]["torch"] == "2.15.0"
    assert report["lock"]["uv_calls"] == 1


def test_a_refusal_is_findings_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "deepspeed==0.17.6", "torch", *TARGET, *STAGE2, "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (finding,) = report["findings"]
    assert finding["id"] == "deepspeed-zero2-last-micro-batch"
    assert finding["evidence"]
    assert finding["fixes"][0]["change"] == "deepspeed==0.17.6 -> deepspeed (would give 0.19.8)"
    assert not (place / "pylock.toml").exists()


def test_waivers_are_echoed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiver = ["--waive", "deepspeed-zero2-last-micro-batch=accumulation is 1"]
    assert main(["lock", "deepspeed==0.17.6", *TARGET, *STAGE2, *waiver, "--explain"]) == 0
    assert "accumulation is 1" in capsys.readouterr().out
    assert "accumulation is 1" in (place / "pylock.toml").read_text()


def test_an_unused_or_unknown_waiver_is_a_finding(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.is_dir()
    assert main(["lock", "idna", *TARGET, "--waive", "no-such-rule=x"]) == 0
    assert "no-such-rule" in capsys.readouterr().out


def test_waivers_of_the_project_count(place: Path) -> None:
    (place / ".envcheck.toml").write_text('[waivers]\ndeepspeed-zero2-last-micro-batch = { reason = "we know" }\n')
    assert main(["lock", "deepspeed==0.17.6", *TARGET, *STAGE2]) == 0
    lock = read_lock(str(place / "pylock.toml"))
    assert lock.provenance is not None
    assert lock.provenance.waived == {"deepspeed-zero2-last-micro-batch": "we know"}


def test_a_profile_is_locked_with_its_bounds_and_what_is_left_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = lock_request(open_profile(load().folder, "vila-1.5"))
    versions: dict[str, set[str]] = {}
    for line in (*asked.requirements, *asked.constraints):
        named = versions.setdefault(canonicalize_name(Requirement(line).name), {"1.0"})
        named |= {item.version for item in Requirement(line).specifier if not item.version.endswith("*")}
    write_uv(place, versions={name: sorted(found, key=Version) for name, found in versions.items()}, needs={})
    code = main(["lock", "--profile", "vila-1.5", "--driver", "580.65", "--format", "json", "--fail-on", "never"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    report = json.loads(out)
    lock = read_lock(str(place / "pylock.toml"))
    assert lock.versions()["deepspeed"] == "0.9.5"
    assert lock.provenance is not None
    assert lock.provenance.python == "3.10"
    assert set(asked.constraints) <= set(lock.provenance.constraints)
    assert "profile-left-out" in {finding["id"] for finding in report["findings"]}


def test_a_profile_that_cannot_be_locked_says_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = next(profile for profile in load_profiles(load().folder) if profile.lock.refused)
    assert main(["lock", "--profile", refused.id, "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["because"] == [refused.lock.refused]
    assert not (place / "pylock.toml").exists()


def test_settings_of_files_are_folded_and_recorded(place: Path) -> None:
    (place / "ds.json").write_text('{"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 4, "x": null}')
    assert main(["lock", "deepspeed<0.19", *TARGET, "--ds-config", "ds.json"]) == 0
    lock = read_lock(str(place / "pylock.toml"))
    assert lock.versions()["deepspeed"] == "0.17.5"
    assert lock.provenance is not None
    assert lock.provenance.settings["zero_optimization"] == {"stage": 2}
    assert "x" not in lock.provenance.settings


def test_without_a_network_nothing_is_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "pylock.toml").write_text("before")
    write_uv(place, fail=UNREACHABLE, code=2)
    assert main(["lock", "torch", *TARGET]) == 4
    assert "cannot reach https://pypi.org/simple/torch/" in capsys.readouterr().err
    assert (place / "pylock.toml").read_text() == "before"


def test_an_existing_lock_is_preferred(place: Path) -> None:
    assert main(["lock", "torch==2.5.1", "-o", "old.toml", *TARGET]) == 0
    assert main(["lock", "torch", "--prefer", "old.toml", *TARGET]) == 0
    assert read_lock(str(place / "pylock.toml")).versions()["torch"] == "2.5.1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to lock"),
        (["torch >>"], "is not a requirement"),
        (["torch", "--waive", "x"], "is not ID=REASON"),
        (["torch", "--python-version", "new"], "is not a Python version"),
        (["-r", "none.txt"], "cannot read the requirements"),
        (["torch", "--prefer", "none.toml"], "cannot read the lock"),
        (["torch", "-o", "none/pylock.toml", *TARGET], "cannot write the lock"),
    ],
)
def test_bad_usage(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert place.is_dir()
    assert main(["lock", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("driver", "expected"), [("535.104", "cu129"), ("580.65", "cu132"), ("450.90", "cu118"), ("400.1", "cpu"), ("none", "cpu")]
)
def test_the_backend_is_the_newest_the_driver_runs(driver: str, expected: str) -> None:
    fact = Absent() if driver == "none" else Known(driver)
    assert choose_backend("auto", Environment(facts={"driver": fact}), load()) == expected


def test_auto_needs_to_know_the_driver() -> None:
    with pytest.raises(UsageError, match="needs to know the driver"):
        choose_backend("auto", Environment(), load())
    assert choose_backend("cu126", Environment(), load()) == "cu126"


def test_a_waiver_needs_a_reason() -> None:
    assert parse_waiver("a = b=c") == ("a", "b=c")
