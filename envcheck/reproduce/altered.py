"""Installed files of a set-up environment that are no longer what their wheels brought: manifests compare RECORDs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.checks.context import Context
from envcheck.checks.deep import integrity
from envcheck.checks.deep.inventory import take_inventory
from envcheck.checks.deep.target import Target
from envcheck.facts.distributions import read_installed
from envcheck.facts.interpreter import other
from envcheck.facts.model import Environment
from envcheck.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from envcheck.matrix.database import Matrix


def altered_files(python: Path, patched: Iterable[str], matrix: Matrix) -> Iterator[Finding]:
    """An error for each distribution with files altered or missing; what a setup patched is compared by its own digests.

    Args:
        python: The environment's interpreter.
        patched: Files that the setup copied over installed ones, below site-packages.
        matrix: For the tables that deep checks read.

    Raises:
        CouldNotLookError: The interpreter does not answer.
        ToolError: A file could not be read.
    """
    interpreter = other(str(python))
    environment = Environment(packages=read_installed(interpreter.path).packages, complete=True, prefix=interpreter.prefix)
    target = Target(interpreter, Context(environment, matrix))
    ours = frozenset(f"{root}/{file}" for root in target.roots for file in patched)
    for outcome in integrity.judge(take_inventory(target), ours):
        if isinstance(outcome, Finding) and outcome.severity is Severity.ERROR:
            yield outcome
