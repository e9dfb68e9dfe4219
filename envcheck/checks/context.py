"""What every check gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from envcheck.findings import Finding, Skip
from envcheck.matrix.settings import Settings

if TYPE_CHECKING:
    from envcheck.facts.model import Environment
    from envcheck.matrix.database import Matrix


class Context(NamedTuple):
    """The input of a check.

    Attributes:
        environment: The facts.
        matrix: Rules and tables.
        settings: What is known of the training settings.
    """

    environment: Environment
    matrix: Matrix
    settings: Settings = Settings()


#: What a check yields: findings, and skips for what it could not decide.
Outcome = Finding | Skip

#: A check looks at the context and yields outcomes; it never prints, and starts no process.
Check = Callable[[Context], Iterable[Outcome]]
