"""The headers of a METADATA or PKG-INFO file, without the mail parser: only the fields that checks need."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from envcheck.facts.machine import read_start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: Read first; nearly every header ends within it. The description that follows can be hundreds of KiB.
FIRST_READ = 1 << 13

#: A header longer than this is not read to its end.
LONGEST_HEADER = 1 << 20

#: Longer names and versions are cut: they are not real, and would flood a report.
LONGEST_VALUE = 200

#: A field with its continuation lines, which begin with a space or a tab (core metadata specification).
#: Begins with the line end before it: three times faster than `^` with MULTILINE.
FIELD = re.compile(
    r"\n(Name|Version|Requires-Dist|Requires-Python|Provides-Extra)[ \t]*:[ \t]*(.*(?:\n[ \t]+.*)*)",
    re.IGNORECASE,
)

#: What a distribution may be called (core metadata specification, "Name").
NAME = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)

RUNS = re.compile(r"[-_.]+")


class Headers(NamedTuple):
    """The fields of one metadata file; texts are empty where the field is missing."""

    name: str = ""
    version: str = ""
    requires_python: str = ""
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


def normalised(name: str) -> str:
    """The name as PEP 503 compares it: lower case, runs of `-`, `_`, `.` as one `-`."""
    return RUNS.sub("-", name).lower()


def is_name(name: str) -> bool:
    """Whether a distribution can be called so."""
    return len(name) <= LONGEST_VALUE and NAME.fullmatch(name) is not None


def named_versions(path: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """The versions of `names` (normalised) that the names of metadata folders on `path` give; the first folder counts.

    No file is read: what a folder's name says is enough for one question, and costs a hundredth of reading all metadata.
    """
    found: dict[str, str] = {}
    for folder in path:
        try:
            entries = sorted(os.listdir(folder or "."))  # noqa: PTH208 - pathlib is slow
        except OSError:
            continue
        for entry in entries:
            stem, dot, ending = entry.rpartition(".")
            name, _, version = stem.partition("-")
            if dot and ending in ("dist-info", "egg-info") and normalised(name) in names:
                found.setdefault(normalised(name), version.partition("-")[0])
    return found


def read_headers(path: str) -> Headers:
    """The fields of the metadata file at `path`.

    Raises:
        OSError: It is not there or cannot be read.
    """
    content = read_start(path, FIRST_READ)
    if len(content) == FIRST_READ and _end(content) == FIRST_READ:
        content = read_start(path, LONGEST_HEADER)
    return scan(content)


def _end(content: bytes) -> int:
    """Where the first blank line begins, or the length where there is none."""
    if content.startswith((b"\n", b"\r\n")):
        return 0
    found = [place for place in (content.find(b"\n\n"), content.find(b"\n\r\n")) if place >= 0]
    return min(found, default=len(content))


def scan(content: bytes) -> Headers:
    """The fields in the header of a metadata text; whatever follows the first blank line is not looked at."""
    header = content[: _end(content)].removeprefix(b"\xef\xbb\xbf")
    text = "\n" + header.decode(errors="replace")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    fields: dict[str, list[str]] = {}
    for key, value in FIELD.findall(text):
        fields.setdefault(key.lower(), []).append(value if "\n" not in value else " ".join(value.split()))
    return Headers(
        name=_one(fields, "name"),
        version=_one(fields, "version"),
        requires_python=_one(fields, "requires-python"),
        requires=tuple(_all(fields, "requires-dist")),
        extras=tuple(_all(fields, "provides-extra")),
    )


def _one(fields: dict[str, list[str]], key: str) -> str:
    return fields[key][0].strip()[:LONGEST_VALUE] if key in fields else ""


def _all(fields: dict[str, list[str]], key: str) -> Iterator[str]:
    return (value.strip() for value in fields.get(key, ()) if value.strip())
