"""One self-contained page on a log: findings, and the curves of loss, learning rate and gradient norm; no script, no network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from envcheck.report import charts
from envcheck.report.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.findings import Finding, Report
    from envcheck.forensics.history import Curve, History

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
svg { margin: .5rem } ol, ul { padding-left: 1.4rem }
"""


def page(report: Report, history: History) -> str:
    """The whole page as text.

    Raises:
        ToolError: matplotlib is not there.
    """
    return "\n".join(_page(report, history)) + "\n"


def _page(report: Report, history: History) -> Iterator[str]:
    verdict = report.verdict.value
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>envcheck log: {escape(verdict)}</title><style>{STYLE}{charts.STYLE}</style></head><body>"
    yield f"<h1>envcheck log: {escape(verdict)}</h1>"
    for row in report.stack:
        yield f"<p><b>{_text(row.name)}</b> {_text(row.value)}</p>"
    for number, panel in enumerate(panels(history.side.curve)):
        yield charts.draw(panel, f"log{number}")
    for finding in report.findings:
        yield from _finding(finding)
    yield "<ul>" + "".join(f"<li>{_text(note)}</li>" for note in report.notes) + "</ul></body></html>"


def panels(curve: Curve) -> Iterator[charts.Panel]:
    """Loss, learning rate and gradient norm over the lines of the log, where there are any."""
    at = [float(step) for step, *_ in curve.points]
    for place, title in enumerate(("loss", "learning rate", "gradient norm"), 1):
        values = [point[place] for point in curve.points]
        numbers = [value if isinstance(value, float) else None for value in values]
        if any(value is not None for value in numbers):
            yield charts.Panel(title, [charts.Curve("", numbers, at)], "line")


def _finding(finding: Finding) -> Iterator[str]:
    yield f"<h2>{escape(finding.severity.label)}: {_text(finding.title)}</h2><ul>"
    yield from (f"<li>{_text(reason)}</li>" for reason in finding.because)
    yield "</ul><p>What decides:</p><ul>"
    yield from (f"<li>{_text(fix.change)}</li>" for fix in finding.fixes)
    yield "</ul>"


def _text(text: str) -> str:
    return escape(visible(text))
