"""Known patches: files that a project copies over an installed package (`matrices/patches/*.toml`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomli
from packaging.specifiers import InvalidSpecifier

from envcheck.errors import InputError
from envcheck.findings import Evidence
from envcheck.matrix.versions import specifier

if TYPE_CHECKING:
    from pathlib import Path

KEYS = frozenset({"id", "title", "target", "versions", "expected_by", "note", "evidence", "reviewed", "files"})
EVIDENCE_KINDS = ("issue", "fix", "code", "docs")


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch.

    Attributes:
        id: Kebab-case, unique.
        title: What it is, in a few words.
        target: Normalised name of the distribution that it is copied over.
        versions: Specifier set of the releases it is made for.
        expected_by: Distributions that need it, normalised name -> specifier set.
        note: What it changes.
        files: Path below site-packages -> SHA-256 of every known content.
        evidence: Where it is published.
    """

    id: str
    title: str
    target: str
    versions: str
    expected_by: dict[str, str]
    note: str
    files: dict[str, tuple[str, ...]]
    evidence: tuple[Evidence, ...]


def load_patches(folder: Path) -> list[Patch]:
    """The patches of a matrix folder, in file order; none where it has no `patches`.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    mistakes: list[str] = []
    patches: list[Patch] = []
    for path in sorted((folder / "patches").glob("*.toml")):
        name = f"patches/{path.name}"
        try:
            document = tomli.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
            mistakes.append(f"{name}: {error}")
            continue
        entries = document.pop("patch", None)
        if document or not isinstance(entries, list):
            mistakes.append(f"{name}: it may hold `[[patch]]` tables, and nothing else")
            continue
        for number, entry in enumerate(entries, 1):
            wrong = list(_mistakes(entry))
            mistakes += [f"{name}: {entry.get('id', f'patch {number}')}: {text}" for text in wrong]
            if not wrong:
                patches.append(_patch(entry))
    twice = {patch.id for patch in patches if [other.id for other in patches].count(patch.id) > 1}
    mistakes += [f"patches: {name}: the id is taken" for name in sorted(twice)]
    if mistakes:
        raise InputError(f"{len(mistakes)} mistakes in the patches", where=str(folder), problems=tuple(mistakes))
    return patches


def _mistakes(entry: dict[str, Any]) -> list[str]:
    wrong = [f"unknown key `{key}`" for key in entry.keys() - KEYS]
    wrong += [f"`{key}` is missing" for key in sorted(KEYS - entry.keys())]
    if wrong:
        return wrong
    texts = ("id", "title", "target", "versions", "note")
    wrong += [f"`{key}` must be a text" for key in texts if not isinstance(entry[key], str)]
    for key, value in {"versions": entry["versions"], **entry["expected_by"]}.items():
        try:
            specifier(value)
        except (InvalidSpecifier, TypeError):
            wrong.append(f"{key}: `{value}` is not a specifier set")
    for path, known in entry["files"].items():
        if path.startswith("/") or ".." in path.split("/"):
            wrong.append(f"files: `{path}` is not a path below site-packages")
        if not isinstance(known, list) or not known or not all(re.fullmatch(r"[0-9a-f]{64}", str(text)) for text in known):
            wrong.append(f"files: `{path}` needs a list of SHA-256 digests")
    if not entry["files"]:
        wrong.append("`files` is empty")
    if not entry["evidence"] or any(item.get("kind") not in EVIDENCE_KINDS or not item.get("ref") for item in entry["evidence"]):
        wrong.append(f"`evidence` needs entries with `kind` ({', '.join(EVIDENCE_KINDS)}) and `ref`")
    return wrong


def _patch(entry: dict[str, Any]) -> Patch:
    return Patch(
        id=entry["id"],
        title=entry["title"],
        target=entry["target"],
        versions=entry["versions"],
        expected_by=dict(entry["expected_by"]),
        note=entry["note"],
        files={path: tuple(known) for path, known in entry["files"].items()},
        evidence=tuple(Evidence(item["kind"], item["ref"]) for item in entry["evidence"]),
    )
