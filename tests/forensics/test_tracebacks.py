"""Messages of public reports: named by the rule that holds, else by their family; a user's own mistake is not named."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.cli.main import main
from envcheck.forensics.tracebacks import Collector
from envcheck.matrix.message import knows

if TYPE_CHECKING:
    from collections.abc import Iterable

CASES = tomli.loads(Path(__file__).with_name("messages.toml").read_text(encoding="utf-8"))["case"]
LINE = "{{'loss': {}, 'grad_norm': {}, 'learning_rate': 1e-05, 'epoch': {}}}\n"
GOING_ON = "".join(LINE.format(2 - step / 10, 1.5 + step % 3 / 7, step) for step in range(9))


def judge(folder: Path, capsys: pytest.CaptureFixture[str], log: str, packages: dict[str, str]) -> tuple[int, dict[str, Any]]:
    (folder / "train.log").write_text(log, encoding="utf-8")
    (folder / "snapshot.json").write_text(json.dumps({"packages": packages}), encoding="utf-8")
    options = ["--snapshot", str(folder / "snapshot.json")] if packages else []
    code = main(["log", str(folder / "train.log"), *options, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("case", CASES, ids=[case["report"] for case in CASES])
def test_a_reported_message_is_named(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judge(tmp_path, capsys, case["log"].lstrip("\n"), case["packages"])
    found = {one["id"]: one for one in report["findings"]}
    if "finds" not in case:
        assert (found, code) == ({}, 3)
        return
    assert case["finds"] in found
    assert case.get("not") not in found
    assert case.get("says", "") in " ".join((*found[case["finds"]]["because"], found[case["finds"]]["title"]))
    assert report["skipped"] == [] or not report["skipped"][0].get("asked")


def test_what_training_survived_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = "ImportError: cannot import name 'x' from 'a.b' (/y)\n"
    assert judge(tmp_path, capsys, log, {})[0] == 1
    code, report = judge(tmp_path, capsys, log + GOING_ON, {})
    assert code == 0
    assert [(one["id"], one["severity"]) for one in report["findings"]] == [("message-name-not-there", "warning")]


def test_without_an_environment_rules_are_only_possible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = judge(tmp_path, capsys, "ImportError: cannot import name 'EncoderDecoderCache' from 'transformers' (/x)\n", {})
    (found,) = report["findings"]
    assert found["id"] == "message-name-not-there"
    assert any("perhaps rule peft-cache-classes" in reason for reason in found["because"])


@pytest.mark.parametrize(
    ("fragment", "text", "known"),
    [
        ("has no attribute 'train'", "AttributeError: 'AdamW' object has no attribute 'train'", True),
        ("has no attribute 'train'", "AttributeError: 'X' object has no attribute 'trainer'", False),
        ("undefined symbol: _ZN3c10", "undefined symbol: _ZN3c104cuda", True),
        ("", "anything", False),
    ],
)
def test_a_quoted_word_at_the_end_of_a_fragment_is_whole(fragment: str, text: str, known: bool) -> None:
    assert knows(fragment, text) is known


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[one:other] for one, other in itertools.pairwise(places)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40_000), max_size=6), st.integers(0, 30_000))
def test_a_message_is_found_however_the_log_is_cut(cuts: list[int], before: int) -> None:
    noise = (b"[INFO] step of nothing\n" * (before // 23 + 1))[: before - before % 23]
    frame = b'  File "/x/site-packages/peft/a.py", line 1, in <module>\n'
    log = noise + frame + b"ImportError: cannot import name 'a' from 'b'\nmore\n" + noise
    collector = Collector()
    assert b"".join(collector.watch(pieces(log, cuts))) == log
    (seen,) = collector.seen.values()
    assert seen.first == "ImportError: cannot import name 'a' from 'b'"
    assert (seen.importer, seen.line) == ("peft", noise.count(b"\n") + 2)
