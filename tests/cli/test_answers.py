from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envcheck.checks import requirements
from envcheck.checks.context import Context
from envcheck.cli import answers
from envcheck.facts.model import Absent, Distribution, Environment, Known, Unreadable
from envcheck.facts.snapshot import load as load_snapshot
from envcheck.matrix import versions
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.findings import Report

pytestmark = pytest.mark.answers

STACK = {"deepspeed": "0.17.6", "transformers": "4.57.3", "accelerate": "1.11.0", "torch": "2.7.1", "odd": "not a version"}
ENVIRONMENT = load_snapshot(json.dumps({"packages": STACK, "python": "3.11.7", "driver": "535.104.05", "complete": True}), "s")
CONTEXT = Context(ENVIRONMENT, load(environ={}), Settings({"zero_optimization.stage": 2, "gradient_accumulation_steps": 4}))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """The contexts that were really looked at."""
    seen: list[Context] = []
    compute: Callable[[Context], Report] = answers.compute

    def noted(context: Context) -> Report:
        seen.append(context)
        return compute(context)

    monkeypatch.setattr(answers, "compute", noted)
    return seen


def test_the_second_answer_is_remembered_and_equal(tmp_path: Path, computed: list[Context]) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    first = answers.answer(CONTEXT, environ)
    second = answers.answer(CONTEXT, environ)
    assert len(computed) == 1
    assert first == second == answers.compute(CONTEXT)
    assert {finding.severity.label for finding in first.findings} >= {"error"}


NEEDING = Distribution(
    "needing", "1", requires_python=">=3.9",
    requires=(
        "deepspeed<0.17", "odd>=1", "absent-one", "absent-two; python_version < '3'", "absent-three ; extra == 'x'",
        "self @ https://e.org/self.whl",
        "transformers[torch,sentencepiece]~=4.0 ; sys_platform == 'linux' and python_version > '3.8'",
        "not a requirement !", "accelerate===1.11.0", "odd; implementation_name in 'cpython pypy'",
    ),
)  # fmt: skip


@pytest.mark.parametrize("python", ["3.8.1", "3.11.7"])
def test_comparisons_remembered_from_another_question_give_the_same_answer(python: str, tmp_path: Path) -> None:
    packages = {**ENVIRONMENT.packages, "needing": NEEDING}
    environment = ENVIRONMENT._replace(packages=packages, facts={**ENVIRONMENT.facts, "python": Known(python)})
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    first = CONTEXT._replace(environment=environment)
    other = first._replace(settings=Settings())
    right = answers.compute(first), answers.compute(other)
    functions: list[Any] = [
        requirements.parse,
        requirements._parts,
        requirements._holds,
        requirements._inside,
        versions.satisfies,
    ]
    for function in functions:
        function.cache_clear()
    assert (answers.answer(first, environ), answers.answer(other, environ)) == right
    assert {"requirement-conflict", "requirement-missing", "requirement-unreadable"} <= {item.id for item in right[0].findings}


CHANGES = {
    "a version": CONTEXT._replace(environment=ENVIRONMENT._replace(packages={"deepspeed": Distribution("deepspeed", "0.17.5")})),
    "a fact": CONTEXT._replace(environment=ENVIRONMENT._replace(facts={"driver": Known("535.104.06", "x")})),
    "a fact's kind": CONTEXT._replace(environment=ENVIRONMENT._replace(facts={"driver": Unreadable("535.104.06", "x")})),
    "a fact that went": CONTEXT._replace(environment=ENVIRONMENT._replace(facts={"driver": Absent(("x",))})),
    "completeness": CONTEXT._replace(environment=ENVIRONMENT._replace(complete=False)),
    "GPUs looked for": CONTEXT._replace(environment=ENVIRONMENT._replace(gpus=())),
    "a setting": CONTEXT._replace(settings=Settings({"zero_optimization.stage": 3, "gradient_accumulation_steps": 4})),
    "a setting's type": CONTEXT._replace(settings=Settings({"zero_optimization.stage": "2", "gradient_accumulation_steps": 4})),
    "a usage word": CONTEXT._replace(settings=CONTEXT.settings._replace(uses=frozenset({"own-training-loop"}))),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_is_looked_at_again(what: str, tmp_path: Path, computed: list[Context]) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    answers.answer(CONTEXT, environ)
    changed = answers.answer(CHANGES[what], environ)
    assert computed == [CONTEXT, CHANGES[what]]
    assert changed == answers.compute(CHANGES[what])


def test_another_matrix_is_another_question(tmp_path: Path, computed: list[Context]) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path / "cache")}
    answers.answer(CONTEXT, environ)
    (tmp_path / "m" / "rules").mkdir(parents=True)
    (tmp_path / "m" / "vocabulary.toml").write_text("")
    empty = load(str(tmp_path / "m"), {})
    answers.answer(CONTEXT._replace(matrix=empty), environ)
    assert len(computed) == 2


def test_other_code_is_another_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, computed: list[Context]) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    answers.answer(CONTEXT, environ)
    monkeypatch.setattr(answers, "_code", lambda: iter(["rules.py 1 1"]))
    answers.answer(CONTEXT, environ)
    assert len(computed) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.one_of(st.binary(max_size=40), st.integers(0, 400)))
def test_a_damaged_answer_is_computed_again(damage: bytes | int, tmp_path: Path) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    right = answers.answer(CONTEXT, environ)
    (file,) = tmp_path.glob("answer-*.json")
    file.write_bytes(damage if isinstance(damage, bytes) else file.read_bytes()[:damage])
    assert answers.answer(CONTEXT, environ) == right


@pytest.mark.parametrize("environ", [{}, {"HOME": "/proc/nowhere"}, {"ENVCHECK_CACHE": "/dev/null"}])
def test_without_a_place_to_write_it_is_computed(environ: dict[str, str], computed: list[Context]) -> None:
    answers.answer(CONTEXT, environ)
    answers.answer(CONTEXT, environ)
    assert len(computed) == 2


def test_only_this_user_may_read_what_is_remembered(tmp_path: Path) -> None:
    answers.answer(Context(Environment(), CONTEXT.matrix), {"ENVCHECK_CACHE": str(tmp_path / "deep" / "er")})
    (file,) = Path(tmp_path, "deep", "er").iterdir()
    assert file.stat().st_mode & 0o077 == 0
