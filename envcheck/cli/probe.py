"""`envcheck probe`: train tiny models under ZeRO and compare every gradient and update with plain torch."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.cli.console import add_report_options, emit
from envcheck.cli.inputs import parse_assignment, read_json_object
from envcheck.errors import ExitCode, UsageError
from envcheck.matrix.database import load
from envcheck.matrix.settings import is_deepspeed_key

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from envcheck.findings import Report
    from envcheck.probe.outcome import Outcome
    from envcheck.probe.spec import Scenario

#: Seconds for everything, unless `--timeout` says otherwise.
QUICK_TIMEOUT, THOROUGH_TIMEOUT = 300.0, 3600.0

MOST_RANKS = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck probe`."""
    group = parser.add_argument_group("what to probe")
    group.add_argument("--python", metavar="PATH", help="the interpreter, or a venv folder, to probe (default: this one)")
    group.add_argument(
        "--stages", metavar="LIST", help="ZeRO stages, such as 2 or 2,3 (default: 2,1,3,0, or that of --ds-config)"
    )
    group.add_argument("--world-size", type=int, default=2, metavar="N", help="ranks (default: 2)")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default: auto)")
    group.add_argument("--path", choices=("engine", "trainer", "both"), default="both", help="bare engine, Trainer, or both")
    group.add_argument("--ds-config", metavar="FILE", help="your DeepSpeed JSON; only its sizes are shrunk")
    group.add_argument("--training-args", metavar="FILE", help="your TrainingArguments as JSON")
    group.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="told",
        help="one setting that wins over both files, such as zero_optimization.stage=2; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--model", default="tiny", metavar="tiny|DIR|MODULE:FUNCTION", help="the model (default: tiny ones of our own)"
    )
    group.add_argument("--thorough", action="store_true", help="every stage, dtype, accumulation and option; minutes")
    group.add_argument("--seed", type=int, default=1, help="seed of weights and data (default: 1)")
    group.add_argument("--timeout", type=float, metavar="S", help="seconds for everything (default: 300; 3600 with --thorough)")
    group.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")
    group.add_argument("--html", metavar="FILE", help="also write a page with the curves of every scenario")
    group.add_argument("--record", metavar="FILE", help="append the result to FILE (JSON lines), as evidence for rules")
    add_report_options(parser)
    parser.set_defaults(trainer=None)


def run(args: argparse.Namespace) -> int:
    """Probe and report; returns the exit code."""
    from envcheck.probe import summary  # noqa: PLC0415 - not for --help

    report, killed = look(args)
    code = emit(report, args, summary.SCHEMA)
    return int(ExitCode.FAILED) if killed and code != ExitCode.USAGE else code


def look(args: argparse.Namespace) -> tuple[Report, bool]:
    """The report, and whether the probe was ended from outside."""
    from envcheck.checks.deep.cache_locks import stale_locks  # noqa: PLC0415 - not for --help
    from envcheck.probe import session, summary  # noqa: PLC0415 - likewise

    if args.html:
        from envcheck.report import charts  # noqa: PLC0415 - only with --html

        charts.require()  # before minutes of probing, not after
    chosen = choose(args)
    timeout = args.timeout or (THOROUGH_TIMEOUT if args.thorough else QUICK_TIMEOUT)
    matrix = load(args.matrices)
    with ended_in_order():
        outcome = session.probe(
            interpreter(args.python),
            chosen,
            world_size=args.world_size,
            device=args.device,
            timeout=timeout,
            progress=progress(len(chosen), args.world_size) if sys.stderr.isatty() else None,
        )
    report = summary.report(outcome, args.world_size, matrix, stale_locks(os.environ, outcome.python))
    _side_files(args, outcome, report)
    return report, bool(outcome.killed)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM (of `timeout`, of a batch system) ends the ranks and the scratch folder too, as an interrupt does."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _side_files(args: argparse.Namespace, outcome: Outcome, report: Report) -> None:
    if args.html:
        from envcheck.cli.console import write  # noqa: PLC0415 - only with --html
        from envcheck.probe import html  # noqa: PLC0415 - only with --html

        write(html.page(outcome, report), args.html)
    if args.record and not outcome.failure:
        from envcheck.probe import record  # noqa: PLC0415 - only with --record

        record.append(Path(args.record), record.line(report))


