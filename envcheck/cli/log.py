"""`envcheck log`: what a training log says went wrong, why, and what decides between the causes."""

from __future__ import annotations

import itertools
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.cli.check import add_settings_options, read_training, settings_for
from envcheck.cli.console import add_report_options, emit, write
from envcheck.cli.inputs import read_environment
from envcheck.errors import InputError, UsageError
from envcheck.findings import Report, Skip, StackRow, sort_findings
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from envcheck.facts.model import Environment
    from envcheck.findings import Finding
    from envcheck.forensics.diagnose import Likely, Where
    from envcheck.forensics.history import History
    from envcheck.forensics.tracebacks import Collector
    from envcheck.matrix.settings import Settings
    from envcheck.matrix.signature import Sighting, Signature
    from envcheck.monitor.observation import Observation
    from envcheck.monitor.records import Run

#: Bytes read at a time.
CHUNK = 1 << 20

#: How UTF-16 text begins.
UTF16 = (b"\xff\xfe", b"\xfe\xff")

#: Fewer lines with a loss decide nothing: from transformers 4.51 on the first line of a sound run has the learning rate 0.0.
FEWEST = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck log`."""
    parser.add_argument("log", metavar="FILE", help="a training log, trainer_state.json or envcheck-monitor.jsonl; `-` is stdin")
    parser.add_argument(
        "--against", metavar="FILE", help="a log of the same training under another stage or release, to compare norms",
    )  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="also write a page with the curves of loss, learning rate and norm")
    group = parser.add_argument_group("environment (none by default: only the log is judged)")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--python", metavar="PATH", help="the interpreter, or a venv folder, that wrote the log")
    which.add_argument("--snapshot", metavar="FILE", help="a saved or hand-written snapshot of it")
    group.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")
    add_settings_options(parser)
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read, judge, report; returns the exit code."""
    if args.log == "-" and "-" in (args.snapshot, args.against):
        raise UsageError("only one input can be standard input")
    if args.html:
        from envcheck.report import charts  # noqa: PLC0415 - only with --html

        charts.require()
    report, history = look(args)
    if args.html:
        from envcheck.forensics import page  # noqa: PLC0415 - only with --html

        write(page.page(report, history), args.html)
    return emit(report, args)


def build_report(args: argparse.Namespace) -> Report:
    """The report on a log; raises as `look`."""
    return look(args)[0]


def look(args: argparse.Namespace) -> tuple[Report, History]:
    """The report on a log, and the run behind it.

    Raises:
        InputError: A file cannot be read.
    """
    from envcheck.checks.context import Context  # noqa: PLC0415 - not for --help
    from envcheck.facts.model import Environment  # noqa: PLC0415 - not for --help
    from envcheck.forensics import diagnose, tracebacks  # noqa: PLC0415 - not for --help
    from envcheck.matrix import signature  # noqa: PLC0415 - not for --help

    training = read_training(args)
    environment = read_environment(args) if args.python or args.snapshot else Environment()
    matrix = load(args.matrices)
    settings = settings_for(args, training, environment, matrix)
    signatures = signature.load(matrix.folder)
    collector = tracebacks.Collector()
    history = read_history(args.log, settings, collector)
    environment, settings = told(history, environment, settings)
    seen = history.observations()
    more = [*history.extra(), *_compared(args, history, settings)]
    sightings = diagnose.sightings(seen, [one for one, _ in more])
    dates = signatures.dated(sightings)
    where = diagnose.Where(environment, settings, matrix, diagnose.ranges(dates, environment, settings))
    found = list(signatures.matching(sightings))
    rules = diagnose.rules_of(found, where)
    likely = {one.id: diagnose.causes(one, where, rules) for one in found}
    findings = [_finding(one, likely[one.id], seen, where, args.log, more) for one in found]
    findings += diagnose.mismatches(dates, environment, settings)
    went_on = history.side.lines >= FEWEST
    met = tracebacks.findings(collector, signatures.messages, Context(environment, matrix, settings), args.log, went_on)
    skips = tuple(_skips(history, [*findings, *met]))
    findings += [] if history.checked else _hidden(where)
    findings += [one for one in met if one.id not in {other.id for other in findings}]
    report = Report(
        findings=sort_findings(findings),
        skipped=skips,
        stack=tuple(_rows(args, history)),
        notes=tuple(_notes(history, findings, diagnose.dated_notes(dates, history))),
        extra={"log": history.summary(), "signatures": [diagnose.plain(one, likely[one.id]) for one in found]},
    )
    return report, history


def told(history: History, environment: Environment, settings: Settings) -> tuple[Environment, Settings]:
    """Environment and settings; those that a monitor's file tells where none are given."""
    from envcheck.facts.model import Distribution  # noqa: PLC0415 - not for --help
    from envcheck.facts.model import Environment as Facts  # noqa: PLC0415 - likewise
    from envcheck.matrix.settings import Settings as Known  # noqa: PLC0415 - likewise

    run = history.run
    if not environment.packages and run.packages:
        environment = Facts({name: Distribution(name, version) for name, version in run.packages.items()})
    if not settings.values and run.settings:
        whole = "zero_optimization.stage" in run.settings
        settings = Known(dict(run.settings), deepspeed_complete=whole, uses=settings.uses | frozenset(run.uses))
    return environment, settings


def read_history(name: str, settings: Settings, collector: Collector | None = None) -> History:
    """The run behind a log file; `-` is standard input.

    Raises:
        InputError: It cannot be read.
    """
    from envcheck.monitor.records import Run  # noqa: PLC0415 - not for --help

    dtypes = [word for word, key in (("fp16", "fp16.enabled"), ("bf16", "bf16.enabled")) if settings.get(key) is True]
    run = Run(dtype=dtypes[0] if dtypes else "")
    try:
        if name == "-":
            return _history(sys.stdin.buffer, run, collector)
        with _open(name) as stream:
            return _history(stream, run, collector)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the log: {reason}", where=name) from error


def _history(stream: BinaryIO, run: Run, collector: Collector | None) -> History:
    from envcheck.forensics import entries, journal  # noqa: PLC0415 - not for --help
    from envcheck.forensics.history import History  # noqa: PLC0415 - likewise

    first = stream.readline(CHUNK)
    if first.startswith(journal.HEAD):
        return journal.read(itertools.chain([first], stream))
    if first[:2] in UTF16 and b"\0" in first:
        raise ValueError("it is UTF-16 text; convert it to UTF-8")
    history = History(run)
    chunks = itertools.chain([first], iter(lambda: stream.read(CHUNK), b""))
    history.see(entries.read(collector.watch(chunks) if collector else chunks))
    return history


def _open(name: str) -> BinaryIO:
    path = Path(name)
    if stat.S_ISDIR(path.stat().st_mode):
        inside = path / "trainer_state.json"
        if not inside.is_file():
            raise InputError("a folder without a `trainer_state.json`", where=name)
        path = inside
    return path.open("rb")


def _compared(args: argparse.Namespace, history: History, settings: Settings) -> list[tuple[Sighting, str]]:
    """The comparison with the second log, as a sighting and a sentence."""
    from envcheck.forensics import diagnose  # noqa: PLC0415 - not for --help
    from envcheck.matrix.signature import Sighting as Seen  # noqa: PLC0415 - not for --help

    if not args.against:
        return []
    ratio = diagnose.norm_ratio(history.side, read_history(args.against, settings).side)
    if ratio is None:
        return []
    text = f"the gradient norm is {ratio[0]:.3g} times that of `{args.against}` over {ratio[1]} lines"
    return [(Seen(diagnose.NORM_DIFFERS, from_start=True, count=ratio[1], values={"small": ratio[0] < 1}), text)]


def _finding(
    one: Signature, likely: Sequence[Likely], seen: Sequence[Observation], where: Where, name: str,
    more: Sequence[tuple[Sighting, str]],
) -> Finding:  # fmt: skip
    from envcheck.forensics import diagnose  # noqa: PLC0415 - not for --help

    found = diagnose.finding(one, likely, seen, where, name)
    return found._replace(because=(*(text for sight, text in more if sight.kind in one.kinds), *found.because))


def _hidden(where: Where) -> list[Finding]:
    """Rules that certainly hold for the environment and settings given, and that a log cannot show."""
    from envcheck.checks import rules  # noqa: PLC0415 - only here
    from envcheck.forensics import diagnose  # noqa: PLC0415 - not for --help

    found = [rules.finding(one, where.environment, where.settings) for one in diagnose.hidden(where)]
    words = "no log shows this: the loss looks normal; `envcheck probe` does"
    return [one._replace(because=(*one.because, words)) for one in found]


def _skips(history: History, findings: Sequence[Finding]) -> Iterator[Skip]:
    lines = history.side.lines
    if not lines and not findings:
        scale = (
            f"; {history.overflows} overflows lowered the loss scale to {history.scale:g}" if history.scale is not None else ""
        )
        yield Skip("log", f"no line with a training loss was found{scale}", asked=True)
    elif 0 < lines < FEWEST:
        yield Skip("log", "one line with a training loss decides nothing; read the log again when there are more", asked=True)


def _rows(args: argparse.Namespace, history: History) -> Iterator[StackRow]:
    summary = history.summary()
    yield StackRow("log", "standard input" if args.log == "-" else args.log)
    yield StackRow("lines", f"{summary['lines']} with a training loss ({summary['source']})")
    if summary["ranks"] > 1:
        yield StackRow("ranks", str(summary["ranks"]))
    if summary["overflows"]:
        yield StackRow("overflows", f"{summary['overflows']} that DeepSpeed reports")


def _notes(history: History, findings: Sequence[Finding], dated: Sequence[str]) -> Iterator[str]:
    from envcheck.forensics.history import healthy  # noqa: PLC0415 - not for --help

    if not findings and history.side.lines >= FEWEST:
        yield healthy(history)
    yield from dated
