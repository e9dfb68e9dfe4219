"""Undefined symbols in words: demangled, and what they say of the torch an extension was built for. Table: `symbol`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier

from envcheck.errors import ToolError
from envcheck.findings import Evidence
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from envcheck.checks.context import Context

LONGEST = 160
REFERENCE = re.compile(r"[\w.-]+/[\w.-]+#\d+")


@dataclass(frozen=True, slots=True)
class Cause:
    """The likely cause, in sentences, with where that is known from."""

    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()


def demangled(names: Sequence[str]) -> list[str]:
    """The names as C++ has them, cut at a readable length; as they are where there is no `c++filt`."""
    from envcheck.process import run  # noqa: PLC0415 - only where something is wrong

    if not names:
        return []
    try:
        ended = run(["c++filt"], timeout=10, stdin="\n".join(names) + "\n")
    except ToolError:
        return list(names)
    lines = ended.stdout.splitlines()
    whole = lines if ended.returncode == 0 and len(lines) == len(names) else names
    return [text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in whole]


def causes(context: Context, symbols: Iterable[str], libraries: Iterable[str], torch: str) -> Cause:
    """Why symbols and libraries are missing.

    Args:
        context: For the table.
        symbols: Mangled names.
        libraries: Missing libraries.
        torch: Version of the installed torch, or an empty string where torch has no part in it.
    """
    table = context.matrix.table("symbol")
    names = sorted(symbols)
    rows = [row for row in table.get("rows", ()) if any(_fits(row, name, torch) for name in names)]
    reasons = [_words(row, torch) for row in rows]
    if any("cuda" in name for name in libraries) and torch:
        reasons.append(f"it was built for a torch with CUDA; torch {torch} here has no such library")
    elif torch and not rows and names:
        reasons.append(f"it was built for another torch than {torch}")
    sources = [item for item in table.get("sources", ()) if REFERENCE.fullmatch(item)] if rows else []
    return Cause(tuple(dict.fromkeys(reasons)), tuple(Evidence("issue", item) for item in sources))


def _fits(row: dict[str, Any], name: str, torch: str) -> bool:
    same = row["symbol"] in name if row.get("part") else row["symbol"] == name
    running = row.get("running", "")
    if not same or not running.startswith(("<", ">", "=")):
        return same
    try:
        return bool(torch) and satisfies(torch, running) is True
    except InvalidSpecifier:
        return False


def _words(row: dict[str, Any], torch: str) -> str:
    if "meaning" in row:
        return str(row["meaning"])
    built = str(row["built"]).replace("any with cxx11abi ", "releases with _GLIBCXX_USE_CXX11_ABI=")
    return f"`{row['symbol']}` is what builds for torch {built} ask for; torch {torch} is installed"
