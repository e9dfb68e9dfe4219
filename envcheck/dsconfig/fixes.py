"""Corrections of a DeepSpeed config: small edits of the text, so that order and formatting stay."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, NamedTuple

from envcheck.dsconfig.document import Document, Entry, Value, parse
from envcheck.dsconfig.keys import KeyTable, current
from envcheck.dsconfig.values import value_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.version import Version

#: A pass can uncover what the next one corrects; three are enough for a name, its value and their surroundings.
PASSES = 4

#: Deprecated keys that another key replaces one for one.
RENAMED = {"stage3_gather_fp16_weights_on_model_save": "stage3_gather_16bit_weights_on_model_save"}

#: Deprecated switches that a section replaces.
SECTIONS = {"cpu_offload": "offload_optimizer", "cpu_offload_param": "offload_param"}


class Edit(NamedTuple):
    """Replace `text[start:end]`; `what` says it in a line, `line` is where."""

    start: int
    end: int
    text: str
    line: int
    what: str


def corrected(document: Document, table: KeyTable, version: Version | None, trainer: bool | None) -> tuple[str, list[Edit]]:
    """The corrected text and every change, in the order made: a renamed key may show that its value is wrong too."""
    text, made = once(document, table, version, trainer)
    for _ in range(PASSES - 1):
        text, more = once(parse(text), table, version, trainer)
        if not more:
            break
        made += more
    return text, made


def once(document: Document, table: KeyTable, version: Version | None, trainer: bool | None) -> tuple[str, list[Edit]]:
    """The corrected text and the edits made, in order; edits that would overlap an earlier one are left out.

    Args:
        document: A usable document.
        table: The key table.
        version: The installed DeepSpeed, or None.
        trainer: Whether the Trainer reads the file.
    """
    wanted = sorted(
        [
            *syntax(document),
            *repeated(document.root),
            *keys(document, table),
            *values(document, table, version, trainer),
        ],
        key=lambda edit: (edit.start, edit.end),
    )
    made: list[Edit] = []
    for edit in wanted:
        if not made or edit.start >= made[-1].end:
            made.append(edit)
    text = document.text
    for edit in reversed(made):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text, made


def syntax(document: Document) -> Iterator[Edit]:
    """Comments, commas and quotes."""
    text = document.text
    for problem in document.problems:
        start, end, line = problem.place.offset, problem.end, problem.place.line
        found = text[start:end]
        if problem.kind == "comment":
            yield Edit(*comment_span(text, start, end), "", line, "removed a comment")
        elif problem.kind == "byte-order-mark":
            yield Edit(start, end, "", line, "removed the byte order mark")
        elif problem.kind == "trailing-comma":
            yield Edit(start, end, "", line, "removed a trailing comma")
        elif problem.kind == "missing-comma":
            yield Edit(start, start, ",", line, "added a comma")
        elif problem.kind in ("single-quotes", "unquoted-key", "unquoted-text"):
            inner = found[1:-1].replace("\\'", "'") if problem.kind == "single-quotes" else found
            yield Edit(start, end, json.dumps(inner, ensure_ascii=False), line, f"quoted {found}")
        elif problem.kind == "foreign-word":
            word = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}.get(found, "null")
            yield Edit(start, end, word, line, f"{found} -> {word}")
        elif problem.kind == "number":
            better = written(document, start)
            if better:
                yield Edit(start, end, better, line, f"{found} -> {better}")


def comment_span(text: str, start: int, end: int) -> tuple[int, int]:
    """A comment with the blanks before it; with its line where it stands alone."""
    left = start
    while left and text[left - 1] in " \t":
        left -= 1
    after = "\r\n" if text.startswith("\r\n", end) else "\n"
    alone = (not left or text[left - 1] == "\n") and (text.startswith(after, end) or end == len(text))
    return (left, min(end + len(after), len(text))) if alone else (left, end)


def written(document: Document, offset: int) -> str:
    """The number that begins at an offset, as JSON writes it; empty inside arrays."""
    for entry in document.entries():
        if entry.value.place.offset == offset and isinstance(entry.value.plain, (int, float)):
            return json.dumps(entry.value.plain)
    return ""


def repeated(value: Value | None) -> Iterator[Edit]:
    """Of a key that its object holds several times, all but the last: what `json`, and with it the Trainer, reads.

    DeepSpeed itself refuses such a file, so that there is no other reading to keep.
    """
    entries = value.entries or () if value is not None else ()
    last = {entry.key: entry for entry in entries}
    for entry, following in itertools.zip_longest(entries, entries[1:]):
        kept = last[entry.key]
        if kept is entry:
            yield from repeated(entry.value)
        else:
            what = f"`{entry.path}`: removed; the one on line {kept.place.line} is kept, which is the one `json` reads"
            yield Edit(entry.place.offset, following.place.offset, "", entry.place.line, what)


def keys(document: Document, table: KeyTable) -> Iterator[Edit]:
    """Misspelled keys whose right name stands in the same section, and deprecated ones."""
    for entry in document.entries():
        section = entry.path.rpartition(".")[0]
        if entry.key in RENAMED and section == "zero_optimization":
            yield renamed(entry, RENAMED[entry.key])
        elif entry.key in SECTIONS and section == "zero_optimization" and isinstance(entry.value.plain, bool):
            device = "cpu" if entry.value.plain else "none"
            name = SECTIONS[entry.key]
            if f"{section}.{name}" not in document.by_path:
                new = f'"{name}": {{"device": "{device}"}}'
                yield Edit(
                    entry.place.offset,
                    entry.value.end,
                    new,
                    entry.place.line,
                    f"`{entry.key}` -> `{name}.device` = {device}",
                )
        elif table.get(entry.path) is None and not (section and table.is_open(section)):
            nearest = table.nearest(entry.path)
            same = nearest.rpartition(".")[0] == current(f"{section}.x").rpartition(".")[0] if section else "." not in nearest
            if nearest and same and nearest not in document.by_path:
                yield renamed(entry, nearest.rpartition(".")[2])


def renamed(entry: Entry, name: str) -> Edit:
    """Another name for a key."""
    return Edit(entry.place.offset, entry.key_end, json.dumps(name), entry.place.line, f"`{entry.key}` -> `{name}`")


def values(document: Document, table: KeyTable, version: Version | None, trainer: bool | None) -> Iterator[Edit]:
    """Values of the wrong type or spelling that have one right form."""
    for entry in document.entries():
        section = entry.path.rpartition(".")[0]
        strict = bool(section) and table.refuses(section, version) is not False
        for problem in value_problems(table.get(entry.path), entry, strict=strict, pydantic2=True, trainer=trainer):
            if problem.change:
                old = document.text[entry.value.place.offset : entry.value.end]
                yield Edit(
                    entry.value.place.offset,
                    entry.value.end,
                    problem.change[0],
                    entry.place.line,
                    f"`{entry.path}`: {old} -> {problem.change[0]}",
                )
