"""Read what the user points at: JSON files and standard input, with a limit and one clear error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError, UsageError

if TYPE_CHECKING:
    import argparse

    from envcheck.facts.model import Environment

#: Larger inputs are refused before they are read.
LARGEST = 64 << 20


def read_text(name: str, what: str, encoding: str = "utf-8-sig") -> str:
    """The text of a file; `-` is standard input. A byte order mark is left out, unless the encoding is `utf-8`.

    Raises:
        InputError: Not there, not readable, too large, or not UTF-8.
    """
    try:
        if name == "-":
            content = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with open(name, "rb") as stream:  # noqa: PTH123 - pathlib is slow to import
                content = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the {what}: {reason}", where=name) from error
    if len(content) > LARGEST:
        raise InputError(f"the {what} is larger than {LARGEST >> 20} MiB", where=name)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} is not UTF-8 text (byte {error.start})", where=name) from error


def read_json_object(name: str, what: str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: As `read_text`, or not JSON, or not an object; with line and column.
    """
    return json_object(read_text(name, what), name, what)


def json_object(text: str, name: str, what: str) -> dict[str, Any]:
    """The JSON object that `text`, read from `name`, holds; raises as `read_json_object`."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        raise InputError(f"the {what} is not JSON: {error.msg}", where=where) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"the {what} is nested too deeply, or has a number too long", where=name) from error
    if not isinstance(document, dict):
        raise InputError(f"the {what} must be a JSON object, not {type(document).__name__}", where=name)
    return document


def parse_assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` with the value as JSON where it is JSON, else as text.

    Raises:
        UsageError: No `=`, or an empty key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"`--set {text}` is not KEY=VALUE", hints=("such as --set zero_optimization.stage=2",))
    try:
        return key.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return key.strip(), value.strip()


def read_environment(args: argparse.Namespace) -> Environment:
    """The environment that `--python` or `--snapshot` names; else this interpreter's.

    Raises:
        InputError: The snapshot is unreadable.
        CouldNotLookError: The interpreter cannot be asked.
    """
    if args.snapshot:
        from envcheck.facts.snapshot import load  # noqa: PLC0415 - only with --snapshot

        return load(read_text(args.snapshot, "snapshot"), args.snapshot)
    from envcheck.facts.collect import collect  # noqa: PLC0415 - not with --snapshot

    return collect(args.python)
