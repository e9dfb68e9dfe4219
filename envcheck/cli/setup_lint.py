"""`envcheck setup lint`: what of a setup script will not reproduce; with --lock, its intention as a lock and a new script."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.cli.console import add_report_options, emit, progress
from envcheck.cli.inputs import read_environment, read_text
from envcheck.errors import ToolError
from envcheck.findings import Report, Skip, StackRow

if TYPE_CHECKING:
    import argparse

    from envcheck.findings import Finding
    from envcheck.matrix.database import Matrix
    from envcheck.reproduce.relock import Wish
    from envcheck.resolve.solve import Solved

#: Seconds that `bash -n` may take.
PATIENCE = 20.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `lint`."""
    from envcheck.cli.lock import add_choice_options, add_target_options  # noqa: PLC0415 - slow start is paid only here

    parser.add_argument("script", metavar="SCRIPT", help="a bash script; `-` is standard input")
    parser.add_argument("--check", action="store_true", help="also what the matrix knows of the versions that the script pins")
    parser.add_argument("--project", metavar="DIR", help="where the script runs (default: the script's folder)")
    parser.add_argument("--lock", metavar="FILE", help="lock what the script comes to, and write a script that installs the lock")
    parser.add_argument(
        "--rewrite", metavar="FILE", help="with --lock: the new script (default: SCRIPT's name with .locked.sh, in its folder)"
    )
    add_target_options(parser, "facts to compare wheels with, and to lock for")
    add_choice_options(parser, "with --lock: choice")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Lint a script; returns the exit code."""
    from envcheck.matrix.database import load  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.lint import lint, study  # noqa: PLC0415 - likewise
    from envcheck.reproduce.relock import wish_of  # noqa: PLC0415 - likewise

    text = read_text(args.script, "script")
    given = read_environment(args) if args.python or args.snapshot else None
    folder = Path(args.project) if args.project else Path() if args.script == "-" else Path(args.script).parent
    matrix = load(args.matrices)
    report = with_syntax(lint(text, args.script, folder, matrix, given, check=args.check), text, args.script)
    if not args.lock:
        return emit(report, args)
    subject = study(text, args.script, folder)
    return emit(relock(wish_of(subject.script, subject.steps, subject.intent, folder), report, folder, args, matrix), args)


def relock(wish: Wish, report: Report, folder: Path, args: argparse.Namespace, matrix: Matrix) -> Report:
    """Write the lock of what a script comes to, and the script that installs it; returns the report with what became of it.

    Raises:
        UsageError: The files cannot be written, or an option makes no sense.
        ToolError: uv is missing, failed, or could not reach an index.
    """
    from envcheck.cli.setup import plan_of_lock, relative  # noqa: PLC0415 - only with --lock
    from envcheck.files import write_whole  # noqa: PLC0415 - likewise
    from envcheck.reproduce.locks import needs_its_place, read_lock  # noqa: PLC0415 - likewise
    from envcheck.reproduce.plan import ByHand, plain_line  # noqa: PLC0415 - likewise
    from envcheck.reproduce.shell import script_of  # noqa: PLC0415 - likewise
    from envcheck.resolve.lockfile import lock_text  # noqa: PLC0415 - likewise

    if not wish.requirements:
        skip = Skip("lock", "nothing that the script installs can be locked", asked=True)
        return report._replace(skipped=(*report.skipped, skip), notes=(*report.notes, *notes_of(wish, ())))
    found, overridden, remarks = solve_wish(wish, args, matrix)
    if isinstance(found, Report):
        return report._replace(
            findings=(*found.findings, *report.findings), notes=(*report.notes, *found.notes, *notes_of(wish, overridden))
        )
    text = lock_text(found.lock, args.lock)
    target = (
        Path(args.rewrite) if args.rewrite else folder / f"{'setup' if args.script == '-' else Path(args.script).stem}.locked.sh"
    )
    base = target.parent
    write_whole(args.lock, text, "lock")
    beside = relative(args.lock, base) if needs_its_place(text, read_lock(text, args.lock)[0]) else ""
    plan = replace(
        plan_of_lock(text, args.lock, beside, matrices=args.matrices),
        editable=relative(str(folder / wish.editable), base) if wish.editable else "",
        patches=tuple(replace(item, source=relative(str(folder / item.source), base)) for item in wish.patches),
        by_hand=ByHand("", ("*",), tuple(plain_line(item.text) for item in wish.left)) if wish.left else None,
    )
    write_whole(str(target), script_of(plan, target.name), "script")
    rows = (
        StackRow("lock", f"{args.lock}: {plan.lock.packages} packages, {plan.pythons.words}"),
        StackRow("rewritten", f"{target}: the lock" + (f", and {len(plan.patches)} files over it" if plan.patches else "")),
    )
    extra = {
        "lock": {"file": args.lock, "packages": found.lock.versions(), "overrides": list(overridden)},
        "rewritten": {"file": str(target), "left": [item.text for item in wish.left], "patches": [p.file for p in plan.patches]},
    }
    notes = (*report.notes, *notes_of(wish, overridden))
    return report._replace(
        findings=(*report.findings, *remarks), stack=(*report.stack, *rows), notes=notes, extra={**report.extra, **extra}
    )


def notes_of(wish: Wish, overridden: tuple[str, ...]) -> tuple[str, ...]:
    """What the lock decided, and what it does not hold."""
    over = [f"`{line}` is installed whatever the other packages require, as in the script" for line in overridden]
    return (*over, *wish.decided, *(f"not in the lock: {item.text}" for item in wish.left))


def lock_arguments(args: argparse.Namespace, **more: object) -> argparse.Namespace:
    """The arguments of `envcheck lock`: what this command has of them, the rest by default, and `more`."""
    import argparse  # noqa: PLC0415 - loaded by now

    from envcheck.cli.lock import configure as configure_lock  # noqa: PLC0415 - only with --lock

    parser = argparse.ArgumentParser()
    configure_lock(parser)
    found = parser.parse_args([])
    vars(found).update({name: value for name, value in vars(args).items() if hasattr(found, name)}, **more)
    return found


def solve_wish(wish: Wish, args: argparse.Namespace, matrix: Matrix) -> tuple[Solved | Report, tuple[str, ...], list[Finding]]:
    """The lock, or why there is none; the pins that override what others require; what is to be said of the lock.

    First only the pins that replace an earlier one override; where that gives no set, all that later lines ask for, as with pip.
    """
    from envcheck.checks.context import Context  # noqa: PLC0415 - only with --lock
    from envcheck.checks.waivers import in_force  # noqa: PLC0415 - likewise
    from envcheck.cli.lock import explain, read_request, read_waivers, refusal_report, remarks_on  # noqa: PLC0415 - likewise
    from envcheck.resolve.elsewhere import solve_with_wheels  # noqa: PLC0415 - likewise
    from envcheck.resolve.solve import Solved  # noqa: PLC0415 - likewise

    arguments = lock_arguments(
        args,
        requirements=list(wish.requirements),
        override=list(wish.overrides),
        python_version=args.python_version or wish.python,
        torch_backend=args.torch_backend or wish.backend,
        find_links=[*args.find_links, *wish.find_links],
    )
    accepted = in_force(read_waivers(args.waive))
    request = replace(read_request(arguments, matrix, accepted), constraints=wish.constraints)
    overrides = tuple(dict.fromkeys((*wish.overrides, *wish.later)))
    with progress() as say:
        found, meant = solve_with_wheels(request, matrix, progress=say)
        used = wish.overrides
        if not isinstance(found, Solved) and wish.later:
            request, used = replace(request, overrides=overrides), overrides
            found, meant = solve_with_wheels(request, matrix, progress=say)
        if not isinstance(found, Solved):
            return refusal_report(explain(*found, say), request), overrides, []
    made = Context(found.environment(), matrix)
    return found, used, remarks_on(found.lock, made, meant)


def with_syntax(report: Report, text: str, where: str) -> Report:
    """The report with what `bash -n` says; a skip where there is no bash."""
    from envcheck.process import run as run_child  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.lint import sort_by_line, syntax_finding  # noqa: PLC0415 - likewise

    environment = {name: value for name, value in os.environ.items() if name not in ("BASH_ENV", "ENV")}
    try:
        done = run_child(["bash", "-n"], timeout=PATIENCE, stdin=text, env=environment)
    except ToolError as error:
        return _not_parsed(report, error.message)
    if done.timed_out:
        return _not_parsed(report, done.outcome)
    found: list[Finding] = [] if done.returncode == 0 else [syntax_finding(where, done.stderr)]
    return report._replace(findings=sort_by_line([*report.findings, *found]))


def _not_parsed(report: Report, reason: str) -> Report:
    return report._replace(skipped=(*report.skipped, Skip("bash -n", reason, asked=True)))
