"""`envcheck config`: lint a DeepSpeed JSON, show what each `auto` becomes, explain a key, write a corrected copy."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from envcheck.cli.console import add_report_options, emit, write
from envcheck.cli.inputs import parse_assignment, read_environment, read_json_object, read_text
from envcheck.cli.training import Training, add_trainer_options, read_trainer, study
from envcheck.dsconfig.document import Document, parse
from envcheck.dsconfig.keys import KeyTable, version_of
from envcheck.errors import ExitCode, UsageError
from envcheck.facts.model import Distribution, Environment
from envcheck.findings import Finding, Report, Skip, StackRow, sort_findings
from envcheck.matrix.database import load
from envcheck.matrix.index import SETTING, USE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from envcheck.matrix.database import Matrix
    from envcheck.matrix.index import Candidates
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings

#: Packages whose versions decide what a setting does.
DECIDING = ("deepspeed", "transformers", "accelerate", "torch", "numpy", "peft", "trl")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck config`."""
    parser.add_argument("document", nargs="?", metavar="DS.json", help="the DeepSpeed config; `-` is standard input")
    parser.add_argument("--explain", metavar="KEY", help="say what a key does, its default, history and known trouble")
    parser.add_argument("--fix", action="store_true", help="write a corrected copy next to the file, as NAME.fixed.json")
    group = parser.add_argument_group("training")
    trainer = group.add_mutually_exclusive_group()
    add_trainer_options(trainer)
    trainer.add_argument("--no-trainer", action="store_true", help="the file goes to deepspeed.initialize without a Trainer")
    group.add_argument("--world-size", type=positive, metavar="N", help="number of ranks (default: from the command)")
    group.add_argument(
        "--model-config",
        metavar="FILE",
        help="the model's config.json: its hidden_size decides `auto` buckets",
    )
    group.add_argument("--hidden-size", type=positive, metavar="N", help="hidden size of the model")
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="told",
        help="one more setting; may be repeated",
    )
    group.add_argument(
        "--uses",
        metavar="WORD",
        action="append",
        default=[],
        help="something your code does; may be repeated",
    )
    versions = parser.add_argument_group("versions")
    which = versions.add_mutually_exclusive_group()
    which.add_argument("--python", metavar="PATH", help="look at another interpreter's environment, or a venv folder")
    which.add_argument("--snapshot", metavar="FILE", help="a saved or hand-written snapshot; `-` is standard input")
    versions.add_argument("--deepspeed-version", metavar="V", help="judge for this DeepSpeed instead of the installed one")
    versions.add_argument("--transformers-version", metavar="V", help="judge for this transformers instead of the installed one")
    versions.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")
    add_report_options(parser)


