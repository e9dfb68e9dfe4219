"""`envcheck setup`: write, run and verify an environment from a lock; lint other people's setup scripts."""

from __future__ import annotations

import contextlib
import os
import posixpath
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.cli.console import add_report_options, emit, write
from envcheck.cli.inputs import read_text
from envcheck.errors import ExitCode, UsageError
from envcheck.findings import Report, Severity, Skip, StackRow, sort_findings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from envcheck.findings import Finding
    from envcheck.matrix.profile import Profile
    from envcheck.reproduce.manifest import Manifest
    from envcheck.reproduce.plan import Plan, Trial
    from envcheck.resolve.lockfile import Lock


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `envcheck setup` and their options."""
    from envcheck.cli import setup_lint  # noqa: PLC0415 - this command's alone

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    writer = actions.add_parser("write", help="a lock as a bash script that makes the environment")
    add_plan_options(writer)
    writer.add_argument("-o", "--output", metavar="FILE", default="environment_setup.sh", help="default: %(default)s")
    writer.add_argument("--conda", metavar="NAME", default="", help="make a conda environment of that name instead of a venv")
    writer.add_argument(
        "--beside", action="store_true", help="leave the lock a file beside the script instead of putting it inside"
    )
    writer.add_argument("--probe", action="store_true", help="run `envcheck probe` after `envcheck check`")
    writer.add_argument(
        "--test-lock", metavar="FILE", help="what `--test` of the script installs instead (stays a file beside it)"
    )
    writer.add_argument("--test-script", metavar="FILE", help="the bash file that `--test` then runs")
    runner = actions.add_parser("run", help="the same here and now")
    add_plan_options(runner)
    runner.add_argument(
        "--with-python", metavar="PATH", help="interpreter to make the environment with (default: the first that fits)"
    )
    add_verify(actions.add_parser("verify", help="tell two environments apart by what is installed in them"))
    setup_lint.configure(actions.add_parser("lint", help="what of a setup script will not reproduce"))


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """What is installed where."""
    parser.add_argument("--lock", metavar="FILE", default="", help="a pylock.toml, or a requirements.txt with digests")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        default="",
        help="what a project needs: locked now, for this machine, where no --lock is given; its further steps are told",
    )
    parser.add_argument("--venv", metavar="DIR", default=".venv", help="the environment's folder (default: %(default)s)")
    parser.add_argument("--patches", metavar="FILE", help="TOML list of files copied over installed ones, with digests")
    parser.add_argument(
        "--editable", metavar="DIR", default="", help="install the project in DIR in place, without its dependencies"
    )
    parser.add_argument("--requires-python", metavar="RANGE", default="", help="such as >=3.10 (default: what the lock says)")
    parser.add_argument("--matrices", metavar="DIR", help="another matrix folder")


def add_verify(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest.json that a setup left; given twice, the two are compared (default: .venv/.envcheck/manifest.json)",
    )
    parser.add_argument("--python", metavar="PATH", help="compare with this environment as it is now, its files too")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    from envcheck.cli import setup_lint  # noqa: PLC0415 - as above

    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "write": run_write,
        "run": run_plan,
        "verify": run_verify,
        "lint": setup_lint.run,
    }
    return actions[args.action](args)


# write and run


def run_write(args: argparse.Namespace) -> int:
    """Write the script; returns the exit code."""
    from envcheck.reproduce.shell import script_of  # noqa: PLC0415 - one action a run

    output = "environment_setup.sh" if args.output == "-" else args.output
    source = read_source(args)
    if source.text is None:
        return source.tell(args)
    plan = read_plan(args, Path(output).parent, source)
    write(script_of(plan, output), args.output, "script")
    if args.output == "-":
        return int(ExitCode.OK)
    print(f"envcheck: wrote {args.output}: {plan.lock.packages} packages, {plan.pythons.words}", file=sys.stderr)
    return source.tell(args)


def run_plan(args: argparse.Namespace) -> int:
    """Make the environment here; returns the exit code."""
    from envcheck.reproduce import unfinished  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.replay import Replay, refuse_unwritable  # noqa: PLC0415 - likewise

    base = Path.cwd()
    source = read_source(args)
    if source.text is None:
        return source.tell(args)
    plan = read_plan(args, base, source)
    folder = base / args.venv
    refuse_unwritable(folder)
    python = Path(args.with_python) if args.with_python else None
    if source.key:
        unfinished.remember(folder / ".envcheck", source.key, source.text)
    with progress() as tell:
        Replay(plan, folder, base, python, tell).run()
    unfinished.forget(folder / ".envcheck")
    print(f"envcheck: {args.venv} holds the {plan.lock.packages} packages of {source.where}", file=sys.stderr)
    for line in by_pip(folder):
        print(f"envcheck: {line}", file=sys.stderr)
    return source.tell(args)


def by_pip(folder: Path) -> Iterator[str]:
    """What the environment's own pip lists otherwise than its metadata folders say; or why it was not asked."""
    from envcheck.reproduce.manifest import interpreter, take  # noqa: PLC0415 - one action a run

    for outcome in _asked_by_pip(take(interpreter(str(folder)))):
        yield outcome.reason if isinstance(outcome, Skip) else f"{outcome.title}: {', '.join(outcome.because)}"


