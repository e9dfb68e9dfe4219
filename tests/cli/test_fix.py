"""`envcheck fix` from the command line, over a real environment of tiny wheels, a matrix of two rules, and no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.main import main
from envcheck.facts.pip_view import pip_versions
from envcheck.resolve.restore import home
from tests.probe.targets import make
from tests.resolve.matrices import matrix_folder, rule_text
from tests.resolve.wheels import UV, make_environment, offline, tree, wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = (
    rule_text("middle", {"alpha": ">=1.1,<1.4"}, stage=2),
    rule_text("pair", {"alpha": ">=1,<2", "beta": "<2"}, stage=3),
    rule_text("gamma-never", {"gamma": "*"}, stage=1),
    rule_text("gamma-old", {"gamma": "<3"}, stage=0),
)
STAGE = "zero_optimization.stage={}".format


class Bench:
    def __init__(self, folder: Path) -> None:
        self.links = folder / "links"
        for version in ("1.0", "1.1", "1.2", "1.3", "1.4", "2.0"):
            needs = ["beta>=1.0"] if version < "1.4" else ["beta>=2"]
            wheel(self.links, "alpha", version, requires=needs, script=True)
        for version in ("1.0", "1.5", "2.0", "3.0"):
            wheel(self.links, "beta", version)
        wheel(self.links, "gamma", "1.0")
        wheel(folder / "elsewhere", "local", "0.1", requires=["alpha", "absent-from-everywhere"])
        self.python = make_environment(folder / "env", self.links, "alpha==1.2", "beta==1.5", "gamma==1.0")
        subprocess.run(
            [str(UV), "pip", "install", "--quiet", "--python", str(self.python), "--no-deps",
             str(next((folder / "elsewhere").glob("*.whl")))], check=True, env=offline(self.links),
        )  # fmt: skip
        self.prefix = Path(os.path.realpath(folder / "env"))
        self.before = tree(self.prefix)
        self.matrices = matrix_folder(folder / "matrices", RULES)

    def fix(self, *words: str, stage: int = 2) -> int:
        options = ["--python", str(self.python), "--matrices", str(self.matrices)]
        return main(["fix", *options, "--set", STAGE(stage), *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fix"))


@pytest.fixture
def bench(made: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name, value in offline(made.links).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield made
    shutil.rmtree(home(made.prefix), ignore_errors=True)


def data(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_smallest_change_is_shown_with_its_command(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix() == 1
    said = capsys.readouterr().out
    assert "alpha    1.2     1.1" not in said
    assert "alpha    1.2     1.0    middle" in said
    assert "--require-hashes -r /dev/stdin <<'END'\nalpha==1.0 \\\n    --hash=sha256:" in said
    assert tree(bench.prefix) == bench.before


def test_the_shown_command_is_the_whole_command(bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bench.fix()
    command = capsys.readouterr().out.partition("\n\n/")[2].partition("\nEND")[0]
    copy = tmp_path / "env"
    make_environment(copy, bench.links, "alpha==1.2", "beta==1.5", "gamma==1.0")
    script = f"/{command}\nEND\n".replace(str(bench.python), str(copy / "bin" / "python"))
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    said = subprocess.run([copy / "bin" / "alpha"], check=True, capture_output=True, text=True)
    assert said.stdout == "1.0\n"


def test_nothing_to_fix(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix(stage=5) == 0
    assert "nothing to fix" in capsys.readouterr().out
    assert bench.fix("--format", "json", stage=5) == 0
    assert data(capsys)["changes"] == []


def test_one_package_is_enough_for_a_pair(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix("--format", "json", stage=3) == 1
    assert data(capsys)["changes"] == [{"package": "beta", "before": "1.5", "after": "2.0", "answers": ["pair"]}]


@pytest.mark.parametrize("stage", [0, 1])
def test_no_change_will_do(bench: Bench, stage: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix(stage=stage) == 1
    assert "no change of versions makes it clean" in capsys.readouterr().out
    assert bench.fix("--apply", "--fail-on", "never", stage=stage) == 1
    assert tree(bench.prefix) == bench.before


def test_a_conflict_that_nothing_answers_does_not_keep_an_error(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stubborn = wheel(tmp_path, "stubborn", "1.0", requires=["gamma>=9"])
    python = make_environment(tmp_path / "env", bench.links, "alpha==1.2", "beta==1.5", "gamma==1.0")
    subprocess.run([str(UV), "pip", "install", "-q", "--python", str(python), "--no-deps", str(stubborn)], check=True)
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(2), "--format", "json"]
    assert main(words) == 1
    report = data(capsys)
    assert [change["package"] for change in report["changes"]] == ["alpha"]  # type: ignore[attr-defined]
    assert {item["id"] for item in report["findings"]} == {"middle", "requirement-conflict"}  # type: ignore[attr-defined]
    assert main([*words, "--apply"]) == 0


def test_applied_checked_and_undone(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix("--apply", "--format", "json") == 0
    report = data(capsys)
    assert report["applied"] is True
    assert report["verdict"] != "error"
    said = subprocess.run([bench.prefix / "bin" / "alpha"], check=True, capture_output=True, text=True)
    assert said.stdout == "1.0\n"
    assert bench.fix() == 0
    assert bench.fix("--undo") == 0
    assert "put back" in capsys.readouterr().out
    assert tree(bench.prefix) == bench.before
    assert bench.fix("--undo") == 2
    assert "nothing to undo" in capsys.readouterr().err


def test_two_changes_are_undone_one_after_the_other(bench: Bench) -> None:
    assert bench.fix("--apply") == 0
    between = {name: value for name, value in tree(bench.prefix).items() if not name.startswith(".envcheck")}
    assert bench.fix("--apply", stage=3) == 0
    assert bench.fix("--undo") == 0
    assert {name: value for name, value in tree(bench.prefix).items() if not name.startswith(".envcheck")} == between
    assert bench.fix("--undo", "--format", "json") == 0
    assert tree(bench.prefix) == bench.before


def test_a_package_that_no_index_has_stays_as_it_is(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.fix("--format", "json")
    assert [change["package"] for change in data(capsys)["changes"]] == ["alpha"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("complete", "after"), [(True, "1.0"), (False, "1.4")])
def test_a_snapshot(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], after: str, *, complete: bool) -> None:
    """1.4 is as near as 1.0, but needs another beta: a change only where beta is known."""
    path = tmp_path / "s.json"
    packages = {"alpha": "1.2", "strange": "7.0+local", **({"beta": "1.5"} if complete else {})}
    path.write_text(json.dumps({"packages": packages, "complete": complete}))
    words = ["fix", "--snapshot", str(path), "--matrices", str(bench.matrices), "--set", STAGE(2)]
    assert main([*words, "--format", "json"]) == 1
    assert data(capsys)["changes"] == [{"package": "alpha", "before": "1.2", "after": after, "answers": ["middle"]}]
    assert main([*words, "--apply"]) == 2
    assert main([*words, "--installer", "pip"]) == 1
    assert "pip install --no-deps --require-hashes" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["text", "markdown", "sarif"])
def test_every_format_and_a_file(bench: Bench, form: str, tmp_path: Path) -> None:
    assert bench.fix("--format", form, "--output", str(tmp_path / "out")) == 1
    assert "middle" in (tmp_path / "out").read_text()


def test_a_waiver_leaves_nothing_to_fix(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / ".envcheck.toml").write_text('[waivers]\nmiddle = { reason = "known", until = 2999-01-01 }\n')
    assert bench.fix() == 0


def test_without_uv(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("envcheck.resolve.install.find_uv", lambda: None)
    assert bench.fix() == 4
    assert "uv was not found" in capsys.readouterr().err


def test_a_wrong_installer(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix("--installer", "pip") == 4
    assert "has no pip" in capsys.readouterr().err


def test_no_interpreter_and_no_index(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "--python", "/nowhere", "--apply"]) == 3
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert bench.fix() == 4
    assert "package index" in capsys.readouterr().err
    assert tree(bench.prefix) == bench.before


@pytest.mark.slow
def test_pip_installs_and_it_is_undone(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "alpha==1.2", "beta==1.5"], check=True, env=offline(bench.links))
    before = tree(tmp_path / "env")
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(2)]
    assert main(words) == 1
    assert tree(tmp_path / "env") == before
    assert main([*words, "--apply", "--installer", "pip"]) == 0
    assert "pip install" in capsys.readouterr().err
    said = subprocess.run([tmp_path / "env" / "bin" / "alpha"], check=True, capture_output=True, text=True)
    assert said.stdout == "1.0\n"
    assert main([*words, "--undo"]) == 0
    assert tree(tmp_path / "env") == before
    pytest.importorskip("pip_api")
    lock = tmp_path / "lock.txt"
    lock.write_text("alpha==1.2\nbeta==1.5\n")
    capsys.readouterr()
    assert main(["check", *words[1:5], "--lock", str(lock), "--format", "json"]) == 0
    report = data(capsys)
    assert "pip's own view" not in [item["check"] for item in report["skipped"]]  # type: ignore[attr-defined]
    found = pip_versions(str(python))
    assert isinstance(found, dict)
    assert found["alpha"] == "1.2"


def test_an_environment_without_pip_is_not_asked(bench: Bench) -> None:
    pytest.importorskip("pip_api")
    assert pip_versions(str(bench.python)) == "this environment has no pip"


@pytest.mark.slow
@pytest.mark.network
def test_a_real_environment_loses_its_bad_deepspeed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not os.environ.get("ENVCHECK_PROBE_ENVS"):
        pytest.skip("ENVCHECK_PROBE_ENVS names no folder for environments with a real DeepSpeed")
    python = tmp_path / "env" / "bin" / "python"
    make(tmp_path / "env", python, "0.17.6")
    before = tree(tmp_path / "env")
    words = ["fix", "--python", str(python), "--set", STAGE(2), "--set", "gradient_accumulation_steps=4"]
    assert main([*words, "--apply", "--format", "json"]) == 0
    report = data(capsys)
    answers = ["deepspeed-zero2-last-micro-batch"]
    assert report["changes"] == [{"package": "deepspeed", "before": "0.17.6", "after": "0.17.5", "answers": answers}]
    assert main([*words, "--undo"]) == 0
    assert tree(tmp_path / "env") == before
