"""The parser: agrees with `json` on JSON, names the place of everything, and never fails."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.dsconfig.document import DEEPEST, parse

KEYS = st.text(max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)
SIGNS = st.text(st.sampled_from(list("{}[]:,\"'\\/*#\n truefalsn01.eE+-_N∞\ufeff")), max_size=60)


@given(DOCUMENTS, st.sampled_from([None, 0, 2]))
def test_agrees_with_json_on_every_json_document(document: dict[str, Any], indent: int | None) -> None:
    for ascii_only in (True, False):
        parsed = parse(json.dumps(document, indent=indent, ensure_ascii=ascii_only))
        assert parsed.plain() == document
        assert not [item for item in parsed.problems if item.kind != "comment"]


@given(SIGNS | st.text(max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    parsed = parse(text)
    assert parsed.usable or any(problem.fatal for problem in parsed.problems)


@given(SIGNS | st.text(max_size=40))
def test_what_json_accepts_is_usable_and_what_it_refuses_has_a_problem(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=lambda _: pytest.fail("constant"))
    except (ValueError, RecursionError):
        parsed = parse(text)
        assert parsed.problems
        return
    except pytest.fail.Exception:
        return
    parsed = parse(text)
    assert parsed.usable == isinstance(expected, dict)
    if parsed.usable:
        assert parsed.plain() == expected


@settings(max_examples=30)
@given(DOCUMENTS)
def test_places_point_at_the_key(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2)
    lines = text.split("\n")
    for entry in parse(text).entries():
        assert lines[entry.place.line - 1][entry.place.column - 1] == '"'
        assert json.loads(text[entry.place.offset : entry.key_end]) == entry.key


@pytest.mark.parametrize(
    ("text", "kind", "line", "column"),
    [
        ('{\n  "a": 1, // why\n  "b": 2\n}', "comment", 2, 11),
        ('{\n  # why\n  "b": 2\n}', "comment", 2, 3),
        ('{"a": /* x */ 1}', "comment", 1, 7),
        ('{\n  "a": 1,\n}', "trailing-comma", 2, 9),
        ('{"a": [1, 2,]}', "trailing-comma", 1, 12),
        ('\ufeff{"a": 1}', "byte-order-mark", 1, 1),
        ("{'a': 1}", "single-quotes", 1, 2),
        ('{"a": True}', "foreign-word", 1, 7),
        ('{"a": NaN}', "not-finite", 1, 7),
        ('{"a": -Infinity}', "not-finite", 1, 7),
        ('{"a": 1_000}', "number", 1, 7),
        ('{"a": .5}', "number", 1, 7),
        ('{"a": 1 "b": 2}', "missing-comma", 1, 8),
        ("{a: 1}", "unquoted-key", 1, 2),
        ('{"a": auto}', "unquoted-text", 1, 7),
    ],
)
def test_tolerated_with_a_place(text: str, kind: str, line: int, column: int) -> None:
    parsed = parse(text)
    problem = parsed.problems[0]
    assert parsed.usable
    assert (problem.kind, problem.place.line, problem.place.column) == (kind, line, column)


@pytest.mark.parametrize(
    ("text", "kind", "line", "column"),
    [
        ("", "empty", 1, 1),
        ("[1]", "not-an-object", 1, 1),
        ('{"a": 1', "not-closed", 1, 1),
        ('{"a" 1}', "syntax", 1, 6),
        ('{"a": }', "syntax", 1, 7),
        ('{\n"a": "b\n}', "syntax", 2, 6),
        ('{"a": 1} x', "after-end", 1, 10),
        ("{/* ", "comment", 1, 2),
        ('{"a": 1,, "b": 2}', "syntax", 1, 9),
        ('{"a": ' + "1" * 5000 + "}", "syntax", 1, 7),
        ("[" * 100_000, "too-deep", 1, DEEPEST + 2),
        ('{"a":' * 100_000, "too-deep", 1, (DEEPEST + 1) * 5 + 1),
    ],
)
def test_not_usable_with_a_place(text: str, kind: str, line: int, column: int) -> None:
    parsed = parse(text)
    problem = parsed.problems[-1]
    assert not parsed.usable
    assert parsed.plain() == {}
    assert (problem.kind, problem.place.line, problem.place.column) == (kind, line, column)


def test_duplicates_are_kept_and_the_last_wins() -> None:
    parsed = parse('{"a": 1,\n "a": 2}')
    assert [(entry.path, entry.place.line) for entry in parsed.duplicates] == [("a", 2)]
    assert parsed.plain() == {"a": 2}
    assert len(list(parsed.entries())) == 2


def test_not_finite_numbers_keep_their_value() -> None:
    assert math.isnan(parse('{"a": NaN}').plain()["a"])
    assert parse('{"a": -Infinity}').plain()["a"] == -math.inf