def _asked_by_pip(manifest: Manifest) -> list[Finding | Skip]:
    from envcheck.cli.check import ask_pip  # noqa: PLC0415 - one action a run

    return ask_pip({name: item.version for name, item in manifest.distributions.items()}, manifest.where)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Where steps are told: a bar with the time on a terminal, else a line each on standard error."""
    if not sys.stderr.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        yield lambda step, steps, text: print(f"envcheck: [{step}/{steps}] {text}", file=sys.stderr, flush=True)
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - likewise

    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda step, steps, text: bar.update(task, completed=step, total=steps, description=text)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the packages of a plan come from.

    Attributes:
        text: The lock; None where a profile has none.
        where: What messages call it.
        profile: The profile that was named, or None.
        report: What `envcheck lock` says of the profile, or None.
        options: How it says it.
        key: What a lock made now depends on, to know it again; empty where it was given.
    """

    text: str | None
    where: str
    profile: Profile | None = None
    report: Report | None = None
    options: argparse.Namespace | None = None
    key: str = ""

    def tell(self, args: argparse.Namespace) -> int:
        """Show what is to be said of the profile and its lock; returns the exit code."""
        if self.report is None or self.options is None:
            return int(ExitCode.OK)
        rows = self.report.stack
        if self.text is not None and rows:
            place = args.venv if args.action == "run" else args.output
            rows = (StackRow("lock", f"in {place}", rows[0].source), *rows[1:])
        return emit(self.report._replace(stack=rows), self.options)


def read_source(args: argparse.Namespace) -> Source:
    """The lock that is named, else the one that `envcheck lock --profile` makes.

    Raises:
        InputError: The lock cannot be read.
        UsageError: Neither is named, no profile is called so, or options do not go together.
        ToolError: uv is missing, failed, or could not reach an index.
    """
    import argparse  # noqa: PLC0415 - loaded by now

    from envcheck.cli import lock as locking  # noqa: PLC0415 - slow start is paid only here
    from envcheck.cli.check import read_profile  # noqa: PLC0415 - likewise
    from envcheck.matrix.database import load  # noqa: PLC0415 - likewise
    from envcheck.reproduce import unfinished  # noqa: PLC0415 - likewise
    from envcheck.resolve.profile import remarks  # noqa: PLC0415 - likewise

    if not args.profile:
        if not args.lock:
            raise UsageError("nothing to set up", hints=("name a lock with --lock, or a --profile",))
        return Source(read_text(args.lock, "lock"), args.lock)
    matrix = load(args.matrices)
    profile = read_profile(args.profile, matrix.folder)
    parser = argparse.ArgumentParser()
    locking.configure(parser)
    options = parser.parse_args(["--profile", profile.id])
    if args.lock:
        return Source(read_text(args.lock, "lock"), args.lock, profile, Report(findings=tuple(remarks(profile))), options)
    if getattr(args, "beside", False):
        hint = f"envcheck lock --profile {profile.id} -o pylock.toml, and then --lock pylock.toml"
        raise UsageError("`--beside` leaves a lock beside the script, and there is none yet", hints=(hint,))
    state, key = Path(args.venv, ".envcheck"), ""
    if args.action == "run":
        machine, *target = locking.read_target(options)
        facts = (str(machine.fact(name)) for name in ("driver", "gpu.compute_capability", "glibc"))
        key = unfinished.key_of(profile.id, matrix.digest, *target, *facts)
        if text := unfinished.recall(state, key):
            print("envcheck: the lock of the run that was cut off is used again", file=sys.stderr)
            print(f"envcheck: hint: remove {state / unfinished.NAME} to solve anew", file=sys.stderr)
            return Source(text, f"profile {profile.id}", profile, Report(findings=tuple(remarks(profile))), options, key)
    text, told = locking.make(options, matrix, profile)
    return Source(text or None, f"profile {profile.id}", profile, told, options, key)


