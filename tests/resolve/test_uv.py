"""uv as a backend: its command line, its refusals, and its failures, from real captured text."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from envcheck.errors import ExitCode, ToolError
from envcheck.resolve import uv as module
from envcheck.resolve.lockfile import Lock
from envcheck.resolve.nogoods import INSTALLED, NEVER, Step
from envcheck.resolve.profile import withdrawn
from envcheck.resolve.request import Request
from envcheck.resolve.search import Answer, Refusal
from envcheck.resolve.uv import Uv, environment, failure, last_steps, reason_of
from tests.resolve.fakeuv import calls, write_uv

if TYPE_CHECKING:
    from pathlib import Path

NO_SOLUTION = """error: No solution found when resolving dependencies
  cause: Because you require deepspeed==0.17.6 and one of:
             deepspeed<0.17.6
             deepspeed>0.17.6,<0.18
         we can conclude that your requirements are unsatisfiable.
"""
OFFLINE = """error: No solution found when resolving dependencies
  cause: Because deepspeed was not found in the cache and you require deepspeed==0.17.6, we can conclude that your requirements are unsatisfiable.

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may only be read from the cache.
"""  # noqa: E501 - as uv 0.13 writes it, like the other texts
UNREACHABLE = """error: Request failed after 3 retries in 7.9s
  cause: Failed to fetch: http://127.0.0.1:9/simple/torch/
  cause: error sending request for url (http://127.0.0.1:9/simple/torch/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
TORCH_INDEX = """warning: The requested Python version 3.10 is not available; 3.11.7 will be used to build dependencies instead.
error: Request failed after 3 retries in 7.1s
  cause: Failed to fetch: https://download.pytorch.org/whl/cu126/torch/
  cause: error sending request for url (https://download.pytorch.org/whl/cu126/torch/)
  cause: client error (Connect)
  cause: dns error
"""
WHEEL = """error: Failed to download `flash-attn @ https://github.com/Dao-AILab/flash-attention/releases/download/v2.5.8/flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl`
  cause: Request failed after 3 retries in 8.9s
  cause: Failed to fetch: https://github.com/Dao-AILab/flash-attention/releases/download/v2.5.8/flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl
  cause: dns error
"""
UNBUILT = """error: Failed to build `flash-attn==2.5.8`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)
         ModuleNotFoundError: No module named 'torch'

hint: This error likely indicates that `flash-attn@2.5.8` depends on `torch`, but doesn't declare it as a build dependency.
"""


def request(**more: object) -> Request:
    return Request(("torch", "deepspeed<=0.18.3"), "3.11", **more)  # type: ignore[arg-type]


def test_an_answer_is_a_lock(tmp_path: Path) -> None:
    answer = Uv(request(), program=str(write_uv(tmp_path))).ask(frozenset())
    assert isinstance(answer, Answer)
    assert answer.versions == {"torch": "2.15.0", "deepspeed": "0.18.3", "numpy": "2.4.6"}
    assert isinstance(answer.payload, Lock)
    assert answer.payload.packages[0].hashes == (f"sha256:{'0' * 64}",)


def test_conditions_become_constraints_and_requirements(tmp_path: Path) -> None:
    uv = Uv(request(), program=str(write_uv(tmp_path)))
    steps = frozenset({Step("deepspeed", "<0.17.6"), Step("setuptools", INSTALLED), Step("torch", "<=2.10.0")})
    answer = uv.ask(steps)
    assert isinstance(answer, Answer)
    assert answer.versions == {"torch": "2.10.0", "deepspeed": "0.17.5", "numpy": "2.4.6", "setuptools": "80.9.0"}
    assert isinstance(uv.ask(frozenset({Step("numpy", NEVER)})), Refusal)


def test_a_question_is_asked_once(tmp_path: Path) -> None:
    uv = Uv(request(), program=str(write_uv(tmp_path)))
    assert uv.ask(frozenset()) is uv.ask(frozenset())
    assert uv.calls == len(calls(tmp_path)) == 1


def test_options_and_preferences_reach_uv(tmp_path: Path) -> None:
    more = {"torch_backend": "cu126", "exclude_newer": "2026-01-01", "find_links": ("wheels",), "overrides": ("numpy<2",)}
    answer = Uv(request(preferred={"torch": "2.5.1", "x": "1"}, **more), program=str(write_uv(tmp_path))).ask(frozenset())
    assert isinstance(answer, Answer)
    assert answer.versions["torch"] == "2.5.1"
    (command,) = calls(tmp_path)
    pairs = dict(pairwise(command))
    assert pairs["--torch-backend"] == "cu126"
    assert pairs["--exclude-newer"] == "2026-01-01"
    assert pairs["--find-links"] == "wheels"
    assert "--overrides" in pairs
    assert pairs["--python-version"] == "3.11"


def test_a_refusal_keeps_the_reasons() -> None:
    text = reason_of(NO_SOLUTION)
    assert text.startswith("Because you require deepspeed==0.17.6 and one of: deepspeed<0.17.6 deepspeed>0.17.6,<0.18")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("stderr", "code", "says"),
    [
        (OFFLINE, 1, "may not use the network"),
        (UNREACHABLE, 2, "cannot reach http://127.0.0.1:9/simple/torch/"),
        (TORCH_INDEX, 2, "meant is a wheel of `torch` built for `cu126`"),
        (WHEEL, 2, "the wheel meant is `flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl`"),
        (UNBUILT, 1, "`flash-attn` has to come as a wheel"),
        ("error: unexpected argument", 2, "uv failed (exit 2)"),
        ("", 1, "uv failed (exit 1)"),
    ],
)
def test_failures_are_errors_and_not_refusals(tmp_path: Path, stderr: str, code: int, says: str) -> None:
    with pytest.raises(ToolError) as caught:
        Uv(request(), program=str(write_uv(tmp_path, fail=stderr, code=code))).ask(frozenset())
    assert says in str(caught.value)
    assert caught.value.exit_code is ExitCode.FAILED


