"""Environments really made: by `setup run`, by the script, cut off and completed, told apart."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envcheck.cli.main import main
from envcheck.facts.pip_view import pip_versions
from tests.reproduce.wheels import Wheel, make_wheel, pylock, requirements, tiny_index

pytestmark = pytest.mark.usefixtures("uv")

RUN = ["setup", "run", "--lock", "pylock.toml"]


def write_script(*arguments: str) -> str:
    assert main(["setup", "write", "--lock", "pylock.toml", "-o", "s.sh", *arguments]) == 0
    return "s.sh"


def bash(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", script, *arguments], capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **variables}
    )


def tree(folder: Path) -> dict[str, str]:
    """Digest of every installed file; compiled files and the state of the set-up left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix != ".pyc"
        and ".envcheck" not in path.parts
        and path.name not in ("uv_cache.json", ".lock")
    }


def manifest(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / ".envcheck" / "manifest.json").read_text())
    return found


def test_run_installs_the_lock_and_a_second_run_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RUN) == 0
    said = capsys.readouterr().err
    assert "[3/4] installing 4 packages" in said
    assert "pip was not asked: this environment has no pip" in said
    before = {path: path.stat().st_mtime_ns for path in (project / ".venv").rglob("*") if path.is_file()}
    assert main(RUN) == 0
    assert "up to date" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in (project / ".venv").rglob("*") if path.is_file()}
    after = {path: at for path, at in after.items() if path.name != "pylock.toml" and path.parent.name != ".envcheck"}
    assert after == {path: before[path] for path in after}
    assert main(["setup", "verify"]) == 0


