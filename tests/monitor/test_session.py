"""A session: what is said, written and decided; and that nothing of it reaches the training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from envcheck import monitor
from envcheck.monitor.curves import page, panels
from envcheck.monitor.observation import Kind
from envcheck.monitor.records import GradientCheck, ParameterFact, Record, Run
from envcheck.monitor.session import Session, due

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envcheck.findings import Finding

WRONG = Record(1, check=(GradientCheck("w", "dropped", "only micro-batch 3 of 3 counted", 0.4, 0.9),))

OUTSIDE = Record(0, survey=(ParameterFact("w", trainable=True, in_optimizer=False), ParameterFact("v", trainable=True)))


def session(tmp_path: Path, **options: Any) -> Session:
    made = Session(output=str(tmp_path / "run" / "monitor.jsonl"), **options)
    made.begin(Run(packages={"torch": "2.3.0"}, ranks=2), 0)
    OPEN.append(made)
    return made


OPEN: list[Session] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().journal.end()


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    text = (tmp_path / "run" / "monitor.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_journal_holds_the_run_the_steps_the_findings_and_the_end(tmp_path: Path) -> None:
    made = session(tmp_path, quiet=True)
    made.feed(WRONG)
    made.feed(Record(2, loss=float("nan")))
    made.end()
    found = lines(tmp_path)
    assert [one["event"] for one in found] == ["run", "step", "finding", "step", "finding", "end"]
    assert found[0]["schema"] == "envcheck.monitor/1"
    assert found[0]["packages"] == {"torch": "2.3.0"}
    assert found[3]["loss"] == "nan"
    assert found[2]["at"] == 1
    assert found[-1]["findings"] == [one["id"] for one in found if one["event"] == "finding"]


def test_a_finding_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = session(tmp_path)
    for step in range(1, 6):
        made.feed(Record(step, loss=float("nan")))
    said = capsys.readouterr().err
    assert said.count("envcheck monitor: step") == 1
    assert "not finite" in said


@pytest.mark.parametrize(
    ("action", "record", "stops"),
    [
        ("auto", WRONG, True),
        ("auto", Record(1, loss=float("nan")), False),
        ("warn", WRONG, False),
        ("auto", OUTSIDE, False),
        ("stop", OUTSIDE, True),
        ("auto", Record(1, survey=(ParameterFact("w", trainable=False),)), True),
    ],
)
def test_which_findings_ask_for_a_stop(tmp_path: Path, action: str, record: Record, stops: bool) -> None:
    made = session(tmp_path, action=action, quiet=True)
    made.feed(record)
    assert made.stop_wanted is stops


def test_the_callback_decides(tmp_path: Path) -> None:
    seen: list[str] = []

    def decide(finding: Finding) -> str:
        seen.append(finding.id)
        return "warn"

    made = session(tmp_path, on_finding=decide, quiet=True)
    made.feed(WRONG)
    assert (seen, made.stop_wanted) == ([f"run-{Kind.GRADIENT_WRONG.value}"], False)


def test_an_error_of_the_monitor_is_said_once_and_swallowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = session(tmp_path)

    def broken() -> None:
        raise RuntimeError("of its own")

    assert made.guard(broken) is None
    assert made.guard(lambda: 1) is None
    assert capsys.readouterr().err.count("RuntimeError: of its own") == 1


def test_a_folder_that_cannot_be_written_does_not_reach_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    made = Session(output=str(tmp_path / "file" / "monitor.jsonl"), quiet=True)
    made.guard(lambda: made.begin(Run(packages={"torch": "1"}), 0))
    assert made.broken


def test_another_rank_writes_only_what_it_found(tmp_path: Path) -> None:
    made = Session(output=str(tmp_path / "m.jsonl"), quiet=True)
    made.begin(Run(packages={"torch": "1"}), 3)
    made.feed(Record(1, 3, loss=1.0))
    assert not list(tmp_path.iterdir())
    made.feed(Record(2, 3, loss=float("inf")))
    made.end()
    assert [path.name for path in tmp_path.iterdir()] == ["m.rank3.jsonl"]


def test_every_step_is_read_at_first_and_every_tenth_later() -> None:
    assert all(due(step) for step in range(51))
    assert [step for step in range(51, 100) if due(step)] == [60, 70, 80, 90]


def test_the_page_marks_the_findings(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = session(tmp_path, quiet=True)
    for step in range(1, 30):
        made.feed(Record(step, loss=1 / step, lr=1e-3, grad_norm=float("nan") if step > 20 else 1 + step / 100))
    made.end()
    text = "\n".join(page(lines(tmp_path)))
    assert text.count("<svg") == 3
    assert re.search(r"finding at \d+\b", text)
    assert "The gradient norm is not finite" in text
    assert (tmp_path / "run" / "monitor.html").read_text(encoding="utf-8").count("<svg") == 3


def test_the_curves_are_of_one_rank_and_show_what_the_log_shows() -> None:
    step = {"event": "step"}
    lines = [
        {"event": "run", "rank": 0},
        {**step, "step": 1, "loss": 1.3, "logged_loss": 3.9, "lr": 0.1},
        {**step, "step": 1, "survey": []},
        {**step, "step": 2, "rank": 1, "lr": 0.7},
        {**step, "step": 2, "loss": "nan", "logged_loss": 0.0, "lr": 0.2},
        {**step, "step": 3, "loss": 1.25, "lr": 0.3},
        {"event": "finding", "at": 2},
    ]
    loss, rate = panels(lines)
    assert list(loss.curves[0].points()[0]) == [1, 2, 3]
    assert list(loss.curves[0].values) == [3.9, None, 1.25]  # the filter's 0.0 is none
    assert list(rate.curves[0].values) == [0.1, 0.2, 0.3]
    assert list(rate.marks) == [2.0]


def test_importing_the_monitor_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import envcheck.monitor;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; print(sorted(new))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "['envcheck']"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = monitor.nothing


class Told:
    """The words of a run that two sessions share."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.ended: list[int] = []
        self.waited = 0

    def claim(self, name: str) -> bool:
        new = name not in self.names
        self.names.add(name)
        return new

    def await_first(self) -> None:
        self.waited += 0 not in self.ended

    def done(self, rank: int, *, wait: bool) -> None:
        assert not wait or rank == 0
        self.ended.append(rank)


