"""One self-contained page: verdicts, and per scenario the loss, learning rate, norm and update ratio against plain torch.

No script, no network, inline SVG; every text is escaped.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from envcheck.report import charts
from envcheck.report.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envcheck.findings import Finding, Report
    from envcheck.probe.compare import Result
    from envcheck.probe.outcome import Outcome

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #c9ced6; --seen: #b3261e; --soft: #f3f5f8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16191d;
  --line: #444b55; --seen: #ff8a80; --soft: #20252b } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td:first-child { white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
.bad { font-weight: 700; color: var(--seen) } .unknown { font-style: italic }
.charts { display: flex; flex-wrap: wrap; gap: .6rem }
code { background: var(--soft); padding: 0 .2rem }
"""


#: Height of the axis of ratios: what bf16 rounds is not to look like a fault.
LEAST_RATIO = 0.2


def escape(text: str) -> str:
    """`text` as HTML text: no markup, nothing hidden or turned round by control characters."""
    return html.escape(visible(text))


def prose(text: str) -> str:
    """A sentence as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def page(outcome: Outcome, report: Report) -> str:
    """The whole page as text."""
    return "\n".join(_page(outcome, report)) + "\n"


def _page(outcome: Outcome, report: Report) -> Iterator[str]:
    verdict = report.verdict.value
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>envcheck probe: {escape(verdict)}</title><style>{STYLE}{charts.STYLE}</style></head><body>"
    yield f'<h1>envcheck probe: <span class="{"bad" if verdict == "error" else ""}">{escape(verdict)}</span></h1>'
    for row in report.stack[:2]:
        yield f"<p><b>{escape(row.name)}</b>: {escape(row.value)}</p>"
    yield from _table(outcome.results)
    if report.findings:
        yield "<h2>Findings</h2>"
    for finding in report.findings:
        yield from _finding(finding)
    yield from _charts(outcome.results)
    yield from _remarks(report)
    yield "</body></html>"


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield '<h2>Scenarios</h2><div class="wide"><table><thead><tr><th>stage<th>path<th>dtype<th>accumulation<th>model<th>verdict'
    yield "<th>worst ratio<th>largest error</tr></thead><tbody>"
    for one in results:
        scenario = one.scenario
        mark = "" if one.good else "unknown" if not one.looked else "bad"
        model = " ".join(part for part in (scenario.model, scenario.label) if part)
        numbers = f'<td class="number">{one.ratio:.4g}<td class="number">{one.error:.2g}' if one.steps else "<td><td>"
        yield (
            f"<tr><td>ZeRO-{scenario.stage}<td>{escape(scenario.path)}<td>{escape(scenario.dtype)}<td>{scenario.accumulation}"
            f'<td>{escape(model)}<td class="{mark}">{prose(one.text)}{numbers}</tr>'
        )
    yield "</tbody></table></div>"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"<h3>{escape(finding.severity.label)}: {prose(finding.title)}</h3><ul>"
    for reason in finding.because:
        yield f"<li>{prose(reason)}</li>"
    yield "</ul>"
    if finding.fixes:
        yield (
            "<p>Ways out: "
            + "; or ".join(
                prose(fix.change) if fix.kind == "do" else f"<code>{escape(fix.change)}</code>" for fix in finding.fixes
            )
            + "</p>"
        )
    if finding.evidence:
        yield "<p>Evidence: " + ", ".join(escape(item.shown) for item in finding.evidence) + "</p>"


def _charts(results: Sequence[Result]) -> Iterator[str]:
    stages = dict.fromkeys(one.scenario.stage for one in results if one.steps)
    if stages:
        yield "<h2>Curves</h2><p>Solid: with DeepSpeed. Dashed: plain torch.</p>"
    for stage in stages:
        yield f"<h2>ZeRO-{stage}</h2>"
        for one in results:
            if one.scenario.stage == stage and one.steps:
                yield f'<h3>{escape(one.scenario.id)}: <span class="{"" if one.good else "bad"}">{prose(one.text)}</span></h3>'
                yield '<div class="charts">' + "".join(scenario_charts(one)) + "</div>"


def scenario_charts(result: Result) -> Iterator[str]:
    """The four charts of a scenario."""
    for number, panel in enumerate(panels(result)):
        yield charts.draw(panel, f"{result.scenario.id}-{number}")


def panels(result: Result) -> Iterator[charts.Panel]:
    """What a scenario's charts show: with DeepSpeed, and with plain torch."""
    steps = result.steps
    rate = [step.expected_lr if step.expected_lr is not None else result.scenario.lr for step in steps]
    yield _panel("loss", [step.loss for step in steps], [step.reference_loss for step in steps])
    yield _panel("learning rate", [step.lr for step in steps], rate)
    yield _panel("gradient norm", [step.norm for step in steps], [step.reference_norm for step in steps])
    yield _panel("gradient ratio (update / right update)", [step.ratio for step in steps], [1.0 for _ in steps], LEAST_RATIO)


def _panel(title: str, seen: Sequence[float | None], right: Sequence[float | None], least: float = 0.0) -> charts.Panel:
    return charts.Panel(title, (charts.Curve("DeepSpeed", seen), charts.Curve("plain torch", right)), least=least)


def _remarks(report: Report) -> Iterator[str]:
    lines = [f"not examined: {skip.check}: {skip.reason}" for skip in report.skipped]
    lines += list(report.notes)
    if lines:
        yield "<h2>Remarks</h2><ul>" + "".join(f"<li>{prose(line)}</li>" for line in lines) + "</ul>"
