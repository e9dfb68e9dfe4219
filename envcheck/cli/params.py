"""`envcheck params`: are a model's parameters loaded, initialised, trainable, reachable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.cli.check import add_settings_options, read_training, settings_for
from envcheck.cli.console import add_report_options, emit
from envcheck.errors import UsageError
from envcheck.findings import Report, Severity, Skip, StackRow, sort_findings
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from envcheck.cli.training import Training
    from envcheck.findings import Finding
    from envcheck.params.ask import Answer
    from envcheck.params.checkpoint import Checkpoint
    from envcheck.params.compare import Comparison

#: A checkpoint larger than this is not loaded unless `--values always` says so.
MOST_BYTES = 6 << 30

TIMEOUT = 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck params`."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", metavar="DIR|MODULE:FUNCTION", required=True,
        help="a folder with config.json, or your function that returns the model as you train it",
    )  # fmt: skip
    group.add_argument("--checkpoint", metavar="DIR", help="the weights it starts from (default: those in the model's folder)")
    group.add_argument("--python", metavar="PATH", help="the interpreter, or a venv folder, with torch (default: this one)")
    group.add_argument(
        "--values", choices=("auto", "always", "never"), default="auto",
        help="load the model and look at its values and gradients (auto: up to 6 GiB; never: names and shapes alone)",
    )  # fmt: skip
    group.add_argument("--low-cpu-mem-usage", action="store_true", help="load with low_cpu_mem_usage=True, as your code does")
    group.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds for the look (default: 600)")
    group.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")
    add_settings_options(parser)
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look and report; returns the exit code."""
    return emit(build_report(args), args)


def build_report(args: argparse.Namespace) -> Report:
    """The report on a model's parameters.

    Raises:
        UsageError: The options make no sense.
        InputError: A file cannot be read.
        ToolError: The interpreter cannot be started.
    """
    from envcheck.params import judge  # noqa: PLC0415 - not for --help
    from envcheck.params.stored import apart  # noqa: PLC0415 - not for --help

    model = model_name(args.model)
    checkpoint = _checkpoint(args, model)
    training = read_training(args)
    answer = _ask(args, model, checkpoint)
    findings: list[Finding] = list(judge.broken(checkpoint)) if checkpoint else []
    comparison = _comparison(answer, checkpoint)
    missing = comparison.missing if comparison else ()
    if comparison and checkpoint and answer.model:
        findings += judge.names(comparison, checkpoint, answer)
        if args.values != "never":
            findings += judge.stored_apart(tuple(apart(answer.model, comparison, checkpoint)), answer)
        if Path(model).is_dir():
            findings += judge.stored_dtype(checkpoint, answer)
    findings += judge.values(answer, missing)
    if answer.values:
        findings += judge.gradients(answer, missing)
    findings += judge.ties_and_dtypes(answer)
    if answer.model:
        findings += _rules(args, answer, training, missing, {one.id for one in findings})
    return Report(
        findings=sort_findings(findings),
        skipped=tuple(_skips(args, answer, checkpoint)),
        stack=tuple(_rows(args, answer, checkpoint)),
        notes=tuple(_notes(answer, comparison, findings)),
        extra={"params": _summary(answer, checkpoint, comparison)},
    )


def model_name(text: str) -> str:
    """A model folder as an absolute path; `module:function` as it is.

    Raises:
        UsageError: Neither.
    """
    from envcheck.cli.probe import absolute  # noqa: PLC0415 - the same words as `envcheck probe`

    return absolute(text)


def _checkpoint(args: argparse.Namespace, model: str) -> Checkpoint | None:
    from envcheck.errors import InputError  # noqa: PLC0415 - not for --help
    from envcheck.params.checkpoint import read  # noqa: PLC0415 - not for --help

    if args.checkpoint:
        return read(Path(args.checkpoint))
    if not Path(model).is_dir():
        return None
    try:
        return read(Path(model))
    except InputError:
        return None  # a folder with a configuration alone


def _ask(args: argparse.Namespace, model: str, checkpoint: Checkpoint | None) -> Answer:
    from envcheck.cli.probe import interpreter  # noqa: PLC0415 - not for --help
    from envcheck.params.ask import ask  # noqa: PLC0415 - not for --help

    if not args.timeout > 0:
        raise UsageError(f"`--timeout {args.timeout:g}` is not a positive number of seconds")
    request: dict[str, Any] = {
        "model": model,
        "checkpoint": str(checkpoint.folder.absolute()) if checkpoint else None,
        "values": look_at_values(args.values, checkpoint),
        "backward": True,
        "low_cpu_mem": True if args.low_cpu_mem_usage else None,
        "keys": list(checkpoint.tensors) if checkpoint else None,
        "seed": 1,
    }
    return ask(interpreter(args.python), request, args.timeout)


def look_at_values(asked: str, checkpoint: Checkpoint | None) -> bool:
    """Whether to load the model: never with a damaged checkpoint, nor, unless told to, with a large one."""
    if asked == "never" or (checkpoint is not None and checkpoint.problems and not checkpoint.tensors):
        return False
    return asked == "always" or checkpoint is None or checkpoint.size <= MOST_BYTES


def _comparison(answer: Answer, checkpoint: Checkpoint | None) -> Comparison | None:
    from envcheck.params.compare import compare  # noqa: PLC0415 - not for --help

    return compare(answer.model, checkpoint) if answer.model and checkpoint and checkpoint.tensors else None


