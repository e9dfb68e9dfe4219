"""Changes of a real environment of tiny wheels: applied, failed, killed, and undone byte for byte."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envcheck.errors import CouldNotLookError, EnvcheckError, InputError, ToolError, UsageError
from envcheck.resolve.install import Installer, Order, Place, apply, choose, go_back, locked
from envcheck.resolve.restore import Touched, distributions, home, points
from envcheck.resolve.undo import undo
from tests.resolve.wheels import make_environment, offline, pinned, tree, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANGE = (Touched("alpha", "2.0", "1.0"), Touched("beta", "1.0", "1.5"))
MANY = {f"alpha/part{number:03}.py": f"VALUE = {number}\n" * 50 for number in range(120)}


class Bench:
    """An environment with alpha 2.0, beta 1.0 and gamma 1.0, and the wheels that a change installs."""

    def __init__(self, folder: Path) -> None:
        links = folder / "links"
        wheel(links, "alpha", "2.0", script=True, files={**MANY, "alpha/only_two.py": "", "alpha_hook.pth": "\n"})
        wheel(links, "beta", "1.0", requires=["alpha"])
        wheel(links, "gamma", "1.0", files={"shared/gamma.txt": "gamma's\n"})
        older = wheel(links, "alpha", "1.0", script=True, files={**MANY, "alpha/deep/er/only_one.py": ""})
        newer = wheel(links, "beta", "1.5", files={"shared/gamma.txt": "beta's\n", "beta_extra/__init__.py": ""})
        self.links = links
        self.python = make_environment(folder / "env", links, "alpha==2.0", "beta==1.0", "gamma==1.0")
        prefix = Path(os.path.realpath(folder / "env"))
        self.place = Place(prefix, next(prefix.glob("lib/python*/site-packages")))
        (self.place.site / "alpha" / "part001.py").write_text("patched by hand\n")
        (self.place.site / "alpha" / "unrecorded.txt").write_text("kept\n")
        extra = wheel(links, "delta", "1.0", script=True, files={"delta/deep/er/part.txt": "", "shared/delta.txt": "delta's\n"})
        self.wheels = {"alpha": older, "beta": newer, "delta": extra}
        self.requirements = pinned(older, newer)
        self.change: tuple[Touched, ...] = CHANGE
        self.before = tree(prefix)

    def apply(self, installer: Installer | None = None, verify: Callable[[Path], None] = lambda _: None) -> None:
        chosen = installer or choose(str(self.python), None)
        apply(self.place, chosen, Order(self.requirements, self.change), verify, lambda _: None)

    def undo(self) -> str:
        return "undone" if go_back(self.place, lambda _: None, patience=60) else "unfinished"

    def installed(self) -> dict[str, set[str]]:
        versions: dict[str, set[str]] = {}
        for headers, _ in distributions([self.place.site]):
            versions.setdefault(headers.name, set()).add(headers.version)
        return versions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(made: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name, value in offline(made.links).items():
        monkeypatch.setenv(name, value)
    yield made
    made.requirements, made.change = pinned(made.wheels["alpha"], made.wheels["beta"]), CHANGE
    shutil.rmtree(home(made.place.prefix), ignore_errors=True)


def test_an_applied_change_is_undone_byte_for_byte(bench: Bench) -> None:
    bench.apply()
    assert bench.installed() == {"alpha": {"1.0"}, "beta": {"1.5"}, "gamma": {"1.0"}}
    said = subprocess.run([bench.place.prefix / "bin" / "alpha"], capture_output=True, text=True, check=True)
    assert said.stdout == "1.0\n"
    assert points(bench.place.prefix)[-1].finished
    bench.undo()
    said = subprocess.run([bench.place.prefix / "bin" / "alpha"], capture_output=True, text=True, check=True)
    assert said.stdout == "2.0\n"
    assert tree(bench.place.prefix) == bench.before
    assert not home(bench.place.prefix).exists()


def test_undoing_twice_changes_nothing_more(bench: Bench) -> None:
    bench.apply()
    shutil.copytree(home(bench.place.prefix), bench.links.parent / "copy", dirs_exist_ok=True)
    bench.undo()
    shutil.copytree(bench.links.parent / "copy", home(bench.place.prefix))
    bench.undo()
    assert tree(bench.place.prefix) == bench.before


def test_what_the_installer_cannot_get_changes_nothing(bench: Bench) -> None:
    bench.requirements, wanted = bench.requirements.replace("sha256:", "sha256:00", 1), bench.requirements
    try:
        with pytest.raises(ToolError, match="uv failed"):
            bench.apply()
    finally:
        bench.requirements = wanted
    assert tree(bench.place.prefix) == bench.before
    assert not points(bench.place.prefix)


def test_staged_versions_that_are_not_right_change_nothing(bench: Bench) -> None:
    def refuse(staged: Path) -> None:
        assert list(staged.rglob("alpha-1.0.dist-info"))
        raise ToolError("not these")

    with pytest.raises(ToolError, match="not these"):
        bench.apply(verify=refuse)
    assert tree(bench.place.prefix) == bench.before


def stand_in(folder: Path, ending: str) -> Installer:
    """An installer that stages as uv does and then does half of its work, and ends as `ending` says."""
    program = folder / "installer.py"
    program.write_text(
        textwrap.dedent(f"""
        import os, pathlib, shutil, signal, subprocess, sys
        if "--prefix" in sys.argv or "uninstall" in sys.argv:
            sys.exit(subprocess.run([{str(Path(sys.executable).with_name("uv"))!r}, *sys.argv[1:]], stdin=sys.stdin).returncode)
        site = next(pathlib.Path({str(folder.parent / "env")!r}).glob("lib/python*/site-packages"))
        for number in range(0, 120, 2):
            (site / "alpha" / f"part{{number:03}}.py").unlink()
        (site / "alpha" / "part001.py").write_text("half")
        (site / "alpha-1.0.dist-info").mkdir()
        (site / "alpha-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\\nName: alpha\\nVersion: 1.0\\n")
        (site / "alpha-1.0.dist-info" / "uncommon.json").write_text("{{}}")
        shutil.rmtree(site / "alpha-2.0.dist-info")
        (site / "~lpha").mkdir()
        (site / "~lpha" / "x.py").write_text("")
        (site / ".tmpAb12").write_text("")
        (site / "beta_extra").mkdir()
        (site / "beta_extra" / "__init__.py").write_text("")
        (site.parents[2] / "bin" / "alpha").unlink()
        {ending}
    """)
    )
    return Installer("uv", (sys.executable, str(program), "pip", "install", "--python", str(folder.parent / "env")))


def test_a_failed_installation_is_put_back_at_once(bench: Bench) -> None:
    folder = bench.links.parent / "stand-in"
    folder.mkdir(exist_ok=True)
    with pytest.raises(ToolError, match="put back as it was"):
        bench.apply(stand_in(folder, "sys.exit(1)"))
    assert tree(bench.place.prefix) == bench.before


def test_a_killed_installation_refuses_another_and_is_undone(bench: Bench) -> None:
    folder = bench.links.parent / "stand-in"
    folder.mkdir(exist_ok=True)
    installer = stand_in(folder, "os.kill(os.getppid(), signal.SIGKILL)")
    child = subprocess.run([sys.executable, "-c", script(bench, installer)], check=False, env=with_package())
    assert child.returncode == -signal.SIGKILL
    assert tree(bench.place.prefix) != bench.before
    with pytest.raises(UsageError, match="interrupted"):
        bench.apply()
    bench.undo()
    assert tree(bench.place.prefix) == bench.before


def script(bench: Bench, installer: Installer) -> str:
    return textwrap.dedent(f"""
        from pathlib import Path
        from envcheck.resolve.install import Installer, Order, Place, apply
        from envcheck.resolve.restore import Touched
        touched = tuple(Touched(*item) for item in {[(item.name, item.before, item.after) for item in bench.change]!r})
        apply(Place(Path({str(bench.place.prefix)!r}), Path({str(bench.place.site)!r})),
              Installer("uv", {installer.start!r}), Order({bench.requirements!r}, touched),
              lambda _: None, lambda _: None)
    """)


def add_and_remove(bench: Bench) -> None:
    """The change and two more: delta comes, gamma goes."""
    bench.requirements = pinned(*bench.wheels.values())
    bench.change = (*CHANGE, Touched("delta", "", "1.0"), Touched("gamma", "1.0", ""))


def test_what_came_goes_and_what_went_comes_back(bench: Bench) -> None:
    add_and_remove(bench)
    bench.apply()
    assert bench.installed() == {"alpha": {"1.0"}, "beta": {"1.5"}, "delta": {"1.0"}}
    assert (bench.place.prefix / "bin" / "delta").exists()
    assert (bench.place.site / "shared" / "gamma.txt").read_text() == "beta's\n"
    bench.undo()
    assert tree(bench.place.prefix) == bench.before
    assert not (bench.place.site / "delta").exists()


def test_a_removal_alone_is_undone(bench: Bench) -> None:
    bench.requirements, bench.change = "", (Touched("gamma", "1.0", ""),)
    bench.apply()
    assert bench.installed() == {"alpha": {"2.0"}, "beta": {"1.0"}}
    bench.undo()
    assert tree(bench.place.prefix) == bench.before


def test_a_failure_after_the_removal_is_put_back(bench: Bench) -> None:
    add_and_remove(bench)
    folder = bench.links.parent / "stand-in"
    folder.mkdir(exist_ok=True)
    with pytest.raises(ToolError, match="put back as it was"):
        bench.apply(stand_in(folder, "sys.exit(1)"))
    assert tree(bench.place.prefix) == bench.before


@pytest.mark.slow
@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_killed_at_any_moment_it_is_undone(bench: Bench, *, both: bool, other: bool) -> None:
    """`both`: the installer dies too; else it goes on, and undoing waits for it. `other`: one package comes, another one goes."""
    if other:
        add_and_remove(bench)
    chance = random.Random(5)  # noqa: S311 - moments, no secrets
    half_way, rounds, longest = 0, 0, 0.2 + 0.1 * other
    while rounds < 12 or (half_way < 3 and rounds < 60):
        child = subprocess.Popen([sys.executable, "-c", script(bench, choose(str(bench.python), None))], env=with_package())
        while not points(bench.place.prefix) and child.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, longest))
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split() if child.poll() is None else []
        child.kill()
        child.wait()
        for number in children if both else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        finished = points(bench.place.prefix)[-1].finished
        half_way, rounds, longest = half_way + (not finished), rounds + 1, longest * (0.7 if finished else 1.2)
        bench.undo()
        assert tree(bench.place.prefix) == bench.before
    assert half_way > 2


@pytest.mark.slow
def test_killed_before_the_restore_point_is_whole_nothing_was_changed(bench: Bench) -> None:
    chance = random.Random(7)  # noqa: S311 - as above
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", script(bench, choose(str(bench.python), None))], env=with_package())
        while not home(bench.place.prefix).exists() and child.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.2))
        child.kill()
        child.wait()
        with contextlib.suppress(UsageError):  # it had not begun
            bench.undo()
        assert tree(bench.place.prefix) == bench.before


def with_package() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_a_truncated_restore_point_is_an_error_and_changes_nothing(bench: Bench, keep: int) -> None:
    bench.apply()
    manifest = points(bench.place.prefix)[-1].folder / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:keep])
    after = tree(bench.place.site)
    with pytest.raises(InputError, match="truncated or altered"):
        bench.undo()
    assert tree(bench.place.site) == after
    manifest.write_bytes(whole)
    bench.undo()
    assert tree(bench.place.prefix) == bench.before


def test_lost_copies_are_named_and_nothing_is_changed(bench: Bench) -> None:
    bench.apply()
    folder = points(bench.place.prefix)[-1].folder
    kept = folder / "files"
    shutil.copytree(kept, folder / "aside")
    for path in kept.iterdir():
        path.write_bytes(b"")
    after = tree(bench.place.site)
    with pytest.raises(CouldNotLookError, match="has lost what it kept of") as caught:
        bench.undo()
    assert "alpha==2.0" in str(caught.value)
    assert tree(bench.place.site) == after
    shutil.rmtree(kept)
    (folder / "aside").rename(kept)
    bench.undo()
    assert tree(bench.place.prefix) == bench.before


def test_a_package_changed_since_is_not_mixed(bench: Bench) -> None:
    bench.apply()
    with pytest.raises(UsageError, match="it was changed after the fix"):
        undo(points(bench.place.prefix)[-1], {"alpha": {"3.0"}})
    bench.undo()


def test_an_environment_that_cannot_be_written(bench: Bench) -> None:
    home(bench.place.prefix).write_text("in the way")
    try:
        with pytest.raises(EnvcheckError, match="cannot be written"):
            bench.apply()
    finally:
        home(bench.place.prefix).unlink()
    assert tree(bench.place.prefix) == bench.before


def test_one_change_at_a_time(bench: Bench) -> None:
    said: list[str] = []
    with (
        locked(bench.place.prefix),
        pytest.raises(EnvcheckError, match="still running"),
        locked(bench.place.prefix, patience=0.2, say=said.append),
    ):
        pass
    assert said
    with locked(bench.place.prefix, patience=0):
        pass


def test_without_uv_and_pip_there_is_no_installer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.resolve.install.find_uv", lambda: None)
    with pytest.raises(ToolError, match="neither uv nor pip was found"):
        choose(str(bench.python), None)
    with pytest.raises(ToolError, match="no pip"):
        choose(str(bench.python), "pip")
