"""Where installed distributions say they came from: the whole of `direct_url.json` (PEP 610)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.facts.machine import read_start
from envcheck.facts.metadata import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.facts.model import Environment

LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Origin:
    """One origin.

    Attributes:
        url: As recorded.
        hashes: Algorithm -> hex digest of the archive; empty where none is recorded.
        commit: The commit of a repository, or an empty string.
    """

    url: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""


def read_origins(environment: Environment) -> dict[str, Origin]:
    """The origins of the distributions that record one, by name; what comes from an index records none."""
    found = {}
    for item in environment.packages.values():
        if item.direct_url and item.location:
            document = _document(item.location, item.name)
            if isinstance(document.get("url"), str):
                found[item.name] = origin_of(document)
    return found


def origin_of(document: Mapping[str, Any]) -> Origin:
    """The origin that a `direct_url.json` describes; both spellings of its hash are read."""
    archive, vcs = _table(document, "archive_info"), _table(document, "vcs_info")
    hashes = {str(name): str(value).lower() for name, value in _table(archive, "hashes").items()}
    name, equals, value = str(archive.get("hash", "")).partition("=")
    if equals and not hashes:
        hashes[name] = value.lower()
    return Origin(str(document["url"]), hashes, str(vcs.get("commit_id", "")))


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _document(location: str, name: str) -> dict[str, Any]:
    try:
        folders = [entry for entry in os.listdir(location) if entry.endswith(".dist-info")]  # noqa: PTH208 - as in distributions
        mine = next(entry for entry in folders if normalised(entry.partition("-")[0]) == name)
        document = json.loads(read_start(f"{location}/{mine}/direct_url.json", LIMIT))
    except (OSError, ValueError, RecursionError, StopIteration):
        return {}
    return document if isinstance(document, dict) else {}
