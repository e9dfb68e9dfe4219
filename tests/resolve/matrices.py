"""Matrix folders with a few rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RULE = """
[[rule]]
id = "{id}"
title = "{id}"
status = "bad"
effect = "wrong-gradient"
when.packages = {{ {packages} }}
when.settings = [ {settings} ]
symptom = "s"
fix = [ {{ do = "x" }} ]
evidence = [ {{ kind = "issue", ref = "o/r#1" }} ]
bounds = "tags"
reviewed = 2026-11-24
matches = []
clear = []
"""


def rule_text(name: str, packages: Mapping[str, str], stage: int | None = None) -> str:
    """A bad rule about these packages (name -> specifier), under a ZeRO stage where one is given."""
    written = ", ".join(f'{package} = "{spec}"' for package, spec in packages.items())
    settings = "" if stage is None else f'{{ key = "zero_optimization.stage", equals = {stage} }}'
    return RULE.format(id=name, packages=written, settings=settings)


def matrix_folder(folder: Path, rules: Iterable[str]) -> Path:
    """A matrix folder with these rules."""
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    (folder / "rules" / "all.toml").write_text("".join(rules))
    return folder
