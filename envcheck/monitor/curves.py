"""The page at the end of a run: loss, learning rate and gradient norm with the findings marked. Drawn from the journal."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from envcheck.errors import EnvcheckError
from envcheck.files import write_whole
from envcheck.report import charts
from envcheck.report.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Steps drawn at most; of a longer run, evenly spread ones.
POINTS = 2000

#: Field of a record -> title of its panel.
PANELS = {"loss": "loss", "lr": "learning rate", "grad_norm": "gradient norm"}


def draw(journal: Path) -> str:
    """Write the page beside the journal (its name with `.html`); returns why it could not be drawn, or an empty string."""
    try:
        charts.require()
    except EnvcheckError:
        return f"no curves, since matplotlib is not installed; `envcheck log {journal} --html FILE` draws them elsewhere"
    try:
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        write_whole(str(journal.with_suffix(".html")), "\n".join(page(lines)), "page with the curves")
    except (EnvcheckError, OSError, ValueError) as error:
        return f"no curves: {error}"
    return ""


def page(lines: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the page."""
    findings = [line for line in lines if line["event"] == "finding"]
    verdict = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}" if findings else "no finding"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>envcheck monitor: {verdict}</title>"
    yield f"<style>body {{ font: 14px sans-serif; margin: 1rem }}{charts.STYLE}</style></head>"
    yield f"<body><h1>envcheck monitor: {verdict}</h1><div>"
    for number, panel in enumerate(panels(lines)):
        yield charts.draw(panel, f"monitor-{number}")
    yield "</div><ul>"
    for one in findings:
        because = "".join(f"<li>{_text(text)}</li>" for text in one["because"])
        yield f"<li>step {int(one['at'])}: {_text(one['severity'])}: <b>{_text(one['title'])}</b><ul>{because}</ul></li>"
    yield "</ul></body></html>"


def _text(value: object) -> str:
    return html.escape(visible(str(value)))


def panels(lines: list[dict[str, Any]]) -> Iterator[charts.Panel]:
    """One panel for each series that this rank has values of, with a mark at each step in which something was found."""
    rank = next((line.get("rank", 0) for line in lines if line["event"] == "run"), 0)
    steps = [line for line in lines if line["event"] == "step" and line["step"] > 0 and line.get("rank", 0) == rank]
    marks = sorted({float(line["at"]) for line in lines if line["event"] == "finding"})
    for name, title in PANELS.items():
        shown = [(float(line["step"]), _height(line, name)) for line in steps if name in line or f"logged_{name}" in line]
        shown = shown[:: max(1, len(shown) // POINTS)]
        if any(height is not None for _, height in shown):
            curve = charts.Curve(title, [height for _, height in shown], [step for step, _ in shown])
            yield charts.Panel(title, [curve], marks=marks)


def _height(line: dict[str, Any], name: str) -> float | None:
    """The value as the log prints it, which is what it is compared with, but for one that the log hides."""
    value = line.get(name)
    if value is None or isinstance(value, (int, float)):
        value = line.get(f"logged_{name}", value)
    return float(value) if isinstance(value, (int, float)) else None
