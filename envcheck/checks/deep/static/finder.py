"""Where a module comes from: the import system's path search over another environment's folders."""

from __future__ import annotations

import ast
import os
import re
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXTENSION = re.compile(r"\.(?:cpython-(?P<tag>\d+)[\w-]*|abi3|pypy[\w-]*)?\.?(?:so|pyd)$")

#: Modules that the standard library lost, with the release that lost them ("What's New in Python" 3.12 and 3.13).
REMOVED = {
    **dict.fromkeys(("asynchat", "asyncore", "distutils", "imp", "smtpd"), (3, 12)),
    **dict.fromkeys(
        ("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib",
         "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"), (3, 13)),
}  # fmt: skip

#: setuptools' .pth file that answers for `distutils`.
SHIM = "distutils-precedence.pth"


class Kind(Enum):
    """What a module is made of."""

    SOURCE = "source"
    EXTENSION = "extension"
    NAMESPACE = "namespace"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Module:
    """One module.

    Attributes:
        name: Dotted.
        kind: What it is made of.
        file: Its source text or library; empty for the other kinds.
        folders: Where its submodules are looked for; empty where it is no package.
    """

    name: str
    kind: Kind
    file: str = ""
    folders: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]

    @property
    def package(self) -> str:
        """What relative imports of it start from."""
        return self.name if self.folders else self.name.rpartition(".")[0]


class Finder:
    """Finds modules by name and remembers them."""

    def __init__(self, path: Iterable[str], version: tuple[int, int]) -> None:
        """Search `path` as a Python of that version would."""
        self.path = tuple(path)
        self.version = version
        self._names: dict[str, frozenset[str]] = {}
        self._found: dict[str, Module | None] = {}
        self._mapped = dict(_mappings(self.path))
        self.whole = not any(_opaque(entry) for entry in self.path)

    def find(self, name: str) -> Module | None:
        """The module, or None where the import system would find none; `exists` says how sure that is."""
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def sure(self, name: str) -> bool:
        """Whether a module that `find` does not find is really missing: no other importer could know it."""
        return self.whole and name.partition(".")[0] not in ("__main__", "six")

    def _search(self, name: str) -> Module | None:
        parent, _, last = name.rpartition(".")
        if not last.isidentifier():
            return None
        if parent:
            above = self.find(parent)
            return self._in(above.folders, name, last) if above else None
        if name in self._mapped:
            where = self._mapped[name]
            return self._in((os.path.dirname(where),), name, os.path.basename(where).removesuffix(".py"))  # noqa: PTH119, PTH120
        return self._in(self.path, name, last) or self._builtin(name)

    def _in(self, folders: Iterable[str], name: str, last: str) -> Module | None:
        portions = []
        for folder in folders:
            names = self._listing(folder)
            place = f"{folder}/{last}"
            if last in names and "__init__.py" in self._listing(place):
                return Module(name, Kind.SOURCE, f"{place}/__init__.py", (place,))
            if f"{last}.py" in names:
                return Module(name, Kind.SOURCE, f"{place}.py")
            library = next((entry for entry in names if entry.startswith(f"{last}.") and self._loads(entry[len(last) :])), None)
            if library:
                return Module(name, Kind.EXTENSION, f"{folder}/{library}")
            if last in names and os.path.isdir(place):  # noqa: PTH112 - pathlib is slow
                portions.append(place)
        return Module(name, Kind.NAMESPACE, "", tuple(portions)) if portions else None

    def _loads(self, ending: str) -> bool:
        found = EXTENSION.fullmatch(ending)
        return found is not None and found["tag"] in (None, "".join(map(str, self.version)))

    def _builtin(self, name: str) -> Module | None:
        if name not in sys.stdlib_module_names and name not in REMOVED:
            return None
        if self.version >= REMOVED.get(name, (99, 0)):
            shimmed = name == "distutils" and any(SHIM in self._listing(folder) for folder in self.path)
            return Module(name, Kind.BUILTIN) if shimmed else None
        return Module(name, Kind.BUILTIN)

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))  # noqa: PTH208 - as above
            except (OSError, ValueError):
                self._names[folder] = frozenset()
        return self._names[folder]


def _opaque(entry: str) -> bool:
    """An entry that is no folder: a zip archive, which is not looked into."""
    return os.path.isfile(entry)  # noqa: PTH113 - as above


def _mappings(path: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Module -> path of the editable installs of setuptools, whose finders keep a `MAPPING`."""
    for folder in path:
        try:
            names = [name for name in os.listdir(folder) if name.startswith("__editable__") and name.endswith("_finder.py")]  # noqa: PTH208
            for name in names:
                with open(f"{folder}/{name}", encoding="utf-8") as stream:  # noqa: PTH123 - as above
                    yield from _mapping(stream.read(1 << 20))
        except (OSError, ValueError):
            continue


def _mapping(text: str) -> Iterator[tuple[str, str]]:
    found = re.search(r"^MAPPING(?:: [^=\n]+)? = (\{.*\})$", text, re.MULTILINE)
    value = ast.literal_eval(found[1]) if found else {}
    return ((str(name), str(where)) for name, where in value.items())
