"""`envcheck config`: exit codes, formats, --explain, the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envcheck.cli.main import main

GOOD = Path(__file__).parents[1] / "dsconfig" / "good"


@pytest.mark.parametrize(
    ("text", "code"),
    [('{"train_batch_size": 1}', 0), ('{"train_batch_size": "x"}', 1), ("{", 2), ("", 2), ("[]", 2), ("\ufeff{}", 0)],
)
def test_exit_codes(text: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text, encoding="utf-8")
    assert main(["config", str(path)]) == code
    assert "ds.json" in capsys.readouterr().out


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "/nowhere/ds.json"]) == 2
    assert "cannot read the DeepSpeed config" in capsys.readouterr().err


def test_no_file_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 2
    assert "name a DeepSpeed config" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json", "markdown", "sarif"])
def test_every_format_names_the_line(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{\n  "gradient_cliping": 1\n}', encoding="utf-8")
    assert main(["config", str(path), "--format", form]) == 1
    out = capsys.readouterr().out
    assert "gradient_clipping" in out
    assert "ds.json:2:3" in out or '"startLine": 2' in out


def test_the_table_is_in_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["config", str(GOOD / "vila-zero2.json"), "--training-args-cmd", "t.py --bf16 True", "--world-size", "2"]
    assert main(words) == 0
    assert '"auto" -> true  (TrainingArguments `bf16`)' in capsys.readouterr().out
    main([*words, "--format", "json"])
    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)["effective"]}
    assert rows["train_batch_size"] == 16


def test_rules_speak_with_the_line_of_their_key(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["config", str(GOOD / "vila-zero2.json"), "--deepspeed-version", "0.9.5", "--format", "json"]
    main([*words, "--training-args-cmd", "t.py --bf16 True"])
    found = {item["id"]: item["place"] for item in json.loads(capsys.readouterr().out)["findings"]}
    line = (GOOD / "vila-zero2.json").read_text(encoding="utf-8").split("\n").index('    "overlap_comm": true,') + 1
    assert found["deepspeed-zero2-overlap-before-0143"].endswith(f":{line}:5")


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--explain", "gradient_clipping"]) == 0
    out = capsys.readouterr().out
    assert "0.0 from 0.9.0, 1.0 from 0.19.3" in out
    assert "deepspeed-max-grad-norm-ignored" in out
    assert main(["config", "--explain", "overlap_comm", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "zero_optimization.overlap_comm"
    assert main(["config", "--explain", "gradient_cliping"]) == 2
    assert "did you mean `gradient_clipping`?" in capsys.readouterr().err


def test_hidden_size_of_a_vision_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llava", "text_config": {"hidden_size": 64}}', encoding="utf-8")
    words = ["--training-args-cmd", "t.py", "--model-config", str(config), "--format", "json"]
    main(["config", str(GOOD / "vila-zero2.json"), *words])
    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)["effective"]}
    assert rows["zero_optimization.reduce_bucket_size"] == 4096


@pytest.mark.parametrize(
    ("packages", "complete", "error"),
    [
        ({"deepspeed": "0.19.8"}, True, True),
        ({"deepspeed": "0.19.8", "accelerate": "1.12.0"}, True, False),
        ({"deepspeed": "0.19.8", "transformers": "4.57.6"}, True, False),
        ({"deepspeed": "0.19.8"}, False, False),
        ({}, True, False),
    ],
)
def test_an_auto_is_an_error_where_nothing_that_fills_it_is_installed(
    packages: dict[str, str], complete: bool, error: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(json.dumps({"packages": packages, "complete": complete}), encoding="utf-8")
    document = tmp_path / "ds.json"
    document.write_text('{"train_micro_batch_size_per_gpu": "auto"}', encoding="utf-8")
    assert main(["config", str(document), "--snapshot", str(snapshot)]) == int(error)
    out = capsys.readouterr().out
    assert ("ds-config-auto-without-trainer" in out) == error
    assert ("neither transformers nor accelerate is installed" in " ".join(out.split())) == error


def test_a_plain_run_says_what_an_auto_is_without_a_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "ds.json"
    document.write_text('{"train_batch_size": "auto", "zero_optimization": {"stage": 2, "overlap_comm": true}}', encoding="utf-8")
    assert main(["config", str(document)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "nobody yet: give --training-args; without a Trainer an error: DeepSpeed calculates with the text and stops" in out
