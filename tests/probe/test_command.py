"""`envcheck probe` from the command line: options, exit codes, formats, side files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from envcheck.cli import probe
from envcheck.cli.main import main
from envcheck.errors import UsageError
from envcheck.probe import record

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.probe.spec import Scenario

Fake = Callable[[str], str]

PLAY_ALL = "start()\nfor one in request['scenarios']: play(one)\nwrite('done')\n"
DROPPED = PLAY_ALL.replace("play(one)", "play(one, 1 / 3)")
ENGINE = ("--path", "engine", "--stages", "2")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["probe", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_right_environment_is_exit_0(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--python", fake(PLAY_ALL), "--path", "engine")
    assert code == 0
    assert "verdict: ok" in out
    assert "a CPU run; it is no proof for a GPU" in out
    assert "not examined on this device: races of overlap_comm" in out


def test_a_wrong_one_is_exit_1_and_the_fault_is_named(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--python", fake(DROPPED), *ENGINE, "--format", "json")
    report = json.loads(out)
    assert (code, report["schema"], report["verdict"]) == (1, "envcheck.probe/1", "error")
    finding = report["findings"][0]
    assert finding["id"] == "probe-scaled"
    assert "divided by the accumulation steps (3) twice" in finding["title"]
    assert any("not in the matrix yet" in line for line in finding["because"])


def test_the_rule_of_the_matrix_is_named(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    python = fake(
        "def start():\n    write('versions', packages={'deepspeed': '0.18.4', 'torch': '2.9.0'}, python='3.11.7')\n" + DROPPED
    )
    code, out, _ = run(capsys, "--python", python, *ENGINE, "--format", "json")
    assert code == 1
    rules = {one["model"]: one["rules"] for one in json.loads(out)["scenarios"]}
    assert "deepspeed-zero12-multi-output-scaled-twice" in rules["mlp-outputs"]


def test_an_environment_that_cannot_be_imported_is_exit_3(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "doing('import deepspeed')\n"
        "write('failed', type='ModuleNotFoundError', message=\"No module named 'deepspeed'\", trace=[])\nsys.exit(76)\n"
    )
    code, out, _ = run(capsys, "--python", fake(body))
    assert code == 3
    assert "verdict: unknown" in out
    assert "`deepspeed` cannot be imported in the target environment" in out


def test_no_gpu_where_one_was_asked_for_is_exit_3(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "doing('check the device')\n"
        "if request['device'] != 'cuda': sys.exit(1)\n"
        "write('failed', type='NoDeviceError', message='a GPU was asked for and torch sees none', trace=[])\nsys.exit(76)\n"
    )
    code, out, _ = run(capsys, "--python", fake(body), "--device", "cuda")
    assert code == 3
    assert out.count("a GPU was asked for and torch sees none") == 1
    assert "verdict: unknown  it could not be examined" in out


def test_a_rank_killed_from_outside_is_exit_4(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "start()\nfor one in request['scenarios']:\n"
        "    write('begin', one['id']); doing('step 1: optimizer step', one['id'])\n"
        "    if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n    time.sleep(60)\n"
    )
    code, _, _ = run(capsys, "--python", fake(body), "--path", "engine", "--stages", "0", "--timeout", "20")
    assert code == 4


@pytest.mark.parametrize(
    "argv",
    [
        ["--stages", "4"],
        ["--stages", ""],
        ["--stages", "2;3"],
        ["--world-size", "0"],
        ["--world-size", "99"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--python", "/no/such/python"],
        ["--model", "not a model"],
        ["--model", "a:b c"],
        ["--ds-config", "/no/such/file.json"],
    ],
)
def test_what_makes_no_sense_is_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("envcheck: ")


def test_every_format_renders(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "markdown", "sarif"):
        code, out, _ = run(capsys, "--python", fake(DROPPED), *ENGINE, "--format", form)
        assert code == 1
        assert "twice" in out


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name in ("src", "href") for name, _ in attrs)


def test_the_page_stands_alone_and_is_escaped(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = PLAY_ALL.replace("start()", "start(); write('change', change='<script>alert(1)</script>')", 1)
    page = tmp_path / "page.html"
    code, _, _ = run(capsys, "--python", fake(body), *ENGINE, "--html", str(page))
    text = page.read_text(encoding="utf-8")
    parser = Page()
    parser.feed(text)
    assert code == 0
    assert "script" not in parser.tags
    assert parser.tags.count("svg") == 4 * 4
    assert "&lt;script&gt;" in text


def test_a_record_is_one_line_with_its_digest(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "measured" / "probe.jsonl"
    for _ in range(2):
        run(capsys, "--python", fake(DROPPED), *ENGINE, "--record", str(path))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 2
    assert lines[0]["digest"] == record.digest(lines[0]) == lines[1]["digest"]
    assert lines[0]["packages"] == {"torch": "2.13.0", "deepspeed": "0.19.8"}
    altered = {**lines[0], "device": "cuda"}
    assert record.digest(altered) != altered["digest"]


def test_nothing_is_recorded_when_nothing_ran(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "probe.jsonl"
    run(capsys, "--python", fake("sys.exit(1)\n"), "--record", str(path))
    assert not path.exists()


def chosen(*argv: str) -> list[Scenario]:
    parser = argparse.ArgumentParser()
    probe.configure(parser)
    return probe.choose(parser.parse_args([*argv, "--path", "engine"]))


def test_single_settings_win_over_both_files(tmp_path: Path) -> None:
    config, arguments = tmp_path / "ds.json", tmp_path / "args.json"
    config.write_text('{"zero_optimization": {"stage": 3, "overlap_comm": true}, "bf16": {"enabled": "auto"}}', encoding="utf-8")
    arguments.write_text('{"gradient_accumulation_steps": 2, "max_grad_norm": 0.5}', encoding="utf-8")
    files = ("--ds-config", str(config), "--training-args", str(arguments))
    told = (
        "--set",
        "zero_optimization.stage=2",
        "--set",
        "gradient_accumulation_steps=4",
        "--set",
        "bf16=true",
        "--set",
        "world_size=8",
    )
    (one,) = chosen(*files, *told)
    assert (one.stage, one.accumulation, one.dtype) == (2, 4, "bf16")
    assert one.config["zero_optimization"]["overlap_comm"] is True
    (alone,) = chosen("--set", "zero_optimization.stage=1", "--set", "bf16.enabled=true")
    assert (alone.stage, alone.dtype, alone.accumulation) == (1, "bf16", 3)
    (more,) = chosen("--set", "gradient_allreduce_op=sum", "--set", "torch_autocast.enabled=true", *files[:2])
    assert (more.config["gradient_allreduce_op"], more.config["torch_autocast"]) == ("sum", {"enabled": True})
    with pytest.raises(UsageError, match="no section"):
        chosen(*files, "--set", "zero_optimization.stage.deep=1")
