"""`envcheck check`: facts of an environment -> findings."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from envcheck.checks import waivers
from envcheck.checks.context import Context
from envcheck.cli.answers import answer
from envcheck.cli.console import add_report_options, emit, progress
from envcheck.cli.inputs import parse_assignment, read_environment
from envcheck.errors import UsageError
from envcheck.findings import Finding, Report, Skip, sort_findings
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings, combine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from envcheck.cli.training import Studied, Training
    from envcheck.facts.model import Environment
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.profile import Profile


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck check`."""
    add_environment_options(parser)
    add_comparison_options(parser)
    add_settings_options(parser)
    add_deep_options(parser)
    add_report_options(parser)


def add_environment_options(parser: argparse.ArgumentParser) -> None:
    """Which environment, and which matrix."""
    group = parser.add_argument_group("environment")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--python", metavar="PATH", help="another interpreter, or a venv folder (default: this one)")
    which.add_argument("--snapshot", metavar="FILE", help="a saved or hand-written snapshot; `-` is standard input")
    group.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """What the environment is held against, beside the matrix."""
    group = parser.add_argument_group("comparison")
    group.add_argument("--profile", metavar="NAME", help="also hold it against a project's needs (`envcheck profiles`)")
    group.add_argument("--lock", metavar="FILE", help="also hold it against a `pylock.toml` or hashed requirements")


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """What is known of the training settings."""
    group = parser.add_argument_group("settings")
    group.add_argument("--ds-config", metavar="FILE", help="the DeepSpeed JSON")
    trainer = group.add_mutually_exclusive_group()
    trainer.add_argument("--training-args", metavar="FILE", help="TrainingArguments as JSON")
    trainer.add_argument("--training-args-cmd", metavar="COMMAND", help="the launch command, pasted as one argument")
    group.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="told",
        help="one setting, such as zero_optimization.stage=2 or world_size=8; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--uses", metavar="WORD", action="append", default=[],
        help="something your code does (`envcheck matrix list` rules with uses); may be repeated",
    )  # fmt: skip


