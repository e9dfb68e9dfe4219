"""Findings about one DeepSpeed document: its text, its keys, its values and its batch arithmetic.

What holds between keys, or hangs on package versions, is in `matrices/rules/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.dsconfig import blocks, entries
from envcheck.dsconfig.document import Document, parse
from envcheck.dsconfig.keys import KeyTable, version_of
from envcheck.dsconfig.subject import LOADER, READER, Subject
from envcheck.findings import Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What strict JSON refuses, by the kind of the problem.
TITLES = {
    "comment": "The file has comments",
    "trailing-comma": "The file has a trailing comma",
    "single-quotes": "The file has a string in single quotes",
    "unquoted-key": "A key is not quoted",
    "unquoted-text": "A text is not quoted",
    "foreign-word": "A constant is not written as JSON writes it",
    "not-finite": "A number is not finite",
    "number": "A number is not written as JSON writes it",
    "missing-comma": "A comma is missing",
    "byte-order-mark": "The file begins with a byte order mark",
    "escape": "A string has an escape that JSON does not have",
}


def findings(subject: Subject) -> Iterator[Finding]:
    """Everything there is to say."""
    yield from text(subject)
    if not subject.document.usable:
        return
    for entry in subject.document.duplicates:
        yield entries.duplicate(subject, entry)
    for entry in subject.document.entries():
        yield from entries.key(subject, entry)
    yield from blocks.optimizer(subject)
    yield from blocks.scheduler(subject)
    yield from blocks.switches(subject)
    yield from blocks.batch(subject)
    yield from blocks.stage3_only(subject)


def text(subject: Subject) -> Iterator[Finding]:
    """What strict JSON refuses; one finding for each kind, at its first place."""
    seen: dict[str, int] = {}
    for problem in subject.document.problems:
        seen[problem.kind] = seen.get(problem.kind, 0) + 1
    for problem in subject.document.problems:
        count = seen.pop(problem.kind, 0)
        if problem.fatal:
            yield Finding(
                "ds-config-not-json",
                Severity.ERROR,
                f"The DeepSpeed config is not JSON: {problem.message}",
                place=subject.at(problem.place),
                because=(problem.message,),
                evidence=(LOADER,),
            )
        elif count:
            more = f" ({count} times)" if count > 1 else ""
            yield Finding(
                f"ds-config-{problem.kind}",
                Severity.ERROR if subject.trainer else Severity.WARNING,
                f"{TITLES[problem.kind]}{more}",
                place=subject.at(problem.place),
                because=(
                    f"{problem.message}; transformers and accelerate read the file as strict JSON and stop here",
                    "DeepSpeed itself reads it with hjson, which is more tolerant",
                ),
                fixes=(Fix("do", "write strict JSON (`envcheck config --fix` does)"),),
                evidence=(LOADER, READER),
            )


def lint_document(
    text: str,
    where: str,
    deepspeed_version: str | None = None,
    *,
    table: KeyTable | None = None,
    trainer: bool | None = None,
    world_size: int | None = None,
) -> list[Finding]:
    """Every finding about one DeepSpeed config.

    Args:
        text: Its text; anything at all.
        where: Its name, for places.
        deepspeed_version: The installed DeepSpeed, where known.
        table: The key table; the default matrix's where left out.
        trainer: Whether the transformers Trainer reads the file; None where nobody said.
        world_size: Number of ranks, where known.
    """
    return lint_parsed(
        parse(text),
        where,
        deepspeed_version,
        table or default_table(),
        trainer=trainer,
        world_size=world_size,
    )


def lint_parsed(
    document: Document,
    where: str,
    deepspeed_version: str | None,
    table: KeyTable,
    *,
    trainer: bool | None = None,
    world_size: int | None = None,
    five: bool = False,
) -> list[Finding]:
    """As `lint_document`, for a document that is parsed already."""
    version = version_of(deepspeed_version) if deepspeed_version else None
    return list(findings(Subject(document, where, table, version, trainer, world_size, five)))


def default_table() -> KeyTable:
    """The key table of the default matrix."""
    from envcheck.matrix.database import load  # noqa: PLC0415 - callers usually have a matrix

    return KeyTable.from_data(load().table("deepspeed_keys"))
