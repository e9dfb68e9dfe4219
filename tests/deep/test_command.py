from __future__ import annotations

import json
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.main import main
from tests.deep.trees import install

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A venv with one distribution, whose module would say so if it were imported."""
    venv.create(tmp_path, with_pip=False, symlinks=True)
    site = next((tmp_path / "lib").glob("python*/site-packages"))
    install(site, "loud", "1.0", {"loud.py": f"open({str(tmp_path / 'imported')!r}, 'w')\n"})
    return tmp_path


def report(environment: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, set[str]]:
    code = main(["check", "--python", str(environment), "--format", "json", *options])
    return code, {item["id"] for item in json.loads(capsys.readouterr().out)["findings"]}


def test_deep_finds_what_the_plain_check_cannot(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(environment, "--deep", capsys=capsys) == (0, set())
    module = next(environment.rglob("loud.py"))
    module.write_text(module.read_text() + "#")
    assert report(environment, capsys=capsys) == (0, set())
    assert report(environment, "--deep", capsys=capsys) == (1, {"record-files-altered"})
    assert not (environment / "imported").exists()


def test_deep_needs_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"packages": {}}')
    assert main(["check", "--deep", "--snapshot", str(tmp_path / "s.json")]) == 2
    assert "--python" in capsys.readouterr().err


def test_the_deep_modules_are_not_imported_without_the_option(
    environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in [name for name in sys.modules if name.startswith("envcheck.checks.deep")]:
        monkeypatch.delitem(sys.modules, name)
    report(environment, capsys=capsys)
    assert not [name for name in sys.modules if name.startswith("envcheck.checks.deep")]
