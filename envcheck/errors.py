"""What can go wrong, as values: a message, where it happened, hints, and the exit code it means."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command, for every output format."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    COULD_NOT_LOOK = 3
    FAILED = 4


class EnvcheckError(Exception):
    """Base of every expected failure.

    Attributes:
        message: One sentence saying what is wrong, without a full stop.
        where: The file, key or program it happened at, or an empty string.
        hints: What to do next, one sentence each.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, where: str = "", hints: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hints = hints

    def __str__(self) -> str:
        """The message with its place and hints, ready to print."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        return "\n".join([head, *(f"hint: {hint}" for hint in self.hints)])


class UsageError(EnvcheckError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class InputError(EnvcheckError):
    """A file that was given cannot be read or is not what it should be.

    Attributes:
        problems: Every mistake of the file, each with its place; the message sums them up.
    """

    exit_code = ExitCode.USAGE

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hints: tuple[str, ...] = (),
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, where=where, hints=hints)
        self.problems = problems

    def __str__(self) -> str:
        """The message, then one line per problem, then the hints."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        lines = [head, *(f"  {problem}" for problem in self.problems)]
        return "\n".join([*lines, *(f"hint: {hint}" for hint in self.hints)])


class CouldNotLookError(EnvcheckError):
    """Something that was asked for could not be examined; never to be mistaken for clean."""

    exit_code = ExitCode.COULD_NOT_LOOK


class ToolError(EnvcheckError):
    """An external program failed, is missing, or broke its contract."""

    exit_code = ExitCode.FAILED
