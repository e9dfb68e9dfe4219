"""`envcheck snapshot`: the facts of an environment as JSON, to save, send, compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from envcheck.cli.console import write
from envcheck.errors import ExitCode

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck snapshot`."""
    parser.add_argument("--python", metavar="PATH", help="another interpreter, or a venv folder (default: this one)")
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of standard output")


def run(args: argparse.Namespace) -> int:
    """Collect and print; returns the exit code."""
    from envcheck.facts.collect import collect  # noqa: PLC0415 - slow start is paid only here
    from envcheck.facts.snapshot import to_json  # noqa: PLC0415 - likewise

    write(json.dumps(to_json(collect(args.python)), indent=2) + "\n", args.output)
    return int(ExitCode.OK)
