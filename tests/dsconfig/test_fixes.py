"""`--fix`: strict JSON, the same order, nothing else changed, never over the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.cli.main import main
from envcheck.dsconfig.document import parse
from envcheck.dsconfig.fixes import corrected
from envcheck.dsconfig.lint import default_table

if TYPE_CHECKING:
    import pytest

TABLE = default_table()
BROKEN = """{
  // precision
  "bf16": {"enabled": True,},
  "gradient_cliping": "1.0",   # a typo
  "zero_optimization": {
    "stage": 2,
    'contiguous_gradients': "false",
    "cpu_offload": true
    "reduce_bucket_size": 5e8
  }
}
"""
MENDED = """{
  "bf16": {"enabled": true},
  "gradient_clipping": 1.0,
  "zero_optimization": {
    "stage": 2,
    "contiguous_gradients": false,
    "offload_optimizer": {"device": "cpu"},
    "reduce_bucket_size": 5e8
  }
}
"""


def test_order_and_formatting_stay() -> None:
    text, edits = corrected(parse(BROKEN), TABLE, None, None)
    assert text == MENDED
    assert len(edits) >= 7
    json.loads(text)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(BROKEN.split("\n")), max_size=9))
def test_a_usable_document_becomes_strict_and_stays_so(lines: list[str]) -> None:
    document = parse("{" + "\n".join(line for line in lines if line not in ("{", "}")) + "}")
    if not document.usable:
        return
    text, _ = corrected(document, TABLE, None, None)
    assert not parse(text).duplicates
    again, edits = corrected(parse(text), TABLE, None, None)
    assert json.loads(text) is not None
    assert (again, edits) == (text, [])


TWICE = """{
  "zero_optimization": {
    "stage": 3, // once
    "overlap_comm": false,
    "stage": 2
  },
  "bf16": {"enabled": true}, "bf16": {"enabled": false},
  "zero_optimization": {"stage": 1, "stage": 1}
}
"""


def test_of_a_key_given_twice_the_last_is_kept_as_json_reads_it() -> None:
    text, edits = corrected(parse(TWICE), TABLE, None, None)
    assert text == '{\n  "bf16": {"enabled": false},\n  "zero_optimization": {"stage": 1}\n}\n'
    assert json.loads(text) == parse(TWICE).plain()
    assert [edit.line for edit in edits if "is kept" in edit.what] == [2, 7, 8]


DOUBLED = st.recursive(
    st.integers(0, 3),
    lambda inner: st.lists(st.tuples(st.sampled_from("abc"), inner), min_size=1, max_size=4).map(
        lambda pairs: "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(DOUBLED)
def test_removing_repeated_keys_changes_nothing_that_json_reads(value: object) -> None:
    document = parse(f'{{"nobody_knows": {value}}}')
    text, _ = corrected(document, TABLE, None, None)
    assert json.loads(text) == document.plain()
    assert not parse(text).duplicates


def test_good_files_are_left_alone() -> None:
    for path in (Path(__file__).parent / "good").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert corrected(parse(text), TABLE, None, True) == (text, [])


def test_the_copy_stands_next_to_the_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zero2.json"
    path.write_text(BROKEN, encoding="utf-8")
    assert main(["config", str(path), "--fix"]) == 1
    assert path.read_text(encoding="utf-8") == BROKEN
    assert (tmp_path / "zero2.fixed.json").read_text(encoding="utf-8") == MENDED
    assert f"{path}:4: `gradient_cliping` -> `gradient_clipping`" in capsys.readouterr().err
    assert main(["config", str(path), "--fix"]) == 2
    assert "already there" in capsys.readouterr().err


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(BROKEN.split("\n")[1:-2]), max_size=9), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans()
)
def test_line_ends_tabs_and_what_is_right_stay_and_the_copy_has_nothing_left_to_fix(
    lines: list[str], end: str, mark: bool, tabs: bool
) -> None:
    body = [
        line.replace("  ", "\t") if tabs else line for line in lines if line.strip(" },")[-1:] != "{" and line.strip(" ,") != "}"
    ]
    text = "\ufeff" * mark + end.join(["{", *body, "}", ""])
    document = parse(text)
    if not document.usable:
        return
    fixed, edits = corrected(document, TABLE, None, trainer=True)
    assert fixed.count("\n") == fixed.count(end)
    assert not fixed.startswith("\ufeff")
    assert bool(edits) == (fixed != text)
    assert not parse(fixed).problems
    kept = [entry for entry in parse(fixed).entries() if entry.path in document.by_path]
    assert [entry.path for entry in kept] == sorted(
        (entry.path for entry in kept), key=lambda path: document.by_path[path].place.offset
    )
    assert (tabs and "\t" in text) <= ("\t" in fixed or not kept)
