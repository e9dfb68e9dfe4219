"""A page as a real browser sees it: chromium without a window."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.process import run

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--enable-logging=stderr", "--virtual-time-budget=3000",
)  # fmt: skip

#: Runs after the page: what it shows, measured, as JSON in an element of its own.
MEASURE = """<script>
window.seenErrors = []; window.onerror = (message) => { window.seenErrors.push(String(message)); };
window.addEventListener("load", () => {
  const colour = (node, name) => getComputedStyle(node)[name];
  const charts = [...document.querySelectorAll("svg.chart")].map((svg) => {
    const box = svg.getBoundingClientRect();
    const lines = [...svg.querySelectorAll("path")].filter((one) => one.getBoundingClientRect().width > 20);
    const texts = [...svg.querySelectorAll("text")];
    return { width: box.width, height: box.height, words: texts.map((one) => one.textContent),
      ink: [...new Set(texts.map((one) => colour(one, "fill")))], label: svg.getAttribute("aria-label"),
      curves: lines.map((one) => colour(one, "stroke")).filter((one) => one !== "none"),
      outside: texts.filter((one) => { const at = one.getBoundingClientRect();
        return at.left < box.left - 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1; }).length };
  });
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  const out = document.createElement("pre"); out.id = "measured";
  out.textContent = JSON.stringify({ charts, errors: window.seenErrors, text: document.body.innerText,
    scripts: document.scripts.length, paper: colour(document.body, "backgroundColor"), doubled: ids.length - new Set(ids).size,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    fetched: performance.getEntriesByType("resource").map((one) => one.name) });
  document.body.append(out);
});
</script>"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the browser made of a page: its measurements, and what it wrote to its console."""

    measured: dict[str, Any]
    console: list[str]


def show(page: Path, folder: Path, *, dark: bool = False) -> Shown:
    """Open the page in chromium; the test is skipped where there is none."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    copy = folder / f"{page.stem}-measured.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{MEASURE}", 1), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = run([browser, *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri()], timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    _, _, rest = done.stdout.partition('<pre id="measured">')
    assert rest, done.stdout[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Shown(json.loads(html.unescape(rest.partition("</pre>")[0])), console)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two `rgb(...)` colours (WCAG 2.1, relative luminance)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
