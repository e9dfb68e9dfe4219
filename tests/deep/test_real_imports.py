from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from envcheck.checks.deep.real_imports import import_all, read_answer
from envcheck.errors import ToolError
from envcheck.matrix.message import knows
from envcheck.process import Completed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    texts = {
        "fine": "print('hello')", "noisy": "import sys; sys.exit(3)", "lacking": "from os import no_such_name",
        "crashing": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "endless": "import time; time.sleep(60)",
        "silent": "import os; os._exit(0)",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


ENDS = {
    "fine": ("", ""), "noisy": ("SystemExit", "3"), "lacking": ("ImportError", "cannot import name"),
    "crashing": ("Crash", "SIGSEGV"),
    "silent": ("Crash", "exit 0"), "not_there": ("ModuleNotFoundError", "not_there"),
}  # fmt: skip


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ENDS)
def test_how_an_import_ends(name: str) -> None:
    error, message = ENDS[name]
    (attempt,) = import_all(sys.executable, [name], 30)
    assert (attempt.module, attempt.error) == (name, error)
    assert message in attempt.message


@pytest.mark.usefixtures("modules")
def test_an_import_that_does_not_end() -> None:
    (attempt,) = import_all(sys.executable, ["endless"], 1.5)
    assert attempt.error == "Timeout"


def test_the_place_of_the_failing_statement(modules: Path) -> None:
    first, second = import_all(sys.executable, ["fine", "lacking"], 30)
    assert first.place == ""
    assert second.place == f"{modules / 'lacking.py'}:1"


def test_an_answer_cut_off_by_the_crash() -> None:
    ended = Completed((), -11, "", "")
    (attempt,) = read_answer('{"start": "torch"}\n{"done": "to', ended)
    assert (attempt.module, attempt.error) == ("torch", "Crash")


def test_no_interpreter() -> None:
    with pytest.raises(ToolError):
        list(import_all("/no/such/python", ["os"], 5))


def test_a_rules_fragment_of_a_message() -> None:
    text = "ImportError: cannot import name 'log' from 'torch.x' (/a/b.py)"
    assert knows("cannot import name `log`", text)
    assert not knows("cannot import name 'logs'", text)
    assert not knows("", text)