def _rules(
    args: argparse.Namespace, answer: Answer, training: Training | None, missing: tuple[str, ...], ids: set[str],
) -> Iterator[Finding]:  # fmt: skip
    """Rules of the matrix about parameters that a checkpoint lacks, whose use by the code was seen here."""
    from envcheck.checks import rules  # noqa: PLC0415 - not for --help
    from envcheck.facts.model import Distribution, Environment  # noqa: PLC0415 - not for --help
    from envcheck.matrix.match import match  # noqa: PLC0415 - not for --help

    words = _uses(args, answer, missing, ids)
    folder = Path(args.model).is_dir()
    environment = Environment({name: Distribution(name, text) for name, text in answer.versions.items()})
    matrix = load(args.matrices)
    settings = settings_for(args, training, environment, matrix)
    known = settings._replace(uses=settings.uses | words)
    for rule in matrix.candidates(environment):
        if set(rule.uses) & words and rule.status != "good":
            found = match(rule, environment, known, matrix.kinds)
            if found is not None and found.decided:
                yield _told(rules.finding(found, environment, known), own=folder or rule.uses != ("new-parameters",))


def _told(finding: Finding, *, own: bool) -> Finding:
    """A rule about what from_pretrained leaves; a function may repair it after loading, which nobody saw under ZeRO-3."""
    if own:
        return finding
    words = "unless your function initialises them itself, under ZeRO-3 inside GatheredParameters"
    return finding._replace(severity=min(finding.severity, Severity.WARNING), certain=False, because=(*finding.because, words))


def _uses(args: argparse.Namespace, answer: Answer, missing: tuple[str, ...], ids: set[str]) -> set[str]:
    """Usage words of the matrix that were seen to apply."""
    model = answer.model or {}
    own = [one for one in model.get("classes", ()) if not one["library"]]
    words = {"init-writes-data"} if any(one["writes_data"] for one in own) else set()
    if missing:
        words.add("new-parameters")
        if args.low_cpu_mem_usage and (not answer.values or "params-uninitialised" in ids):  # what was initialised is not empty
            words.add("low-cpu-mem-usage")
    if missing and "params-uninitialised" in ids and own:
        kinds = {one["init"] for one in own}
        words |= {"new-parameters-no-init"} if "none" in kinds else set()
        words |= {"new-parameters-partial-init"} if "own" in kinds else set()
        words |= {"new-bare-parameters"} if "generic" in kinds else set()
    return words


def _skips(args: argparse.Namespace, answer: Answer, checkpoint: Checkpoint | None) -> Iterator[Skip]:
    for stage, message in answer.failures:
        yield Skip(stage, message, asked=True)
    if answer.ended:
        where = f"the interpreter ended ({answer.ended}) in `{answer.last}`"
        yield Skip("the model", f"{where}: {answer.output[-200:]}" if answer.output else where, asked=True)
    if checkpoint is None:
        yield Skip("the checkpoint", "no checkpoint given: names and shapes were not compared", asked=Path(args.model).is_dir())
    elif answer.model and not answer.values and not answer.failures and not answer.ended:
        size = checkpoint.size / (1 << 30)
        yield Skip("values", f"values not looked at (--values {args.values}; the checkpoint has {size:.1f} GiB)")


def _rows(args: argparse.Namespace, answer: Answer, checkpoint: Checkpoint | None) -> Iterator[StackRow]:
    model = answer.model
    yield StackRow("model", f"{args.model}" + (f" ({model['type']}, {len(model['parameters'])} parameters)" if model else ""))
    if checkpoint is not None:
        size = f"{len(checkpoint.tensors)} tensors in {len(checkpoint.files)} files, {checkpoint.size / 1e9:.1f} GB"
        parts = f" (components {', '.join(checkpoint.components)})" if checkpoint.components else ""
        yield StackRow("checkpoint", f"{checkpoint.folder}: {size}{parts}")
    for name in ("torch", "transformers", "deepspeed"):
        if name in answer.versions:
            yield StackRow(name, answer.versions[name])


def _notes(answer: Answer, comparison: Comparison | None, findings: list[Finding]) -> Iterator[str]:
    if answer.forward is not None:
        yield f"one forward pass on a tiny input, without DeepSpeed: loss {answer.forward['loss']}"
    if comparison and not comparison.missing and not comparison.unexpected and not comparison.mismatched and not findings:
        yield f"all {len(comparison.loaded)} names of the model are in the checkpoint, with its shapes"


def _summary(answer: Answer, checkpoint: Checkpoint | None, comparison: Comparison | None) -> dict[str, Any]:
    """Counts as plain data."""
    model = answer.model or {}
    return {
        "type": model.get("type"),
        "parameters": len(model.get("parameters", ())),
        "trainable": sum(bool(one["trainable"]) for one in model.get("parameters", ())),
        "tensors": len(checkpoint.tensors) if checkpoint else None,
        "missing": list(comparison.missing) if comparison else None,
        "unexpected": list(comparison.unexpected) if comparison else None,
        "mismatched": [name for name, _, _ in comparison.mismatched] if comparison else None,
        "values": len(answer.values),
        "loss": answer.forward["loss"] if answer.forward else None,
        "without_gradient": [name for name, kind in answer.gradients.items() if kind == "none"],
    }
