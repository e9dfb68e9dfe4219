from __future__ import annotations

import builtins
import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from envcheck.errors import ToolError
from envcheck.report import charts
from envcheck.report.charts import Curve, Panel, draw
from envcheck.report.escape import visible
from tests.report.browser import contrast

HOSTILE = ["</text><script>alert(1)</script>", "$\\frac{", "_hidden", "&lt; \x00 \u202e", 'id="x" url(#y) #010101', "漢字 🙂"]
TEXT = "{http://www.w3.org/2000/svg}text"


def words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(TEXT)]  # noqa: S314 - ours


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_text(text: str) -> None:
    svg = draw(Panel(text, (Curve(text, [1, 2]), Curve("other", [2, 1])), text), text)
    assert words(svg).count(visible(text)) == 3
    assert "<script" not in svg


@example([1.7e308, -1.7e308])
@example([5e-324, math.nan, math.inf, None])
@given(st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=4))
@settings(max_examples=10, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # a chart takes a tenth of a second
def test_any_values_are_drawn_with_gaps_where_there_is_no_finite_one(values: list[float | None]) -> None:
    svg = draw(Panel("loss", (Curve("seen", values),)), "k")
    words(svg)  # well-formed
    marks = len(re.findall(r"<use [^>]*stroke: var\(--chart-0\)", svg))
    assert marks == sum(value is not None and abs(value) <= charts.LARGEST for value in values)


def test_the_same_input_gives_the_same_bytes_and_another_key_other_ids() -> None:
    panel = Panel("loss", (Curve("a", [1, None, 3]), Curve("b", [3.0, 2.0, 1.0], at=(10, 20, 30))))
    first, again, other = draw(panel, "one"), draw(panel, "one"), draw(panel, "two")
    assert first == again
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', first))
    assert used <= ids[0]


def test_no_colour_of_its_own_is_left_in_a_chart() -> None:
    svg = draw(Panel("loss", [Curve(str(number), [number, 1]) for number in range(len(charts.CURVES))]), "k")
    tags = "".join(re.findall(r"<[^<>]+>", svg))
    assert re.findall(r"#[0-9a-f]{6}\b", tags) == []
    assert {name for name in charts.COLOURS if f"var({name})" in tags} == set(charts.COLOURS)


def test_every_colour_stands_out_from_the_page_in_light_and_dark() -> None:
    for name, (_, light, dark) in charts.COLOURS.items():
        least = 4.5 if name == "--chart-ink" else 3.0
        assert contrast(rgb(light), "rgb(255, 255, 255)") >= least, name
        assert contrast(rgb(dark), "rgb(22, 25, 29)") >= least, name


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[at : at + 2], 16) for at in (1, 3, 5)))


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_extra_is_named() -> None:
    with pytest.raises(ToolError, match=r"envcheck-ml\[plots\]"):
        charts.require()


def test_rounding_is_drawn_flat_and_its_numbers_stay_short() -> None:
    nearly = Curve("seen", [1.0000001, 1.0000004, 0.9999999])
    for panel, most in ((Panel("ratio", (nearly,)), 6), (Panel("ratio", (nearly,), least=0.2), 4)):
        ticks = [word for word in words(draw(panel, "k")) if re.fullmatch(r"[\d.]+", word) and "." in word]
        assert ticks
        assert max(map(len, ticks)) <= most
