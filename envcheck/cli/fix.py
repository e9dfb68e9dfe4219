"""`envcheck fix`: the smallest change of versions that makes an environment clean; apply it, or undo it."""

from __future__ import annotations

import contextlib
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
    ask_pip,
    build_report,
    parted,
    read_context,
)
from envcheck.cli.console import add_report_options, emit, encodable, exit_code, progress, render, write
from envcheck.errors import EnvcheckError, ExitCode, ToolError, UsageError
from envcheck.findings import Report, StackRow, sort_findings
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from envcheck.facts.interpreter import Interpreter
    from envcheck.findings import Finding
    from envcheck.resolve.change import NoPlan, Plan
    from envcheck.resolve.install import Installer, Order, Place
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
    waived = frozenset(waivers.in_force(accepted))

    from envcheck.resolve.change import Plan, plan_for  # noqa: PLC0415 - not for --help
    from envcheck.resolve.wrong import to_fix  # noqa: PLC0415 - not for --help

    wrong = to_fix(context, waived)
    if not wrong:
        said = "nothing to fix: no error, and every requirement is fulfilled"
        kept = before._replace(notes=(*before.notes, said), extra={**before.extra, "changes": []})
        return emit(kept, args)
    interpreter = None if args.snapshot else _interpreter(args)
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder, _untouched(interpreter):
        target = _target(context, interpreter, folder)
        with progress() as say:
            found = plan_for(context, target, waived, say)
        order = _order(context, target, found, interpreter) if isinstance(found, Plan) else None
    return _conclude(args, context, accepted, wrong, found, order, interpreter)


def _order(context: Context, target: Target, plan: Plan, interpreter: Interpreter | None) -> Order:
    """The plan for an installer. What owns files of a package that goes is installed again.

    Raises:
        ToolError: uv cannot say the hashes.
        EnvcheckError: What would have to be installed again is on no index.
    """
    from envcheck.resolve.install import Order  # noqa: PLC0415 - not for --help
    from envcheck.resolve.installed import hashed  # noqa: PLC0415 - not for --help
    from envcheck.resolve.restore import Touched, sharing  # noqa: PLC0415 - not for --help

    packages = context.environment.packages
    touched = [
        Touched(item.name, item.before, item.after, packages[item.name].direct_url if item.name in packages else "")
        for item in plan.changes
    ]
    again: dict[str, str] = {}
    if plan.removed and interpreter is not None:
        changed = {item.name for item in plan.changes}
        again = {name: at for name, at in sharing(_place(interpreter).site, plan.removed).items() if name not in changed}
    if stuck := sorted(again.keys() & target.fixed):
        raise EnvcheckError(f"removing {_names(plan.removed)} takes files of {_names(stuck)}, which no index has")
    versions = {**plan.versions, **again}
    touched += [Touched(name, version, version) for name, version in sorted(again.items())]
    return Order(hashed(target, versions) if versions else "", tuple(touched))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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
    found: Plan | NoPlan, order: Order | None, interpreter: Interpreter | None,
) -> int:  # fmt: skip
    """Show what was found, and install it where that was asked for."""
    from envcheck.resolve.change import NoPlan  # noqa: PLC0415 - not for --help

    report = Report(sort_findings(wrong), extra={"environment": context.environment.source, "changes": [], "applied": False})
    if isinstance(found, NoPlan) or order is None:
        reasons = found.reasons if isinstance(found, NoPlan) else ()
        told = "".join(f"  {reason}\n" for reason in reasons)
        _show(report._replace(extra={**report.extra, "reasons": list(reasons)}), args, f"\nno change makes it clean:\n{told}")
        return max(exit_code(report, args.fail_on), int(ExitCode.FINDINGS))
    installer = _installer(args, interpreter)
    report = report._replace(extra={**report.extra, **_plan_data(found, order, installer)})
    said = f"{table(found, order)}\n{order.shown(installer)}\n"
    if not args.apply or interpreter is None:
        hint = "" if args.snapshot else "\n`--apply` installs this, with a way back: `envcheck fix --undo`\n"
        _show(report, args, f"\n{said}{hint}")
        return int(ExitCode.OK if args.fail_on == "never" else ExitCode.FINDINGS)
    print(said, file=sys.stderr)
    _apply(context, accepted, found, order, interpreter, installer)
    return emit(_after(args, context, accepted, report, interpreter), args)


def _after(
    args: argparse.Namespace, context: Context, accepted: list[waivers.Waiver], report: Report, interpreter: Interpreter,
) -> Report:  # fmt: skip
    """The changed environment, checked again, also by its own pip."""
    again, studied = read_context(args, context.matrix)
    installed = {name: item.version for name, item in again.environment.packages.items()}
    findings, skips = parted(ask_pip(installed, interpreter.executable))
    more, unseen = (studied.findings, studied.skipped) if studied else ([], [])
    after = build_report(again, accepted, [*more, *findings], [*unseen, *skips])
    return after._replace(extra={**after.extra, **report.extra, "applied": True})


