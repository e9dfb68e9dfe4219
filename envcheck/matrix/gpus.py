"""What a GPU's name tells: its compute capability and its class. Table: `gpu`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.facts.model import Gpu

WORDS = re.compile(r"[a-z0-9]+")


def named(rows: Sequence[dict[str, Any]], name: str, key: str) -> str:
    """What the table says under `key` (`cc` or `class`) of a GPU name; empty where it does not know the name.

    Of the rows whose name the GPU's name holds as whole words, the one with the most words counts.
    """
    words = WORDS.findall(name.lower())
    best: tuple[int, str] = (0, "")
    for row in rows:
        wanted = WORDS.findall(row["name"].lower())
        if key in row and len(wanted) > best[0] and _holds(words, wanted):
            best = (len(wanted), row[key])
    return best[1]


def _holds(words: list[str], wanted: list[str]) -> bool:
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words)))


def completed(gpu: Gpu, rows: Sequence[dict[str, Any]]) -> Gpu:
    """The GPU with what its name tells; what is known of it already wins."""
    return gpu._replace(
        compute_capability=gpu.compute_capability or named(rows, gpu.name, "cc"),
        product_class=gpu.product_class or named(rows, gpu.name, "class"),
    )
