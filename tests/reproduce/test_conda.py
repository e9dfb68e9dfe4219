"""Scripts of `setup write --conda NAME`: with a stand-in for conda, and with a real one where ENVCHECK_CONDA names it."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envcheck.cli.main import main
from tests.reproduce.conda_channel import make_channel
from tests.reproduce.test_replay import RUN, bash, tree, write_script

pytestmark = pytest.mark.usefixtures("uv")

KEEPER = Path(__file__).parents[2] / "envcheck" / "reproduce" / "target" / "keeper.py"
PYTHON = f"==3.{sys.version_info.minor}.*"
MINOR = f"python=3.{sys.version_info.minor}"


def stand_in(project: Path) -> Path:
    """A stand-in that makes a venv where it is told to, and like conda removes what is there when it is to create."""
    conda = project / "conda"
    python = shlex.quote(sys.executable)
    conda.write_text(f"""#!/bin/bash
set -e
if [ "$1" = info ]; then echo '{{"envs": ["{project}/elsewhere/tiny"], "envs_dirs": ["{project}/envs"]}}'; exit; fi
echo "$@" >>calls
action=$1
while [ "$1" != --prefix ]; do shift; done
if [ "$action" = create ]; then rm -rf "$2"; fi
uv venv --quiet --allow-existing --python {python} "$2"
mkdir -p "$2/conda-meta"
""")
    conda.chmod(0o755)
    return conda


@pytest.mark.slow
def test_a_conda_environment_is_made_once_and_made_anew_where_it_was_cut_off(project: Path) -> None:
    conda = str(stand_in(project))
    script = write_script("--conda", "tiny", "--requires-python", PYTHON)
    done = bash(script, "--no-check", CONDA_EXE=conda)
    assert done.returncode == 0, done.stderr
    assert bash(script, "--no-check", CONDA_EXE=conda).returncode == 0
    calls = (project / "calls").read_text().splitlines()
    assert calls == [f"create --yes --quiet --prefix {project}/envs/tiny {MINOR}"]
    assert main(RUN) == 0
    state = project / "envs" / ".envcheck-tiny"
    assert main(["setup", "verify", "--manifest", str(state / "manifest.json"), "--python", ".venv"]) == 0
    (state / "begun").touch()
    assert bash(script, "--no-check", CONDA_EXE=conda).returncode == 0
    assert len((project / "calls").read_text().splitlines()) == 2


@pytest.mark.slow
def test_cut_off_before_conda_made_the_folder_and_an_environment_without_python(project: Path) -> None:
    conda = str(stand_in(project))
    script = write_script("--conda", "tiny", "--requires-python", PYTHON)
    state = project / "envs" / ".envcheck-tiny"
    state.mkdir(parents=True)
    for stamp in ("begun", "made"):
        (state / stamp).touch()
    done = bash(script, "--no-check", CONDA_EXE=conda)
    assert done.returncode == 0, done.stderr
    other = project / "envs" / "other"
    (other / "conda-meta").mkdir(parents=True)
    (other / "mine.txt").write_text("kept\n")
    done = bash(write_script("--conda", "other", "--requires-python", PYTHON), "--no-check", CONDA_EXE=conda)
    assert done.returncode == 0, done.stderr
    assert (other / "mine.txt").read_text() == "kept\n"
    assert (project / "calls").read_text().splitlines()[-1] == f"install --yes --quiet --prefix {other} {MINOR}"


@pytest.mark.parametrize("name", ["base", "root", ".", "..", "-n", "a/b", "a b"])
def test_names_that_are_conda_s_own_or_no_names_are_refused(name: str, project: Path) -> None:
    assert main(["setup", "write", "--lock", "pylock.toml", "-o", "s.sh", f"--conda={name}"]) == 2
    assert not (project / "s.sh").exists()


def test_a_name_is_looked_up_where_conda_does(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "there").mkdir(parents=True)
    (tmp_path / "project" / "new").mkdir(parents=True)

    def place(name: str, **told: object) -> str:
        command = [sys.executable, "-I", "-S", str(KEEPER), "conda-prefix", name]
        return subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, check=True).stdout.strip()

    folders = [str(first), str(second)]
    assert place("there", envs_dirs=folders) == str(second / "there")
    assert place("new", envs_dirs=folders, envs=[str(tmp_path / "project" / "new")]) == str(first / "new")
    assert place("new", **{"envs directories": folders[1:]}) == str(second / "new")
    assert place("new", envs_dirs=["/proc/1/envs", str(first)]) == str(first / "new")


@pytest.fixture
def real_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A real conda that knows one channel, in a folder, and keeps everything in the test's own."""
    conda = os.environ.get("ENVCHECK_CONDA", "")
    if not conda:
        pytest.skip("ENVCHECK_CONDA names no conda")
    make_channel(tmp_path / "channel")
    (tmp_path / "condarc").write_text(
        f"channels: [{(tmp_path / 'channel').as_uri()}]\nsolver: classic\noffline: true\nadd_pip_as_python_dependency: false\n"
        f"envs_dirs: [{tmp_path}/envs]\npkgs_dirs: [{tmp_path}/pkgs]\n"
    )
    monkeypatch.setenv("CONDARC", str(tmp_path / "condarc"))
    monkeypatch.setenv("CONDA_EXE", conda)
    monkeypatch.setenv("HOME", str(tmp_path))
    return conda


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_a_real_conda_killed_at_random_moments_ends_as_undisturbed(real_conda: str, tmp_path: Path) -> None:
    script = write_script("--conda", "tiny", "--requires-python", PYTHON)
    began = time.monotonic()
    done = bash(script, "--no-check")
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "envs" / "tiny"
    assert list((folder / "conda-meta").glob("python-*.json"))
    again = bash(script, "--no-check")
    assert "up to date" in again.stderr
    whole = {path: digest for path, digest in tree(folder).items() if not path.startswith("conda-meta/")}
    for moment in range(2):
        (folder.parent / ".envcheck-tiny" / "begun").touch()
        with subprocess.Popen(["bash", script, "--no-check"], stderr=subprocess.DEVNULL, start_new_session=True) as child:
            time.sleep(random.Random(moment).uniform(0.2, 0.8) * took)  # noqa: S311 - a moment, no secret
            os.killpg(child.pid, signal.SIGKILL)
        done = bash(script, "--no-check")
        assert done.returncode == 0, done.stderr
        assert {path: digest for path, digest in tree(folder).items() if not path.startswith("conda-meta/")} == whole
    listed = subprocess.run([real_conda, "list", "--json", "--prefix", str(folder)], capture_output=True, text=True, check=True)
    assert {item["name"] for item in json.loads(listed.stdout)} >= {"python", "tiny-0"}


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_a_real_conda_environment_without_python_keeps_what_is_in_it(real_conda: str, tmp_path: Path) -> None:
    folder = tmp_path / "envs" / "other"
    subprocess.run([real_conda, "create", "--yes", "--quiet", "--prefix", str(folder)], check=True, capture_output=True)
    (folder / "mine.txt").write_text("kept\n")
    done = bash(write_script("--conda", "other", "--requires-python", PYTHON), "--no-check")
    assert done.returncode == 0, done.stderr
    assert (folder / "mine.txt").read_text() == "kept\n"
    assert list((folder / "conda-meta").glob("python-*.json"))