def _show(report: Report, args: argparse.Namespace, below: str) -> None:
    """The report, with the plan below it where it is text."""
    if args.format != "text":
        emit(report, args)
    elif args.output:
        write(render(report, "text", "", verbose=args.verbose) + below, args.output)
    else:
        emit(report, args)
        sys.stdout.write(encodable(below))


def table(plan: Plan, order: Order) -> str:
    """The changes as a table: package, before, after, and the findings that each answers; then what is to be known of it."""
    rows = [("package", "before", "after", "answers")]
    rows += [
        (item.name, item.before or "missing", item.after or "removed", ", ".join(item.answers) or "goes with the others")
        for item in plan.changes
    ]
    again = [item for item in order.packages if item.before == item.after]
    rows += [(item.name, item.before, "again", f"owns files of {_names(plan.removed)}") for item in again]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(f"{row[column]:{widths[column]}}" for column in range(3)), row[3]]).rstrip() for row in rows]
    lines += [_removal(name, plan) for name in plan.removed]
    lines += [f"passed over: {nogood.text} [{nogood.id}]" for nogood in plan.passed_over]
    lines += [f"left as it is: {text}" for text in plan.left]
    lines += [] if plan.smallest else ["the search ended early: a smaller change may exist"]
    return "\n".join(lines) + "\n"


def _removal(name: str, plan: Plan) -> str:
    answers = next(item.answers for item in plan.changes if item.name == name)
    reason = f"the fix of {_names(answers)}" if name in plan.told else f"no version of it answers {_names(answers)}"
    return f"`{name}` is removed: {reason}; nothing installed requires it"


def _plan_data(plan: Plan, order: Order, installer: Installer) -> dict[str, object]:
    return {
        "changes": [
            {"package": item.name, "before": item.before, "after": item.after, "answers": list(item.answers)}
            for item in plan.changes
        ],
        "passed_over": [{"id": nogood.id, "forbids": nogood.text} for nogood in plan.passed_over],
        "left": list(plan.left),
        "smallest": plan.smallest,
        "commands": [list(command) for command, _ in order.commands(installer)],
        "requirements": order.requirements,
    }  # fmt: skip


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
    context: Context, accepted: list[waivers.Waiver], plan: Plan, order: Order, interpreter: Interpreter, installer: Installer,
) -> None:  # fmt: skip
    from envcheck.resolve.install import apply  # noqa: PLC0415 - only with --apply

    place = _place(interpreter)
    apply(place, installer, order, lambda staged: _verify(context, accepted, plan, place, staged), _say)


def _verify(context: Context, accepted: list[waivers.Waiver], plan: Plan, place: Place, staged: Path) -> None:
    """Judge the staged versions by their real metadata and files.

    Raises:
        EnvcheckError: They bring an error, or a requirement conflict that was not there, or overwrite somebody else's files.
    """
    from envcheck.facts.distributions import read_installed  # noqa: PLC0415 - only with --apply
    from envcheck.resolve.judgement import Court  # noqa: PLC0415 - only with --apply
    from envcheck.resolve.restore import written_over  # noqa: PLC0415 - only with --apply
    from envcheck.resolve.wrong import to_fix  # noqa: PLC0415 - only with --apply

    fetched = read_installed(sorted({str(path.parent) for path in staged.rglob("*.dist-info")})).packages
    kept = {name: item for name, item in context.environment.packages.items() if name not in plan.removed}
    packages = {**kept, **fetched}
    court = Court(context.matrix, context.environment, context.settings)
    environment = court.environment({name: item.version for name, item in packages.items()}, {})
    environment = environment._replace(packages=packages)
    waived = frozenset(waivers.in_force(accepted))
    known = {item.title for item in to_fix(context, waived)}
    after = to_fix(Context(environment, context.matrix, context.settings), waived)
    fresh = [item.title for item in after if item.title not in known or item.title in plan.answered]
    if fresh:
        raise EnvcheckError(f"the fetched versions are not clean either: {'; '.join(fresh)}", hints=("nothing was changed",))
    added = {item.name for item in plan.changes if not item.before}
    if over := written_over(place.prefix, place.site, staged, added):
        raise EnvcheckError(
            f"{_names(sorted(added))} would write over files that are there: {_names(over[:3])}",
            hints=("nothing was changed", "where what is there serves as well, waive `requirement-missing` in .envcheck.toml"),
        )


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
