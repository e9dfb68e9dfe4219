"""Rules for tests, built from TOML text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomli

from envcheck.matrix.parse import parse_rules

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.matrix.rule import Rule

KINDS = {"driver": "version", "glibc": "version", "machine": "word", "conda_packages": "list"}

GOOD = """
[[rule]]
id = "deepspeed-a"
title = "a"
status = "bad"
effect = "wrong-gradient"
when.packages = { deepspeed = ">=1,<2" }
when.settings = [ { key = "zero_optimization.stage", equals = 2 } ]
symptom = "s"
fix = [ { package = "deepspeed", to = ">=2" } ]
evidence = [ { kind = "issue", ref = "o/r#1" } ]
bounds = "tags"
reviewed = 2026-11-24
matches = [ { packages = { deepspeed = "1.5" }, settings = { "zero_optimization.stage" = 2 } } ]
clear = [ { packages = { deepspeed = "2.0" }, settings = { "zero_optimization.stage" = 2 } } ]
"""


def parsed(text: str) -> list[Rule]:
    rules, mistakes = parse_rules(tomli.loads(text), "t.toml", KINDS)
    assert not mistakes, mistakes
    return rules


def mistakes(text: str) -> list[str]:
    return parse_rules(tomli.loads(text), "t.toml", KINDS)[1]


def folder(tmp_path: Path, text: str, **tables: dict[str, Any]) -> Path:
    import tomli_w  # noqa: PLC0415 - tests only

    (tmp_path / "rules").mkdir(parents=True, exist_ok=True)
    (tmp_path / "tables").mkdir(exist_ok=True)
    (tmp_path / "rules" / "t.toml").write_text(text)
    facts = {name: {"kind": kind} for name, kind in KINDS.items()}
    (tmp_path / "vocabulary.toml").write_text(tomli_w.dumps({"fact": facts}))
    for name, table in tables.items():
        (tmp_path / "tables" / f"{name}.toml").write_text(tomli_w.dumps(table))
    return tmp_path
