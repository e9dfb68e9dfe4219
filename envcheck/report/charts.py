"""Line charts as inline SVG, drawn by matplotlib: text stays text, the same input gives the same bytes, nothing is fetched.

Colours are CSS variables, so that a page that holds `STYLE` reads well in light and in dark; curves differ in dashes too.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envcheck.errors import ToolError
from envcheck.report.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: CSS variable -> (stand-in colour while drawing, light, dark). The curve colours are those of Okabe and Ito, darkened for white
#: paper and lightened for black (contrast at least 3 to 1, WCAG 2.1 1.4.11).
COLOURS = {
    "--chart-ink": ("#010101", "#1b1f24", "#e6e8eb"),
    "--chart-line": ("#020202", "#8a919b", "#6b7480"),
    "--chart-0": ("#030303", "#b3261e", "#ff8a80"),
    "--chart-1": ("#040404", "#1a5fb4", "#8ab4f8"),
    "--chart-2": ("#050505", "#00664a", "#3ddbaa"),
    "--chart-3": ("#060606", "#8f5700", "#f0b040"),
    "--chart-4": ("#070707", "#8a3a6c", "#e79cc8"),
}
CURVES = [stand_in for name, (stand_in, _, _) in COLOURS.items() if name[-1].isdigit()]
DASHES = ("-", (0, (5, 3)), (0, (1, 2)), (0, (5, 2, 1, 2)))


def _variables(which: int) -> str:
    return ":root { " + "; ".join(f"{name}: {colours[which]}" for name, colours in COLOURS.items()) + " }"


#: What a page that holds charts puts into its style sheet.
STYLE = f"""{_variables(1)}
@media (prefers-color-scheme: dark) {{ {_variables(2)} }}
svg.chart {{ max-width: 100%; height: auto; stroke-linejoin: round }}
"""

#: Larger numbers are drawn as gaps: matplotlib's axes overflow at them.
LARGEST = 1e250

#: Above this many values, points are not marked one by one.
MOST_MARKS = 50

#: What the legend says of `Panel.marks`, and which curve's colour and dashes they have.
MARKED, MARK = "finding", 3

#: Inches of a chart (72 SVG units each), and where its axes stand: left, bottom, width, height as parts of it.
#: A layout that measures its labels costs ten times the drawing.
WIDTH, HEIGHT = 3.0, 1.9
AXES = (0.18, 0.22, 0.79, 0.65)

#: The y axis spans at least this part of its largest value: the numbers beside it would be longer than their place else.
LEAST_SPAN = 1e-3

TAG = re.compile(r"<[^<>]+>")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line; a value that is None, not finite or above `LARGEST` leaves a gap. `at`: x values; 1, 2, 3... where left out."""

    name: str
    values: Sequence[float | None]
    at: Sequence[float] = ()

    def points(self) -> tuple[list[float], list[float]]:
        """Positions and heights, with NaN for a gap."""
        heights = [value if value is not None and abs(value) <= LARGEST else math.nan for value in self.values]
        return list(self.at) or [float(index) for index in range(1, len(heights) + 1)], heights


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes with its curves.

    Attributes:
        least: The smallest height of the y axis: rounding is no news.
        marks: X values at which an upright line says that something was found there.
    """

    title: str
    curves: Sequence[Curve]
    across: str = "step"
    least: float = 0.0
    marks: Sequence[float] = ()

    def words(self) -> str:
        """The panel for those who cannot see it."""
        curves = [f"{curve.name} {_listed(curve.values)}" for curve in self.curves]
        marks = [f"{MARKED} at {_listed(self.marks)}"] if self.marks else []
        return f"{self.title}: " + "; ".join(curves + marks)


def require() -> None:
    """Say early that charts cannot be drawn.

    Raises:
        ToolError: matplotlib is not installed, or does not import.
    """
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 - optional, and half a second
    except Exception as error:
        raise ToolError(
            f"charts are drawn by matplotlib, which cannot be imported: {error}",
            hints=('install it with `pip install "envcheck-ml[plots]"`', "every other form of the report works without it"),
        ) from error


def draw(panel: Panel, key: str) -> str:
    """The panel as one `<svg>` element.

    Args:
        panel: What to draw.
        key: Makes the ids of this chart differ from those of other charts on the page.

    Raises:
        ToolError: matplotlib is not there.
    """
    require()
    key = re.sub(r"[^A-Za-z0-9-]", "-", key)
    import matplotlib  # noqa: PLC0415 - optional
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the layout font lacks is the browser's to draw
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(_settings(key))
        figure = Figure(figsize=(WIDTH, HEIGHT))
        _fill(figure.add_axes(AXES), panel)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), panel.words(), key)


def _settings(key: str) -> Any:  # noqa: ANN401 - matplotlib names each key in its type
    ink, line = COLOURS["--chart-ink"][0], COLOURS["--chart-line"][0]
    return {
        "svg.fonttype": "none", "svg.hashsalt": key, "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
        "axes.titlesize": 9, "axes.titlelocation": "left",
        "text.color": ink, "axes.labelcolor": ink, "axes.titlecolor": ink, "xtick.color": line, "ytick.color": line,
        "xtick.labelcolor": ink, "ytick.labelcolor": ink, "axes.edgecolor": line, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 7, "axes.unicode_minus": False,
        "xtick.labelsize": 7, "ytick.labelsize": 7,
    }  # fmt: skip


def _fill(axes: Any, panel: Panel) -> None:  # noqa: ANN401 - matplotlib has no types here
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - optional

    axes.set_title(visible(panel.title), parse_math=False)
    axes.set_xlabel(visible(panel.across), parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)
    for index, curve in enumerate(panel.curves):
        axes.plot(
            *curve.points(), color=CURVES[index % len(CURVES)], linestyle=DASHES[index % len(DASHES)], linewidth=1.6,
            marker="o" if len(curve.values) <= MOST_MARKS else "", markersize=3, label=f"curve {index}",
        )  # fmt: skip
    low, high = axes.get_ylim()
    missing = max(panel.least, LEAST_SPAN * max(abs(low), abs(high))) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
    for number, place in enumerate(panel.marks):
        label = "_" if number else "mark"
        axes.axvline(place, color=CURVES[MARK], linestyle=DASHES[MARK], linewidth=1.2, zorder=1, label=label)
    names = [*(curve.name for curve in panel.curves), *([MARKED] if panel.marks else [])]
    if len(names) > 1:
        legend = axes.legend()
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_parse_math(False)
            text.set_text(visible(name))


def _inline(document: str, words: str, key: str) -> str:
    """The `<svg>` element alone, with its own ids, the page's colours, and a name for screen readers."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = TAG.sub(lambda found: _themed(found.group(), key), body)
    label = html.escape(visible(words))
    return body.replace("<svg ", f'<svg class="chart" role="img" aria-label="{label}" ', 1).strip()


def _themed(tag: str, key: str) -> str:
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", tag)
    for name, (stand_in, _, _) in COLOURS.items():
        tag = tag.replace(stand_in, f"var({name})")
    return tag


def _listed(values: Sequence[float | None]) -> str:
    return ", ".join(_numbers(values))


def _numbers(values: Sequence[float | None]) -> Iterator[str]:
    for value in values[:MOST_MARKS]:
        yield "none" if value is None else f"{value:.4g}"
    if len(values) > MOST_MARKS:
        yield f"and {len(values) - MOST_MARKS} more"
