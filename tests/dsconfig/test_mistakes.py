"""Every seeded mistake is named, on its line; the base document and the known projects' files are not blamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli

from envcheck.cli.main import main

HERE = Path(__file__).parent
CASES: dict[str, Any] = tomli.loads((HERE / "mistakes.toml").read_text(encoding="utf-8"))
#: VILA's zero3pp.json asks for ZeRO++, which its own pin 0.9.5 does not have: a true finding.
TRUE = {("vila-zero3pp", "0.9.5"): "ds-config-key-too-new"}
GOOD = sorted((HERE / "good").glob("*.json"))
BASE = CASES["base"].lstrip()


def lint(text: str, folder: Path, capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    path = folder / "ds.json"
    path.write_text(text, encoding="utf-8")
    snapshot = folder / "snapshot.json"
    snapshot.write_text("{}", encoding="utf-8")
    main(["config", str(path), "--format", "json", *args])
    report = json.loads(capsys.readouterr().out)
    return list(report["findings"])


def test_there_are_sixty_mistakes() -> None:
    assert len({case["name"] for case in CASES["mistake"]}) >= 60


@pytest.mark.parametrize("case", CASES["mistake"], ids=lambda case: case["name"])
def test_each_mistake_is_named_with_its_line(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert BASE.count(case["old"]) >= 1
    text = BASE.replace(case["old"], case["new"], 1)
    line = text[: text.index(case.get("at", case["new"]))].count("\n") + 1
    findings = lint(text, tmp_path, capsys, *case.get("args", []))
    places = [finding["place"] for finding in findings if finding["id"] == case["id"]]
    assert f"ds.json:{line}:" in " ".join(places), [(item["id"], item["place"]) for item in findings]


def test_the_base_document_has_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("0.9.5", "0.16.9", "0.19.8"):
        findings = lint(BASE, tmp_path, capsys, "--deepspeed-version", version)
        assert [item["id"] for item in findings if item["id"].startswith("ds-config")] == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [None, "0.9.5", "0.12.6", "0.16.9", "0.18.9", "0.19.6"])
def test_the_files_of_known_projects_have_no_error_of_their_own(
    path: Path, version: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = ["--training-args-cmd", "train.py --bf16 True --learning_rate 2e-5 --per_device_train_batch_size 1"]
    for extra in ([], [*trainer, "--world-size", "8"]):
        chosen = ["--deepspeed-version", version] if version else []
        main(["config", str(path), "--format", "json", *chosen, *extra])
        findings = json.loads(capsys.readouterr().out)["findings"]
        own = [item for item in findings if item["id"].startswith("ds-config") and item["severity"] == "error"]
        expected = TRUE.get((path.stem, version or ""), "")
        assert {item["id"] for item in own} == ({expected} if expected else set()), own
