"""Where reports go: the chosen format, the terminal or a file, and the exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from envcheck.errors import ExitCode
from envcheck.findings import Report, Severity

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from envcheck.report.text import Line

FORMATS = ("text", "json", "markdown", "sarif")
LEVELS = {"error": Severity.ERROR, "warning": Severity.WARNING, "info": Severity.INFO}


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """The options that every reporting command has."""
    group = parser.add_argument_group("report")
    group.add_argument("--format", choices=FORMATS, default="text", help="form of the report (default: text)")
    group.add_argument("--output", metavar="FILE", help="write the report to FILE instead of standard output")
    group.add_argument(
        "--fail-on", choices=[*LEVELS, "never"], default="error", help="lowest severity that gives exit code 1",
    )  # fmt: skip
    group.add_argument(
        "-v", "--verbose", action="store_true", help="also say where facts were read and what was not decided",
    )  # fmt: skip


def emit(report: Report, args: argparse.Namespace, schema: str = "envcheck.report/1") -> int:
    """Write the report as the options say; returns the exit code."""
    if args.output or args.format != "text":
        write(render(report, args.format, schema, verbose=args.verbose), args.output)
    else:
        _show(report, verbose=args.verbose)
    return exit_code(report, args.fail_on)


def render(report: Report, form: str, schema: str, *, verbose: bool) -> str:
    """The report as text in one of `FORMATS`."""
    if form == "json":
        from envcheck.report import jsonform  # noqa: PLC0415 - one renderer a run

        return jsonform.render(report, schema)
    if form == "markdown":
        from envcheck.report import markdown  # noqa: PLC0415 - one renderer a run

        return markdown.render(report)
    if form == "sarif":
        from envcheck.report import sarif  # noqa: PLC0415 - one renderer a run

        return sarif.render(report)
    from envcheck.report import text  # noqa: PLC0415 - one renderer a run

    return text.plain(text.lines(report, verbose=verbose))


def exit_code(report: Report, fail_on: str) -> int:
    """1 with a finding at or above `fail_on`; else 3 if something asked for was not examined; else 0."""
    level = LEVELS.get(fail_on)
    if level is not None and any(finding.severity >= level for finding in report.findings):
        return int(ExitCode.FINDINGS)
    return int(ExitCode.COULD_NOT_LOOK if any(skip.asked for skip in report.skipped) else ExitCode.OK)


def write(text: str, output: str | None, what: str = "report") -> None:
    """Write to standard output, or to a file under a temporary name that is then renamed.

    Raises:
        UsageError: The file cannot be written.
    """
    if not output or output == "-":
        sys.stdout.write(text)
        return
    from envcheck.files import write_whole  # noqa: PLC0415 - slow to import, and reports mostly go to standard output

    write_whole(output, text, what)


def on_terminal() -> bool:
    """Whether standard output is a terminal that may be coloured."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows what is being done, on one line of a terminal's standard error; elsewhere it shows nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    width = _terminal_width() - 1

    def say(text: str) -> None:
        print(f"\r{text[:width]:{width}}", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)


def _show(report: Report, *, verbose: bool) -> None:
    from envcheck.report import text  # noqa: PLC0415 - one renderer a run

    width = min(_terminal_width(), 120) if sys.stdout.isatty() else 100
    styled = text.lines(report, width=width, verbose=verbose)
    if on_terminal():
        _coloured(styled)
    else:
        sys.stdout.write(encodable(text.plain(styled)))


def terminal_width() -> int:
    """Columns of the terminal that standard output is, 0 where it is none."""
    return _terminal_width() if sys.stdout.isatty() else 0


def _terminal_width() -> int:
    from shutil import get_terminal_size  # noqa: PLC0415 - slow to import

    return get_terminal_size((100, 24)).columns


def encodable(text: str) -> str:
    """`text` with what standard output cannot encode replaced (a C locale must not end in a traceback)."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _coloured(styled: Iterable[Line]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.text import Text  # noqa: PLC0415 - only on a terminal

    console = Console(highlight=False, soft_wrap=True)
    for line in styled:
        console.print(Text.assemble(*((span.text, span.style) for span in line)))