def positive(text: str) -> int:
    """A positive integer of the command line.

    Raises:
        ValueError: It is not one (argparse words the message).
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def run(args: argparse.Namespace) -> int:
    """Lint, explain or fix; returns the exit code."""
    matrix = load(args.matrices)
    table = KeyTable.from_data(matrix.table("deepspeed_keys"))
    if args.explain:
        return explain(args, matrix, table)
    training = read_training(args)
    environment = read_versions(args)
    if training.read_by_trainer is None and nobody_fills(environment):
        training = training._replace(read_by_trainer=False)
    report = build_report(training, matrix, table, environment)
    code = emit(report, args)
    document = training.document
    assert document is not None  # noqa: S101 - read_training reads one
    if args.fix and document.usable:
        fix(document, training.name, table, environment, training.read_by_trainer)
    return code if document.usable else max(code, int(ExitCode.USAGE))


def read_training(args: argparse.Namespace) -> Training:
    """What the options give; the file is the one named, else the one that the arguments name.

    Raises:
        InputError: A file is not usable.
        UsageError: No file, or an option makes no sense.
    """
    trainer = read_trainer(args)
    name = args.document or (trainer.deepspeed if trainer else "")
    if not name:
        raise UsageError("name a DeepSpeed config", hints=("such as `envcheck config ds.json`, or --explain KEY",))
    model = read_json_object(args.model_config, "model config") if args.model_config else {}
    told = {"model_type": model["model_type"]} if model.get("model_type") else {}
    return Training(
        document=parse(read_text(name, "DeepSpeed config", "utf-8")),
        name=name,
        trainer=trainer,
        read_by_trainer=is_trainer(args),
        world_size=args.world_size or (trainer.world_size if trainer else None),
        hidden_size=args.hidden_size or hidden_size(model),
        told={**told, **dict(parse_assignment(text) for text in args.told)},
        uses=frozenset(args.uses),
    )


def is_trainer(args: argparse.Namespace) -> bool | None:
    """Whether the Trainer reads the file; None where nobody said."""
    if args.no_trainer:
        return False
    return True if args.training_args or args.training_args_cmd else None


def nobody_fills(environment: Environment) -> bool:
    """Whether DeepSpeed is there, and all that could replace an `auto` is known not to be."""
    packages = environment.packages
    return environment.complete and "deepspeed" in packages and not {"transformers", "accelerate"} & packages.keys()


def read_versions(args: argparse.Namespace) -> Environment:
    """The environment: a snapshot's, another interpreter's, or only the deciding packages of this one."""
    environment = read_environment(args) if args.snapshot or args.python else installed()
    packages = dict(environment.packages)
    for name in ("deepspeed", "transformers"):
        version = getattr(args, f"{name}_version")
        if version is not None:
            if version_of(version) is None:
                raise UsageError(f"`--{name}-version {version}` is not a version")
            packages[name] = Distribution(name, version)
    return environment._replace(packages=packages)


def installed() -> Environment:
    """The deciding packages of this interpreter, by their metadata; nothing else is looked at, which keeps a lint fast."""
    from envcheck.facts.metadata import named_versions  # noqa: PLC0415 - not with a snapshot

    return Environment({name: Distribution(name, version) for name, version in named_versions(sys.path, DECIDING).items()})


def build_report(training: Training, matrix: Matrix, table: KeyTable, environment: Environment) -> Report:
    """Findings of the document, of the rules and of the Trainer's arguments, and the table of effective values."""
    versions = {package: item.version for package, item in environment.packages.items()}
    document, name = training.document, training.name
    studied = study(training, versions, table)
    findings, skipped = list(studied.findings), list[Skip]()
    if document is not None and document.usable:
        for outcome in rule_findings(matrix, environment, studied.settings, document, name):
            (findings if isinstance(outcome, Finding) else skipped).append(outcome)  # type: ignore[arg-type]
    rows = studied.effective
    return Report(
        findings=sort_findings(findings),
        skipped=tuple(skipped),
        stack=(*stack(versions, name), *(StackRow(row.key, f"{row.file} -> {row.shown}  ({row.decided})") for row in rows)),
        notes=tuple(notes(training, environment)),
        extra={"config": name, "effective": [row._asdict() for row in rows], "packages": versions},
    )


def notes(training: Training, environment: Environment) -> Iterator[str]:
    """What the reader of the report should know of how it came about."""
    if training.trainer and training.trainer.unread:
        yield f"not read from the command: {' '.join(training.trainer.unread)}"
    if training.read_by_trainer is False and nobody_fills(environment):
        yield "neither transformers nor accelerate is installed: the file is judged for DeepSpeed alone"


def stack(versions: dict[str, str], name: str) -> Iterator[StackRow]:
    """What the lint was made for."""
    yield StackRow("config", name)
    for package in ("deepspeed", "transformers"):
        yield StackRow(package, versions.get(package) or "not known: rules about its releases are not decided")


