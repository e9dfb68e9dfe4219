"""Caches of extensions that torch compiles on first use: locks left by a killed build, and builds for another torch or Python."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from envcheck.findings import Evidence, Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.checks.context import Outcome
    from envcheck.checks.deep.target import Target

#: torch.utils.cpp_extension: `get_default_build_root`, `_get_build_directory`, `FileBaton`.
SOURCE = Evidence("code", "pytorch/pytorch torch/utils/cpp_extension.py, torch/utils/_file_baton.py")
ISSUES = (Evidence("issue", "deepspeedai/DeepSpeed#730"), Evidence("issue", "deepspeedai/DeepSpeed#3410"))

#: A build writes its objects all the time; a lock whose folder was not written to for so long belongs to no build.
STILL = 600.0

NINJA_LIMIT = 1 << 20


class Extension(NamedTuple):
    """The cached build of one extension: its name and its folder."""

    name: str
    folder: str


def check_caches(target: Target, now: float | None = None) -> Iterator[Outcome]:
    """Locks without a build, and cached extensions that were compiled against the headers of another environment."""
    root = extensions_root({**target.machine.variables, **target.interpreter.variables})
    if root is None:
        return
    try:
        extensions = list(_extensions(root, target))
    except OSError as error:
        yield Skip("extension cache", f"`{root}` cannot be read: {error.strerror}", asked=True)
        return
    for extension in extensions:
        yield from _lock(extension, time.time() if now is None else now)
        yield from _foreign(extension, target)


def extensions_root(variables: Mapping[str, str]) -> str | None:
    """TORCH_EXTENSIONS_DIR, else `torch_extensions` in the user's cache; None where there is no home."""
    told = variables.get("TORCH_EXTENSIONS_DIR")
    if told:
        return told
    base = variables.get("XDG_CACHE_HOME") or f"{variables.get('HOME', '')}/.cache"
    return f"{base}/torch_extensions" if base.startswith("/") else None


def _extensions(root: str, target: Target) -> Iterator[Extension]:
    """Every cached build that this interpreter would look into.

    Under the default root there is one folder for each Python and CUDA (`py311_cu121`, `py311_cpu`); under
    TORCH_EXTENSIONS_DIR the builds lie side by side, or in such folders, by torch release.
    """
    short = "py" + "".join(target.interpreter.version.split(".")[:2])
    for name in _folders(root):
        place = f"{root}/{name}"
        if re.fullmatch(r"py\d+_\w+", name):
            if name.startswith(f"{short}_"):
                yield from (Extension(inner, f"{place}/{inner}") for inner in _folders(place))
        else:
            yield Extension(name, place)


def _folders(place: str) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _lock(extension: Extension, now: float) -> Iterator[Finding]:
    """What torch waits for without end: only a running build takes its `lock` away."""
    path = f"{extension.folder}/lock"
    if not os.path.exists(path):  # noqa: PTH110 - pathlib is slow, here and below
        return
    quiet = now - max(_written(f"{extension.folder}/{name}") for name in os.listdir(extension.folder))  # noqa: PTH208
    stale = quiet > STILL
    age = f"{quiet / 3600:.1f} hours" if quiet > 3600 else f"{quiet / 60:.0f} minutes"  # noqa: PLR2004 - an hour
    yield Finding(
        id="extension-cache-lock",
        severity=Severity.ERROR if stale else Severity.WARNING,
        title=f"a lock of a build of `{extension.name}` was left in the extension cache",
        subjects=("torch",),
        observed={"torch": path},
        because=(f"nothing in the folder was written for {age}", "torch waits without end until the lock is gone"),
        certain=stale,
        fixes=(Fix("do", f"delete `{path}` if no build is running"),),
        evidence=(SOURCE, *ISSUES),
        symptom="The next start that needs the extension hangs, without a message.",
    )


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return 0.0


def _foreign(extension: Extension, target: Target) -> Iterator[Finding]:
    """A build whose `build.ninja` takes torch's headers from a folder that is not this environment's torch."""
    torch = target.context.environment.packages.get("torch")
    used = include_folder(_text(f"{extension.folder}/build.ninja"))
    if torch is None or used is None or not torch.location:
        return
    ours = f"{torch.location}/torch/include"
    if os.path.realpath(used) == os.path.realpath(ours):
        return
    there = os.path.isdir(used)  # noqa: PTH112
    yield Finding(
        id="extension-cache-stale",
        severity=Severity.WARNING,
        title=f"the cached build of `{extension.name}` belongs to another environment's torch",
        subjects=("torch",),
        observed={"torch": torch.version},
        because=(
            f"`{extension.folder}` was compiled against `{used}`" + ("" if there else ", which is gone"),
            f"this environment's torch is `{ours}`",
        ),
        certain=not there,
        fixes=(
            Fix("do", f"delete `{extension.folder}`"),
            Fix("do", "give each environment a `TORCH_EXTENSIONS_DIR` of its own"),
        ),
        evidence=(SOURCE, *ISSUES),
        symptom="`undefined symbol`, AttributeError in the extension's module, or a rebuild at every start.",
    )


def _text(path: str) -> str:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read(NINJA_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def include_folder(ninja: str) -> str | None:
    """The folder of torch's headers that a `build.ninja` names; None where it names none."""
    found = re.search(r"-isystem (\S*/torch/include)(?=\s|$)", ninja)
    return found[1] if found else None
