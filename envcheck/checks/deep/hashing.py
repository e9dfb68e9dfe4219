"""Digest many files with all cores: one child process of our own interpreter for each core."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from envcheck.checks.deep import hash_worker
from envcheck.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What opening a file costs, in bytes of reading: balances many small files against a few large ones.
OPENING = 20_000

#: Below this much work a second process costs more than it saves.
SMALL = 16 << 20

#: Seconds for everything; a cold network disk gives some ten MB a second.
DEADLINE = 3600.0

#: Seconds between two looks at how far the children are.
GLANCE = 0.2


class Wanted(NamedTuple):
    """A file to digest: path, algorithm as hashlib names it, size in bytes."""

    path: str
    algorithm: str
    size: int


def digests(files: Sequence[Wanted], say: Callable[[str], None] = lambda _: None) -> list[str]:
    """The digest of each file in hexadecimal, in order; `!` and a reason for a file that cannot be read.

    Args:
        files: What to digest.
        say: Told how far it is.

    Raises:
        ToolError: A child process failed.
    """
    cores = _cores()
    work = sum(item.size + OPENING for item in files)
    if work < SMALL or cores == 1:
        buffer = memoryview(bytearray(hash_worker.BLOCK))
        return [hash_worker.digest(item.algorithm, item.path, buffer) for item in files]
    shares = share_out(files, cores)
    answers: list[str] = [""] * len(files)
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
        for share, lines in zip(shares, _run(files, shares, Path(folder), say), strict=True):
            for number, line in zip(share, lines, strict=True):
                answers[number] = line
    return answers


def share_out(files: Sequence[Wanted], count: int) -> list[list[int]]:
    """The numbers of the files in `count` shares of about equal work, largest first."""
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for number in sorted(range(len(files)), key=lambda number: -files[number].size):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += files[number].size + OPENING
    return shares


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(files: Sequence[Wanted], shares: list[list[int]], folder: Path, say: Callable[[str], None]) -> list[list[str]]:
    failures: list[str] = []
    threads = []
    for number, share in enumerate(shares):
        (folder / f"list-{number}").write_text(json.dumps([(files[i].algorithm, files[i].path) for i in share]), "ascii")
        thread = threading.Thread(target=_child, args=(folder, number, failures))
        thread.start()
        threads.append(thread)
    while any(thread.is_alive() for thread in threads):
        threads[0].join(GLANCE) if threads[0].is_alive() else threads[-1].join(GLANCE)
        done = sum(path.stat().st_size for path in folder.glob("answer-*")) // 65
        say(f"reading files: {min(done, len(files))} of {len(files)}")
    answers = [_lines(folder / f"answer-{number}", len(share)) for number, share in enumerate(shares)]
    if failures or None in answers:
        raise ToolError("the files could not be digested", where=sys.executable, hints=tuple(failures))
    return [lines for lines in answers if lines is not None]


def _child(folder: Path, number: int, failures: list[str]) -> None:
    from envcheck.process import run  # noqa: PLC0415 - small jobs need no child

    argv = [sys.executable, "-I", "-S", hash_worker.__file__, str(folder / f"list-{number}"), str(folder / f"answer-{number}")]
    try:
        ended = run(argv, timeout=DEADLINE)
    except ToolError as error:
        failures.append(error.message)
        return
    if ended.returncode:
        failures.append(f"{ended.outcome}: {ended.stderr.strip()[-300:]}")


def _lines(path: Path, count: int) -> list[str] | None:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        return None
    return lines if len(lines) == count else None
