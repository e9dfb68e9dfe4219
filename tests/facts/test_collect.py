"""Collecting from real interpreters: ours, venvs, and things that are no interpreter."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from envcheck.cli.main import main
from envcheck.errors import CouldNotLookError, ExitCode
from envcheck.facts.collect import Waiting, collect, metadata_facts
from envcheck.facts.distributions import Installed
from envcheck.facts.interpreter import locate, other, own
from envcheck.facts.model import Absent, Distribution, Known, MetadataProblem


def uv() -> str:
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("uv is not installed")
    return found


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A venv as uv makes it: without pip."""
    folder = tmp_path / "venv"
    command = [uv(), "venv", "--offline", "--quiet", "--python", sys.executable, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"})
    return folder


def site(folder: Path) -> Path:
    return next(folder.glob("lib/python3*/site-packages"))


def add(folder: Path, name: str, version: str = "1.0") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n", encoding="utf-8")


def script(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


# ---- our own


def test_our_own_environment() -> None:
    environment = collect()
    assert environment.complete
    assert environment.text("python") == ".".join(map(str, sys.version_info[:3]))
    assert "pytest" in environment.packages
    assert environment.packages["importlib-metadata"].requires_python
    assert environment.facts["env"] == Known("read", "process environment")
    assert environment.markers["sys_platform"] == sys.platform


def test_the_script_s_folder_is_no_part_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "stray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert "stray" not in collect().packages
    monkeypatch.setattr(sys, "path", [sys.path[1], str(tmp_path), *sys.path[2:]])
    assert "stray" in collect().packages


def test_progress_is_told() -> None:
    told: list[str] = []
    collect(progress=told.append)
    assert "reading installed distributions" in told


def test_nothing_of_torch_is_imported_and_rich_is_not() -> None:
    code = (
        "import sys; from envcheck.facts.collect import collect; collect();"
        "print([name for name in ('torch', 'rich', 'pip', 'asyncio', 'numpy') if name in sys.modules])"
    )
    folder = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert ended.stdout.strip() == "[]"


# ---- another one's


@pytest.mark.parametrize("place", ["", "bin", "bin/python"])
def test_a_venv_by_its_folder_its_bin_folder_and_its_interpreter(venv: Path, place: str) -> None:
    add(site(venv), "foo")
    environment = collect(str(venv / place))
    assert set(environment.packages) == {"foo"}
    assert environment.prefix == str(venv)
    assert environment.source == str(venv / "bin/python")
    assert environment.facts["venv"] == Known("yes", "sys.prefix and sys.base_prefix")


def test_pth_files_of_a_venv_count(venv: Path, tmp_path: Path) -> None:
    add(tmp_path / "elsewhere", "beside")
    (site(venv) / "more.pth").write_text(f"{tmp_path}/elsewhere\n", encoding="utf-8")
    assert "beside" in collect(str(venv)).packages


def test_pythonpath_counts_and_comes_first(venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(site(venv), "foo", "1")
    add(tmp_path / "first", "foo", "2")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"))
    assert collect(str(venv)).packages["foo"].version == "2"


def test_the_current_folder_does_not_count(venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path / "here", "stray")
    (tmp_path / "here/json.py").write_text("raise SystemExit('the wrong json')", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert collect(str(venv)).packages == {}


def test_a_sitecustomize_that_prints_does_not_matter(venv: Path) -> None:
    text = "import sys, atexit\nprint('{\"version\": \"0\"}')\nprint('noise', file=sys.stderr)\natexit.register(print)\n"
    (site(venv) / "sitecustomize.py").write_text(text, encoding="utf-8")
    add(site(venv), "foo")
    assert set(collect(str(venv)).packages) == {"foo"}


def test_a_torch_that_cannot_be_imported_is_read_all_the_same(venv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = site(venv)
    add(packages, "torch", "2.3.0")
    add(packages, "deepspeed", "0.9.5")
    (packages / "torch").mkdir()
    (packages / "torch/__init__.py").write_text("import os\nprint('imported')\nos.abort()\n", encoding="utf-8")
    (packages / "torch/version.py").write_text("__version__ = '2.3.0+cu121'\ncuda = '12.1'\nhip = None\n", encoding="utf-8")
    (packages / "sitecustomize.py").write_text("print('noise')\n", encoding="utf-8")
    environment = collect(str(venv))
    assert "pip" not in environment.packages
    assert environment.packages["torch"].version == "2.3.0"
    assert environment.text("torch_cuda") == "12.1"
    assert main(["check", "--python", str(venv), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["stack"]["torch"] == "2.3.0 (CUDA 12.1)"


def test_what_runs_in_another_interpreter_is_python_38() -> None:
    path = Path(__file__).parents[2] / "envcheck/facts/query.py"
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_an_answer_counts_even_when_the_interpreter_then_crashes(venv: Path) -> None:
    text = "import atexit, os\natexit.register(os.abort)\n"
    (site(venv) / "sitecustomize.py").write_text(text, encoding="utf-8")
    assert collect(str(venv)).text("python")


def test_an_interpreter_that_hangs_is_given_up(venv: Path) -> None:
    (site(venv) / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    with pytest.raises(CouldNotLookError, match=r"did not describe itself within 0\.5 s") as caught:
        other(str(venv), timeout=0.5)
    assert "sitecustomize" in caught.value.hints[0]
    assert caught.value.exit_code is ExitCode.COULD_NOT_LOOK


def test_packages_of_the_user_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(sys.base_prefix) / "bin" / "python3"
    if not base.exists():
        pytest.skip("no base interpreter")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    users = tmp_path / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    add(users, "mine")
    environment = collect(str(base))
    assert environment.facts["user_site_packages"] == Known(("mine",), str(users))
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    assert "mine" not in collect(str(base)).packages


def test_a_real_editable_install(venv: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[project]\nname = "Foo_Bar"\nversion = "0.1"\n[build-system]\nrequires = []\n'
        'build-backend = "backend"\nbackend-path = ["."]\n',
        encoding="utf-8",
    )
    (source / "backend.py").write_text(
        "import zipfile\n"
        "def build_editable(folder, config_settings=None, metadata_directory=None):\n"
        "    name, info = 'foo_bar-0.1-py3-none-any.whl', 'foo_bar-0.1.dist-info'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as wheel:\n"
        "        wheel.writestr(info + '/METADATA', 'Metadata-Version: 2.1\\nName: Foo_Bar\\nVersion: 0.1\\n')\n"
        "        wheel.writestr(info + '/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr('foo_bar.pth', '/nowhere\\n')\n"
        "        wheel.writestr(info + '/RECORD', '')\n"
        "    return name\n",
        encoding="utf-8",
    )
    command = [uv(), "pip", "install", "--offline", "--quiet", "--python", str(venv / "bin/python"), "-e", str(source)]
    subprocess.run(command, check=True)
    found = collect(str(venv)).packages["foo-bar"]
    assert (found.version, found.editable, found.direct_url) == ("0.1", True, f"file://{source}")


@pytest.mark.parametrize("minor", [8, 9, 12, 13])
def test_interpreters_of_other_versions(minor: int) -> None:
    candidates = [Path.home() / ".pyenv/versions"]
    found = [path for folder in candidates for path in sorted(folder.glob(f"3.{minor}.*/bin/python3"))]
    path = str(found[0]) if found else shutil.which(f"python3.{minor}")
    if path is None:
        pytest.skip(f"no Python 3.{minor} here")
    environment = collect(path)
    assert (environment.text("python") or "").startswith(f"3.{minor}.")
    assert environment.markers["python_version"] == f"3.{minor}"


# ---- no interpreter


def test_places_that_are_no_interpreter(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x", encoding="utf-8")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "gone/bin").mkdir(parents=True)
    (tmp_path / "gone/bin/python").symlink_to("/tools/removed/python")
    expected = {
        "": "no such file", "/no/such": "no such file or folder", "no-such-program-x": "no such program on PATH",
        str(tmp_path): "no Python interpreter in this folder", str(tmp_path / "text"): "cannot be run",
        str(tmp_path / "dangling"): "broken link", "a\0b": "no such file",
        str(tmp_path / "gone"): "its interpreter is gone: `bin/python` points to `/tools/removed/python`",
    }  # fmt: skip
    for place, message in expected.items():
        with pytest.raises(CouldNotLookError) as caught:
            locate(place)
        assert message in caught.value.message
        assert caught.value.hints


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\necho SyntaxError: old >&2; exit 1\n", "exit 1: SyntaxError: old"),
        ("#!/bin/sh\nexit 0\n", "exit 0, without an answer"),
        ("#!/bin/sh\nkill -SEGV $$\n", "SIGSEGV"),
        ('#!/bin/sh\nfor last; do :; done\necho nonsense > "$last"\n', "not a usable Python"),
        ('#!/bin/sh\nfor last; do :; done\necho \'{"version": 3}\' > "$last"\n', "not a usable Python"),
        ("#!/no/such/interpreter\n", "cannot run"),
    ],
)
def test_programs_that_are_no_python(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CouldNotLookError, match=message):
        other(str(script(tmp_path / "python", text)))


def test_escapes_in_what_a_program_prints_do_not_reach_the_message(tmp_path: Path) -> None:
    with pytest.raises(CouldNotLookError) as caught:
        other(str(script(tmp_path / "python", "#!/bin/sh\nprintf '\\033[31mred' >&2; exit 1\n")))
    assert "\x1b" not in str(caught.value)


# ---- parts


def test_a_collector_that_fails_or_hangs_gives_its_stand_in() -> None:
    def fail() -> str:
        raise RuntimeError("broken")

    event = threading.Event()
    assert Waiting(fail, lambda reason: reason).result() == "RuntimeError: broken"
    assert Waiting(lambda: str(event.wait(5)), lambda reason: reason).result(0.05) == "no answer within 0.05 s"
    event.set()


def test_lists_of_broken_metadata() -> None:
    problems = (MetadataProblem("leftover", "numpy", "/x"), MetadataProblem("broken", "foo", "/y"))
    packages = {"mine": Distribution("mine", "1", location="/user"), "foo": Distribution("foo", "1", location="/x")}
    facts = metadata_facts(Installed(packages, problems), "/user")
    values = {name: fact.value for name, fact in facts.items() if isinstance(fact, Known)}
    assert values == {
        "duplicate_metadata": (), "broken_metadata": ("foo",), "tilde_leftovers": ("numpy",),
        "user_site_packages": ("mine",),
    }  # fmt: skip


def test_every_fact_that_a_check_always_looks_for_is_collected() -> None:
    tomli = pytest.importorskip("tomli")
    vocabulary = Path(__file__).parents[2] / "matrices" / "vocabulary.toml"
    entries = tomli.loads(vocabulary.read_text(encoding="utf-8"))["fact"]
    environment = collect()
    wanted = {name for name, entry in entries.items() if entry["from"] == "check" and not name.startswith("gpu.")}
    assert wanted - environment.facts.keys() == set()


def test_a_safe_path_keeps_its_first_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "flags", type("Flags", (), {"safe_path": True}))
    monkeypatch.setattr(sys, "path", ["/first", *sys.path])
    assert own().path[0] == "/first"


def test_values_that_a_query_gives_are_json() -> None:
    from envcheck.facts.query import describe  # noqa: PLC0415 - the module under test runs elsewhere

    assert json.loads(json.dumps(describe()))["version"]


def test_absent_facts_name_where_they_were_looked_for() -> None:
    for name, fact in collect().facts.items():
        assert not isinstance(fact, Absent) or fact.looked_in, name