def rule_findings(
    matrix: Matrix,
    environment: Environment,
    settings: Settings,
    document: Document,
    name: str,
) -> Iterator[Finding | Skip]:
    """Rules that hang on a setting which is known here, each with the line of that setting."""
    from envcheck.checks.context import Context  # noqa: PLC0415 - not with --explain
    from envcheck.checks.rules import finding, speaking  # noqa: PLC0415 - not with --explain

    context = Context(environment, matrix, settings)
    for outcome in speaking(context, _about_what_is_given):
        if isinstance(outcome, Skip):
            yield outcome
        else:
            place = place_of(outcome.rule, document, name)
            yield finding(outcome, matrix.completed(environment), settings)._replace(place=place)


def _about_what_is_given(candidates: Candidates) -> bool:
    """Whether the rules are about a setting of which something is known, or about what the arguments or `--uses` say is done."""
    settings = [item for item in candidates.others if item.kind == SETTING]
    done = [item for item in candidates.others if item.kind == USE and item.name != "hf-trainer"]
    return len(candidates.opened(SETTING)) < len(settings) or any(item not in candidates.open for item in done)


def place_of(rule: Rule, document: Document, name: str) -> str:
    """Where the rule's most telling key is: the last of its keys that is in the file."""
    inside = [place for item in rule.settings if item.key in document.by_path and (place := document.place(item.key))]
    near = inside or [place for item in rule.settings if (place := document.place(item.key))]
    return f"{name}:{near[-1].line}:{near[-1].column}" if near else name


def hidden_size(config: dict[str, Any]) -> int | None:
    """The hidden size that the Trainer would take: `hidden_size`, else the largest of `hidden_sizes`, else of `text_config`."""
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, dict) else {}):
        given = place.get("hidden_size") or place.get("hidden_sizes") or []
        sizes = given if isinstance(given, list) else [given]
        whole = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
        if whole:
            return max(whole)
    return None


def explain(args: argparse.Namespace, matrix: Matrix, table: KeyTable) -> int:
    """Print what is known of a key; returns the exit code.

    Raises:
        UsageError: No release has it.
    """
    from envcheck.dsconfig import explain as words  # noqa: PLC0415 - only with --explain

    key = table.get(args.explain)
    if key is None:
        close = table.close_to(args.explain)
        if len(close) == 1 and close[0].endswith(f".{args.explain}"):
            key = table.get(close[0])
        if key is None:
            hints = tuple(f"did you mean `{item}`?" for item in dict.fromkeys(close)) or (
                "keys are dotted, such as zero_optimization.stage",
            )
            raise UsageError(f"DeepSpeed has no key `{args.explain}`", hints=hints)
    data = words.facts(key, table, matrix.rules())
    if args.format == "json":
        text = json.dumps({"schema": "envcheck.explain/1", **data}, indent=2) + "\n"
    else:
        text = "\n".join(words.lines(data)) + "\n"
    write(text, args.output)
    return int(ExitCode.OK)


def fix(document: Document, name: str, table: KeyTable, environment: Environment, trainer: bool | None) -> None:
    """Write the corrected copy and list the changes on standard error.

    Raises:
        UsageError: Standard input has no place next to it, or the copy is already there.
    """
    from pathlib import Path  # noqa: PLC0415 - only with --fix

    from envcheck.dsconfig.fixes import corrected  # noqa: PLC0415 - likewise

    if name == "-":
        raise UsageError("`--fix` writes next to the file; standard input has no such place")
    installed_version = environment.packages.get("deepspeed")
    text, edits = corrected(document, table, version_of(installed_version.version) if installed_version else None, trainer)
    if not edits:
        print("envcheck: nothing that --fix could correct", file=sys.stderr)
        return
    path = Path(name)
    copy = path.with_name(f"{path.stem}.fixed{path.suffix or '.json'}")
    if copy.exists():
        raise UsageError("the corrected copy is already there", where=str(copy), hints=("move it away first",))
    write(text, str(copy))
    for edit in edits:
        print(f"{name}:{edit.line}: {edit.what}", file=sys.stderr)
    print(f"envcheck: wrote {copy} ({len(edits)} change{'s' if len(edits) > 1 else ''})", file=sys.stderr)
