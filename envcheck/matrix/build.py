"""Read the matrix's TOML files and make the bytes of the cache."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import tomli

from envcheck.errors import InputError
from envcheck.matrix.pack import pack
from envcheck.matrix.parse import parse_rules

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.matrix.rule import Rule

FACT_KINDS = ("version", "word", "list")


def build(folder: Path, files: list[os.DirEntry[str]]) -> bytes:
    """The cache bytes of the matrix in `folder`.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    mistakes: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    documents: dict[str, dict[str, Any]] = {}
    for entry in files:
        name = os.path.relpath(entry.path, folder)
        documents[name] = _read(entry.path, name, digest, mistakes)
    vocabulary = documents.get("vocabulary.toml", {})
    kinds = _kinds(vocabulary, mistakes)
    told = [name for name in kinds if vocabulary["fact"][name].get("from") != "check"]
    rules, uses = _rules(documents, kinds, mistakes)
    if mistakes:
        raise InputError(
            f"{len(mistakes)} mistakes in the matrix", where=str(folder), problems=tuple(mistakes),
            hints=("`matrices/README.md` explains every key",),
        )  # fmt: skip
    tables = {name[7:-5]: text for name, text in documents.items() if name.startswith("tables/")}
    return _pack(rules, tables, {"kinds": kinds, "told": told, "uses": uses, "digest": digest.hexdigest()})


def _read(path: str, name: str, digest: hashlib.blake2b, mistakes: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - a scandir entry's path
            content = stream.read()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
        return tomli.loads(content.decode())
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError) as error:
        mistakes.append(f"{name}: {error}")
        return {}


def _kinds(vocabulary: dict[str, Any], mistakes: list[str]) -> dict[str, str]:
    kinds = {}
    for name, entry in vocabulary.get("fact", {}).items():
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if kind in FACT_KINDS:
            kinds[name] = str(kind)
        else:
            mistakes.append(f"vocabulary.toml: fact.{name}: `kind` must be one of {', '.join(FACT_KINDS)}")
    return kinds


def _rules(
    documents: dict[str, dict[str, Any]], kinds: dict[str, str], mistakes: list[str],
) -> tuple[list[Rule], dict[str, str]]:  # fmt: skip
    rules: list[Rule] = []
    uses: dict[str, str] = {}
    for name, document in documents.items():
        if not name.startswith("rules/"):
            continue
        found, wrong = parse_rules(document, name, kinds)
        rules += found
        mistakes += wrong
        for word, text in document.get("uses", {}).items():
            if uses.setdefault(word, text) != text:
                mistakes.append(f"{name}: uses.{word}: another file says something else of this word")
    mistakes += _unique(rules) + _undeclared(rules, uses)
    return rules, uses


def _unique(rules: list[Rule]) -> list[str]:
    first: dict[str, Rule] = {}
    return [
        f"{rule.file}: {rule.id}: the id is taken by {first[rule.id].file}"
        for rule in rules
        if first.setdefault(rule.id, rule) is not rule
    ]


def _undeclared(rules: list[Rule], uses: dict[str, str]) -> list[str]:
    return [
        f"{rule.file}: {rule.id}: when.uses: `{word}` is not declared in a `[uses]` table"
        for rule in rules
        for word in rule.uses
        if word not in uses
    ]


def plain_rule(rule: Rule) -> dict[str, Any]:
    """The rule as data that JSON can hold and `rule_from_plain` reads back."""
    return rule._asdict()


def _pack(rules: list[Rule], tables: dict[str, Any], head: dict[str, Any]) -> bytes:
    body = bytearray()
    digest = head.pop("digest")
    places = [_append(body, plain_rule(rule)) for rule in rules]
    tables_at = {name: _append(body, document) for name, document in tables.items()}
    index = pack(rules, places, {**head, "tables": tables_at})
    first = _line({"digest": digest, "rules": len(rules), "index": len(index), "length": len(index) + len(body)})
    return first + index + bytes(body)


def _line(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=str).encode() + b"\n"


def _append(body: bytearray, document: object) -> tuple[int, int]:
    text = _line(document)
    offset = len(body)
    body += text
    return offset, len(text)
