"""Find, load and cache the matrix.

The parsed matrix is kept in the user's cache as one file of three parts: a line of JSON (digest, number of rules, sizes), the
index (`matrix.pack`), then one line for each rule and table. The index is read when a rule is asked for, the text of a rule
when it has something to say.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from envcheck.cache import cache_folder, digest, write_cached
from envcheck.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from envcheck.facts.model import Environment
    from envcheck.matrix.index import Candidates, Index
    from envcheck.matrix.rule import Example, Rule
    from envcheck.matrix.settings import Settings

#: Part of the cache key: a change of the cache's form changes it.
CACHE_FORM = "7"

#: The first line of a cache file is shorter than this.
HEAD_LIMIT = 512


class Matrix:
    """The loaded database.

    Attributes:
        place: Folder that it was read from.
        origin: Why that folder: `option`, `packaged` or `checkout`.
        digest: Digest over the names and contents of its files.
    """

    def __init__(self, folder: str, origin: str, head: Mapping[str, Any], read: Callable[[int, int], bytes]) -> None:
        """Take the first line of a cache file, and a function that gives so many bytes from a place behind that line."""
        self.place = folder
        self.origin = origin
        self.digest: str = head["digest"]
        self._count: int = head["rules"]
        self._read = read
        self._index_length: int = head["index"]
        self._index: Index | None = None
        self._asked: tuple[Environment, Settings, list[Candidates]] | None = None
        self._completed: tuple[Environment, Environment] | None = None
        self._read_tables: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        """The number of rules."""
        return self._count

    @property
    def folder(self) -> Path:
        """`place` as a path."""
        from pathlib import Path  # noqa: PLC0415 - slow to import

        return Path(self.place)

    @property
    def kinds(self) -> dict[str, str]:
        """Fact name -> kind (`version`, `word`, `list`)."""
        found: dict[str, str] = self.index.directory["kinds"]
        return found

    @property
    def told(self) -> frozenset[str]:
        """Facts that an ordinary check does not look for."""
        return frozenset(self.index.directory["told"])

    @property
    def uses(self) -> dict[str, str]:
        """Usage word -> what the user's code does."""
        found: dict[str, str] = self.index.directory["uses"]
        return found

    @property
    def index(self) -> Index:
        """The conditions of every rule."""
        if self._index is None:
            from envcheck.matrix.index import Index  # noqa: PLC0415 - brings the conditions and with them packaging

            self._index = Index(self._read(0, self._index_length))
        return self._index

    def rule(self, number: int) -> Rule:
        """The rule at a place of the index."""
        return rule_from_plain(self._text(*self.index.place(number)))

    def rules(self) -> Iterator[Rule]:
        """Every rule, in file order."""
        return (self.rule(number) for number in range(len(self)))

    def good(self) -> Iterator[Rule]:
        """The known-good combinations, in file order; the text of no other rule is read."""
        return (self.rule(number) for number in self.index.good())

    def candidates(self, environment: Environment) -> Iterator[Rule]:
        """The rules that no package condition rules out."""
        return (self.rule(number) for number in self.index.fitting(environment))

    def completed(self, environment: Environment) -> Environment:
        """The environment with the class, and the compute capability, of the GPUs of which only the name is known.

        The last answer is kept, as for `possible`.
        """
        if not environment.gpus:
            return environment
        if self._completed is None or all(environment is not known for known in self._completed):
            from envcheck.matrix.gpus import completed  # noqa: PLC0415 - only where there are GPUs

            rows = self.table("gpu").get("rows", ())
            gpus = tuple(completed(gpu, rows) for gpu in environment.gpus)
            self._completed = environment, environment._replace(gpus=gpus)
        return self._completed[1]

    def possible(self, environment: Environment, settings: Settings) -> list[Candidates]:
        """The rules of which nothing is false, with what is open, without their text; those that are alike together.

        The last answer is kept: several checks ask of the same environment.
        """
        environment = self.completed(environment)
        if self._asked is None or self._asked[0] is not environment or self._asked[1] is not settings:
            self._asked = environment, settings, self.index.candidates(environment, settings, self.kinds)
        return self._asked[2]

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        return list(self.index.directory["tables"])

    def table(self, name: str) -> dict[str, Any]:
        """The parsed file `tables/<name>.toml`; an empty dict where there is none."""
        if name not in self._read_tables:
            place = self.index.directory["tables"].get(name)
            self._read_tables[name] = self._text(*place) if place else {}
        return self._read_tables[name]

    def _text(self, offset: int, length: int) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._read(self._index_length + offset, length))
        return document


