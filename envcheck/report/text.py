"""The text report: a stack table, then findings, most severe first, each with why, evidence and fix."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from envcheck.findings import Severity, Verdict
from envcheck.report.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.findings import Finding, Report


class Span(NamedTuple):
    """A piece of a line and its style (a word that `styled` understands, or empty)."""

    text: str
    style: str = ""


Line = tuple[Span, ...]

MARKS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info"}
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}
VERDICTS = {
    Verdict.OK: "bold green", Verdict.WARNING: "bold yellow", Verdict.ERROR: "bold red",
    Verdict.UNKNOWN: "bold magenta",
}  # fmt: skip
LABEL = 10

#: So many skips are named without `-v`.
SKIPS = 4


def lines(report: Report, *, width: int = 100, verbose: bool = False) -> Iterator[Line]:
    """The report as styled lines.

    Args:
        report: What to show.
        width: Columns to wrap at.
        verbose: Show also where each fact was read, and every skip.
    """
    yield from _stack(report, verbose=verbose)
    for finding in report.findings:
        yield ()
        yield from finding_lines(finding, width, brief=not verbose)
    for item in report.waived:
        yield ()
        yield (Span("waived", "bold"), Span(f"  {visible(item.finding.title)} [{visible(item.finding.id)}]"))
        yield from _labelled("reason", f"{item.reason} (until {item.until or 'no end date'})", width)
    for note in report.notes:
        yield ()
        yield from _wrapped(visible(note), width, "", "bold green" if note.startswith("known to work") else "")
    yield from _skips(report, width, verbose=verbose)
    yield ()
    yield _summary(report)


def _stack(report: Report, *, verbose: bool) -> Iterator[Line]:
    rows = [(visible(row.name), visible(row.value), visible(row.source)) for row in report.stack]
    name_width = max((len(name) for name, _, _ in rows), default=0)
    value_width = max((len(value) for _, value, _ in rows), default=0) if verbose else 0
    for name, value, source in rows:
        tail = f"  {source}" if verbose and source else ""
        yield (Span(f"{name:{name_width}}  ", "bold"), Span(f"{value:{value_width}}"), Span(tail, "dim"))


def finding_lines(finding: Finding, width: int, *, brief: bool = False) -> Iterator[Line]:
    """One finding as styled lines; `brief` keeps infos that depend on something to their condition and fix."""
    mark = MARKS[finding.severity]
    uncertain = "" if finding.certain else " (depends)"
    yield (
        Span(f"{mark}{uncertain}", STYLES[finding.severity]),
        Span(f"  {visible(finding.title)}", "bold"),
        Span(f" [{visible(finding.id)}]", "dim"),
    )
    conditions = [reason.removeprefix("only if ") for reason in finding.because if reason.startswith("only if ")]
    if brief and conditions and finding.severity is Severity.INFO and not finding.certain:
        yield from _labelled("only if", " and ".join(conditions).replace(", which is not known", ""), width)
        yield from _labelled("fix", " or ".join(fix.change for fix in finding.fixes[:2]), width)
        return
    if finding.place:
        yield from _labelled("at", finding.place, width)
    if finding.symptom:
        yield from _labelled("seen as", finding.symptom, width)
    for index, reason in enumerate(finding.because):
        yield from _labelled("why" if not index else "", reason, width)
    changes = [fix.change for fix in finding.fixes]
    for index, change in enumerate([", ".join(changes)] if changes and finding.together else changes):
        yield from _labelled("fix" if not index else "or", change, width)
    if finding.evidence:
        yield from _labelled("evidence", ", ".join(item.shown for item in finding.evidence), width)


def _labelled(label: str, text: str, width: int) -> Iterator[Line]:
    head = f"  {label:{LABEL}}"
    pieces = textwrap.wrap(visible(text), max(width - len(head), 30), break_on_hyphens=False) or [""]
    yield (Span(head, "dim"), Span(pieces[0]))
    for piece in pieces[1:]:
        yield (Span(" " * len(head)), Span(piece))


def _wrapped(text: str, width: int, indent: str, style: str) -> Iterator[Line]:
    for piece in textwrap.wrap(text, width, subsequent_indent=indent or "  ", break_on_hyphens=False):
        yield (Span(piece, style),)


def _skips(report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    asked = [skip for skip in report.skipped if skip.asked]
    others = [skip for skip in report.skipped if not skip.asked]
    for skip in asked:
        yield ()
        yield from _wrapped(f"not examined: {visible(skip.check)}: {visible(skip.reason)}", width, "  ", "bold magenta")
    if others:
        yield ()
        if verbose:
            for skip in others:
                yield from _wrapped(f"not decided: {visible(skip.reason)}", width, "  ", "dim")
        else:
            reasons = "; ".join(visible(skip.reason) for skip in others[:SKIPS])
            reasons += f"; and {len(others) - SKIPS} more (-v lists them)" if len(others) > SKIPS else ""
            yield from _wrapped(f"not decided: {reasons}", width, "  ", "dim")


def _summary(report: Report) -> Line:
    counts = [
        f"{number} {MARKS[level]}{'s' if number > 1 and level is not Severity.INFO else ''}"
        for level in (Severity.ERROR, Severity.WARNING, Severity.INFO)
        if (number := sum(finding.severity is level for finding in report.findings))
    ]
    waived = [f"{len(report.waived)} waived"] if report.waived else []
    nothing = "it could not be examined" if report.verdict is Verdict.UNKNOWN else "nothing to say against this environment"
    said = ", ".join([*counts, *waived]) or nothing
    return (Span(f"verdict: {report.verdict.value}", VERDICTS[report.verdict]), Span(f"  {said}"))


def plain(styled: Iterable[Line]) -> str:
    """The lines without styles."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in styled)
