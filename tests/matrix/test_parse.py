from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.matrix.parse import parse_rules
from tests.matrix.rules import GOOD, KINDS, mistakes, parsed


def test_a_rule_reads_as_written() -> None:
    (rule,) = parsed(GOOD)
    assert rule.packages == {"deepspeed": ">=1,<2"}
    assert str(rule.settings[0]) == "`zero_optimization.stage` is 2"
    assert rule.fix[0].as_fix().change == "deepspeed>=2"
    assert rule.reviewed == "2026-11-24"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"bad"', '"worse"', "`status` must be one of"),
        ('"wrong-gradient"', '"sad"', "`effect` must be one of"),
        ('">=1,<2"', '"1 to 2"', "`1 to 2` is not a specifier set"),
        ("deepspeed = ", "Deep_Speed = ", "is not a normalised name"),
        ("equals = 2", "equals = 2, above = 1", "exactly one of"),
        ("equals = 2", "near = 2", "unknown key `near`"),
        ("equals = 2", 'above = "x"', "needs a number"),
        ('kind = "issue"', 'kind = "rumour"', "must be one of issue"),
        ('title = "a"', 'tilte = "a"', "unknown key `tilte`"),
        ("reviewed = 2026-11-24", 'reviewed = "soon"', "`reviewed` must be a date"),
        ('{ package = "deepspeed", to = ">=2" }', '{ package = "deepspeed" }', "must be { package, to }"),
        ('id = "deepspeed-a"', 'id = "Deep Speed"', "kebab-case"),
        ("when.packages", "when.weather = 1\nwhen.packages", "unknown key `weather`"),
        ("symptom", 'unknown = "panic"\nsymptom', '`unknown` must be "warn" or "info"'),
        ("when.settings", 'when.facts = { mood = "good" }\nwhen.settings', "`mood` is not in vocabulary"),
        ("when.settings", 'when.facts = { driver = "old" }\nwhen.settings', "`old` is not a specifier set"),
        ("when.settings", 'when.compare = ["a is b"]\nwhen.settings', "`left op right`"),
    ],
)
def test_a_mistake_is_named_with_file_rule_and_key(old: str, new: str, says: str) -> None:
    assert old in GOOD
    found = mistakes(GOOD.replace(old, new, 1))
    assert any(says in text and text.startswith("t.toml: ") for text in found), found


def test_every_mistake_of_a_file_comes_at_once() -> None:
    broken = GOOD.replace('"bad"', '"worse"').replace("equals", "near").replace('"tags"', "3")
    assert len(mistakes(broken)) >= 3


TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["id", "title", "when", "packages", "settings", "facts", "compare", "uses", "fix", "evidence", "key", "equals"]
)


ENTRY = st.dictionaries(KEYS, st.dictionaries(KEYS, TOML, max_size=3) | TOML, max_size=6)


@given(st.dictionaries(st.just("rule"), st.lists(ENTRY, max_size=3) | TOML))
def test_no_document_crashes_the_parser(document: dict[str, Any]) -> None:
    rules, found = parse_rules(document, "t.toml", KINDS)
    assert isinstance(rules, list)
    entries = document.get("rule", [])
    if entries and isinstance(entries, list):
        assert len(rules) == len(entries) or found
