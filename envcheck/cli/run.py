"""`envcheck run -- COMMAND`: check, refuse on errors, else become the command with the monitor switched on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.cli import check
from envcheck.cli.console import add_report_options, emit, exit_code
from envcheck.cli.local_ranks import Place
from envcheck.errors import ExitCode, ToolError, UsageError
from envcheck.findings import Severity

if TYPE_CHECKING:
    import argparse

    from envcheck.findings import Report

#: Folder whose `sitecustomize` switches the monitor on.
STARTUP = Path(__file__).parent.parent / "monitor" / "startup"

#: Bytes of a script that its `#!` line is looked for in.
SHEBANG = 512


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck run`."""
    check.add_environment_options(parser)
    check.add_comparison_options(parser)
    check.add_settings_options(parser)
    check.add_deep_options(parser)
    add_report_options(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--probe", action="store_true", help="also probe; what was clean here before is not repeated")
    group.add_argument("--wait", type=float, default=900.0, metavar="S", help="seconds the other local ranks wait (default: 900)")
    group.add_argument("--no-monitor", action="store_true", help="leave the monitor off")
    parser.add_argument("argv", nargs="...", metavar="-- COMMAND", help="what to run")


def run(args: argparse.Namespace) -> int:
    """Check on local rank 0 of each node, wait for its word on the others; then become the command."""
    command = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not command:
        raise UsageError("no command to run", hints=("such as `envcheck run -- torchrun train.py`",))
    if args.probe and args.snapshot:
        raise UsageError("`--probe` needs an environment, not a snapshot of one")
    program = shutil.which(command[0])
    if program is None:
        raise ToolError(f"cannot run `{command[0]}`: not found on PATH, or not executable")
    place = Place.from_environment(os.environ)
    code = place.decide(lambda: examine(args, program), args.wait)
    if code != ExitCode.OK:
        return code
    become(program, command, monitor=not args.no_monitor)
    return int(ExitCode.FAILED)  # exec does not come back


def examine(args: argparse.Namespace, program: str) -> int:
    """Check, and probe where that is asked for; the report is printed when it speaks against the run."""
    if args.python is None and args.snapshot is None:
        args.python = interpreter_of(program)
    report = check.examine(args)
    code = exit_code(report, args.fail_on)
    if code != ExitCode.OK or args.output or args.verbose:
        emit(report, args)
    if code == ExitCode.OK and args.probe:
        code = probed(args)
    if code == ExitCode.OK:
        print(f"envcheck: {summary(report)}", file=sys.stderr)
    else:
        print("envcheck: the command was not started", file=sys.stderr)
    return code


def summary(report: Report) -> str:
    """`nothing against this environment, 1 warning; the command starts`."""
    warnings = sum(finding.severity is Severity.WARNING for finding in report.findings)
    told = f", {warnings} warning{'s' if warnings > 1 else ''} (`envcheck check` shows them)" if warnings else ""
    return f"nothing against this environment{told}; the command starts"


def probed(args: argparse.Namespace) -> int:
    """Probe with the settings that were given; a clean result is remembered for this environment and these settings.

    The report is printed when it speaks against the run: standard output is the command's.
    """
    from envcheck.cli import probe  # noqa: PLC0415 - only with --probe
    from envcheck.cli.remembered import Remembered  # noqa: PLC0415 - likewise
    from envcheck.probe import summary as probe_summary  # noqa: PLC0415 - likewise

    memory = Remembered.of(args)
    if memory.clean():
        print("envcheck: the probe was clean here before", file=sys.stderr)
        return int(ExitCode.OK)
    print("envcheck: probing; a minute or two", file=sys.stderr)
    told = probe_arguments(args)
    report, killed = probe.look(told)
    code = int(ExitCode.FAILED) if killed else exit_code(report, told.fail_on)
    if not killed and exit_code(report, "error") == ExitCode.OK:  # whatever `--fail-on` says
        memory.keep()
    if code != ExitCode.OK or args.verbose:
        emit(report, told, probe_summary.SCHEMA)
    return code


def probe_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """The options of `envcheck probe` that follow from those of `envcheck run`."""
    import argparse  # noqa: PLC0415 - only with --probe

    from envcheck.cli import probe  # noqa: PLC0415 - only with --probe
    from envcheck.dsconfig.trainer import OPEN  # noqa: PLC0415 - likewise

    parser = argparse.ArgumentParser()
    probe.configure(parser)
    training = check.read_training(args)
    config = args.ds_config or (training.name if training else "")
    given: list[str] = [word for text in args.told for word in ("--set", text)]
    for name, value in (("python", args.python), ("ds-config", config), ("matrices", args.matrices)):
        if value:
            given += [f"--{name}", value]
    made = parser.parse_args([*given, "--format", args.format, "--fail-on", args.fail_on])
    if training and training.trainer:
        values = training.trainer.values.items()
        made.trainer = {
            key: value for key, value in values if value != OPEN and not (key == "deepspeed" and isinstance(value, str))
        }
    return made


def interpreter_of(program: str) -> str | None:
    """The interpreter that the program runs in: itself, or that of its `#!` line; None where it is none of Python's."""
    if is_python(program):
        return program
    try:
        with Path(program).open("rb") as stream:
            head = stream.read(SHEBANG)
    except OSError:
        return None
    if not head.startswith(b"#!"):
        return None
    words = head[2:].splitlines()[0].decode(errors="replace").split() if head[2:].splitlines() else []
    if words and Path(words[0]).name == "env":
        words = [shutil.which(word) or "" for word in words[1:] if not word.startswith("-")]
    return words[0] if words and words[0] and is_python(words[0]) else None


def is_python(program: str) -> bool:
    """Is it named as Python's interpreters are?"""
    name = Path(program).name
    return name.startswith("python") and all(part.isdigit() or not part for part in name.removeprefix("python").split("."))


def become(program: str, command: list[str], *, monitor: bool) -> None:
    """Replace this process by the command; its exit code and signals are then its own.

    Raises:
        ToolError: It cannot be executed.
    """
    env = dict(os.environ)
    if monitor:
        env.update(monitored(env))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, command, env)  # noqa: S606 - that is the point
    except OSError as error:
        raise ToolError(f"cannot run `{program}`: {error.strerror}") from error


def monitored(env: dict[str, str]) -> dict[str, str]:
    """What switches the monitor on in every Python that the command starts."""
    rest = env.get("PYTHONPATH")
    return {
        "ENVCHECK_MONITOR": "1",
        "ENVCHECK_MONITOR_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(STARTUP), *([rest] if rest else [])]),
    }