def ranks(tmp_path: Path) -> tuple[Session, Session]:
    told, made = Told(), []
    for rank in range(2):
        one = Session(output=str(tmp_path / "run" / "monitor.jsonl"))
        one.begin(Run(ranks=2), rank)
        one.share = told
        OPEN.append(one)
        made.append(one)
    return made[0], made[1]


def test_what_both_ranks_find_is_said_by_rank_0_alone_whoever_finds_it_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, one = ranks(tmp_path)
    one.feed(WRONG)
    assert capsys.readouterr().err == ""
    zero.feed(WRONG)
    for step in (2, 3, 4):
        one.feed(Record(step, rank=1, loss=1.0))
        one.speak()
    zero.end()
    one.end()
    said = capsys.readouterr().err
    assert said.count("step 1: error: ") == 1
    assert "rank 1" not in said
    assert zero.findings == one.findings != []


def test_what_rank_1_alone_finds_is_said_by_it_two_steps_later_or_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, one = ranks(tmp_path)
    one.feed(WRONG)
    one.feed(Record(2, rank=1, loss=1.0))
    one.speak()
    assert capsys.readouterr().err == ""
    one.feed(Record(3, rank=1, loss=1.0))
    one.speak()
    assert capsys.readouterr().err.startswith("envcheck monitor: rank 1: step 1: error: ")
    zero, one = ranks(tmp_path)
    one.feed(WRONG)
    zero.end()
    one.end()
    assert "envcheck monitor: rank 1: step 1: error: " in capsys.readouterr().err
    assert one.share is not None
    assert vars(one.share)["waited"] == 0  # rank 0 had said that it was done
