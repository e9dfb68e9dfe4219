"""Find, load and cache the matrix.

The parsed matrix is kept in the user's cache as one file: a first line of JSON (the index: every distinct package
condition once, and for each rule the numbers of its package conditions and where its text stands), then one line of
JSON for each rule and table. A check evaluates each distinct package condition once, drops the rules that it rules
out, and reads the text of those that are left: what a growing database costs at start-up is the index.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError
from envcheck.findings import Evidence
from envcheck.matrix.conditions import package_holds
from envcheck.matrix.rule import Comparison, Example, Rule, RuleFix, SettingCondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.facts.model import Environment

#: Part of the cache key: a change of the cache's form changes it.
CACHE_FORM = "3"


@dataclass(frozen=True, slots=True)
class Indexed:
    """Where a rule's text stands, which package conditions it has, and whether it is a known-good combination."""

    offset: int
    length: int
    conditions: tuple[int, ...]
    good: bool


@dataclass(slots=True)
class Matrix:
    """The loaded database.

    Attributes:
        folder: Where it was read from.
        origin: Why that folder: `option`, `packaged` or `checkout`.
        digest: Digest over the names and contents of its files.
        conditions: Every distinct package condition: name and specifier.
        index: One entry a rule.
        kinds: Fact name -> kind.
        told: Facts that an ordinary check does not look for.
        uses: Usage word -> what the user's code does.
        tables: Table name -> place of its text.
        text: The cache file's body that the places refer to.
    """

    folder: Path
    origin: str
    digest: str
    conditions: list[tuple[str, str]]
    index: list[Indexed]
    kinds: dict[str, str]
    told: frozenset[str]
    uses: dict[str, str]
    tables: dict[str, tuple[int, int]]
    text: bytes
    _parsed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of rules."""
        return len(self.index)

    def rules(self) -> Iterator[Rule]:
        """Every rule, in file order."""
        return (self._rule(entry) for entry in self.index)

    def good(self) -> Iterator[Rule]:
        """The known-good combinations, in file order; the text of no other rule is read."""
        return (self._rule(entry) for entry in self.index if entry.good)

    def candidates(self, environment: Environment) -> Iterator[Rule]:
        """The rules that no package condition rules out."""
        holds = [package_holds(environment, name, spec) is not False for name, spec in self.conditions]
        return (self._rule(entry) for entry in self.index if all(holds[number] for number in entry.conditions))

    def table(self, name: str) -> dict[str, Any]:
        """The parsed file `tables/<name>.toml`; an empty dict where there is none."""
        if name not in self._parsed:
            place = self.tables.get(name)
            self._parsed[name] = self._read(*place) if place else {}
        return self._parsed[name]

    def _read(self, offset: int, length: int) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text[offset : offset + length])
        return document

    def _rule(self, entry: Indexed) -> Rule:
        return rule_from_plain(self._read(entry.offset, entry.length))


def find_folder(option: str | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """The matrix folder and why: `--matrices` / `ENVCHECK_MATRICES`, then the packaged one, then a checkout's.

    Raises:
        InputError: There is none.
    """
    given = option or environ.get("ENVCHECK_MATRICES")
    package = Path(__file__).resolve().parent.parent
    candidates = [(Path(given), "option")] if given else [
        (package / "_matrices", "packaged"), (package.parent / "matrices", "checkout"),
    ]  # fmt: skip
    for folder, origin in candidates:
        if (folder / "rules").is_dir():
            return folder, origin
    where = ", ".join(str(folder) for folder, _ in candidates)
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
    if store is not None and (found := _read_cache(store, folder, origin)):
        return found
    from envcheck.matrix.build import build  # noqa: PLC0415 - only without a fresh cache

    data = build(folder, files)
    if store is not None:
        _write_cache(store, data)
    return open_cache(data, folder, origin)


def matrix_files(folder: Path) -> list[os.DirEntry[str]]:
    """The TOML files of the matrix that hold rules, tables and the vocabulary, sorted by name."""
    found: list[os.DirEntry[str]] = []
    for place in (folder, folder / "rules", folder / "tables"):
        if place.is_dir():
            with os.scandir(place) as entries:
                found += [entry for entry in entries if entry.name.endswith(".toml") and entry.is_file()]
    return sorted(found, key=lambda entry: entry.path)


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Where the cache lives: `ENVCHECK_CACHE`, `XDG_CACHE_HOME`, or `~/.cache`; None where there is no home."""
    if environ.get("ENVCHECK_CACHE"):
        return Path(environ["ENVCHECK_CACHE"])
    home = environ.get("HOME", "")
    base = environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home and Path(home).is_dir() else "")
    return Path(base) / "envcheck" if base and base.startswith("/") else None


def _cache_file(folder: Path, files: list[os.DirEntry[str]], environ: Mapping[str, str]) -> Path | None:
    base = cache_folder(environ)
    if base is None:
        return None
    from hashlib import blake2b  # noqa: PLC0415 - hashlib loads OpenSSL; blake2b comes with it

    key = blake2b(digest_size=16)
    key.update(f"{CACHE_FORM}\0{folder.resolve()}\0".encode())
    for entry in files:
        stat = entry.stat()
        key.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return base / f"matrix-{key.hexdigest()}.jsonl"


def _read_cache(store: Path, folder: Path, origin: str) -> Matrix | None:
    try:
        data = store.read_bytes()
        return open_cache(data, folder, origin)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # absent, truncated or foreign: it is only a cache


def _write_cache(store: Path, data: bytes) -> None:
    """Write under a temporary name and rename; a cache that cannot be written is no error."""
    temporary = store.with_name(f"{store.name}.{os.getpid()}.tmp")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        _drop_old(store.parent)
        temporary.write_bytes(data)
        temporary.replace(store)
    except OSError:
        return


def _drop_old(folder: Path) -> None:
    """Keep the cache folder small: all but the seven newest files go."""
    entries = sorted(folder.glob("matrix-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    for path in entries[:-7]:
        path.unlink(missing_ok=True)


def open_cache(data: bytes, folder: Path, origin: str) -> Matrix:
    """A matrix over the bytes that `build` made.

    Raises:
        ValueError, KeyError, TypeError: Not such bytes, or truncated.
    """
    head, _, body = data.partition(b"\n")
    index = json.loads(head)
    if len(body) != index["length"]:
        raise ValueError("truncated")
    return Matrix(
        folder=folder, origin=origin, digest=index["digest"],
        conditions=[(name, spec) for name, spec in index["conditions"]],
        index=[Indexed(offset, length, tuple(numbers), good) for offset, length, numbers, good in index["rules"]],
        kinds=index["kinds"], told=frozenset(index["told"]), uses=index["uses"],
        tables={name: (offset, length) for name, (offset, length) in index["tables"].items()},
        text=body,
    )  # fmt: skip


def rule_from_plain(data: dict[str, Any]) -> Rule:
    """A rule from the plain data that `build.plain_rule` made (already validated)."""
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
    return Example(item[0], item[1], item[2], tuple(item[3]))