SAID = """Resolved 2 packages in 4ms
warning: `torch==2.5.0` is yanked (reason: "broken on (some) \"GPUs\" ")
warning: `numpy==1.26.4` is yanked
"""


def test_withdrawn_releases_are_told(tmp_path: Path) -> None:
    answer = Uv(request(), program=str(write_uv(tmp_path, say=SAID))).ask(frozenset())
    assert isinstance(answer, Answer)
    assert isinstance(answer.payload, Lock)
    assert answer.payload.yanked == {"torch==2.5.0": 'broken on (some) "GPUs"', "numpy==1.26.4": ""}
    first, second = withdrawn(answer.payload.yanked)
    assert (first.id, first.subjects, first.observed) == ("lock-yanked", ("torch",), {"torch": "2.5.0"})
    assert first.because == ('the reason given: broken on (some) "GPUs"',)
    assert second.because == ("no reason is given",)


def test_of_a_long_chain_the_end_is_kept() -> None:
    chain = " And because ".join(f"step {number}, we can conclude it." for number in range(8))
    told = last_steps(chain)
    assert told.startswith("After 5 earlier steps: because step 5")
    assert told.endswith("step 7, we can conclude it.")
    assert last_steps("Because a. And because b.") == "Because a. And because b."


def test_a_killed_uv_is_an_error() -> None:
    assert "SIGKILL" in str(failure("SIGKILL", ""))


def test_an_answer_that_is_no_lock_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(ToolError, match="cannot be read"):
        Uv(request(), program=str(program)).ask(frozenset())


def test_without_uv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_uv", lambda: None)
    with pytest.raises(ToolError, match="uv was not found"):
        Uv(request()).ask(frozenset())


def test_the_wheels_that_pip_finds_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "a b")
    assert environment()["UV_FIND_LINKS"] == "a,b"
    monkeypatch.setenv("UV_FIND_LINKS", "c")
    assert environment()["UV_FIND_LINKS"] == "c"
