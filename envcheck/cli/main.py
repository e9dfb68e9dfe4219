"""Parse the command line, run one subcommand, and turn its outcome into an exit code."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from envcheck import __version__
from envcheck.errors import EnvcheckError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Subcommand -> one line of help. The module `envcheck.cli.<name>` has `configure(parser)` and `run(args) -> int`.
COMMANDS = {
    "check": "check this environment (or another, or a snapshot) against the matrix; the default",
    "config": "lint a DeepSpeed config; show what each `auto` becomes; explain a key",
    "snapshot": "print the facts of an environment as JSON",
    "fix": "the smallest change of versions that makes an environment clean; apply it, undo it",
    "probe": "train tiny models under ZeRO and compare every update with plain torch",
    "profiles": "the projects it knows: list them, show what one needs",
    "log": "say what a training log shows: loss 0.0, learning rate 0.0, NaN, skipped steps, and why",
    "params": "say which parameters of a model are not loaded, not initialised, frozen or unreachable",
    "lock": "lock requirements with hashes: uv resolves, the matrix decides what may be combined",
    "run": "check, refuse on errors, else run a command with the monitor on",
    "setup": "write, run and verify an environment from a lock; lint a setup script",
    "matrix": "list, show, lint or count the rules",
}

#: Options that a bare `envcheck` hands to `check`, so that `envcheck --python X` works.
DEFAULT = "check"


class Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal, found without shutil, which argparse would import for every option it is given."""

    def __init__(self, prog: str) -> None:
        """Make one for the program called `prog`."""
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; where a command is named, for that one alone."""
    parser = argparse.ArgumentParser(
        prog="envcheck",
        description="Checks that a training environment computes the right gradients, before you train in it.",
        epilog="`envcheck COMMAND --help` explains a command. Exit codes: 0 clean, 1 findings, 2 usage or unreadable "
        "input, 3 could not look, 4 a program failed.",
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"envcheck {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items() if command is None else [(command, COMMANDS[command])]:
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:], formatter_class=Formatter)
        if command is not None:
            importlib.import_module(f"envcheck.cli.{name}").configure(sub)
    return parser


def split(argv: Sequence[str]) -> list[str]:
    """The arguments with the default command put in where none is named."""
    first = argv[0] if argv else ""
    if first in COMMANDS or first in ("--help", "-h", "--version"):
        return list(argv)
    if first and not first.startswith("-"):
        return list(argv)  # an unknown command: argparse names the known ones
    return [DEFAULT, *argv]


def main(argv: Sequence[str] | None = None) -> int:
    """Run envcheck; every expected failure becomes a message on stderr and an exit code."""
    arguments = split(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments[0] in COMMANDS else None
    try:
        args = build_parser(command).parse_args(arguments)
        code: int = importlib.import_module(f"envcheck.cli.{args.command}").run(args)
    except EnvcheckError as error:
        print(f"envcheck: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("envcheck: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return int(ExitCode.OK)
    return code


def _silence_stdout() -> None:
    """The reader went away: keep the interpreter from complaining about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry() -> NoReturn:
    """The console script."""
    gc.disable()  # a run lives for a tenth of a second; collecting costs a tenth of that, and again at the exit
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        code = int(ExitCode.OK)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours must not look like a clean check
        _report_defect(error)
        code = int(ExitCode.FAILED)
    gc.freeze()
    sys.exit(code)


def _report_defect(error: Exception) -> None:
    import traceback  # noqa: PLC0415 - only here

    traceback.print_exception(error)
    print(
        f"envcheck: internal error: {type(error).__name__}: {error}\n"
        "hint: this is a defect of envcheck; please report it with the text above",
        file=sys.stderr,
    )
