"""Scripts for a project's profile: the lock, what no lock holds, and the steps that are left to verify."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.main import main
from envcheck.facts.metadata import normalised
from envcheck.findings import Report
from envcheck.matrix.database import load
from envcheck.matrix.profiles import load_profiles, open_profile
from envcheck.reproduce import unfinished
from envcheck.reproduce.by_hand import by_hand
from tests.reproduce.wheels import Wheel, make_wheel, pylock

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.matrix.profile import Profile

MATRIX = load(environ={})
PROFILES = load_profiles(MATRIX.folder)


def bash(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *arguments], capture_output=True, text=True, check=False, timeout=240, env={**os.environ, **variables}
    )


@pytest.mark.parametrize("profile", PROFILES, ids=[profile.id for profile in PROFILES])
def test_everything_that_no_lock_holds_and_every_step_is_told(profile: Profile) -> None:
    found = by_hand(profile)
    assert found.profile == profile.id
    assert {normalised(item.what) for item in profile.lock.left_out} <= set(found.packages)
    assert all(item.do in "\n".join(found.left_out) for item in profile.lock.left_out)
    assert [line.partition(". ")[2] for line in found.steps] == [step.text for step in profile.steps]


@pytest.mark.usefixtures("uv")
def test_a_script_tells_what_is_left_to_do_and_keeps_it_once_it_is_done(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "write", "--lock", "pylock.toml", "--profile", "nvila", "-o", "s.sh"]) == 0
    assert "the lock is without `s2wrapper`, `flash-attn`" in capsys.readouterr().out
    done = bash("s.sh", "--no-check")
    assert done.returncode == 0, done.stderr
    assert "put in by hand, since the lock cannot hold it:" in done.stderr
    assert "  s2wrapper: install `s2wrapper @ git+https://github.com/bfshi/scaling_on_scales`" in done.stderr
    assert "verify yourself:\n  1. " in done.stderr
    for name, up_to_date in (("s2wrapper", True), ("stranger", False)):
        wheel = make_wheel(project / "more", name, "0.1")
        argv = ["uv", "pip", "install", "--python", ".venv", "--no-index", "--no-deps", str(wheel.path)]
        subprocess.run(argv, check=True, capture_output=True)
        again = bash("s.sh", "--no-check")
        assert again.returncode == 0, again.stderr
        assert ("is up to date" in again.stderr) is up_to_date
        assert "put in by hand" in again.stderr


@pytest.mark.usefixtures("uv")
def test_the_check_at_the_end_is_against_the_profile(project: Path) -> None:
    assert main(["setup", "write", "--lock", "pylock.toml", "--profile", "NVILA", "-o", "s.sh"]) == 0
    told = project / "envcheck"
    told.write_text('#!/bin/sh\necho "$@"\n')
    told.chmod(0o755)
    done = bash("s.sh", ENVCHECK=str(told))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "check --python .venv/bin/python --profile nvila\n"
    missing = bash("s.sh", ENVCHECK="not-there")
    assert missing.returncode == 3
    assert "verify yourself:" in missing.stderr


@pytest.mark.usefixtures("uv")
def test_run_tells_it_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "run", "--lock", "pylock.toml", "--profile", "nvila", "--with-python", sys.executable]) == 0
    assert "the lock is without `s2wrapper`, `flash-attn`" in capsys.readouterr().out
    assert (project / ".venv" / "bin" / "python").exists()


@pytest.mark.usefixtures("uv")
def test_a_run_that_was_cut_off_is_completed_with_its_own_lock(
    project: Path, wheels: list[Wheel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Solving is replaced by two locks, as if the index had moved on; a failing installer stands for a kill."""
    solved = iter([pylock(wheels[:2]), pylock(wheels[:3]), pylock(wheels)])
    monkeypatch.setattr("envcheck.cli.lock.make", lambda *_: (next(solved), Report()))
    argv = ["setup", "run", "--profile", "nvila", "--with-python", sys.executable, "--venv", "v"]
    with monkeypatch.context() as broken:
        broken.setattr("envcheck.reproduce.replay.Replay.install", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(argv)
    capsys.readouterr()
    assert main(argv) == 0
    assert "the lock of the run that was cut off is used again" in capsys.readouterr().err
    site = next((project / "v").glob("lib/python3*/site-packages"))
    assert len(list(site.glob("tiny_*.dist-info"))) == 2
    assert main(argv) == 0
    assert len(list(site.glob("tiny_*.dist-info"))) == 3
    unfinished.remember(project / "v" / ".envcheck", "of another profile or matrix", pylock(wheels[:1]))
    assert main(argv) == 0
    assert "used again" not in capsys.readouterr().err
    assert len(list(site.glob("tiny_*.dist-info"))) == 4


@pytest.mark.usefixtures("uv")
def test_limits_on_builds_go_from_the_lock_to_the_installer(project: Path, wheels: list[Wheel]) -> None:
    lines = ["[tool.envcheck]", 'schema = "envcheck.lock/1"', 'matrix = "m"', 'python = ""', 'platform = ""', "requirements = []"]
    limits = ["[tool.envcheck.options]", 'build-constraints = "setuptools<81\\nwheel<1"']
    (project / "pylock.toml").write_text("\n".join([pylock(wheels), *lines, *limits, ""]))
    assert main(["setup", "write", "--lock", "pylock.toml", "-o", "s.sh"]) == 0
    done = bash("s.sh", "--no-check")
    assert done.returncode == 0, done.stderr
    assert (project / ".venv" / ".envcheck" / "build.txt").read_text() == "setuptools<81\nwheel<1\n"
    seen = project / "uv"
    seen.write_text(f'#!/bin/sh\necho "$@" >>uv.log\nexec {shutil.which("uv")} "$@"\n')
    seen.chmod(0o755)
    assert bash("s.sh", "--no-check", PATH=f"{project}:{os.environ['PATH']}", ENVCHECK_VENV="v").returncode == 0
    assert re.search(r"pip sync .*--build-constraints v/\.envcheck/build\.txt", (project / "uv.log").read_text())
    assert main(["setup", "run", "--lock", "pylock.toml", "--venv", "w", "--with-python", sys.executable]) == 0
    assert (project / "w" / ".envcheck" / "build.txt").read_text() == "setuptools<81\nwheel<1\n"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--profile", "kimi-k2-thinking-sft"], 1, "profile-not-lockable"),
        (["--profile", "nvilla"], 2, "did you mean `nvila`"),
        (["--profile", "nvila", "--beside"], 2, "envcheck lock --profile nvila -o pylock.toml"),
        ([], 2, "--lock, or a --profile"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(
    argv: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for action in ("write", "run") if "--beside" not in argv else ("write",):
        assert main(["setup", action, *argv]) == code
        told = capsys.readouterr()
        assert words in told.out + told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoglm-phone-9b-client", "nvila", "glm-tts"])
def test_a_real_script(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Locked through the index; the script is what bash and shellcheck take, and asks for the profile's Python."""
    monkeypatch.chdir(tmp_path)
    assert main(["setup", "write", "--profile", name, "-o", "s.sh"]) == 0
    assert "in s.sh" in capsys.readouterr().out
    assert bash("-n", "s.sh").returncode == 0
    checked = subprocess.run(["shellcheck", "s.sh"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    profile = open_profile(MATRIX.folder, name)
    text = (tmp_path / "s.sh").read_text()
    assert f"profile={name}\n" in text
    assert all(line in text for line in profile.build)
