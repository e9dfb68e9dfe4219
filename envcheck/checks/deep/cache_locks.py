"""Locks in the cache of extensions that torch compiles on first use: the one judgement of them, for `--deep` and for the probe.

torch makes `lock` with O_EXCL, keeps it open while it builds, and removes it at the end; whoever finds it waits for its removal
without a limit. DeepSpeed's builder calls torch's `load` and adds nothing. So a lock that a process holds open is a build at
work, and one that nobody holds was left by a build that was killed, or belongs to a build on another machine or in another
container that shares the folder: that one writes an object into it again and again.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE = Evidence("code", "pytorch/pytorch torch/utils/cpp_extension.py, torch/utils/file_baton.py")
BUILDER = Evidence("code", "deepspeedai/DeepSpeed op_builder/builder.py: jit_load")
ISSUES = (Evidence("issue", "deepspeedai/DeepSpeed#730"), Evidence("issue", "deepspeedai/DeepSpeed#3410"))

#: Seconds without a write after which a lock that nobody here holds belongs to no build elsewhere either: single files of
#: DeepSpeed's CUTLASS kernels compile for minutes, and nothing is written meanwhile.
STILL = 1800.0


class Extension(NamedTuple):
    """The cached build of one extension: its name and its folder."""

    name: str
    folder: str


def extensions_root(variables: Mapping[str, str]) -> str | None:
    """TORCH_EXTENSIONS_DIR, else `torch_extensions` in the user's cache; None where there is no home."""
    told = variables.get("TORCH_EXTENSIONS_DIR")
    if told:
        return told
    base = variables.get("XDG_CACHE_HOME") or f"{variables.get('HOME', '')}/.cache"
    return f"{base}/torch_extensions" if base.startswith("/") else None


def cached_extensions(root: str, python: str) -> Iterator[Extension]:
    """Every cached build that a Python of version `python` (empty: any) would look into.

    Under the default root there is one folder for each Python and CUDA (`py311_cu121`, `py311_cpu`); under
    TORCH_EXTENSIONS_DIR the builds lie side by side, or in such folders, by torch release.

    Raises:
        OSError: A folder cannot be read.
    """
    short = "py" + "".join(python.split(".")[:2]) if python else ""
    for name in _folders(root):
        place = f"{root}/{name}"
        if re.fullmatch(r"py\d+_\w+", name):
            if not short or name.startswith(f"{short}_"):
                yield from (Extension(inner, f"{place}/{inner}") for inner in _folders(place))
        else:
            yield Extension(name, place)


def _folders(place: str) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def stale_locks(variables: Mapping[str, str], python: str = "", now: float | None = None) -> tuple[Finding, ...]:
    """What is to be said of every lock in the cache; nothing where the cache cannot be read.

    Args:
        variables: The environment variables that name the cache.
        python: Version of the interpreter whose builds count; empty for all.
        now: The time, in seconds since the epoch.
    """
    root = extensions_root(variables)
    if root is None:
        return ()
    try:
        extensions = list(cached_extensions(root, python))
    except OSError:
        return ()
    return tuple(finding for extension in extensions for finding in judge_lock(extension, now))


def judge_lock(extension: Extension, now: float | None = None) -> Iterator[Finding]:
    """Nothing where there is no lock, or a process here holds it; an error where it must be left over, else a warning."""
    path = f"{extension.folder}/lock"
    try:
        names = os.listdir(extension.folder)  # noqa: PTH208 - pathlib is slow, here and below
    except OSError:
        return
    if "lock" not in names or held(path):
        return
    quiet = (time.time() if now is None else now) - max(_written(f"{extension.folder}/{name}") for name in names)
    stale = quiet > STILL
    age = f"{quiet / 3600:.1f} hours" if quiet > 3600 else f"{quiet / 60:.0f} minutes"  # noqa: PLR2004 - an hour
    yield Finding(
        id="extension-cache-lock",
        severity=Severity.ERROR if stale else Severity.WARNING,
        title=f"a lock of a build of `{extension.name}` was left in the extension cache",
        subjects=("torch", "deepspeed"),
        observed={"torch": path},
        because=(
            "no process here holds it" + ("" if stale else ", but one on another machine or in another container may"),
            f"nothing in the folder was written for {age}",
            "torch waits without end until the lock is gone",
        ),
        certain=stale,
        fixes=(Fix("do", f"delete `{path}` if no build is running"),),
        evidence=(SOURCE, BUILDER, *ISSUES),
        symptom="The next start that needs the extension hangs, without a message.",
    )


def held(path: str, proc: str = "/proc") -> bool:
    """Whether a process that we can see has the file open; False where there is no /proc to look in."""
    target = os.path.realpath(path)
    try:
        processes = [entry for entry in os.listdir(proc) if entry.isdigit()]  # noqa: PTH208
    except OSError:
        return False
    return any(target in _open_files(f"{proc}/{process}/fd") for process in processes)


def _open_files(folder: str) -> Iterator[str]:
    """What the descriptors of one process name; nothing where it ended, or is another user's."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return 0.0
