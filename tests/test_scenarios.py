"""Every case of tests/scenarios/*.toml through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli

from envcheck.cli.main import main
from tests.report.sarif import validated

FOLDER = Path(__file__).parent / "scenarios"
KEYS = {
    "name", "packages", "facts", "settings", "uses", "complete", "error", "warning", "info", "never", "only", "nothing",
    "subjects", "fixes",
}  # fmt: skip


def cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        for case in tomli.loads(path.read_text())["case"]:
            assert not case.keys() - KEYS, f"{path.name}: {case.keys() - KEYS}"
            found.append(pytest.param(case, id=f"{path.stem}: {case['name']}"))
    return found


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for name, value in table.items():
        pairs |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return pairs


def report_of(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    snapshot = tmp_path / "snapshot.json"
    fields = {"packages": case["packages"], "complete": case.get("complete", False), **case.get("facts", {})}
    snapshot.write_text(json.dumps(fields))
    argv = ["check", "--snapshot", str(snapshot), "--format", "json"]
    for key, value in flat(case.get("settings", {})).items():
        argv += ["--set", f"{key}={json.dumps(value)}"]
    for word in case.get("uses", []):
        argv += ["--uses", word]
    code = main(argv)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == (1 if report["verdict"] == "error" else 0)
    assert main([*argv, "--format", "sarif"]) == code
    (run,) = validated(capsys.readouterr().out)["runs"]
    assert [result["ruleId"] for result in run["results"]] == [item["id"] for item in report["findings"]]
    return report


@pytest.mark.parametrize("case", cases())
def test_scenario(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings = report_of(case, tmp_path, capsys)["findings"]
    by_level = {level: {item["id"] for item in findings if item["severity"] == level} for level in ("error", "warning", "info")}
    for level in ("error", "warning", "info"):
        assert set(case.get(level, [])) <= by_level[level]
    if case.get("only"):
        assert by_level["error"] == set(case.get("error", []))
        assert by_level["warning"] == set(case.get("warning", []))
    if case.get("nothing"):
        assert findings == []
    assert not {item["id"] for item in findings} & set(case.get("never", []))
    named = {name for item in findings if item["severity"] == "error" for name in item["subjects"]}
    assert set(case.get("subjects", [])) <= named
    changes = {fix["change"] for item in findings if item["severity"] == "error" for fix in item["fixes"]}
    assert set(case.get("fixes", [])) <= changes
