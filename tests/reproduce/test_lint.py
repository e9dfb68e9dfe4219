from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envcheck.cli.main import main
from envcheck.facts.model import Environment, Known
from envcheck.matrix.database import Matrix, load
from envcheck.reproduce.lint import lint

if TYPE_CHECKING:
    from envcheck.findings import Finding, Report

SCRIPTS = Path(__file__).parent / "scripts"
FOLDERS = sorted(path.name for path in SCRIPTS.iterdir())


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load()


def judge(text: str, matrix: Matrix, folder: Path = Path("/nonexistent"), facts: Environment | None = None) -> list[Finding]:
    return list(lint(text, "s.sh", folder, matrix, facts).findings)


def ids(text: str, matrix: Matrix, folder: Path = Path("/nonexistent")) -> list[tuple[int, str]]:
    found = [(int(item.place.split(":")[1]), item.id.removeprefix("script-")) for item in judge(text, matrix, folder)]
    return sorted(item for item in found if item[1] not in ("not-hashed", "goes-on-after-failure"))


def read(folder: str, matrix: Matrix) -> tuple[Report, dict[str, Any]]:
    place = SCRIPTS / folder
    report = lint((place / "setup.sh").read_text(), "setup.sh", place, matrix)
    return report, tomli.loads((place / "expected.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_script_gets_the_findings_that_its_data_file_lists_and_no_other(folder: str, matrix: Matrix) -> None:
    report, expected = read(folder, matrix)
    found = [(item.severity.label, int(item.place.split(":")[1]), item.id) for item in report.findings]
    assert found == [(item["severity"], item["line"], item["id"]) for item in expected.get("finding", [])]
    for item, wanted in zip(report.findings, expected.get("finding", []), strict=True):
        assert wanted["says"] in (" ".join(item.because) or item.title)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_step_of_a_script_is_listed_in_order(folder: str, matrix: Matrix) -> None:
    report, expected = read(folder, matrix)
    assert [f"{item['line']} {item['kind']}" for item in report.extra["steps"]] == expected["steps"]["lines"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pip install torch==2.3.0", []),
        ("pip install torch", [(1, "unpinned-install")]),
        ("pip install torch==2.3.0\npip install torch", []),
        ("pip install torch==2.3.0\npip install -U torch", [(2, "pin-installed-over"), (2, "unpinned-install")]),
        ("pip install torch==2.3.0\npip install torch==2.4.0", [(2, "pin-installed-over")]),
        ("pip install torch==2.3.0\npip install torch==2.3.0+cu121", []),
        ("if a; then pip install torch==2.3.0; else pip install torch==2.4.0; fi", [(1, "step-not-understood")]),
        ("pip install 'torch>=2.4'\npip install torch==2.3.0", [(1, "unpinned-install"), (2, "pin-installed-over")]),
        ("uv pip install torch==2.3.0 --torch-backend cu121", []),
        ("python3.10 -m pip install -qU pip", [(1, "unpinned-installer")]),
        ("pip install --require-hashes -r /nowhere/r.txt", []),
        ("pip install -r nowhere.txt", [(1, "requirements-not-read")]),
        ("cd sub\npip install -e .", [(2, "requirements-not-read")]),
        ("pip install a@git+https://x.invalid/a@0123456789abcdef0123456789abcdef01234567", []),
        ("pip install git+https://x.invalid/a.git", [(1, "repository-without-commit")]),
        ("git clone https://x.invalid/a && cd a && git checkout 0123456789abcdef", []),
        ("git clone -b main https://x.invalid/a", [(1, "repository-without-commit")]),
        ("curl -O https://x.invalid/f.run", [(1, "download-without-digest")]),
        ("wget https://x.invalid/f.run\nsha256sum -c <<< 'abc  f.run'", []),
        ("wget https://x.invalid/f.run\nsha256sum f.run", [(1, "download-without-digest")]),
        ("cp x.py /opt/e/lib/python3.10/site-packages/y/", [(1, "changes-site-packages")]),
        ("echo hi > $(python -c 'import y; print(y.__path__[0])')/z.py", [(1, "changes-site-packages")]),
        ("cp x.py y.py", []),
        ("cp x.py $TARGET/y.py", [(1, "step-not-understood")]),
        ("sed -i s/a/b/ $TARGET", [(1, "step-not-understood")]),
        ("conda install pytorch==2.2.2 -c pytorch\npip install torch==2.2.2", [(2, "conda-and-pip-torch")]),
        ("conda install pytorch==2.2.2 -c pytorch\npip install accelerate==0.27.2", []),
        ("pip install deepspeed==0.9.5\npip install torch==2.3.0", [(1, "torch-dragged-in")]),
        ("pip install --no-deps deepspeed==0.9.5\npip install torch==2.3.0", []),
        ("pip install torch==$TORCH", [(1, "install-depends")]),
        ("bash build.sh", [(1, "step-not-understood")]),
        ("$INSTALLER install torch", [(1, "step-not-understood")]),
        ("xargs pip install < list", [(1, "step-not-understood")]),
        ("poetry install", [(1, "step-not-understood")]),
        ("uv sync --locked", []),
        ("(cd sub && true)\npip install -r nowhere.txt", [(2, "requirements-not-read")]),
        ("cat >r.txt <<E\na==1\nb\nE\npip install -r r.txt", [(5, "project-pulls-unpinned")]),
        ("cat >r.txt <<E\na==1\nE\npip install -r r.txt", []),
        ("cat >r.txt <<E\na==$V\nE\npip install -r r.txt", [(4, "requirements-not-read")]),
        ("pip install -r <(grep -v torch r.txt)", [(1, "requirements-not-read")]),
        ("pip install a==1 || true", [(1, "failure-passed-over")]),
        ("pip install a==1 || exit 1", []),
        ("pip install a==1 || { echo no; exit 1; }", []),
        ("pip install ./dist/*.whl", [(1, "install-depends")]),
        ("RUN pip install torch", [(1, "unpinned-install")]),
        ("FROM x\nCOPY a b", [(1, "step-not-understood"), (2, "step-not-understood")]),
        ("python - <<E\nimport os; os.system('pip install a')\nE", [(1, "step-not-understood")]),
        ("python - <<E\nprint(1)\nE", []),
        ("bash <<E\npip install a\nE", [(1, "step-not-understood")]),
        ("echo 'import x' | python", [(1, "step-not-understood")]),
        ("conda env create -f nowhere.yml", [(1, "requirements-not-read")]),
    ],
)
def test_each_rule_speaks_where_it_should_and_is_silent_beside_it(
    text: str,
    expected: list[tuple[int, str]],
    matrix: Matrix,
) -> None:
    assert ids(text, matrix) == expected


def test_a_wheel_is_compared_with_the_given_facts(matrix: Matrix) -> None:
    text = (
        "pip install https://x.invalid/flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl#sha256="
        + "0" * 64
    )
    assert judge(text, matrix)[0].severity.label == "info"
    (found,) = [
        item
        for item in judge(text, matrix, facts=Environment(facts={"python": Known("3.11.7")}))
        if item.severity.label == "error"
    ]
    assert found.id == "script-wheel-for-another-environment"
    assert found.because == ("it is for Python 3.10, and this is 3.11.7",)


def test_requirement_files_and_constraints_beside_the_script_are_read(matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("wandb\n")
    (tmp_path / "r.txt").write_text("-r more.txt\npeft==0.9.0  # why\n-e git+https://x.invalid/b@main#egg=b\n")
    (tmp_path / "c.txt").write_text("httpx==0.24.0\n")
    text = "pip install -r r.txt\npip install -c c.txt httpx"
    assert ids(text, matrix, tmp_path) == [(1, "project-pulls-unpinned"), (1, "repository-without-commit")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "setup.py",
            "from setuptools import setup\nsetup(name='x', install_requires=['numpy', 'torch==2.1.2'])",
            "project-pulls-unpinned",
        ),
        ("setup.py", "from setuptools import setup\nsetup(install_requires=read('r.txt'))", "requirements-not-read"),
        ("setup.cfg", "[options]\ninstall_requires =\n  numpy\n", "project-pulls-unpinned"),
        ("pyproject.toml", "[project]\nname='x'\ndynamic=['dependencies']\n", "requirements-not-read"),
        ("pyproject.toml", "[project\n", "requirements-not-read"),
    ],
)
def test_a_project_is_read_without_running_it(name: str, text: str, expected: str, matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert ids("pip install -e .", matrix, tmp_path) == [(1, expected)]


def test_requirements_of_a_projects_own_file_are_its_dependencies(matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['a==1']\noptional-dependencies = { dev = ['b'] }\n")
    assert ids("uv pip install -r pyproject.toml", matrix, tmp_path) == []
    assert ids("uv pip install -r pyproject.toml --extra dev", matrix, tmp_path) == [(1, "project-pulls-unpinned")]


#: Ways to write a command, with `%` where it stands.
WAYS = (
    "%", "( cd x && % )", "{ %; } &", "if a; then %; else b; fi", "if a; then b; else %; fi", "case $1 in a) %;; *) c;; esac",
    "for i in 1 2; do %; done", "for i in *.x; do %; done", "while read -r l; do %; done < f", "f() { %; }\nf", "g() { %; }",
    "a && %", "a || %", "% || true", "% | tee log", "x=$(%)", "echo $(%)", "sudo -H %", "RUN %", "bash -c '%'", "eval '%'",
    "bash <<E\n%\nE", "python - <<E\nimport os; os.system('%')\nE", "ssh h %", "docker run i %", "xargs -n1 % < f", "time %",
    "nohup % > log 2>&1 &", "trap '%' EXIT", "diff <(%) x", "until %; do sleep 1; done", "! %", "((1)) && %", "[[ -f x ]] && %",
    "cat <<E | bash\n%\nE", "coproc %", "$RUN %", "if %; then b; fi", "select i in a; do %; done", 'make x="$(%)"',
    "source <(%)", "conda run -n e %", "env A=1 %", "parallel % ::: a", "find . -exec % \\;", "echo '%' | sh",
    "(((", "fi", "<<E\n%",
)  # fmt: skip


@settings(max_examples=80)
@example(ways=["<<E\n%", "<<E\n%", "x=$(%)"])
@given(ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=6))
def test_no_install_of_a_script_is_dropped_however_it_is_written(ways: list[str], matrix: Matrix) -> None:
    lines = [way.replace("%", f"pip install name{number}x==1") for number, way in enumerate(ways)]
    report = lint("\n".join(lines), "s.sh", Path("/nonexistent"), matrix)
    told = " ".join(map(str, report.extra["steps"])) + " ".join(f"{item.title} {item.because}" for item in report.findings)
    places = {int(item.place.split(":")[1]) for item in report.findings if item.id == "script-step-not-understood"}
    begin = 1
    for number, line in enumerate(lines):
        end = begin + line.count("\n") + 1
        assert "%" not in ways[number] or f"name{number}x" in told or places & set(range(begin, end)), line
        begin = end


@pytest.mark.parametrize("form", ["text", "json", "markdown", "sarif"])
def test_every_format_gives_line_numbers_and_the_same_exit_code(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = str(SCRIPTS / "conda-mixed" / "setup.sh")
    assert main(["setup", "lint", script, "--format", form]) == 1
    out = capsys.readouterr().out
    assert "script-wheel-for-another-environment" in out
    assert ":9" in out or '"startLine": 9' in out


def test_what_bash_does_not_accept_is_an_error_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.sh"
    path.write_text("set -e\npip install torch==2.3.0\nif true; then\n")
    assert main(["setup", "lint", str(path), "--format", "json"]) == 1
    found = {item["id"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert found["script-syntax"]["place"].startswith(f"{path}:")
    assert "syntax error" in " ".join(found["script-syntax"]["because"])


def test_what_the_matrix_knows_of_the_pins_is_said_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    script = str(SCRIPTS / "nvila" / "setup.sh")
    main(["setup", "lint", script, "--format", "json", "--check"])
    found = {item["id"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert found["triton-not-torchs-own"]["place"] == f"{script}:18:1"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 2), (b"\x7fELF\0\0", 2), (b"\xff\xfe", 2), (b"#!/usr/bin/python3\n", 2), (b"x" * (2 << 20), 2), (b"# nothing\n", 0)],
)
def test_a_file_that_is_no_bash_script_is_a_usage_error(
    content: bytes,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "s.sh"
    path.write_bytes(content)
    assert main(["setup", "lint", str(path)]) == code
    assert ("envcheck: " in capsys.readouterr().err) is (code == 2)


def test_without_bash_the_lint_says_that_it_could_not_look(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "s.sh").write_text("# nothing\n")
    assert main(["setup", "lint", str(tmp_path / "s.sh")]) == 3
    assert "not examined: bash -n" in capsys.readouterr().out
