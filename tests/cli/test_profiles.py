from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.main import main
from envcheck.cli.profile_tables import listed
from envcheck.matrix.database import load
from envcheck.matrix.profiles import load_profiles

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [profile.id for profile in load_profiles(load(environ={}).folder)]


@pytest.mark.parametrize("argv", [["profiles"], ["profiles", "list"], ["profiles", "--format", "markdown"]])
def test_the_listing_has_every_profile(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert "4 x 80 GB, 128 GB in all, 8.9+" in out


def test_the_listing_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "envcheck.profiles/1"
    assert [item["profile"] for item in document["profiles"]] == NAMES
    assert all(item.keys() == {"profile", "for", "python", "torch", "cuda", "gpu", "name"} for item in document["profiles"])


@pytest.mark.parametrize("form", ["text", "json", "markdown"])
@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_shown_with_its_sources(name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", name, "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        document = json.loads(out)
        assert document["id"] == name
        assert all(item["source"] for item in document["pitfalls"])
    else:
        assert "steps a version check cannot see" in out
        assert "how it is known" in out


def test_what_is_inferred_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "Spark-Formalizer-X1-7B"]) == 0
    out = capsys.readouterr().out
    assert "advice only" in out
    assert "inferred: python, requires, cuda, steps" in out
    assert "smallest known to work, inferred" in out


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "nvila.md"
    assert main(["profiles", "show", "NVILA", "--format", "markdown", "--output", str(target)]) == 0
    assert target.read_text().startswith("## NVILA")


@pytest.mark.parametrize("argv", [["profiles", "show", "nvilla"], ["check", "--snapshot", "-", "--profile", "nvilla"]])
def test_a_wrong_name_is_a_usage_error_with_the_nearest(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean `nvila`" in captured.err


@pytest.mark.parametrize("form", ["text", "markdown", "sarif"])
def test_the_verdict_is_in_every_format(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "s.json"
    snapshot.write_text(json.dumps({"python": "3.11.9", "packages": {"torch": "2.3.0"}}))
    assert main(["check", "--snapshot", str(snapshot), "--profile", "nvila", "--format", form]) == 1
    out = capsys.readouterr().out
    assert "profile-python" in out
    if form != "sarif":
        assert "cannot run" in out


@pytest.mark.parametrize("width", [0, 80, 120, 200])
def test_the_listing_fits_the_terminal(width: int) -> None:
    text = listed(load_profiles(load(environ={}).folder), "text", width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= (width or 200)
    starts = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert [name for name in starts if name != "profile"] == NAMES
    assert "4 x 80 GB, 128 GB in all, 8.9+" in " ".join(text.split())


def test_the_profile_is_set_to_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("envcheck.cli.profiles.terminal_width", lambda: 80)
    assert main(["profiles", "show", "nvila"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if "https://" not in line and "@" not in line) <= 80


def test_contradicting_pins_are_shown_with_what_is_known_to_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "nvila"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "`deepspeed==0.9.5`, `transformers==4.46.0`: max_grad_norm has no effect" in out
    assert "known to work: VILA main (good-vila-main): `torch==2.3.0`, `transformers==4.46.0`" in out


MACHINE = {"name": "NVIDIA A100-SXM4-80GB", "compute_capability": "8.0", "memory_mib": 81920}
ENVIRONMENTS = {
    "empty": {"complete": True, "python": "3.10.14", "packages": {}, "gpus": []},
    "unknown": {"packages": {}},
    "spark": {"complete": True, "python": "3.11.9", "packages": {"torch": "2.9.0", "transformers": "4.57.6"}, "gpus": [MACHINE]},
    "broken": {"complete": True, "python": "3.11.9", "packages": {"torch": "2.13.0", "deepspeed": "0.14.0"}, "gpus": [MACHINE]},
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_the_table_says_what_each_check_says(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "s.json"
    snapshot.write_text(json.dumps(ENVIRONMENTS[kind]))
    assert main(["profiles", "check", "--snapshot", str(snapshot), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "envcheck.readiness/1"
    table = {item["id"]: item for item in document["profiles"]}
    assert sorted(table) == sorted(NAMES)
    best_first = ["ready", "will run degraded", "not decided", "cannot run"]
    places = [best_first.index(item["readiness"]) for item in document["profiles"]]
    assert places == sorted(places)
    for name in ("nvila", "deepspeed-chat", "spark-formalizer-x1-7b", "kimi-k2-thinking-vllm", "autoglm-phone-9b-client"):
        main(["check", "--snapshot", str(snapshot), "--profile", name, "--format", "json"])
        report = json.loads(capsys.readouterr().out)
        assert {key: table[name][key] for key in report["profile"]} == report["profile"]
        own = [item["title"] for item in report["findings"] if item["severity"] != "info"]
        assert bool(table[name]["reasons"]) is bool(own) or report["profile"]["readiness"] == "ready"
        assert set(table[name]["reasons"]) <= set(own)


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_table_is_short_and_says_what_is_in_the_way(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "s.json"
    snapshot.write_text(json.dumps(ENVIRONMENTS["spark"]))
    assert main(["profiles", "check", "--snapshot", str(snapshot), "--format", form]) == 0
    out = capsys.readouterr().out
    assert f"{len(NAMES)} profiles: " in out
    assert "NVILA (VILA 2.0) is for Python" in out
    assert "advice only" in out
    assert len(out.splitlines()) < len(NAMES) + 6


def test_the_table_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "s.json"
    snapshot.write_text(json.dumps(ENVIRONMENTS["spark"]))
    for width in (80, 120):
        monkeypatch.setattr("envcheck.cli.profiles.terminal_width", lambda width=width: width)
        assert main(["profiles", "check", "--snapshot", str(snapshot)]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_the_table_needs_something_to_look_at(tmp_path: Path) -> None:
    assert main(["profiles", "check", "--snapshot", str(tmp_path / "missing.json")]) == 2
    assert main(["profiles", "check", "--python", str(tmp_path / "missing")]) in (2, 3)
