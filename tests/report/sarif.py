"""SARIF 2.1.0 documents against the whole schema: its models as `pydantic-sarif` generates them from OASIS's file.

The generator leaves out what a model cannot say: that a message has a text or an id, and that the items of a list differ.
Both are looked at here.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Log

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Keys that hold a message, or a text in several formats.
MESSAGES = ("message", "shortDescription", "fullDescription", "help")

#: The lists whose items must differ, of those that envcheck writes.
UNIQUE = ("rules", "notifications", "locations", "suppressions", "tags")


def validated(text: str) -> dict[str, Any]:
    """The document; any departure from the schema is an error.

    Raises:
        ValueError: It is not SARIF 2.1.0; says where.
    """
    Log.model_validate_json(text, strict=True)
    document: dict[str, Any] = json.loads(text)
    for key, value in _entries(document):
        if key in MESSAGES and not {"text", "id"} & value.keys():
            raise ValueError(f"`{key}` has neither text nor id: {value}")
        if key in UNIQUE and any(one == other for one, other in combinations(value, 2)):
            raise ValueError(f"`{key}` has the same item twice")
    return document


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, outside the property bags, which may hold anything."""
    for item in value if isinstance(value, list) else ():
        yield from _entries(item)
    for key, item in value.items() if isinstance(value, dict) else ():
        if key != "properties":
            yield key, item
            yield from _entries(item)