def read_plan(args: argparse.Namespace, base: Path, source: Source) -> Plan:
    """The plan that the options describe; paths in it are relative to `base`.

    Raises:
        InputError: The lock or the patch list cannot be used.
        UsageError: Paths lead out of `base`, or a wheel of the lock is for another environment.
    """
    from envcheck.reproduce.by_hand import by_hand  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.locks import read_patches  # noqa: PLC0415 - likewise
    from envcheck.reproduce.plan import check_path  # noqa: PLC0415 - likewise

    conda, beside = getattr(args, "conda", ""), getattr(args, "beside", False) or (args.action == "run" and args.lock)
    if conda and not (conda[0].isalnum() and all(letter.isalnum() or letter in "._-" for letter in conda)):
        raise UsageError(f"`--conda {conda}` is not the name of a conda environment")
    if conda in ("base", "root"):
        raise UsageError(f"`--conda {conda}` is the environment that conda itself runs in", hints=("name one of your own",))
    place = relative(args.lock, base) if beside else ""
    return replace(
        plan_of_lock(source.text or "", source.where, place, args.requires_python, args.matrices),
        venv=args.venv if args.action == "run" else check_path(args.venv, "the environment"),
        conda=conda,
        patches=read_patches(read_text(args.patches, "patch list"), args.patches) if args.patches else (),
        editable=relative(args.editable, base) if args.editable else "",
        by_hand=by_hand(source.profile) if source.profile else None,
        probe=getattr(args, "probe", False),
        trial=read_trial(args, base),
    )


def plan_of_lock(text: str, where: str, beside: str, requires_python: str = "", matrices: str | None = None) -> Plan:
    """The plan that installs a lock and nothing else.

    Args:
        text: The lock.
        where: Its name for messages.
        beside: Its path relative to the script where it stays a file, else empty.
        requires_python: A range that is stated, or empty.
        matrices: Another matrix folder, or None.

    Raises:
        InputError: The lock cannot be used.
        UsageError: No Python fits it, or one of its wheels is for another environment.
    """
    from envcheck.reproduce.locks import (  # noqa: PLC0415 - one action a run
        build_limits,
        machine_of,
        placed,
        pythons_of,
        read_lock,
        torch_indexes,
    )
    from envcheck.reproduce.plan import Plan  # noqa: PLC0415 - likewise

    kind, lock = read_lock(text, where)
    pythons = pythons_of(lock, requires_python)
    refuse_wrong_wheels(lock, pythons.lowest if pythons.lowest == pythons.highest else 0, where, matrices)
    tell_own_files(lock)
    system, machine = machine_of(lock)
    return Plan(
        placed(text, kind, len(lock.packages), beside),
        pythons=pythons,
        system=system,
        machine=machine,
        indexes=torch_indexes(lock),
        build=build_limits(lock),
    )


def tell_own_files(lock: Lock) -> None:
    """Say which packages a lock takes from files of this machine: there alone it can be installed."""
    names = []
    for package in lock.packages:
        files = [*package.wheels, *([package.sdist] if package.sdist else [])]
        if any(file.url.startswith(("file:", "/")) for file in files):
            names.append(f"`{package.name}`")
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")  # noqa: PLR2004 - for reading
        print(
            f"envcheck: the lock takes {shown} from files of this machine, and can be installed only where they are",
            file=sys.stderr,
        )


