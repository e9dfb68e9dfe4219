"""The lock of a run that was cut off: the next run of the same profile completes that one, and does not solve anew."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from envcheck.cache import digest, read_object
from envcheck.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

NAME = "unfinished.json"


def key_of(profile: str, matrix: str, *facts: str) -> str:
    """What the lock of a profile depends on besides the index: the profile, the matrix's digest, facts of the machine."""
    return digest(*(text.encode() for text in (profile, matrix, *facts)))


def remember(state: Path, key: str, lock: str) -> None:
    """Keep a lock until the run is finished.

    Raises:
        UsageError: It cannot be written.
    """
    with contextlib.suppress(OSError):  # write_whole says why
        state.mkdir(parents=True, exist_ok=True)
    write_whole(str(state / NAME), json.dumps({"key": key, "lock": lock}), "lock of the unfinished run")


def recall(state: Path, key: str) -> str:
    """The lock of the run that was cut off, or an empty string where none was, or it was for something else."""
    found = read_object(str(state / NAME))
    lock = found.get("lock")
    return lock if found.get("key") == key and isinstance(lock, str) else ""


def forget(state: Path) -> None:
    """The run is finished: the next one solves anew."""
    (state / NAME).unlink(missing_ok=True)
