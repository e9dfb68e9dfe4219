from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.matrix.remembered import remembered, remembering

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=3)


def counted() -> tuple[list[tuple[str, ...]], Callable[..., list[str]]]:
    asked: list[tuple[str, ...]] = []

    @remembered
    def answer(*texts: str) -> list[str]:
        asked.append(texts)
        return [text[::-1] for text in texts]

    return asked, answer


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("compared-*.json"))


@given(st.lists(TEXTS, max_size=6))
def test_a_second_run_gives_the_same_answers_without_asking(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[list[str]]
) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path_factory.mktemp("cache"))}
    answers = []
    for run in range(2):
        asked, answer = counted()
        with remembering(environ, ("code",)):
            answers.append([answer(*texts) for texts in wanted])
        assert bool(asked) is (run == 0 and bool(wanted))
    assert answers[0] == answers[1] == [[text[::-1] for text in texts] for texts in wanted]


def test_other_code_does_not_know_the_answers(tmp_path: Path) -> None:
    for code in ("one", "two"):
        asked, answer = counted()
        with remembering({"ENVCHECK_CACHE": str(tmp_path)}, (code,)):
            answer("a")
        assert asked == [("a",)]
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": ', "\x00", "[" * 100_000])
def test_a_damaged_file_is_only_a_cache(tmp_path: Path, content: str) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    with remembering(environ, ()):
        counted()[1]("a")
    (file,) = kept(tmp_path)
    file.write_text(content)
    with remembering(environ, ()):
        assert counted()[1]("a") == ["a"]
    assert json.loads(file.read_text()) == {"answer('a',)": ["a"]}


def test_outside_and_without_a_cache_nothing_is_kept(tmp_path: Path) -> None:
    asked, answer = counted()
    with remembering({}, ()):
        assert answer("a") == ["a"]
    assert answer("b") == ["b"]
    assert asked == [("a",), ("b",)]
    assert kept(tmp_path) == []


def test_an_error_inside_ends_the_remembering(tmp_path: Path) -> None:
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    with pytest.raises(ValueError, match="no"), remembering(environ, ()):
        raise ValueError("no")
    counted()[1]("a")
    assert kept(tmp_path) == []


def test_answers_that_nobody_asks_for_any_more_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.matrix.remembered.MOST", 3)
    environ = {"ENVCHECK_CACHE": str(tmp_path)}
    for texts in ("ab", "cd"):
        with remembering(environ, ()):
            for text in texts:
                counted()[1](text)
    assert set(json.loads(kept(tmp_path)[0].read_text())) == {"answer('c',)", "answer('d',)"}
