"""The command: inputs, formats, exit codes, what narrows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from envcheck.cli.main import main

DATA = Path(__file__).parent.parent / "data" / "logs"
BAD = DATA / "deepspeed-0.16.9-transformers-4.46.3" / "nan-weight-zero2.log"
GOOD = DATA / "deepspeed-0.16.9-transformers-4.46.3" / "healthy-linear-zero2.log"


def call(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main(["log", *options, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_bad_log_is_exit_1_with_place_and_ranked_causes(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = call(capsys, str(BAD))
    (finding,) = found["findings"]
    assert code == 1
    assert finding["id"] == "run-not-finite-from-start"
    assert any("1.4142135381698608" in reason for reason in finding["because"])
    assert any(reason.startswith("1. ") for reason in finding["because"])
    assert finding["fixes"][0]["change"].startswith("1. envcheck params")


def test_a_healthy_log_is_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(GOOD)]) == 0
    assert "healthy: 24 lines, loss 3.193 to 3.05" in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"", b"no training here\n", b"{'loss': 0.0, 'learning_rate': 0.0}\n", b"\0\1\2" * 999])
def test_too_little_is_exit_3_not_clean(text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    code, found = call(capsys, str(path), "--fail-on", "never")
    assert code == 3
    assert found["verdict"] in ("unknown", "warning", "error")


def test_unreadable_inputs_are_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(tmp_path / "absent")]) == 2
    assert main(["log", str(tmp_path)]) == 2
    (tmp_path / "utf16").write_bytes("{'loss': 1.0}\0".encode("utf-16"))
    assert main(["log", str(tmp_path / "utf16")]) == 2
    assert main(["log", "-", "--snapshot", "-"]) == 2
    errors = capsys.readouterr().err
    assert "No such file" in errors
    assert "trainer_state.json" in errors
    assert "UTF-16" in errors


def test_standard_input_and_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BAD.read_bytes())))
    assert call(capsys, "-")[0] == 1
    state = next(DATA.glob("*/nan-weight-zero2-tqdm.state.json"))
    (tmp_path / "trainer_state.json").write_bytes(state.read_bytes())
    assert call(capsys, str(tmp_path))[0] == 1


def test_a_page_with_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "<script>.log"
    hostile.write_bytes(BAD.read_bytes())
    assert call(capsys, str(hostile), "--html", str(tmp_path / "log.html"))[0] == 1
    text = (tmp_path / "log.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert "DeepSpeed&#x27;s mark of a non-finite one" in text


def test_ranks_with_prefixes_are_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in GOOD.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    path = tmp_path / "srun.log"
    path.write_text("".join(f"{rank}: {line}\n" for line in lines for rank in (1, 0)), encoding="utf-8")
    code, found = call(capsys, str(path))
    assert (code, found["log"]["ranks"], found["log"]["lines"]) == (0, 2, 24)
    path.write_text("".join(f"{rank}: {line.replace('0.001,', f'0.00{rank},')}\n" for line in lines for rank in (1, 2)), "utf-8")
    assert [one["id"] for one in call(capsys, str(path))[1]["findings"]] == ["run-ranks-disagree"]


def test_the_environment_narrows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text('{"packages": {"deepspeed": "0.16.9", "transformers": "4.46.3"}}', encoding="utf-8")
    everything = call(capsys, str(BAD))[1]["signatures"][0]["causes"]
    narrowed = call(capsys, str(BAD), "--snapshot", str(snapshot), "--set", "zero_optimization.overlap_comm=false")[1]
    assert [one["id"] for one in everything] == ["parameters-not-finite", "forward-not-finite", "zero2-race"]
    causes = narrowed["signatures"][0]["causes"]
    assert [one["id"] for one in causes] == ["parameters-not-finite", "forward-not-finite"]
    assert "transformers-new-params-not-initialised" in causes[0]["rules"]
    assert "transformers-new-params-empty-451" not in causes[0]["rules"]


def test_a_log_of_another_release_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text('{"packages": {"deepspeed": "0.14.2"}}', encoding="utf-8")
    found = call(capsys, str(BAD), "--snapshot", str(snapshot))[1]
    assert "log-of-another-release" in [one["id"] for one in found["findings"]]


def test_a_rule_that_no_log_shows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text('{"packages": {"deepspeed": "0.17.6"}}', encoding="utf-8")
    told = ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"]
    told += ["--set", "zero_optimization.offload_optimizer.device=none"]
    code, found = call(capsys, str(GOOD), "--snapshot", str(snapshot), *told)
    assert code == 1
    assert "deepspeed-zero2-last-micro-batch" in [one["id"] for one in found["findings"]]


def test_lost_micro_batches_show_against_another_stage(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "deepspeed-0.17.6-transformers-4.51.3"
    two, three = folder / "accumulation4-zero2.log", folder / "accumulation4-zero3.log"
    code, found = call(capsys, str(two), "--against", str(three))
    assert code == 1
    assert [one["id"] for one in found["findings"]] == ["run-gradient-norm-too-small"]
    other = DATA / "deepspeed-0.18.4-transformers-4.49.0"
    assert call(capsys, str(other / two.name), "--against", str(other / three.name))[0] == 0


MONITORED = sorted((DATA.parent / "monitor").glob("*.jsonl"))


@pytest.mark.parametrize("path", MONITORED, ids=lambda path: path.stem)
def test_a_monitors_file_says_what_the_monitor_said(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = {one["id"]: one["because"] for one in lines if one["event"] == "finding"}
    code, found = call(capsys, str(path))
    assert code == (1 if said else 0)
    assert {one["id"] for one in found["findings"]} == set(said)
    for one in found["findings"]:
        assert one["because"][-1] == said[one["id"]][-1]  # the causes, narrowed by the releases that the file names
    assert found["log"]["source"] == "monitor"
    assert found["log"]["lines"] == max(one["step"] for one in lines if one["event"] == "step")


def test_a_monitors_file_may_end_anywhere_and_come_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = MONITORED[0].read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(whole[: whole.rindex(b"{") + 9])))
    assert [one["id"] for one in call(capsys, "-")[1]["findings"]] == ["run-gradient-wrong"]
    (tmp_path / "broken").write_bytes(whole + b'{"event": "step", "step": "three"}\n')
    assert main(["log", str(tmp_path / "broken")]) == 2
    assert "`step` is 'three'" in capsys.readouterr().err
