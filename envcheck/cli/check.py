"""`envcheck check`: facts of an environment -> findings."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.checks import known_good, waivers
from envcheck.checks.context import Context
from envcheck.checks.registry import run_all
from envcheck.cli.console import add_report_options, emit, progress
from envcheck.cli.inputs import json_object, read_json_object, read_text
from envcheck.cli.stack import stack_rows
from envcheck.errors import InputError, UsageError
from envcheck.findings import Finding, Report, Skip, sort_findings
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings, combine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from envcheck.dsconfig.document import Document
    from envcheck.facts.model import Environment
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


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """What is known of the training settings."""
    group = parser.add_argument_group("settings")
    group.add_argument("--ds-config", metavar="FILE", help="the DeepSpeed JSON")
    group.add_argument("--training-args", metavar="FILE", help="TrainingArguments as JSON")
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


def run(args: argparse.Namespace) -> int:
    """Check and report; returns the exit code."""
    document = read_deepspeed(args.ds_config) if args.ds_config else None
    settings = read_settings(args, document)
    accepted = waivers.find(Path.cwd())
    matrix = load(args.matrices)
    profile = read_profile(args.profile, matrix.folder) if args.profile else None
    context = Context(read_environment(args), matrix, settings)
    more = config_findings(args, context, document) if document else []
    unseen: list[Skip] = []
    deep: list[Finding] | None = None
    if args.deep:
        deep, unseen = deep_outcomes(args, context)
        more += deep
    if profile:
        found, complete = hold_profile(context, profile, deep)
        return emit(complete(build_report(context, accepted, [*more, *found], unseen)), args)
    return emit(build_report(context, accepted, more, unseen), args)


def deep_outcomes(args: argparse.Namespace, context: Context) -> tuple[list[Finding], list[Skip]]:
    """What the deep checks say.

    Raises:
        UsageError: There is only a snapshot to look at.
        CouldNotLookError: The interpreter does not answer.
    """
    from envcheck.checks.deep.run import run_deep  # noqa: PLC0415 - only with --deep

    if args.snapshot:
        raise UsageError("`--deep` reads installed files, and a snapshot has none", hints=("give `--python` instead",))
    with progress() as say:
        return run_deep(context, args.python, say)


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


def config_findings(args: argparse.Namespace, context: Context, document: Document) -> list[Finding]:
    """What the DeepSpeed file itself gets wrong: unknown keys, types, duplicates, each with its line."""
    from envcheck.dsconfig.keys import KeyTable  # noqa: PLC0415 - only with --ds-config
    from envcheck.dsconfig.lint import lint_parsed  # noqa: PLC0415 - likewise

    deepspeed = context.environment.packages.get("deepspeed")
    world = context.settings.values.get("world_size")
    return lint_parsed(
        document,
        args.ds_config,
        deepspeed.version if deepspeed else None,
        KeyTable.from_data(context.matrix.table("deepspeed_keys")),
        trainer=True if args.training_args else None,
        world_size=world if isinstance(world, int) else None,
    )


def build_report(
    context: Context, accepted: list[waivers.Waiver], more: list[Finding], unseen: list[Skip],
) -> Report:  # fmt: skip
    """Run the checks and put the report together with `more` findings and `unseen` skips."""
    findings, skipped = run_all(context)
    findings += more
    kept, waived = waivers.apply(findings, accepted, datetime.datetime.now(tz=datetime.timezone.utc).date())
    matrix = context.matrix
    return Report(
        findings=sort_findings(kept),
        skipped=(*skipped, *unseen),
        stack=tuple(stack_rows(context)),
        notes=tuple(known_good.notes(context)),
        waived=tuple(waived),
        extra={
            "matrix": {
                "folder": str(matrix.folder), "origin": matrix.origin, "digest": matrix.digest, "rules": len(matrix),
            },
            "environment": context.environment.source,
        },
    )


def read_environment(args: argparse.Namespace) -> Environment:
    """The environment the options name.

    Raises:
        InputError: The snapshot is unreadable.
        CouldNotLookError: The interpreter cannot be asked.
    """
    if args.snapshot:
        from envcheck.facts.snapshot import load as load_snapshot  # noqa: PLC0415 - only with --snapshot

        return load_snapshot(read_text(args.snapshot, "snapshot"), args.snapshot)
    from envcheck.facts.collect import collect  # noqa: PLC0415 - not with --snapshot

    return collect(args.python)


def read_settings(args: argparse.Namespace, document: Document | None) -> Settings:
    """The settings the options give; `document` is the DeepSpeed file, read already."""
    trainer = read_json_object(args.training_args, "TrainingArguments") if args.training_args else None
    told = dict(parse_assignment(text) for text in args.told)
    return combine(document.plain() if document else None, trainer, told, frozenset(args.uses))


def read_deepspeed(name: str) -> Document:
    """A DeepSpeed file, read as forgivingly as DeepSpeed reads it.

    Raises:
        InputError: Nothing can be made of it.
    """
    from envcheck.dsconfig.document import parse  # noqa: PLC0415 - only with --ds-config

    text = read_text(name, "DeepSpeed config")
    document = parse(text)
    if not document.usable:
        json_object(text, name, "DeepSpeed config")  # says what is wrong, and where
        raise InputError("the DeepSpeed config cannot be used", where=name)
    return document


def parse_assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` with the value as JSON where it is JSON, else as text.

    Raises:
        UsageError: No `=`, or an empty key.
    """
    import json  # noqa: PLC0415 - only with --set

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"`--set {text}` is not KEY=VALUE", hints=("such as --set zero_optimization.stage=2",))
    try:
        return key.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return key.strip(), value.strip()
