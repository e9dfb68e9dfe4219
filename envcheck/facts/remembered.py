"""Distributions read before: a folder whose metadata files are the same files gives the same distributions."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from envcheck.cache import cache_folder, digest, read_object, write_cached
from envcheck.facts.model import Distribution, MetadataProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Part of the file's name: a change of what is kept, or of how metadata is read, changes it.
FORM = "3"

#: What a metadata folder may hold that is read. Its own time tells when a file in it came or went, so that those that were not
#: there need not be looked for again.
READ = ("METADATA", "PKG-INFO", "direct_url.json", "INSTALLER", "requires.txt")

#: The distribution of which the installer is asked for.
INSTALLER_OF = "torch"

#: Seconds for which a file must have been left alone: within the clock's step a second change cannot be told from the first.
SETTLED = 3.0

ENDINGS = (".dist-info", ".egg-info")

#: A folder's distributions and its metadata problems.
Content = tuple[list[Distribution], list[MetadataProblem]]


class Memory:
    """What was read of the folders of one `sys.path`; `keep` saves what has come."""

    def __init__(self, path: tuple[str, ...], environ: Mapping[str, str]) -> None:
        """Open the memory of a `sys.path`; without a cache folder it is empty and saves nothing."""
        base = cache_folder(environ)
        self._file = f"{base}/installed-{digest(FORM.encode(), *map(os.fsencode, path))}.json" if base else None
        self._folders: dict[str, Any] = read_object(self._file) if self._file else {}
        self._changed = False

    def files(self, folder: str) -> list[str]:
        """What was looked at of the folder when it was read."""
        entry: Any = self._folders.get(folder)
        try:
            return [str(path) for path in entry[3]]
        except (TypeError, LookupError):
            return []

    def recall(self, folder: str, stamp: str) -> Content | None:
        """What the folder held when its stamp was the same."""
        entry: Any = self._folders.get(folder)
        try:
            if not stamp or entry[0] != stamp:
                return None
            found = [
                Distribution(name, version, tuple(requires), python, folder, url, installer, editable, tuple(extras), commit)
                for name, version, requires, python, url, installer, editable, extras, commit in entry[1]
            ]
            return found, [MetadataProblem(*item) for item in entry[2]]
        except (TypeError, ValueError, LookupError):
            return None

    def learn(self, folder: str, stamp: str, files: list[str], content: Content) -> None:
        """Take note of what a folder holds, and of the files that say so; without a stamp it is not remembered."""
        if stamp:
            found, problems = content
            self._folders[folder] = (stamp, [_plain(one) for one in found], [_plain_problem(one) for one in problems], files)
            self._changed = True

    def keep(self) -> None:
        """Save, where something has come."""
        if self._file and self._changed:
            write_cached(self._file, json.dumps(self._folders, separators=(",", ":")).encode())


def _plain(item: Distribution) -> tuple[Any, ...]:
    return (
        item.name, item.version, item.requires, item.requires_python, item.direct_url, item.installer, item.editable, item.extras,
        item.commit,
    )  # fmt: skip


def _plain_problem(item: MetadataProblem) -> tuple[str, ...]:
    return (item.kind, item.name, item.path, item.detail)


def metadata_files(folder: str, names: frozenset[str]) -> list[str]:
    """The metadata folders in a folder, each with the files in it that are read, as far as they are there."""
    found = []
    for name in sorted(name for name in names if name.endswith(ENDINGS)):
        asked = name.partition("-")[0].lower() == INSTALLER_OF
        files = [name, *(f"{name}/{file}" for file in READ if asked or file != "INSTALLER")]
        found += [file for file in files if os.path.lexists(f"{folder}/{file}")]
    return found


def stamp(folder: str, names: frozenset[str], files: list[str]) -> str:
    """What identifies the metadata in a folder: its names, and number, size and times of each metadata file.

    Empty where that cannot be told: an archive, an egg, a file that may not be looked at, or one changed a moment ago.
    """
    if folder.rstrip("/").endswith(".egg") or not os.path.isdir(folder):  # noqa: PTH112 - pathlib is slow
        return ""
    lines = sorted(names)
    newest = 0.0
    for file in files:
        try:
            seen = os.stat(f"{folder}/{file}")  # noqa: PTH116 - as above
        except (OSError, ValueError):
            return ""
        newest = max(newest, seen.st_mtime, seen.st_ctime)
        lines.append(f"{file}\0{seen.st_ino}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ctime_ns}")
    if newest > time.time() - SETTLED:
        return ""
    return digest("\n".join(lines).encode(errors="surrogateescape"))