@pytest.mark.slow
def test_an_environment_with_a_pip_is_also_verified_by_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("pip_api")
    subprocess.run([sys.executable, "-m", "venv", str(project / ".venv")], check=True)
    assert main(RUN) == 0
    assert "pip was not asked" not in capsys.readouterr().err
    assert main(["setup", "verify", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [item["check"] for item in report["skipped"]] == []
    assert "pip-sees-otherwise" not in [item["id"] for item in report["findings"]]
    monkeypatch.setattr("envcheck.facts.pip_view.pip_versions", lambda at: {**pip_versions(at), "tiny-2": "0.1"})  # type: ignore[dict-item]
    main(["setup", "verify", "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    assert ["tiny-2"] in [item["subjects"] for item in report["findings"] if item["id"] == "pip-sees-otherwise"]
    main(RUN)
    assert "pip and the metadata folders disagree about `tiny-2`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_and_the_run_make_the_same_environment(project: Path, wheels: list[Wheel]) -> None:
    assert main(RUN) == 0
    done = bash(write_script("--venv", "other"), "--no-check")
    assert done.returncode == 0, done.stderr
    (project / "requirements.txt").write_text(requirements(wheels).replace("--no-index\n", ""))
    assert main(["setup", "run", "--lock", "requirements.txt", "--venv", "third"]) == 0
    for other in ("other", "third"):
        assert main(["setup", "verify", "--manifest", ".venv/.envcheck/manifest.json", "--python", other]) == 0
        assert manifest(project / ".venv")["distributions"] == manifest(project / other)["distributions"]


@pytest.mark.slow
def test_a_run_completes_what_a_script_began_and_the_other_way_round(project: Path) -> None:
    script = write_script()
    assert bash(script, "--no-check").returncode == 0
    whole = tree(project / ".venv")
    (project / ".venv" / ".envcheck" / "begun").touch()
    (project / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "tiny_1" / "1.py").unlink()
    assert main(RUN) == 0
    assert tree(project / ".venv") == whole
    (project / ".venv" / ".envcheck" / "begun").touch()
    done = bash(script, "--no-check")
    assert "beginning anew" in done.stderr
    assert tree(project / ".venv") == whole


@pytest.mark.slow
def test_what_was_changed_since_is_made_anew_and_what_was_there_before_is_kept(project: Path) -> None:
    assert main(RUN) == 0
    whole = tree(project / ".venv")
    assert main(["setup", "verify"]) == 0
    site = project / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "tiny_2-1.2.dist-info" / "RECORD").unlink()
    assert main(["setup", "verify"]) == 1
    assert main(RUN) == 0
    assert tree(project / ".venv") == whole
    subprocess.run(["uv", "venv", "--quiet", "mine"], check=True)
    (project / "mine" / "note.txt").write_text("mine")
    assert main([*RUN, "--venv", "mine"]) == 0
    (project / "mine" / ".envcheck" / "begun").touch()
    assert main([*RUN, "--venv", "mine"]) == 0
    assert (project / "mine" / "note.txt").read_text() == "mine"
    assert manifest(project / "mine")["distributions"] == manifest(project / ".venv")["distributions"]


@pytest.mark.slow
def test_another_lock_leaves_nothing_of_the_one_before(project: Path, wheels: list[Wheel], tmp_path: Path) -> None:
    assert main(RUN) == 0
    newer = make_wheel(tmp_path / "index", "tiny-1", "2.0", {"tiny_1/other.py": b"new = 1\n"})
    (project / "pylock.toml").write_text(pylock([wheels[0], newer]))
    assert main(RUN) == 0
    names = manifest(project / ".venv")["distributions"]
    assert isinstance(names, dict)
    assert {name: item["version"] for name, item in names.items()} == {"tiny-0": "1.0", "tiny-1": "2.0"}
    site = project / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert sorted(path.name for path in (site / "tiny_1").glob("*.py")) == ["other.py"]


@pytest.mark.slow
def test_a_wheel_that_is_not_the_locked_one_is_refused(
    project: Path, wheels: list[Wheel], capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(wheels[2].path.parent, "tiny-2", "1.2", {"tiny_2/evil.py": b"x\n"})
    assert main(RUN) == 4
    assert "tiny" in capsys.readouterr().err
    assert not (project / ".venv" / ".envcheck" / "stamp").exists()
    assert bash(write_script(), "--no-check").returncode == 4


def patch_list(project: Path, before: str) -> tuple[str, bytes]:
    patched = b"value = 'patched'\n"
    (project / "replace.py").write_bytes(patched)
    after = hashlib.sha256(patched).hexdigest()
    (project / "patches.toml").write_text(
        f'[[patch]]\nfile = "tiny_1/3.py"\nsource = "replace.py"\nbefore = "{before}"\nafter = "{after}"\n'
        f'[[patch]]\nfile = "tiny_1/added.py"\nsource = "replace.py"\nbefore = "absent"\nafter = "{after}"\n'
    )
    return after, patched


@pytest.mark.slow
@pytest.mark.parametrize("how", ["run", "script"])
def test_patches_are_applied_once_over_the_file_that_they_are_for(how: str, project: Path) -> None:
    original = b"value = 3\n" * 40
    after, patched = patch_list(project, hashlib.sha256(original).hexdigest())
    for _ in range(2):
        if how == "run":
            assert main([*RUN, "--patches", "patches.toml"]) == 0
        else:
            assert bash(write_script("--patches", "patches.toml"), "--no-check").returncode == 0
    site = project / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert (site / "tiny_1" / "3.py").read_bytes() == patched
    assert manifest(project / ".venv")["patched"] == {"tiny_1/3.py": after, "tiny_1/added.py": after}
    (site / "tiny_1" / "3.py").write_bytes(b"tampered\n")
    assert main(["setup", "verify"]) == 1
    assert main(RUN + ["--venv", "clean"]) == 0  # noqa: RUF005 - reads as the command line
    clean = project / "clean" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert (clean / "tiny_1" / "3.py").read_bytes() == original, "the installer's cache must not be patched"


@pytest.mark.slow
def test_a_patch_for_another_file_stops_the_set_up(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch_list(project, "0" * 64)
    assert main([*RUN, "--patches", "patches.toml"]) == 4
    told = capsys.readouterr().err
    assert "is not the file that the patch is for" in told
    assert "expected sha256 " + "0" * 64 in told


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_two_runs_at_once_wait_for_each_other() -> None:
    argv = [sys.executable, "-m", "envcheck", *RUN]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    children = [subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], told
    assert sum("up to date" in text for text in told) == 2
    assert main(["setup", "verify"]) == 0


def kill_at(argv: list[str], seconds: float, *, group: bool) -> None:
    """Start and kill after `seconds`: the whole group, or the leader alone, whose children then go on."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    child = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(seconds)
    if group:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["run", "script"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("ENVCHECK_KILL_SEEDS", "1"))))
def test_a_run_killed_at_any_moment_is_completed_by_the_next(how: str, seed: int, project: Path, tmp_path: Path) -> None:
    (project / "pylock.toml").write_text(pylock(tiny_index(tmp_path / "more", 15, 30)))
    argv = [sys.executable, "-m", "envcheck", *RUN] if how == "run" else ["bash", write_script(), "--no-check"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    begin = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    needed = time.monotonic() - begin
    whole = tree(project / ".venv")
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    cut_off = 0
    for number in range(16):
        if number >= 4 and cut_off:
            break
        subprocess.run(["rm", "-rf", ".venv", str(tmp_path / "cache")], check=True)
        for _ in range(1 + number % 2):
            kill_at(argv, dice.uniform(0, needed), group=dice.random() < 0.5)
        finished = (project / ".venv" / ".envcheck" / "stamp").exists()
        cut_off, needed = cut_off + (not finished), needed * (0.7 if finished else 1.0)  # the machine may be faster by now
        subprocess.run(argv, check=True, capture_output=True, env=environment)
        assert tree(project / ".venv") == whole
        assert main(["setup", "verify"]) == 0
    assert cut_off, "no run was cut off: the test looked at nothing"


@pytest.mark.parametrize(
    ("arguments", "lock", "code", "words"),
    [
        ([], "", 2, "the lock is empty"),
        ([], 'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a', 2, "not a PEP 751 lock"),
        ([], "\x7fELF", 2, "no `lock-version`"),
        (["--requires-python", ">=4"], None, 2, "no Python"),
        (["--requires-python", "nonsense"], None, 2, "not a range of Python versions"),
        (["--with-python", "/bin/false"], None, 2, "is not a Python 3.8 or newer"),
        (["--venv", "pylock.toml"], None, 2, "this is a file"),
        (["--venv", "/proc/nowhere/v"], None, 2, "cannot be written"),
        (["--patches", "none.toml"], None, 2, "cannot read the patch list"),
    ],
)
def test_what_cannot_be_run_is_said_and_nothing_is_left(
    arguments: list[str], lock: str | None, code: int, words: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if lock is not None:
        (project / "pylock.toml").write_text(lock)
    assert main([*RUN, *arguments]) == code
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("envcheck: ")
    assert not (project / ".venv" / "bin").exists()


def test_without_uv_or_with_an_old_one_the_run_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = project / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(sys, "executable", str(tools / "python3"))
    assert main([*RUN, "--with-python", sys.executable]) == 4
    assert "uv is not installed" in capsys.readouterr().err
    (tools / "uv").write_text("#!/bin/sh\necho uv 0.1.0\n")
    (tools / "uv").chmod(0o755)
    assert main(RUN) == 4
    assert "uv is too old" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_without_a_network_the_failure_is_said_and_the_next_run_completes(
    wheels: list[Wheel], capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = wheels[3].path.with_suffix(".hidden")
    wheels[3].path.rename(hidden)
    assert main(RUN) == 4
    assert "run it again" in capsys.readouterr().err
    hidden.rename(wheels[3].path)
    assert main(RUN) == 0
    assert main(["setup", "verify"]) == 0


@pytest.mark.slow
def test_the_script_checks_the_environment_with_the_envcheck_that_there_is(project: Path) -> None:
    script = write_script("--probe")
    fake = project / "fake"
    fake.write_text('#!/bin/sh\necho "$@"\n[ "$1" = check ] && exit "${CODE:-0}"\nexit 0\n')
    fake.chmod(0o755)
    done = bash(script, ENVCHECK=str(fake))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["check --python .venv/bin/python", "probe --python .venv/bin/python"]
    assert bash(script, ENVCHECK=str(fake), CODE="1").returncode == 1
    missing = bash(script, ENVCHECK="/nonexistent")
    assert missing.returncode == 3
    assert "not checked" in missing.stderr


@pytest.mark.parametrize(("change", "finding"), [(b"changed\n", "record-files-altered"), (None, "record-files-missing")])
def test_verify_names_a_file_that_is_no_longer_what_the_wheel_brought(
    change: bytes | None, finding: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(RUN) == 0
    (file,) = (project / ".venv").glob("lib/python3*/site-packages/tiny_1/1.py")
    file.unlink()
    if change is not None:
        file.write_bytes(change)
    capsys.readouterr()
    assert main(["setup", "verify", "--format", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["id"], found["subjects"]) == (finding, ["tiny-1"])
    assert "tiny_1/1.py" in found["because"]
