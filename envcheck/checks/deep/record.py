"""RECORD files (PyPA specifications, "Recording installed projects"): what an installer says it installed."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import os
from dataclasses import dataclass

from envcheck.facts.machine import read_start

#: The RECORD of the largest wheels (torch, tensorflow) has 2 MiB; a larger one than this is not read.
LIMIT = 64 << 20

#: Algorithms that pip and uv write or the specification allows; `md5` and `sha1` it forbids.
ALGORITHMS = ("sha256", "sha384", "sha512")

FIELDS = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        path: As written: relative to the folder that holds the metadata folder, or absolute.
        algorithm: As hashlib names it, or an empty string where no digest is recorded.
        digest: In hexadecimal.
        size: In bytes, or None.
    """

    path: str
    algorithm: str = ""
    digest: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A RECORD file: its usable lines, and what is wrong with the others, one sentence each."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()


def read_record(path: str) -> Record | None:
    """The RECORD at `path`; None where there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        if os.stat(path).st_size > LIMIT:  # noqa: PTH116 - pathlib is slow
            return Record((), (f"it is larger than {LIMIT >> 20} MiB",))
        return parse_record(read_start(path, LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_record(content: bytes) -> Record:
    """The lines of a RECORD text; a line that cannot be used becomes a problem and does not hide the others."""
    if b"\0" in content:
        return Record((), ("it is not a text",))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Record((), (f"it is not UTF-8: byte {error.start}",))
    entries: list[Entry] = []
    problems: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            _take(row, reader.line_num, entries, problems)
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    return Record(tuple(entries), tuple(problems))


def _take(row: list[str], number: int, entries: list[Entry], problems: list[str]) -> None:
    if not row:
        return
    if len(row) != FIELDS or not row[0]:
        problems.append(f"line {number}: not `path,hash,size`")
        return
    path, recorded, size = row
    algorithm, digest = "", ""
    if recorded:
        algorithm, _, encoded = recorded.partition("=")
        digest = _hexadecimal(encoded)
        if algorithm not in ALGORITHMS:
            algorithm = digest = ""
        elif not digest:
            problems.append(f"line {number}: the digest is not base64")
            return
    if size and not (size.isascii() and size.isdigit() and len(size) < 20):  # noqa: PLR2004 - a size of 64 bits
        problems.append(f"line {number}: the size is not a number")
        return
    entries.append(Entry(path, algorithm, digest, int(size) if size else None))


def _hexadecimal(encoded: str) -> str:
    """The digest in hexadecimal; empty where it is not url-safe base64 without padding."""
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
