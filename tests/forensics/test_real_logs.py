"""Logs of real runs (make_logs.py, collect_logs.py): each fault is told apart, and a healthy log gives no finding."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from packaging.version import Version

from envcheck.cli import log
from envcheck.matrix import signature
from envcheck.matrix.database import Matrix, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.findings import Report

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "logs"
RUNS = {run["name"]: run for run in tomli.loads((HERE / "runs.toml").read_text(encoding="utf-8"))["run"]}
LOGS = sorted(DATA.glob("*/*.log"))
FAULTY = [path for path in LOGS if "expect" in RUNS[path.stem]]
HEALTHY = [path for path in LOGS if "expect" not in RUNS[path.stem]]
CHECKS_ZERO2, CHECKS_ZERO3 = Version("0.19.3"), Version("0.19.8")


@pytest.fixture(autouse=True, scope="module")
def matrix() -> Iterator[None]:
    """Read the matrix once for all of these logs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "load", functools.lru_cache(load))
        patch.setattr(signature, "load", functools.lru_cache(signature.load))
        patch.setattr(Matrix, "rule", functools.lru_cache(maxsize=None)(Matrix.rule))
        patch.setattr(Matrix, "__hash__", object.__hash__)
        yield


def report(path: Path, *options: str) -> Report:
    parser = argparse.ArgumentParser()
    log.configure(parser)
    return log.build_report(parser.parse_args([str(path), *options]))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def versions(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((path.parent / "versions.json").read_text(encoding="utf-8"))
    return found


def skips(path: Path) -> bool:
    """Whether this DeepSpeed skips a bf16 step with a non-finite gradient."""
    since = CHECKS_ZERO3 if RUNS[path.stem].get("stage") == 3 else CHECKS_ZERO2
    return Version(versions(path)["deepspeed"]) >= since


def expected(path: Path) -> str:
    run = RUNS[path.stem]
    if skips(path) and run.get("unseen_skips") and Version(versions(path)["deepspeed"]) < CHECKS_ZERO3:
        return ""  # skipped without a word, and the log's numbers do not show it either
    return str(run["expect_skipping" if skips(path) and "expect_skipping" in run else "expect"])


def settings(path: Path) -> list[str]:
    run = RUNS[path.stem]
    dtype = run.get("dtype", "bf16")
    told: dict[str, Any] = {
        "zero_optimization.stage": run.get("stage", 2), "zero_optimization.overlap_comm": False, "bf16.enabled": dtype == "bf16",
        "fp16.enabled": dtype == "fp16", "gradient_accumulation_steps": 1, **run.get("args", {}), **run.get("config", {}),
    }  # fmt: skip
    return [part for key, value in told.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.parametrize("path", FAULTY, ids=name)
def test_a_fault_is_told_from_the_log_alone(path: Path) -> None:
    wanted = expected(path)
    found = [one.id for one in report(path).findings]
    if wanted:
        assert found == [wanted]
    else:
        assert not found


@pytest.mark.parametrize("path", FAULTY, ids=name)
def test_the_cause_is_among_the_first_two(path: Path, tmp_path: Path) -> None:
    wanted = expected(path)
    if not wanted:
        return
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(json.dumps({"packages": versions(path)}), encoding="utf-8")
    found = report(path, "--snapshot", str(snapshot), *settings(path))
    causes = {one["id"]: [cause["id"] for cause in one["causes"]] for one in found.extra["signatures"]}
    assert RUNS[path.stem]["cause"] in causes[wanted][:2]
    assert not any(one.id == "log-of-another-release" for one in found.findings)


@pytest.mark.parametrize("path", HEALTHY, ids=name)
def test_a_healthy_log_gives_no_finding(path: Path) -> None:
    found = report(path)
    assert not found.findings
    assert not found.skipped
    assert any(note.startswith("healthy: ") for note in found.notes)


def test_there_are_enough_of_them() -> None:
    assert len({path.stem for path in HEALTHY}) >= 20
    assert len({versions(path)["deepspeed"] for path in FAULTY}) >= 3
    assert len({versions(path)["transformers"] for path in FAULTY}) >= 3


@pytest.mark.parametrize("path", sorted(DATA.glob("*/*.state.json")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_trainer_state_says_the_same(path: Path) -> None:
    log_path = path.with_name(path.name.replace(".state.json", ".log"))
    assert [one.id for one in report(path).findings] == [one.id for one in report(log_path).findings]
