"""`envcheck fix`: the smallest change of versions that makes an environment clean; apply it, or undo it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.checks import waivers
from envcheck.checks.context import Context
from envcheck.cli.check import (
    add_environment_options,
    add_settings_options,
    build_report,
    read_context,
)
from envcheck.cli.console import add_report_options, emit, encodable, exit_code, progress, render, write
from envcheck.errors import EnvcheckError, ExitCode, ToolError, UsageError
from envcheck.findings import Report, Severity, StackRow, sort_findings
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from envcheck.facts.interpreter import Interpreter
    from envcheck.findings import Finding
    from envcheck.resolve.change import NoPlan, Plan
    from envcheck.resolve.install import Installer, Place
    from envcheck.resolve.installed import Target


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck fix`."""
    add_environment_options(parser)
    add_settings_options(parser)
    group = parser.add_argument_group("change")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="install the change, after writing a restore point; check again")
    what.add_argument("--undo", action="store_true", help="put the environment back as it was before the latest --apply")
    group.add_argument("--installer", choices=("uv", "pip"), help="who installs (default: uv where there is one, else pip)")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, apply or undo; returns the exit code."""
    if args.snapshot and (args.apply or args.undo):
        raise UsageError("a snapshot cannot be changed", hints=("give the environment itself with --python",))
    if args.undo:
        return undo(args)
    accepted = waivers.find(os.curdir)
    context, studied = read_context(args, load(args.matrices))
    more = studied.findings if studied else []
    before = build_report(context, accepted, more, [])
    silenced = _silenced(accepted)

    from envcheck.resolve.change import NoPlan, Plan, Planner, conflicting, to_fix  # noqa: PLC0415 - not for --help
    from envcheck.resolve.installed import hashed  # noqa: PLC0415 - not for --help

    wrong = to_fix(context, silenced)
    if not wrong:
        said = "nothing to fix: no error and no requirement conflict that other versions could answer"
        kept = before._replace(notes=(*before.notes, said), extra={**before.extra, "changes": []})
        return emit(kept, args)
    interpreter = None if args.snapshot else _interpreter(args)
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder, _untouched(interpreter):
        target = _target(context, interpreter, folder)
        with progress() as say:
            found = Planner(context, target, wrong, silenced, say).plan()
            errors = [item for item in wrong if item.severity is Severity.ERROR]
            if isinstance(found, NoPlan) and 0 < len(errors) < len(wrong):
                eased = dataclasses.replace(target, eased=conflicting(wrong))
                found = Planner(context, eased, errors, silenced, say).plan()
        requirements = hashed(target, found.versions) if isinstance(found, Plan) else ""
    return _conclude(args, context, accepted, wrong, found, requirements, interpreter)


@contextlib.contextmanager
def _untouched(interpreter: Interpreter | None) -> Iterator[None]:
    """Looking changes nothing: the lock file that uv leaves in an environment goes where it was not there before."""
    from envcheck.resolve.restore import UV_LOCK  # noqa: PLC0415 - not for --help

    lock = Path(interpreter.prefix, UV_LOCK) if interpreter else None
    there = lock is None or lock.exists()
    try:
        yield
    finally:
        if lock and not there:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def _conclude(
    args: argparse.Namespace, context: Context, accepted: list[waivers.Waiver], wrong: list[Finding],
    found: Plan | NoPlan, requirements: str, interpreter: Interpreter | None,
) -> int:  # fmt: skip
    """Show what was found, and install it where that was asked for."""
    from envcheck.resolve.change import NoPlan  # noqa: PLC0415 - not for --help

    report = Report(sort_findings(wrong), extra={"environment": context.environment.source, "changes": [], "applied": False})
    if isinstance(found, NoPlan):
        reasons = "".join(f"  {reason}\n" for reason in found.reasons)
        extra = {**report.extra, "reasons": list(found.reasons)}
        _show(report._replace(extra=extra), args, f"\nno change of versions makes it clean:\n{reasons}")
        return max(exit_code(report, args.fail_on), int(ExitCode.FINDINGS))
    installer = _installer(args, interpreter)
    report = report._replace(extra={**report.extra, **_plan_data(found, requirements, installer)})
    if not args.apply or interpreter is None:
        hint = "" if args.snapshot else "\n`--apply` installs this, with a way back: `envcheck fix --undo`\n"
        _show(report, args, f"\n{table(found)}\n{installer.shown(requirements)}\n{hint}")
        return exit_code(report, args.fail_on)
    print(f"{table(found)}\n{installer.shown(requirements)}\n", file=sys.stderr)
    _apply(context, accepted, found, interpreter, installer, requirements)
    again, studied = read_context(args, context.matrix)
    after = build_report(again, accepted, studied.findings if studied else [], studied.skipped if studied else [])
    return emit(after._replace(extra={**after.extra, **report.extra, "applied": True}), args)


def _show(report: Report, args: argparse.Namespace, below: str) -> None:
    """The report, with the plan below it where it is text."""
    if args.format != "text":
        emit(report, args)
    elif args.output:
        write(render(report, "text", "", verbose=args.verbose) + below, args.output)
    else:
        emit(report, args)
        sys.stdout.write(encodable(below))


def table(plan: Plan) -> str:
    """The changes as a table: package, before, after, and the findings that each answers."""
    rows = [("package", "before", "after", "answers")]
    for change in plan.changes:
        answers = ", ".join(change.answers) or "goes with the others"
        rows.append((change.name, change.before or "-", change.after or "-", answers))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(f"{row[column]:{widths[column]}}" for column in range(3)), row[3]]).rstrip() for row in rows]
    lines += [f"passed over: {nogood.text} [{nogood.id}]" for nogood in plan.passed_over]
    lines += [] if plan.smallest else ["the search ended early: a smaller change may exist"]
    return "\n".join(lines) + "\n"


def _plan_data(plan: Plan, requirements: str, installer: Installer) -> dict[str, object]:
    return {
        "changes": [
            {"package": item.name, "before": item.before, "after": item.after, "answers": list(item.answers)}
            for item in plan.changes
        ],
        "passed_over": [{"id": nogood.id, "forbids": nogood.text} for nogood in plan.passed_over],
        "smallest": plan.smallest,
        "command": list(installer.command()),
        "requirements": requirements,
    }  # fmt: skip


def _silenced(accepted: list[waivers.Waiver]) -> Callable[[Finding], bool]:
    import datetime  # noqa: PLC0415 - as in check

    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    return lambda finding: bool(waivers.apply([finding], accepted, today)[1])


def _interpreter(args: argparse.Namespace) -> Interpreter:
    from envcheck.facts.interpreter import other, own  # noqa: PLC0415 - not with --snapshot

    return other(args.python) if args.python else own()


def _place(interpreter: Interpreter) -> Place:
    from envcheck.resolve.install import Place  # noqa: PLC0415 - not for --help
    from envcheck.resolve.restore import site_folder  # noqa: PLC0415 - not for --help

    prefix = Path(os.path.realpath(interpreter.prefix))
    return Place(prefix, site_folder(prefix, interpreter.path))


def _target(context: Context, interpreter: Interpreter | None, folder: str) -> Target:
    from envcheck.resolve.install import find_uv  # noqa: PLC0415 - not for --help
    from envcheck.resolve.installed import target_of, write_metadata  # noqa: PLC0415 - not for --help

    uv = find_uv()
    if uv is None:
        raise ToolError("uv was not found, and the search needs it", hints=("pip install 'envcheck-ml[lock]'",))
    if interpreter is None:
        write_metadata(context.environment, Path(folder))
        return target_of(context.environment, uv, None, folder)
    return target_of(context.environment, uv, interpreter.executable, interpreter.prefix)


def _installer(args: argparse.Namespace, interpreter: Interpreter | None) -> Installer:
    from envcheck.resolve.install import Installer, choose  # noqa: PLC0415 - not for --help

    if interpreter is None:  # a command to be run where the snapshot was taken
        program = ("pip", "install") if args.installer == "pip" else ("uv", "pip", "install")
        return Installer(args.installer or "uv", program)
    return choose(interpreter.executable, args.installer)


def _apply(
    context: Context, accepted: list[waivers.Waiver], plan: Plan, interpreter: Interpreter, installer: Installer,
    requirements: str,
) -> None:  # fmt: skip
    from envcheck.resolve.install import apply  # noqa: PLC0415 - only with --apply
    from envcheck.resolve.restore import Touched  # noqa: PLC0415 - only with --apply

    packages = context.environment.packages
    touched = tuple(
        Touched(item.name, item.before, item.after, packages[item.name].direct_url if item.name in packages else "")
        for item in plan.changes
    )
    apply(_place(interpreter), installer, requirements, touched, lambda staged: _verify(context, accepted, staged), _say)


def _verify(context: Context, accepted: list[waivers.Waiver], staged: Path) -> None:
    """Judge the staged versions by their real metadata.

    Raises:
        EnvcheckError: They bring an error, or a requirement conflict that was not there.
    """
    from envcheck.facts.distributions import read_installed  # noqa: PLC0415 - only with --apply
    from envcheck.resolve.change import changed, to_fix  # noqa: PLC0415 - only with --apply

    sites = sorted({str(path.parent) for path in staged.rglob("*.dist-info")})
    fetched = read_installed(sites).packages
    packages = {**context.environment.packages, **fetched}
    environment = changed(context.environment, {name: item.version for name, item in packages.items()})
    environment = environment._replace(packages={**environment.packages, **fetched})
    known = {item.title for item in to_fix(context, _silenced(accepted))}
    after = to_fix(Context(environment, context.matrix, context.settings), _silenced(accepted))
    fresh = [item.title for item in after if item.title not in known or item.severity.label == "error"]
    if fresh:
        raise EnvcheckError(f"the fetched versions are not clean either: {'; '.join(fresh)}", hints=("nothing was changed",))


def undo(args: argparse.Namespace) -> int:
    """Put the environment back; returns the exit code."""
    from envcheck.resolve.install import go_back  # noqa: PLC0415 - only with --undo

    place = _place(_interpreter(args))
    done = go_back(place, _say)
    if done is None:
        said = "nothing had been changed yet; what was left of the attempt is gone"
    else:
        said = f"put back: {done.back} files restored, {done.removed} removed"
    if args.format == "text":
        write(f"{place.prefix}: {said}\n", args.output)
        return int(ExitCode.OK)
    counts = {"restored": done.back if done else 0, "removed": done.removed if done else 0}
    stack = (StackRow("environment", str(place.prefix)),)
    return emit(Report(stack=stack, notes=(said,), extra={"undone": counts}), args)


def _say(text: str) -> None:
    print(f"envcheck: {text}", file=sys.stderr)
