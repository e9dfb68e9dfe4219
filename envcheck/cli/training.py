"""What is known of a training run: the DeepSpeed file, the Trainer's arguments, what was told, and what follows from them."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.cli.inputs import json_object, parse_assignment, read_json_object, read_text
from envcheck.dsconfig.auto import Effective, Run, effective, five, mismatches
from envcheck.dsconfig.document import Document, parse
from envcheck.dsconfig.handover import lacking
from envcheck.dsconfig.lint import lint_parsed
from envcheck.dsconfig.resume import words
from envcheck.dsconfig.trainer import TrainerArguments, from_command, from_json
from envcheck.errors import InputError
from envcheck.findings import Skip
from envcheck.matrix.settings import Settings, combine, flatten

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from envcheck.dsconfig.keys import KeyTable
    from envcheck.findings import Finding


class Training(NamedTuple):
    """What was given.

    Attributes:
        document: The DeepSpeed file, or None.
        name: Its name, for places.
        trainer: The Trainer's arguments, or None.
        read_by_trainer: Whether a Trainer reads the file; None where nobody said.
        world_size: Number of ranks, or None.
        hidden_size: Of the model, or None.
        told: Single settings, which win over both files.
        uses: Usage words.
        absent: The DeepSpeed file that the arguments name, where it is not here.
    """

    document: Document | None = None
    name: str = ""
    trainer: TrainerArguments | None = None
    read_by_trainer: bool | None = None
    world_size: int | None = None
    hidden_size: int | None = None
    told: Mapping[str, Any] = MappingProxyType({})
    uses: frozenset[str] = frozenset()
    absent: str = ""

    def plain(self) -> dict[str, Any] | None:
        """The DeepSpeed configuration: the file's, else the object that the arguments hold, else None."""
        if self.document is not None:
            return self.document.plain()
        inner = self.trainer.values.get("deepspeed") if self.trainer else None
        return inner if isinstance(inner, dict) else None


class Studied(NamedTuple):
    """What follows: findings with places in the file, the effective values, and the settings that rules are matched against."""

    findings: list[Finding]
    skipped: list[Skip]
    effective: list[Effective]
    settings: Settings


def study(given: Training, versions: Mapping[str, str], table: KeyTable) -> Studied:
    """Lint the file, compare it with the Trainer's arguments, and replace every `auto` of which the value is known.

    Args:
        given: What is known of the run.
        versions: Installed versions by package name.
        table: The key table.
    """
    deepspeed, transformers = versions.get("deepspeed", ""), versions.get("transformers", "")
    run = Run(given.trainer, given.world_size, given.hidden_size, transformers, deepspeed)
    findings: list[Finding] = []
    if given.trainer is not None:
        given = given._replace(uses=given.uses | words(given.trainer.values, versions))
    if given.document is not None:
        findings = lint_parsed(
            given.document,
            given.name,
            deepspeed or None,
            table,
            trainer=given.read_by_trainer,
            world_size=given.world_size,
            five=five(run),
        )
        if given.document.usable:
            findings += mismatches(given.document, given.name, run)
            findings += lacking(given.document, given.name, given.trainer)
    plain = given.plain()
    rows = effective(flatten(plain), run, table) if plain and given.read_by_trainer is not False else []
    skipped = [Skip("DeepSpeed config", f"the arguments name `{given.absent}`, which is not here: give --ds-config")]
    return Studied(findings, skipped if given.absent else [], rows, settings(given, rows))


def settings(given: Training, rows: list[Effective]) -> Settings:
    """The file with every known `auto` replaced, the arguments, and what was told."""
    told: dict[str, Any] = {row.key: row.value for row in rows if row.known and row.value != "auto"}
    if given.world_size is not None:
        told["world_size"] = given.world_size
    told.update(given.told)
    return combine(given.plain(), dict(given.trainer.values) if given.trainer else None, told, given.uses)


def add_trainer_options(group: argparse._ArgumentGroup | argparse._MutuallyExclusiveGroup) -> None:
    """The two ways to give the Trainer's arguments."""
    group.add_argument("--training-args", metavar="FILE", help="TrainingArguments as JSON")
    group.add_argument("--training-args-cmd", metavar="COMMAND", help="the launch command, pasted as one argument")


def read_trainer(args: argparse.Namespace) -> TrainerArguments | None:
    """The Trainer's arguments, where given.

    Raises:
        InputError: The file is not usable.
        UsageError: The command's quotes do not match.
    """
    if args.training_args_cmd:
        return from_command(args.training_args_cmd)
    return from_json(read_json_object(args.training_args, "file of TrainingArguments")) if args.training_args else None


def read_deepspeed(name: str) -> Document:
    """A DeepSpeed file, read as forgivingly as DeepSpeed reads it.

    Raises:
        InputError: Nothing can be made of it.
    """
    text = read_text(name, "DeepSpeed config")
    document = parse(text)
    if not document.usable:
        json_object(text, name, "DeepSpeed config")  # says what is wrong, and where
        raise InputError("the DeepSpeed config cannot be used", where=name)
    return document


def read_training(args: argparse.Namespace) -> Training:
    """What the options of `envcheck check` give: the file of `--ds-config`, else the one that the arguments name, if it is here.

    Raises:
        InputError: A file is not usable.
        UsageError: An option is not.
    """
    trainer = read_trainer(args)
    named = trainer.deepspeed if trainer and not args.ds_config else ""
    name = args.ds_config or (named if os.path.isfile(named) else "")  # noqa: PTH113 - pathlib is slow to import
    told = dict(parse_assignment(text) for text in args.told)
    return Training(
        document=read_deepspeed(name) if name else None,
        name=name,
        trainer=trainer,
        read_by_trainer=True if trainer else None,
        world_size=_whole(told.get("world_size")) or (trainer.world_size if trainer else None),
        hidden_size=_whole(told.get("hidden_size")),
        told=told,
        uses=frozenset(args.uses),
        absent=named if not name else "",
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
