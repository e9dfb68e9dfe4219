"""The installed files beside what the RECORD files say of them: read once, judged by `integrity` and `patches`."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envcheck.checks.deep.hashing import Wanted, digests
from envcheck.checks.deep.record import Record, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.deep.record import Entry
    from envcheck.checks.deep.target import InfoFolder, Target

#: Extra files count only where the interpreter could run them.
CODE = (".py", ".so", ".pyd")


@dataclass(frozen=True, slots=True)
class Claim:
    """One distribution's word for one file."""

    info: InfoFolder
    entry: Entry


@dataclass(slots=True)
class Inventory:
    """Files and claims.

    Attributes:
        records: The RECORD of each metadata folder; None where it has none, a text where it cannot be read.
        claims: By the file's path; several where several distributions own it.
        missing: Claimed files that are not there.
        wrong: What is there instead, for each claim that the file does not meet, by path.
        unreadable: Why a claimed file could not be digested, by path.
        outside: Paths that lie outside the environment, by metadata folder; they are not looked at.
        extra: Code in a distribution's folders that no distribution claims.
    """

    records: dict[InfoFolder, Record | str | None] = field(default_factory=dict)
    claims: dict[str, list[Claim]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, list[Claim]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    outside: dict[InfoFolder, list[str]] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    bytes_read: int = 0


def take_inventory(target: Target) -> Inventory:
    """Read every RECORD and digest every file that one speaks of.

    Raises:
        ToolError: A child process failed.
    """
    found = Inventory()
    target.say("reading RECORD files")
    for info in target.infos:
        try:
            found.records[info] = read_record(f"{info.path}/RECORD")
        except OSError as error:
            found.records[info] = error.strerror or "unreadable"
    _claim(found, target.allowed)
    _compare(found, target)
    found.extra = sorted(_extras(found))
    return found


def _claim(found: Inventory, allowed: tuple[str, ...]) -> None:
    for info, record in found.records.items():
        if not isinstance(record, Record):
            continue
        for entry in record.entries:
            path = locate(info.root, entry.path)
            if path.startswith(allowed):
                found.claims.setdefault(path, []).append(Claim(info, entry))
            else:
                found.outside.setdefault(info, []).append(entry.path)


def locate(root: str, path: str) -> str:
    """Where a RECORD path lies: relative paths start from the folder of the metadata folder."""
    if path.startswith((".", "/")) or "/." in path or "//" in path:
        return os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - pathlib is slow
    return f"{root}/{path}"


def _compare(found: Inventory, target: Target) -> None:
    """Sort the claims into met, wrong and missing; the size decides where it can."""
    wanted: list[Wanted] = []
    waiting: list[list[Claim]] = []
    for path, claims in found.claims.items():
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
        except (OSError, ValueError):
            if any(_must_exist(claim.entry) for claim in claims):
                found.missing.append(path)
            continue
        _by_size(found, path, status, claims)
        for algorithm in {claim.entry.algorithm for claim in claims if claim.entry.algorithm}:
            same = [item for item in claims if item.entry.algorithm == algorithm and item not in found.wrong.get(path, ())]
            if same:
                wanted.append(Wanted(path, algorithm, status.st_size))
                waiting.append(same)
    found.bytes_read = sum(item.size for item in wanted)
    for item, claims, digest in zip(wanted, waiting, digests(wanted, target.say), strict=True):
        if digest.startswith("!"):
            found.unreadable[item.path] = digest[1:]
        elif wrong := [claim for claim in claims if claim.entry.digest != digest]:
            found.wrong.setdefault(item.path, []).extend(wrong)


def _by_size(found: Inventory, path: str, status: os.stat_result, claims: list[Claim]) -> None:
    regular = stat.S_ISREG(status.st_mode)
    for claim in claims:
        if claim.entry.algorithm and (not regular or claim.entry.size not in (None, status.st_size)):
            found.wrong.setdefault(path, []).append(claim)


def _must_exist(entry: Entry) -> bool:
    """Byte code comes and goes; so does what an installer writes beside the metadata without a digest."""
    return not entry.path.endswith(".pyc") and (bool(entry.algorithm) or ".dist-info/" not in entry.path)


def _extras(found: Inventory) -> Iterator[str]:
    """Code in the packages of distributions, claimed by nobody; packages whose RECORD is not whole are left out."""
    blind = {
        f"{info.root}/{info.name.replace('-', '_')}"
        for info, record in found.records.items() if not isinstance(record, Record) or record.problems
    }  # fmt: skip
    for package in sorted(_packages(found) - blind):
        yield from (path for path in _code(package) if path not in found.claims)


def _packages(found: Inventory) -> set[str]:
    """The folders right below a folder of `sys.path` that hold claimed files, metadata folders aside."""
    packages = set()
    for claims in found.claims.values():
        for claim in claims:
            first, slash, _ = claim.entry.path.partition("/")
            if slash and first not in ("", ".", "..") and not first.endswith((".dist-info", ".data", "__pycache__")):
                packages.add(f"{claim.info.root}/{first}")
    return packages


def _code(folder: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(CODE):
            yield entry.path
        elif entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
            yield from _code(entry.path)