def add_deep_options(parser: argparse.ArgumentParser) -> None:
    """The slow checks."""
    group = parser.add_argument_group("deep checks")
    group.add_argument(
        "--deep", action="store_true",
        help="also compare every installed file with RECORD, link every extension, follow every import; imports nothing",
    )  # fmt: skip
    group.add_argument(
        "--import", action="store_true", dest="really",
        help="also import the watched packages (torch's companions, deepspeed, transformers ...), each in a child process",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check and report; returns the exit code."""
    return emit(examine(args), args)


def examine(args: argparse.Namespace) -> Report:
    """Everything that the options ask for, as a report."""
    accepted = waivers.find(os.curdir)
    matrix = load(args.matrices)
    profile = read_profile(args.profile, matrix.folder) if args.profile else None
    context, studied = read_context(args, matrix)
    more = studied.findings if studied else []
    unseen = studied.skipped if studied else []
    deep: list[Finding] | None = None
    if args.deep or args.really:
        context, deep, skipped = deep_outcomes(args, context)
        more, unseen = more + deep, unseen + skipped
    if args.lock:
        held, skipped = lock_outcomes(args, context)
        more, unseen = more + held, unseen + skipped
    extra = {"effective": [row._asdict() for row in studied.effective]} if studied else {}
    if profile:
        found, complete = hold_profile(context, profile, deep)
        return complete(build_report(context, accepted, [*more, *found], unseen, extra))
    return build_report(context, accepted, more, unseen, extra)


def deep_outcomes(args: argparse.Namespace, context: Context) -> tuple[Context, list[Finding], list[Skip]]:
    """What the deep checks say, and the context with the facts that only they can tell.

    Raises:
        UsageError: There is only a snapshot to look at.
        CouldNotLookError: The interpreter does not answer.
    """
    from envcheck.checks.deep.run import run_deep  # noqa: PLC0415 - only with --deep

    if args.snapshot:
        raise UsageError(
            "`--deep` and `--import` look at installed files, and a snapshot has none", hints=("give `--python` instead",),
        )  # fmt: skip
    with progress() as say:
        deep = run_deep(context, args.python, say, files=args.deep, really=args.really)
    return deep.context, deep.findings, deep.skips


def lock_outcomes(args: argparse.Namespace, context: Context) -> tuple[list[Finding], list[Skip]]:
    """In what the environment differs from the lock; pip is asked too where there is an environment to ask in.

    Raises:
        InputError: The lock is not readable.
    """
    from envcheck.checks.lock import check_lock  # noqa: PLC0415 - only with --lock
    from envcheck.resolve.lockfile import read_lock  # noqa: PLC0415 - likewise

    lock = read_lock(args.lock)
    environment = context.environment
    if args.snapshot:
        outcomes = list(check_lock(context, lock, None))
    else:
        from envcheck.facts.interpreter import locate  # noqa: PLC0415 - as above
        from envcheck.facts.origins import read_origins  # noqa: PLC0415 - as above

        python = locate(args.python) if args.python else sys.executable
        installed = {name: item.version for name, item in environment.packages.items()}
        outcomes = [*check_lock(context, lock, read_origins(environment)), *ask_pip(installed, python)]
    return parted(outcomes)


def ask_pip(installed: Mapping[str, str], python: str) -> list[Finding | Skip]:
    """Where the listing of the environment's own pip differs from what was read (name -> version); a skip without a pip."""
    from envcheck.checks.lock import compare_with_pip  # noqa: PLC0415 - costs a start of pip
    from envcheck.facts.pip_view import pip_versions  # noqa: PLC0415 - likewise

    return list(compare_with_pip(installed, pip_versions(python) if "pip" in installed else "this environment has no pip"))


def parted(outcomes: Iterable[Finding | Skip]) -> tuple[list[Finding], list[Skip]]:
    """Findings and skips apart."""
    outcomes = list(outcomes)
    findings = [item for item in outcomes if isinstance(item, Finding)]
    return findings, [item for item in outcomes if isinstance(item, Skip)]


def read_profile(name: str, folder: Path) -> Profile:
    """The profile that is called so.

    Raises:
        UsageError: None is, or several; with the nearest names.
        InputError: Mistakes in its file.
    """
    from envcheck.matrix.profiles import open_profile  # noqa: PLC0415 - only with --profile

    return open_profile(folder, name)


def hold_profile(
    context: Context, profile: Profile, deep: list[Finding] | None,
) -> tuple[list[Finding], Callable[[Report], Report]]:  # fmt: skip
    """What the profile's checks find, and how the finished report is completed with their verdict."""
    from envcheck.checks.profile.verdict import attach, hold_against  # noqa: PLC0415 - only with --profile

    outcome = hold_against(context, profile, deep)
    return list(outcome.findings), lambda report: attach(report, outcome)


def read_context(args: argparse.Namespace, matrix: Matrix) -> tuple[Context, Studied | None]:
    """The environment and the settings that the options give, and what the settings' files say beyond them.

    Raises:
        InputError: A file is not usable.
        UsageError: An option is not.
        CouldNotLookError: The interpreter cannot be asked.
    """
    training = read_training(args)
    environment = read_environment(args)
    studied = study(training, environment, matrix) if training else None
    return Context(environment, matrix, studied.settings if studied else read_settings(args)), studied


def settings_for(args: argparse.Namespace, training: Training | None, environment: Environment, matrix: Matrix) -> Settings:
    """The settings that the options give, for commands that say nothing of the files themselves."""
    return study(training, environment, matrix).settings if training else read_settings(args)


def read_training(args: argparse.Namespace) -> Training | None:
    """What is known of the run beyond single settings; None where no file and no command is given."""
    if not (args.ds_config or args.training_args or args.training_args_cmd):
        return None
    from envcheck.cli.training import read_training  # noqa: PLC0415 - only with one of the options

    return read_training(args)


def study(training: Training, environment: Environment, matrix: Matrix) -> Studied:
    """What the DeepSpeed file gets wrong, by itself and against the Trainer, and the settings with every `auto` replaced."""
    from envcheck.cli.training import study  # noqa: PLC0415 - only with one of the options
    from envcheck.dsconfig.keys import KeyTable  # noqa: PLC0415 - likewise

    versions = {name: item.version for name, item in environment.packages.items()}
    return study(training, versions, KeyTable.from_data(matrix.table("deepspeed_keys")))


def build_report(
    context: Context, accepted: list[waivers.Waiver], more: list[Finding], unseen: list[Skip],
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Report:  # fmt: skip
    """Run the checks and put the report together with `more` findings, `unseen` skips and `extra` fields."""
    found = answer(context, os.environ)
    findings = [*found.findings, *more]
    kept, waived = waivers.apply(findings, accepted) if accepted else (findings, [])
    matrix = context.matrix
    return Report(
        findings=sort_findings(kept),
        skipped=(*found.skipped, *unseen),
        stack=found.stack,
        notes=found.notes,
        waived=tuple(waived),
        extra={
            "matrix": {
                "folder": matrix.place,
                "origin": matrix.origin,
                "digest": matrix.digest,
                "rules": len(matrix),
            },
            "environment": context.environment.source,
            **extra,
        },
    )


def read_settings(args: argparse.Namespace) -> Settings:
    """The settings that `--set` and `--uses` give."""
    return combine(None, None, dict(parse_assignment(text) for text in args.told), frozenset(args.uses))
