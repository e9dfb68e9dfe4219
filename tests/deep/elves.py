"""Makes shared objects of a few hundred bytes with the tables that the loader reads, and nothing else."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDED, STRTAB, SONAME, RPATH, RUNPATH = 1, 5, 14, 15, 29
STRING_TABLE, DYNAMIC, SYMBOL_TABLE = 3, 6, 11


def shared_object(
    *, soname: str = "", needed: Sequence[str] = (), runpath: str = "", rpath: str = "", wants: Sequence[str] = (),
    wants_weakly: Sequence[str] = (), gives: Sequence[str] = (), hides: Sequence[str] = (),
) -> bytes:  # fmt: skip
    """An x86-64 shared object with these tables."""
    strings = bytearray(b"\0")

    def put(text: str) -> int:
        place = len(strings)
        strings.extend(text.encode() + b"\0")
        return place

    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    kinds = ((wants, 0x12, 0, 0), (wants_weakly, 0x22, 0, 0), (gives, 0x12, 0, 1), (hides, 0x12, 2, 1))
    for names, info, other, section in kinds:
        for name in names:
            symbols += struct.pack("<IBBHQQ", put(name), info, other, section, 0x1000 if section else 0, 8)
    tags = [(NEEDED, put(name)) for name in needed]
    tags += [(tag, put(text)) for tag, text in ((SONAME, soname), (RUNPATH, runpath), (RPATH, rpath)) if text]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in [*tags, (STRTAB, 0), (0, 0)])
    return _file([(".dynsym", SYMBOL_TABLE, symbols, 24, 2), (".dynstr", STRING_TABLE, bytes(strings), 0, 0),
                  (".dynamic", DYNAMIC, dynamic, 16, 2)])  # fmt: skip


def _file(sections: list[tuple[str, int, bytes, int, int]]) -> bytes:
    """Header, the sections, their names, the section headers."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    everything = [*sections, (".shstrtab", STRING_TABLE, names, 0, 0)]
    body, headers, offset = b"", bytes(64), 64
    for name, kind, content, entry, link in everything:
        place = names.index(name.encode() + b"\0")
        headers += struct.pack("<IIQQQQIIQQ", place, kind, 2, 0, offset, len(content), link, 0, 1, entry)
        body += content
        offset += len(content)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(everything) + 1
    head = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, offset, 0, 64, 56, 0, 64, count, count - 1)
    return head + body + headers