def find_folder(option: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """The matrix folder and why: `--matrices` / `ENVCHECK_MATRICES`, then the packaged one, then a checkout's.

    Raises:
        InputError: There is none.
    """
    given = option or environ.get("ENVCHECK_MATRICES")
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - pathlib is slow to import
    candidates = [(given, "option")] if given else [
        (f"{package}/_matrices", "packaged"), (f"{os.path.dirname(package)}/matrices", "checkout"),  # noqa: PTH120 - as above
    ]  # fmt: skip
    for folder, origin in candidates:
        if os.path.isdir(f"{folder}/rules"):  # noqa: PTH112 - as above
            return folder, origin
    where = ", ".join(folder for folder, _ in candidates)
    raise InputError("no matrix found", where=where, hints=("the folder must hold `rules/*.toml`",))


def load(option: str | None = None, environ: Mapping[str, str] | None = None, *, cache: bool = True) -> Matrix:
    """Load the matrix, from the cache where it is fresh.

    Freshness is decided by name, size and modification time of every file; the cache holds the digest of the contents.

    Raises:
        InputError: No folder, or mistakes in the files (all of them at once).
    """
    environ = os.environ if environ is None else environ
    folder, origin = find_folder(option, environ)
    files = matrix_files(folder)
    store = _cache_file(folder, files, environ) if cache else None
    make = partial(_make, folder, files)
    if store is not None and (found := _open_cache(store, folder, origin, make)):
        return found
    data = make()
    if store is not None:
        write_cached(store, data)
    line, _, rest = data.partition(b"\n")
    return Matrix(folder, origin, json.loads(line), lambda start, length: rest[start : start + length])


def _make(folder: str, files: list[os.DirEntry[str]]) -> bytes:
    """The bytes of a cache file, from the matrix's own files.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    from pathlib import Path  # noqa: PLC0415 - only without a fresh cache

    from envcheck.matrix.build import build  # noqa: PLC0415 - likewise

    return build(Path(folder), files)


def matrix_files(folder: str) -> list[os.DirEntry[str]]:
    """The TOML files of the matrix that hold rules, tables and the vocabulary, sorted by name."""
    found: list[os.DirEntry[str]] = []
    for place in (folder, f"{folder}/rules", f"{folder}/tables"):
        if os.path.isdir(place):  # noqa: PTH112 - pathlib is slow to import
            with os.scandir(place) as entries:
                found += [entry for entry in entries if entry.name.endswith(".toml") and entry.is_file()]
    return sorted(found, key=lambda entry: entry.path)


def _cache_file(folder: str, files: list[os.DirEntry[str]], environ: Mapping[str, str]) -> str | None:
    base = cache_folder(environ)
    if base is None:
        return None
    lines = [CACHE_FORM, os.path.realpath(folder)]
    for entry in files:
        stat = entry.stat()
        lines.append(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return f"{base}/matrix-{digest(*map(os.fsencode, lines))}.jsonl"


def _open_cache(store: str, folder: str, origin: str, make: Callable[[], bytes]) -> Matrix | None:
    """The matrix over a cache file of which only the first line is read; None where the file is not whole."""
    try:
        with open(store, "rb") as stream:  # noqa: PTH123 - pathlib is slow
            line = stream.readline(HEAD_LIMIT)
            head = json.loads(line)
            if os.fstat(stream.fileno()).st_size != len(line) + head["length"]:
                return None
        return Matrix(folder, origin, head, Stored(store, line, make))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, truncated or foreign: it is only a cache


class Stored:
    """Gives pieces of a cache file; where the file has gone meanwhile, of what is made again."""

    def __init__(self, file: str, line: bytes, make: Callable[[], bytes]) -> None:
        """Take the file, its first line, and how it is made."""
        self._file, self._line, self._make = file, line, make
        self._made: bytes | None = None

    def __call__(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`, counted behind the first line."""
        if self._made is None:
            try:
                with open(self._file, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is slow to import
                    if stream.read(len(self._line)) == self._line:
                        stream.seek(start, os.SEEK_CUR)
                        found = stream.read(length)
                        if len(found) == length:
                            return found
            except OSError:
                pass
            self._made = self._make().partition(b"\n")[2]
        return self._made[start : start + length]


def rule_from_plain(data: dict[str, Any]) -> Rule:
    """A rule from the plain data that `build.plain_rule` made (already validated)."""
    from envcheck.findings import Evidence  # noqa: PLC0415 - an unchanged environment needs no rule
    from envcheck.matrix.rule import Comparison, Rule, RuleFix, SettingCondition  # noqa: PLC0415 - likewise

    return Rule(
        **{
            **data,
            "settings": tuple(SettingCondition(*item) for item in data["settings"]),
            "compare": tuple(Comparison(*item) for item in data["compare"]),
            "uses": tuple(data["uses"]),
            "fix": tuple(RuleFix(*item) for item in data["fix"]),
            "evidence": tuple(Evidence(*item) for item in data["evidence"]),
            "source_id": tuple(data["source_id"]),
            "matches": tuple(_example(item) for item in data["matches"]),
            "clear": tuple(_example(item) for item in data["clear"]),
        }
    )


def _example(item: list[Any]) -> Example:
    from envcheck.matrix.rule import Example  # noqa: PLC0415 - as above

    return Example(item[0], item[1], item[2], tuple(item[3]))
