"""A script's intention as a lock and a new script: what is asked of the resolver, what is left to do, two replays that agree."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from envcheck.cli.main import main
from envcheck.reproduce.lint import study
from envcheck.reproduce.relock import Wish, wish_of
from tests.reproduce.wheels import make_wheel

if TYPE_CHECKING:
    from tests.reproduce.wheels import Wheel

SCRIPTS = Path(__file__).parent / "scripts"


def wish(text: str, folder: Path = Path("/nonexistent")) -> Wish:
    subject = study(text, "s.sh", folder)
    return wish_of(subject.script, subject.steps, subject.intent, folder)


@pytest.mark.parametrize("folder", sorted(path.name for path in SCRIPTS.iterdir()))
def test_a_script_comes_to_the_request_that_its_data_file_lists(folder: str) -> None:
    place = SCRIPTS / folder
    expected = tomli.loads((place / "expected.toml").read_text())["wish"]
    found = wish((place / "setup.sh").read_text(), place)
    assert list(found.requirements) == expected["requirements"]
    assert list(found.overrides) == expected.get("overrides", [])
    assert [item.text for item in found.left] == expected.get("left", [])
    assert (found.python, found.editable) == (expected.get("python", ""), expected.get("editable", ""))


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("pip install torch==2.3.0\npip install torch", ["torch==2.3.0"]),
        ("pip install torch==2.3.0\npip install 'torch>=2.2'", ["torch==2.3.0"]),
        ("pip install torch==2.3.0\npip install 'torch>=2.4'", ["torch>=2.4"]),
        ("pip install torch==2.3.0\npip install -U torch", ["torch"]),
        ("pip install 'a>=1'\npip install 'a<3'", ["a<3,>=1"]),
        ("pip install 'a>=4'\npip install 'a==3.20.*'", ["a==3.20.*"]),
        ("pip install a==1\npip uninstall -y a", []),
        ("pip install a==1\npip uninstall -y a\npip install a==2", ["a==2"]),
        ("pip install 'a[x]==1'\npip install 'a[y]'", ["a[x,y]==1"]),
        ("pip install 'a==1 ; python_version < \"3.12\"'", ['a==1 ; python_version < "3.12"']),
        (
            "wget https://x.invalid/a-1-py3-none-any.whl\npip install a-1-py3-none-any.whl",
            ["a @ https://x.invalid/a-1-py3-none-any.whl"],
        ),
        ("conda install pytorch==2.2.2 ffmpeg -c pytorch", ["torch==2.2.2"]),
        ("pip install 'git+https://x.invalid/a@v1#egg=a&subdirectory=b'", ["a @ git+https://x.invalid/a@v1#subdirectory=b"]),
        ("pip install torch==$TORCH", []),
    ],
)
def test_what_stands_at_the_end_is_asked_for(text: str, requirements: list[str]) -> None:
    assert list(wish(text).requirements) == requirements


def test_pins_of_a_later_line_override_where_they_replace_one_and_else_only_where_nothing_else_fits() -> None:
    found = wish("pip install 'a==1' b\npip install a==2 c==3")
    assert (found.overrides, found.later) == (("a==2",), ("c==3",))


def test_indexes_of_torch_and_pages_of_links_go_to_the_resolver_and_others_are_told() -> None:
    found = wish(
        "pip install torch --index-url https://download.pytorch.org/whl/cu126\n"
        "pip install a -f https://x.invalid/links --extra-index-url https://download.pytorch.org/whl/cu126\n"
        "pip install b --extra-index-url https://y.invalid/simple\n"
    )
    assert (found.backend, found.find_links) == ("cu126", ("https://x.invalid/links",))
    assert [item.what for item in found.left] == ["the index https://y.invalid/simple"]


def copied(tmp_path: Path, command: str) -> dict[str, str]:
    for name in ("r/one.py", "r/sub/two.py", "r/__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = wish(f"SITE=$(python -c 'import site; print(site.getsitepackages()[0])')\n{command}", tmp_path)
    assert bool(found.patches) != bool(found.left), "either taken or told"
    return {item.file: item.source for item in found.patches}


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("cp -rv ./r/* $SITE/pkg/", {"pkg/one.py": "r/one.py", "pkg/sub/two.py": "r/sub/two.py"}),
        ("cp r/* $SITE/pkg/", {"pkg/one.py": "r/one.py"}),
        ("cp -r r $SITE/pkg/", {"pkg/r/one.py": "r/one.py", "pkg/r/sub/two.py": "r/sub/two.py"}),
        ("cp -a r/. $SITE/pkg", {"pkg/one.py": "r/one.py", "pkg/sub/two.py": "r/sub/two.py"}),
        ("cp r/one.py $SITE/pkg/other.py", {"pkg/other.py": "r/one.py"}),
        ("cp r/one.py $SITE/pkg/", {"pkg/one.py": "r/one.py"}),
        ("cd r\ncp one.py $SITE/pkg/", {"pkg/one.py": "r/one.py"}),
        ("cp ../r/one.py $SITE/pkg/", {}),
        ("cp missing.py $SITE/pkg/", {}),
        ("mv r/one.py $SITE/pkg/", {}),
        ("rm $SITE/pkg/one.py", {}),
        ("if x; then cp r/one.py $SITE/pkg/; fi", {}),
        ("cp r/o?e.py $SITE/pkg/", {}),
    ],
)
def test_copies_into_site_packages_become_patches_where_the_files_are_there(
    command: str, files: dict[str, str], tmp_path: Path
) -> None:
    assert copied(tmp_path, command) == files


PROJECT = """[project]
name = "mine"
version = "1"
dependencies = ["tiny-0", "tiny-1==1.1", "needs-one"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

#: A build backend in a few lines: the tests have no network to fetch one from.
BACKEND = """import pathlib, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "mine-1-py3-none-any.whl"
    info = {"METADATA": "Metadata-Version: 2.1\\nName: mine\\nVersion: 1\\n",
            "WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as archive:
        archive.writestr("mine.pth", str(pathlib.Path.cwd()))
        for key, text in info.items():
            archive.writestr(f"mine-1.dist-info/{key}", text)
        archive.writestr("mine-1.dist-info/RECORD", "mine.pth,,\\nmine-1.dist-info/METADATA,,\\nmine-1.dist-info/WHEEL,,\\n"
                                                    "mine-1.dist-info/RECORD,,\\n")
    return name
build_wheel = build_editable
"""

SCRIPT = """#!/bin/bash
python -m venv .venv && source .venv/bin/activate
pip install -e .
pip install tiny-1==2.0
site=$(python -c 'import site; print(site.getsitepackages()[0])')
cp -r replace/* $site/tiny_2/
pip install tiny-2
./unknown-step
"""


@pytest.fixture
def cut_down(tmp_path: Path, wheels: list[Wheel], uv: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a script like VILA's, whose packages are the tiny wheels: a later line installs over a requirement."""
    assert uv
    index = wheels[0].path.parent
    make_wheel(index, "tiny-1", "2.0")
    make_wheel(index, "needs-one", "1", requires=("tiny-1<2",))
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    folder = tmp_path / "cut"
    (folder / "replace" / "sub").mkdir(parents=True)
    (folder / "replace" / "3.py").write_text("value = 'replaced'\n")
    (folder / "replace" / "sub" / "added.py").write_text("value = 'added'\n")
    for name, text in (("pyproject.toml", PROJECT), ("backend.py", BACKEND), ("setup.sh", SCRIPT)):
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def replay(script: str, venv: str) -> None:
    environment = {**os.environ, "ENVCHECK_VENV": venv, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", script, "--no-check"], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "line 8: ./unknown-step (what `unknown-step` does is not known)" in done.stderr


@pytest.mark.slow
def test_two_replays_of_the_new_script_are_equal_and_do_what_the_old_one_did(
    cut_down: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml", "--format", "json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["lock"]["overrides"] == ["tiny-1==2.0"]
    assert {name: report["lock"]["packages"][name] for name in ("tiny-1", "tiny-2")} == {"tiny-1": "2.0", "tiny-2": "1.2"}
    assert report["rewritten"]["patches"] == ["tiny_2/3.py", "tiny_2/sub/added.py"]
    shellcheck = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "setup.locked.sh"], capture_output=True, text=True, check=False
    )
    assert shellcheck.returncode == 0, shellcheck.stdout
    for venv in ("first", "second", "second"):
        replay("setup.locked.sh", venv)
    manifests = [str(cut_down / venv / ".envcheck" / "manifest.json") for venv in ("first", "second")]
    assert main(["setup", "verify", "--manifest", manifests[0], "--manifest", manifests[1]]) == 0
    assert main(["setup", "verify", "--manifest", manifests[0], "--python", "second"]) == 0
    (site,) = (cut_down / "second").glob("lib/python3*/site-packages")
    assert (site / "tiny_2" / "3.py").read_text() == "value = 'replaced'\n"
    assert (site / "tiny_2" / "sub" / "added.py").exists()
    (site / "tiny_2" / "3.py").write_text("value = 'other'\n")
    capsys.readouterr()
    assert main(["setup", "verify", "--manifest", manifests[0], "--python", "second"]) == 1
    assert "tiny_2/3.py" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_put_in_by_hand_afterwards_stays(cut_down: Path, wheels: list[Wheel]) -> None:
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml", "--output", "report.txt"]) == 0
    replay("setup.locked.sh", "first")
    extra = make_wheel(wheels[0].path.parent, "by-hand", "1")
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--python", str(cut_down / "first" / "bin" / "python"), str(extra.path)], check=True
    )
    replay("setup.locked.sh", "first")
    assert list((cut_down / "first").glob("lib/python3*/site-packages/by_hand"))


@pytest.mark.slow
@pytest.mark.usefixtures("cut_down")
def test_a_file_that_is_not_as_the_lock_brought_it_is_not_patched_over(cut_down: Path) -> None:
    (cut_down / "setup.sh").write_text("pip install tiny-2\ncp replace/3.py /x/site-packages/tiny_2/3.py\n")
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml", "--output", "report.txt"]) == 0
    text = (cut_down / "setup.locked.sh").read_text()
    assert '"before": "locked"' in text
    (cut_down / "setup.locked.sh").write_text(
        text.replace(
            'keep_there patch "$PWD"',
            'echo x >>"$(echo "$folder"/lib/python3*/site-packages/tiny_2/3.py)"; keep_there patch "$PWD"',
        )
    )
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", "setup.locked.sh", "--no-check"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 4
    assert "is not the file that the patch is for" in done.stderr


@pytest.mark.usefixtures("cut_down")
def test_a_script_that_installs_nothing_gives_no_lock(cut_down: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cut_down / "setup.sh").write_text("./unknown\n")
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml"]) == 3
    assert "not in the lock: line 1: ./unknown" in capsys.readouterr().out
    assert not (cut_down / "pylock.toml").exists()


@pytest.mark.usefixtures("cut_down")
def test_pins_that_no_set_holds_are_refused_with_their_reason(cut_down: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cut_down / "setup.sh").write_text("pip install tiny-1==7.0\n")
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml"]) == 1
    assert "uv-finds-no-solution" in capsys.readouterr().out
    assert not (cut_down / "setup.locked.sh").exists()


@pytest.mark.slow
@pytest.mark.network
def test_what_is_to_be_said_of_the_lock_is_said(
    cut_down: Path, wheels: list[Wheel], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    index = wheels[0].path.parent
    make_wheel(index, "torch", "2.3.0")
    metadata = b"Metadata-Version: 2.2\nName: flash-attn\nVersion: 99.9\nRequires-Dist: torch\n"
    with tarfile.open(index / "flash_attn-99.9.tar.gz", "w:gz") as archive:
        for name, data in (("PKG-INFO", metadata), ("pyproject.toml", b"[build-system]\nrequires = []\n")):
            member = tarfile.TarInfo(f"flash_attn-99.9/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (cut_down / "setup.sh").write_text("set -e\npip install torch==2.3.0 flash-attn==99.9\n")
    assert main(["setup", "lint", "setup.sh", "--lock", "pylock.toml", "--format", "json"]) == 0
    found = {item["id"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert "which is compiled when it is installed" in found["locked-as-source"]["title"]
