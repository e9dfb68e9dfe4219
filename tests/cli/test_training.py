"""`envcheck check` with a DeepSpeed file and the Trainer's arguments: what `auto` becomes decides the rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

AUTO = """{
  "bf16": {"enabled": "auto"},
  "train_batch_size": "auto",
  "gradient_accumulation_steps": "auto",
  "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}
}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "ds.json").write_text(AUTO, encoding="utf-8")
    snapshot = {"packages": {"deepspeed": "0.17.6", "transformers": "4.57.6", "accelerate": "1.12.0"}}
    (tmp_path / "here.json").write_text(json.dumps(snapshot), encoding="utf-8")
    return tmp_path


def check(files: Path, capsys: pytest.CaptureFixture[str], *more: str, config: bool = True) -> tuple[int, dict[str, Any]]:
    given = ["--ds-config", str(files / "ds.json")] if config else []
    code = main(["check", "--snapshot", str(files / "here.json"), "--format", "json", *given, *more])
    return code, json.loads(capsys.readouterr().out)


def found(report: dict[str, Any], name: str) -> dict[str, Any]:
    one: dict[str, Any] = next((item for item in report["findings"] if item["id"] == name), {})
    return one


@pytest.mark.parametrize(("steps", "severity"), [(4, "error"), (1, None)])
def test_what_auto_becomes_decides_the_rule(
    files: Path, capsys: pytest.CaptureFixture[str], steps: int, severity: str | None
) -> None:
    code, report = check(files, capsys, "--training-args-cmd", f"train.py --gradient_accumulation_steps {steps}")
    assert found(report, "deepspeed-zero2-last-micro-batch").get("severity") == severity
    assert code == (1 if severity else 0)
    assert {"key": "gradient_accumulation_steps", "value": steps}.items() <= report["effective"][2].items()


def test_a_default_of_the_arguments_decides_too(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = check(files, capsys, "--training-args-cmd", "torchrun --nproc_per_node 4 train.py --bf16 True")
    assert found(report, "deepspeed-zero2-last-micro-batch") == {}
    rows = {row["key"]: row["value"] for row in report["effective"]}
    assert (rows["train_batch_size"], rows["bf16.enabled"]) == (32, True)


def test_a_value_that_differs_from_the_trainers_is_named_with_its_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "ds.json").write_text(AUTO.replace('steps": "auto"', 'steps": 8'), encoding="utf-8")
    code, report = check(files, capsys, "--training-args-cmd", "train.py --gradient_accumulation_steps 4")
    assert code == 1
    assert found(report, "ds-config-trainer-mismatch")["place"].endswith("ds.json:4:3")


def test_the_file_that_the_command_names_is_read_where_it_is_here(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--training-args-cmd", "train.py --deepspeed ds.json --gradient_accumulation_steps 4")
    _, report = check(files, capsys, *command, config=False)
    assert any("which is not here" in skip["reason"] for skip in report["skipped"])
    monkeypatch.chdir(files)
    code, report = check(files, capsys, *command, config=False)
    assert code == 1
    assert found(report, "deepspeed-zero2-last-micro-batch")


def test_an_object_inside_the_arguments_counts_as_the_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"gradient_accumulation_steps": 4, "deepspeed": json.loads(AUTO)}
    (files / "args.json").write_text(json.dumps(arguments), encoding="utf-8")
    code, report = check(files, capsys, "--training-args", str(files / "args.json"), config=False)
    assert code == 1
    assert found(report, "deepspeed-zero2-last-micro-batch")["severity"] == "error"


def test_a_told_setting_wins(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--training-args-cmd", "train.py --gradient_accumulation_steps 4", "--set", "gradient_accumulation_steps=1")
    assert found(check(files, capsys, *more)[1], "deepspeed-zero2-last-micro-batch") == {}


def test_a_told_key_of_deepspeeds_is_deepspeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here.json").write_text('{"packages": {"deepspeed": "0.19.8"}}', encoding="utf-8")
    told = ("--set", "zero_optimization.stage=3", "--set", "torch_autocast.enabled=true")
    for value in ("sum", "mean"):
        code, report = check(tmp_path, capsys, *told, "--set", f"gradient_allreduce_op={value}", config=False)
        assert bool(found(report, "ds-config-allreduce-sum-stage3")) is (value == "sum")
        assert code == (1 if value == "sum" else 0)


@pytest.mark.parametrize(
    ("given", "packages", "rule"),
    [
        ({"resume_from_checkpoint": True}, {"transformers": "4.46.3", "torch": "2.6.0"}, "transformers-torch26-resume"),
        ({"resume_from_checkpoint": "out/5"}, {"deepspeed": "0.15.4", "torch": "2.6.0"}, "deepspeed-torch26-load-checkpoint"),
        ({"torch_compile": True}, {"deepspeed": "0.18.2"}, "deepspeed-zero12-overlap-producer-streams"),
    ],
)
def test_an_argument_says_what_the_code_does(
    files: Path, capsys: pytest.CaptureFixture[str], given: dict[str, Any], packages: dict[str, str], rule: str
) -> None:
    (files / "here.json").write_text(json.dumps({"packages": packages}), encoding="utf-8")
    (files / "ds.json").write_text('{"zero_optimization": {"stage": 2, "overlap_comm": true}}', encoding="utf-8")
    for arguments, speaks in ((given, True), (dict.fromkeys(given, False), False)):
        (files / "args.json").write_text(json.dumps(arguments), encoding="utf-8")
        _, report = check(files, capsys, "--training-args", str(files / "args.json"))
        assert bool(found(report, rule)) is speaks
