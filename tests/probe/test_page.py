"""The page of `envcheck probe`, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main
from tests.report.browser import contrast, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = '<img src=x onerror="throw 1"><script>throw 2</script>$\\frac{'

BODY = (
    "start()\n"
    f"write('change', change={HOSTILE!r})\n"
    "for one in request['scenarios']:\n"
    "    play(one, 1 / 3 if one['accumulation'] > 1 else 1.0000004)\n"
    "write('done')\n"
)


@pytest.fixture
def page(fake: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "page.html"
    code = main(["probe", "--python", fake(BODY), "--path", "engine", "--stages", "2", "--html", str(path)])
    capsys.readouterr()
    assert code == 1
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_every_chart_and_no_markup_of_others(page: Path, tmp_path: Path, dark: bool) -> None:
    shown = show(page, tmp_path, dark=dark)
    seen: dict[str, Any] = shown.measured
    assert shown.console == []
    assert seen["errors"] == []
    assert seen["scripts"] == 1  # the measuring one
    assert seen["fetched"] == []
    assert HOSTILE in seen["text"]
    assert seen["doubled"] == 0
    assert len(seen["charts"]) == 4 * 4
    for chart in seen["charts"]:
        assert chart["width"] > 200
        assert chart["height"] > 100
        assert chart["outside"] == 0
        assert {"DeepSpeed", "plain torch"} <= set(chart["words"])
        assert all(contrast(ink, seen["paper"]) >= 4.5 for ink in chart["ink"])
        assert all(contrast(line, seen["paper"]) >= 3 for line in chart["curves"])
    assert (contrast(seen["paper"], "rgb(0, 0, 0)") < 2) is dark
