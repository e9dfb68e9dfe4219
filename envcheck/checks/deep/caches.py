"""Caches of extensions that torch compiles on first use: locks left by a killed build, and builds for another torch or Python."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from envcheck.checks.deep.cache_locks import ISSUES, SOURCE, cached_extensions, extensions_root, judge_lock
from envcheck.findings import Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.deep.cache_locks import Extension
    from envcheck.checks.deep.target import Target

NINJA_LIMIT = 1 << 20


def check_caches(target: Target, now: float | None = None) -> Iterator[Outcome]:
    """Locks without a build, and cached extensions that were compiled against the headers of another environment."""
    root = extensions_root({**target.machine.variables, **target.interpreter.variables})
    if root is None:
        return
    try:
        extensions = list(cached_extensions(root, target.interpreter.version))
    except OSError as error:
        yield Skip("extension cache", f"`{root}` cannot be read: {error.strerror}", asked=True)
        return
    for extension in extensions:
        yield from judge_lock(extension, now)
        yield from _foreign(extension, target)


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