def choose(args: argparse.Namespace) -> list[Scenario]:
    """The scenarios that the options ask for.

    Raises:
        UsageError: An option makes no sense.
        InputError: A file is not usable.
    """
    from dataclasses import replace  # noqa: PLC0415 - not for --help

    from envcheck.probe import spec, userconfig  # noqa: PLC0415 - not for --help

    if not 1 <= args.world_size <= MOST_RANKS:
        raise UsageError(f"`--world-size {args.world_size}` is not between 1 and {MOST_RANKS}")
    if args.timeout is not None and not args.timeout > 0:
        raise UsageError(f"`--timeout {args.timeout:g}` is not a positive number of seconds")
    stages = parse_stages(args.stages)
    paths = (spec.ENGINE, spec.TRAINER) if args.path == "both" else (args.path,)
    model = None if args.model == "tiny" else absolute(args.model)
    given = yours(args)
    if given is not None:
        deepspeed, trainer = given
        chosen = userconfig.scenarios(deepspeed, trainer, stages, paths, model)
    elif args.thorough:
        chosen = spec.thorough(stages or spec.STAGE_ORDER, paths, ("fp32", "bf16", "fp16"))
    else:
        chosen = spec.quick(stages or spec.STAGE_ORDER, paths)
    if model:
        chosen = list({one.id: one for one in (replace(item, model=model) for item in chosen)}.values())
    return [replace(item, seed=args.seed) for item in chosen]


def yours(args: argparse.Namespace) -> tuple[dict[str, Any] | None, dict[str, Any] | None] | None:
    """The DeepSpeed configuration and the Trainer's arguments that were given, `--set` among them; None where nothing was.

    Raises:
        UsageError: `--set` gives no KEY=VALUE, or a key below something that is no section.
        InputError: A file is not usable.
    """
    deepspeed = read_json_object(args.ds_config, "DeepSpeed config") if args.ds_config else None
    trainer = read_json_object(args.training_args, "file of TrainingArguments") if args.training_args else args.trainer
    told = dict(parse_assignment(text) for text in args.told)
    told.pop("world_size", None)  # of the training; the probe has ranks of its own
    inside = (trainer or {}).get("deepspeed")
    if told and deepspeed is None and isinstance(inside, dict):
        deepspeed = inside
    for key, value in told.items():
        if is_deepspeed_key(key):
            deepspeed = with_key(deepspeed or {}, key.split("."), value)
        else:
            trainer = {**(trainer or {}), key: value}
    return None if deepspeed is None and trainer is None else (deepspeed, trainer)


def with_key(document: dict[str, Any], path: list[str], value: object) -> dict[str, Any]:
    """A copy of the document in which the key of a dotted name has that value.

    Raises:
        UsageError: What stands above the key is no section.
    """
    first, *rest = path
    if not rest:
        return {**document, first: value}
    section = document.get(first, {})
    if not isinstance(section, dict):
        raise UsageError(f"`--set {'.'.join(path)}`: `{first}` is no section in the DeepSpeed config")
    return {**document, first: with_key(section, rest, value)}


def absolute(model: str) -> str:
    """A model folder as an absolute path; `module:function` as it is.

    Raises:
        UsageError: Neither a folder with a `config.json` nor `module:function`.
    """
    if (Path(model) / "config.json").is_file():
        return str(Path(model).resolve())
    module, colon, function = model.partition(":")
    if colon and function.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return model
    raise UsageError(f"`--model {model}` is neither `tiny`, nor a folder with a `config.json`, nor `module:function`")


def parse_stages(text: str | None) -> tuple[int, ...] | None:
    """`2,3` as stages, in the order given, each once.

    Raises:
        UsageError: Not a list of 0, 1, 2, 3.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("0", "1", "2", "3") for part in parts):
        raise UsageError(f"`--stages {text}` is not a list of stages from 0 to 3", hints=("such as --stages 2,3",))
    return tuple(dict.fromkeys(int(part) for part in parts))


def interpreter(given: str | None) -> str:
    """The path of the interpreter to probe.

    Raises:
        UsageError: There is none at the place given.
    """
    if given is None:
        return sys.executable
    path = Path(given)
    for candidate in (path / "bin" / "python", path):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate.absolute())
    raise UsageError(f"no interpreter at `{given}`", hints=("give a python executable or the folder of a venv",))


def progress(count: int, ranks: int) -> Any:  # noqa: ANN401 - a callback
    """A callback that writes a line to stderr for each scenario; one before them, since the imports take seconds."""
    done = 0
    print(f"[0/{count}] {ranks} ranks import torch and DeepSpeed", file=sys.stderr)

    def show(event: str, record: dict[str, Any]) -> None:
        nonlocal done
        done += event == "begin"
        if event == "begin":
            print(f"[{done}/{count}] {record['scenario']}", file=sys.stderr)

    return show