def read_trial(args: argparse.Namespace, base: Path) -> Trial | None:
    """What the script's `--test` does, where both options are given."""
    lock, script = getattr(args, "test_lock", None), getattr(args, "test_script", None)
    if not lock and not script:
        return None
    if not lock or not script:
        raise UsageError("`--test-lock` and `--test-script` go together")
    from envcheck.reproduce.locks import placed, read_lock  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.plan import Trial  # noqa: PLC0415 - likewise

    text = read_text(lock, "lock")
    kind, read = read_lock(text, lock)
    return Trial(placed(text, kind, len(read.packages), relative(lock, base)), relative(script, base))


def relative(name: str, base: Path) -> str:
    """A path as seen from `base`.

    Raises:
        UsageError: It does not lie below.
    """
    try:
        found = Path(name).resolve().relative_to(base.resolve()).as_posix()
    except ValueError as error:
        raise UsageError(f"`{name}` does not lie below the folder of the script", where=str(base)) from error
    return posixpath.normpath(found)


def refuse_wrong_wheels(lock: Lock, minor: int, where: str, matrices: str | None) -> None:
    """Refuse a lock whose wheels were compiled for another torch, CUDA, ABI or Python than the lock itself has."""
    from envcheck.checks.context import Context  # noqa: PLC0415 - one action a run
    from envcheck.checks.wheels import check_wheel_names  # noqa: PLC0415 - likewise
    from envcheck.matrix.database import load  # noqa: PLC0415 - likewise
    from envcheck.reproduce.locks import as_environment  # noqa: PLC0415 - likewise

    context = Context(as_environment(lock, minor), load(matrices))
    wrong = [item for item in check_wheel_names(context) if not isinstance(item, Skip) and item.severity is Severity.ERROR]
    if wrong:
        reasons = "; ".join(f"`{item.subjects[0]}`: {', '.join(item.because)}" for item in wrong)
        raise UsageError(f"the lock holds wheels for another environment: {reasons}", where=where)


# verify


def run_verify(args: argparse.Namespace) -> int:
    """Compare two environments, one that is here also with its own files and its own pip; returns the exit code."""
    from envcheck.cli.check import parted  # noqa: PLC0415 - one action a run
    from envcheck.reproduce.manifest import differences, rows  # noqa: PLC0415 - likewise

    first, second, here = read_pair(args)
    findings, skips = parted(_asked_by_pip(second) if here else [])
    findings += differences(first, second)
    if here:
        from envcheck.matrix.database import load  # noqa: PLC0415 - not for two files
        from envcheck.reproduce.altered import altered_files  # noqa: PLC0415 - likewise

        findings += altered_files(Path(second.where), first.patched, load(None))
    return emit(Report(findings=sort_findings(findings), skipped=tuple(skips), stack=tuple(rows(first, second))), args)


def read_pair(args: argparse.Namespace) -> tuple[Manifest, Manifest, bool]:
    """The two manifests that the options name, and whether the second is of an environment that is here, as it is now."""
    from envcheck.reproduce.manifest import interpreter, load, take  # noqa: PLC0415 - one action a run

    names = args.manifest or [str((Path(args.python) if args.python else Path(".venv")) / ".envcheck" / "manifest.json")]
    if len(names) > 2 or (len(names) == 2 and args.python):  # noqa: PLR2004 - a comparison has two sides
        raise UsageError("two are compared: two `--manifest`, or one and `--python`")
    if not args.manifest and args.python:
        python = interpreter(args.python)
        names = [str(python.parent.parent / ".envcheck" / "manifest.json")]
    manifests = [load(read_text(name, "manifest"), name) for name in names]
    here = len(manifests) == 1
    if here:
        place = args.python or str(Path(names[0]).parent.parent)
        manifests.append(take(interpreter(place), tuple(manifests[0].patched)))
    return manifests[0], manifests[1], here
