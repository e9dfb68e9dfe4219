from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from envcheck.checks.waivers import Waiver, apply, find, in_force, parse
from envcheck.errors import InputError
from envcheck.findings import Finding, Severity

TODAY = datetime.date(2026, 11, 24)
ERROR = Finding("rule-a", Severity.ERROR, "t")


def test_a_waiver_silences_and_is_echoed() -> None:
    kept, waived = apply([ERROR], parse({"rule-a": {"reason": "known", "until": TODAY}}, "f"), TODAY)
    assert kept == []
    assert (waived[0].finding, waived[0].reason, waived[0].until) == (ERROR, "known", "2026-11-24")


def test_an_expired_waiver_is_a_finding_and_silences_nothing() -> None:
    yesterday = TODAY - datetime.timedelta(days=1)
    kept, waived = apply([ERROR], parse({"rule-a": {"reason": "known", "until": yesterday}}, "f"), TODAY)
    assert [item.id for item in kept] == ["rule-a", "waiver-expired"]
    assert waived == []


def test_an_unused_waiver_is_a_finding() -> None:
    kept, _ = apply([], parse({"rule-a": {"reason": "known"}}, "f"), TODAY)
    assert [item.id for item in kept] == ["waiver-unused"]


def test_every_mistake_is_named() -> None:
    table = {"a": {}, "b": {"reason": "x", "until": "soon"}, "c": 3}
    with pytest.raises(InputError) as caught:
        parse(table, "f")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", [".envcheck.toml", "pyproject.toml"])
def test_the_nearest_file_upwards_is_read(name: str, tmp_path: Path) -> None:
    head = "[waivers]" if name == ".envcheck.toml" else "[tool.envcheck.waivers]"
    (tmp_path / name).write_text(f'{head}\nrule-a = {{ reason = "r" }}\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert [waiver.id for waiver in find(str(inner))] == ["rule-a"]
    (tmp_path / "a" / ".git").mkdir()
    assert find(str(inner)) == []


def test_malformed_toml_is_an_input_error(tmp_path: Path) -> None:
    Path(tmp_path / ".envcheck.toml").write_text("waivers = [")
    with pytest.raises(InputError, match="TOML"):
        find(str(tmp_path))


def test_a_waiver_is_in_force_up_to_its_last_day() -> None:
    given = [
        Waiver("past", "a", datetime.date(2026, 1, 1), "f"),
        Waiver("today", "b", datetime.date(2026, 1, 2), "f"),
        Waiver("open", "c", None, "f"),
    ]
    assert in_force(given, datetime.date(2026, 1, 2)) == {"today": "b", "open": "c"}
