from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.main import main
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
