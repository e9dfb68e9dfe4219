"""The tables of one ELF file that the dynamic loader uses (System V ABI; pyelftools finds them, symbols are read in bulk)."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Elf64_Sym: name, info, other, section, value, size.
SYMBOL = "IBBHQQ"

UNDEFINED, WEAK, LOCAL = 0, 2, 0
HIDDEN = frozenset({1, 2})

#: The largest symbol tables (libtorch_cuda, libcublasLt) have 60 MiB with their strings.
TABLE_LIMIT = 512 << 20

#: What parsing a damaged table comes to.
_DAMAGED = (struct.error, ValueError, IndexError, KeyError, AttributeError, TypeError)


class NotElfError(ValueError):
    """Not an ELF file that can be linked, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What a shared object asks for and gives.

    Attributes:
        machine: As pyelftools names it, `EM_X86_64`.
        soname: Its own name, or an empty string.
        needed: DT_NEEDED, in order.
        rpath: DT_RPATH folders.
        runpath: DT_RUNPATH folders.
        wanted: Undefined symbols that must be found; weak ones are not among them.
        given: Symbols that others can use.
    """

    machine: str
    soname: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    wanted: frozenset[str]
    given: frozenset[str]


def read_elf(path: str) -> Elf:
    """The tables of the file at `path`.

    Raises:
        OSError: It cannot be read.
        NotElfError: It is not a 64-bit ELF file with a dynamic section, or its tables are damaged.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - slow to import

    with open(path, "rb") as stream:  # noqa: PTH123 - pathlib is slow
        try:
            return _read(stream)
        except (*_DAMAGED, ELFError) as error:
            raise NotElfError(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # what seek says to a place no file reaches, which a damaged table names
                raise
            raise NotElfError(f"{type(error).__name__}: {error}") from error


def _read(stream: IO[bytes]) -> Elf:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - as above

    if stream.read(4) != b"\x7fELF":
        raise NotElfError("not an ELF file")
    stream.seek(0)
    elf: Any = ELFFile(stream)
    if elf.elfclass != 64:  # noqa: PLR2004 - the class of everything that torch runs on
        raise NotElfError("not a 64-bit file")
    dynamic = elf.get_section_by_name(".dynamic")
    if dynamic is None:
        raise NotElfError("no dynamic section")
    tags: dict[str, list[Any]] = {}
    for tag in dynamic.iter_tags():
        name = tag.entry.d_tag
        value = {"DT_NEEDED": "needed", "DT_SONAME": "soname", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}.get(name)
        if value:
            tags.setdefault(name, []).append(getattr(tag, value))
    wanted, given = _symbols(elf, stream)
    return Elf(
        machine=str(elf["e_machine"]),
        soname=str(tags.get("DT_SONAME", [""])[0]),
        needed=tuple(map(str, tags.get("DT_NEEDED", ()))),
        rpath=_folders(tags.get("DT_RPATH", [])),
        runpath=_folders(tags.get("DT_RUNPATH", [])),
        wanted=wanted,
        given=given,
    )


def _folders(values: list[Any]) -> tuple[str, ...]:
    return tuple(folder for value in values for folder in str(value).split(":") if folder)


def _symbols(elf: Any, stream: IO[bytes]) -> tuple[frozenset[str], frozenset[str]]:  # noqa: ANN401 - pyelftools has no types
    """Wanted and given names of the dynamic symbol table."""
    table, strings = elf.get_section_by_name(".dynsym"), elf.get_section_by_name(".dynstr")
    if table is None or strings is None:
        return frozenset(), frozenset()
    order = "<" if elf.little_endian else ">"
    entries, names = _content(table, stream), _content(strings, stream)
    wanted, given = set(), set()
    for name, weak, undefined in _entries(entries, names, order):
        if not undefined:
            given.add(name)
        elif not weak:
            wanted.add(name)
    return frozenset(wanted), frozenset(given)


def _content(section: Any, stream: IO[bytes]) -> bytes:  # noqa: ANN401 - as above
    size = section["sh_size"]
    if size > TABLE_LIMIT:
        raise NotElfError(f"a symbol table of {size >> 20} MiB")
    stream.seek(section["sh_offset"])
    return stream.read(size)


def _entries(table: bytes, names: bytes, order: str) -> Iterator[tuple[str, bool, bool]]:
    """Name, is it weak, is it undefined; local and hidden symbols are no business of the loader."""
    form = struct.Struct(order + SYMBOL)
    for name, info, other, section, _, _ in form.iter_unpack(table[: len(table) // form.size * form.size]):
        binding = info >> 4
        if name and binding != LOCAL and (other & 3 not in HIDDEN or section == UNDEFINED):
            end = names.find(b"\0", name)
            yield names[name:end].decode("utf-8", "replace"), binding == WEAK, section == UNDEFINED
