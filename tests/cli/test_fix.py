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
    rule_text("alpha-never", {"alpha": "*"}, stage=0),
    rule_text("beta-old", {"beta": "<2", "delta": "absent"}, stage=4),
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
        wheel(self.links, "gamma", "1.0", files={"shared.txt": "gamma"})
        for version in ("1.0", "2.0"):
            wheel(self.links, "delta", version, requires=["epsilon"])
        wheel(self.links, "epsilon", "1.0", files={"epsilon/data.txt": "epsilon"})
        wheel(folder / "elsewhere", "local", "0.1", requires=["alpha"])
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


def test_no_change_will_do(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """No version of alpha is right, and `local` requires it."""
    assert bench.fix(stage=0) == 1
    assert "no change makes it clean" in capsys.readouterr().out
    assert bench.fix("--apply", "--fail-on", "never", stage=0) == 1
    assert tree(bench.prefix) == bench.before


def test_what_no_version_answers_is_removed_and_comes_back(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix(stage=1) == 1
    said = capsys.readouterr().out
    assert "gamma    1.0     removed  gamma-never" in said
    assert "`gamma` is removed: no version of it answers `gamma-never`; nothing installed requires it" in said
    assert "uv pip uninstall --python" in said.replace(str(UV), "uv")
    assert tree(bench.prefix) == bench.before
    assert bench.fix("--apply", "--format", "json", stage=1) == 0
    assert data(capsys)["changes"] == [{"package": "gamma", "before": "1.0", "after": "", "answers": ["gamma-never"]}]
    assert not (bench.prefix / "shared.txt").exists()
    assert not list(bench.prefix.rglob("gamma"))
    assert bench.fix("--undo") == 0
    assert tree(bench.prefix) == bench.before


def test_what_shares_files_with_a_removed_package_is_installed_again(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = wheel(bench.links, "zeta", "1.0", files={"shared.txt": "zeta"})
    python = make_environment(tmp_path / "env", bench.links, "alpha==1.0", "beta==1.5", "gamma==1.0", "zeta==1.0")
    other.unlink()
    before = tree(tmp_path / "env")
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(1)]
    assert main([*words, "--apply"]) == 4
    assert "uv could not say the hashes of zeta" in capsys.readouterr().err
    assert tree(tmp_path / "env") == before
    wheel(bench.links, "zeta", "1.0", files={"shared.txt": "zeta"})
    assert main([*words, "--apply"]) == 0
    assert "zeta     1.0     again    owns files of `gamma`" in capsys.readouterr().err
    assert next((tmp_path / "env").glob("lib/python*/site-packages/shared.txt")).read_text() == "zeta"
    assert main([*words, "--undo"]) == 0
    assert tree(tmp_path / "env") == before
    (bench.links / "zeta-1.0-py3-none-any.whl").unlink()


@pytest.fixture
def lacking(bench: Bench, tmp_path: Path) -> Path:
    """An environment in which delta lacks what it requires; its interpreter."""
    python = make_environment(tmp_path / "lacking", bench.links, "beta==1.5", "delta==1.0")
    subprocess.run([str(UV), "pip", "uninstall", "-q", "--python", str(python), "epsilon"], check=True)
    return python


def test_a_missing_requirement_is_installed_and_goes_again(
    bench: Bench, lacking: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = tree(lacking.parents[1])
    words = ["fix", "--python", str(lacking), "--matrices", str(bench.matrices)]
    assert main(words) == 1
    assert "epsilon  missing  1.0    requirement-missing" in capsys.readouterr().out
    assert main([*words, "--fail-on", "never"]) == 0
    assert main([*words, "--apply"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing to fix" in capsys.readouterr().out
    assert main([*words, "--undo"]) == 0
    assert tree(lacking.parents[1]) == before


def test_a_missing_requirement_does_not_write_over_what_serves_as_well(
    bench: Bench, lacking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fork = wheel(tmp_path, "epsilon-fork", "1.0", files={"epsilon/data.txt": "fork", "epsilon/__init__.py": ""})
    subprocess.run([str(UV), "pip", "install", "-q", "--python", str(lacking), str(fork)], check=True)
    before = tree(lacking.parents[1])
    words = ["fix", "--python", str(lacking), "--matrices", str(bench.matrices), "--apply"]
    assert main(words) == 4
    assert "`epsilon` would write over files that are there" in capsys.readouterr().err
    assert tree(lacking.parents[1]) == before
    (tmp_path / ".envcheck.toml").write_text('[waivers]\nrequirement-missing = { reason = "the fork serves" }\n')
    assert main(words) == 0


def test_a_package_that_a_rule_misses_is_added_with_what_it_requires(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    python = make_environment(tmp_path / "env", bench.links, "alpha==1.0", "beta==1.5")
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(4), "--format", "json"]
    assert main(words) == 1
    assert [(item["package"], item["after"]) for item in data(capsys)["changes"]] == [("beta", "2.0")]  # type: ignore[attr-defined]


def test_a_conflict_that_nothing_answers_does_not_keep_an_error(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stubborn = wheel(tmp_path, "stubborn", "1.0", requires=["gamma>=9", "absent-from-everywhere"])
    python = make_environment(tmp_path / "env", bench.links, "alpha==1.2", "beta==1.5", "gamma==1.0")
    subprocess.run([str(UV), "pip", "install", "-q", "--python", str(python), "--no-deps", str(stubborn)], check=True)
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(2), "--format", "json"]
    assert main(words) == 1
    report = data(capsys)
    assert [change["package"] for change in report["changes"]] == ["alpha"]  # type: ignore[attr-defined]
    ids = {item["id"] for item in report["findings"]}  # type: ignore[attr-defined]
    assert ids == {"middle", "requirement-conflict", "requirement-missing"}
    left = [str(text).partition(": ")[0] for text in report["left"]]  # type: ignore[attr-defined]
    assert left == ["`requirement-conflict`", "`requirement-missing`"]
    assert main([*words, "--apply"]) == 0


def test_applied_checked_and_undone(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.fix("--apply", "--format", "json") == 0
    report = data(capsys)
    assert report["applied"] is True
    assert report["verdict"] != "error"
    reasons = {item["check"]: item["reason"] for item in report["skipped"]}  # type: ignore[attr-defined]
    assert reasons["pip's own view"] == "pip was not asked: this environment has no pip"
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
    capsys.readouterr()
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


@pytest.mark.slow
def test_what_pip_sees_otherwise_after_a_change_is_said(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """pip removes gamma; then a listing that is not that of the metadata folders is told."""
    pytest.importorskip("pip_api")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    wanted = ["alpha==1.0", "beta==1.5", "gamma==1.0"]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True, env=offline(bench.links))
    before = tree(tmp_path / "env")
    monkeypatch.setattr("envcheck.facts.pip_view.pip_versions", lambda at: {**pip_versions(at), "beta": "9.0"})  # type: ignore[dict-item]
    words = ["fix", "--python", str(python), "--matrices", str(bench.matrices), "--set", STAGE(1)]
    assert main([*words, "--apply", "--installer", "pip", "--format", "json"]) == 0
    found = {item["id"]: item["subjects"] for item in data(capsys)["findings"] if item["id"] == "pip-sees-otherwise"}  # type: ignore[attr-defined]
    assert found == {"pip-sees-otherwise": ["beta"]}
    assert main([*words, "--undo"]) == 0
    assert tree(tmp_path / "env") == before


def test_an_environment_without_pip_is_not_asked(bench: Bench) -> None:
    pytest.importorskip("pip_api")
    assert pip_versions(str(bench.python)) == "this environment has no pip"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.long
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
