"""The script as text, and what bash makes of it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from envcheck.cli.main import main
from envcheck.errors import InputError
from envcheck.reproduce.plan import ByHand, LockKind, Patch, PlacedLock, Plan, Pythons, Trial
from envcheck.reproduce.shell import assignments, index_options, program, script_of

ROOT = Path(__file__).resolve().parent.parent.parent

#: Texts that do something where they are not quoted.
HOSTILE = st.sampled_from(
    [
        "$(touch canary)",
        "`touch canary`",
        "'; touch canary; '",
        '"; touch canary; "',
        "\\'; touch canary #",
        "a\ntouch canary\n",
        "$PATH",
        "${IFS}",
        "*",
        "~",
        "-rf",
        "&& touch canary",
        "| touch canary",
        "> canary",
        "!!",
        "#",
        "a\\",
        "\\n",
        "é",
        "\u202e",
        "END_OF_LOCK",
        "'\"'\"'",
        "$'\\x27'",
        "<(touch canary)",
        "\x07",
        "\r",
        "",
    ]
)
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.lists(st.one_of(HOSTILE, st.text(LETTERS, max_size=8)), max_size=4).map("".join)


def run_bash(text: str, folder: Path) -> bytes:
    done = subprocess.run(["bash", "-s"], input=text.encode(), capture_output=True, cwd=folder, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@settings(max_examples=25)
@given(data=st.data())
def test_no_value_of_a_plan_is_run_by_bash(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    def text() -> str:
        return data.draw(TEXTS)

    plan = Plan(
        PlacedLock(LockKind.REQUIREMENTS, text=text()),
        venv=text(),
        conda=text(),
        system=text(),
        machine=text(),
        indexes=(text(), text()),
        patches=(Patch(text(), text(), text(), text()),),
        editable=text(),
        build=(text(), text()),
        by_hand=ByHand(text(), (text(),), (text(), text()), (text(),)),
        trial=Trial(PlacedLock(LockKind.PYLOCK, path=text()), text()),
    )
    folder = tmp_path_factory.mktemp("dry")
    script = script_of(plan, text())
    head, body = script.split(program("body.sh"))
    assert body == ""
    names = list(assignments(plan, "x"))[1:]
    shown = " ".join(f'"${name}"' for name in names)
    answer = run_bash(f"{head}\nprintf '%s\\0' {shown} \"${{indexes[@]}}\"\nwrite_lock\n", folder)
    values = answer.decode(errors="surrogateescape").split("\0")
    wanted = [*list(assignments(plan, "x").values())[1:], *index_options(plan)]
    assert values[: len(wanted)] == wanted
    lock = values[len(wanted)]
    assert lock == (plan.lock.text if plan.lock.text.endswith("\n") else plan.lock.text + "\n")
    assert list(folder.iterdir()) == []


#: A stand-in that makes a venv where it is told to, installs nothing, and keeps what it was told.
STUB = """#!/bin/bash
if [ "$1" = --version ]; then echo "uv 0.13.9"; exit; fi
printf '%s\\0' "$@" >>"$STUB_TOLD"
if [ "$1" = venv ]; then exec "$PYTHON" -m venv --without-pip "${@: -1}"; fi
"""


@pytest.mark.slow
@settings(max_examples=12, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_nothing_in_a_plan_is_run_when_the_script_runs(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole script in a real bash, with a stand-in for uv: every text reaches its program as it is, and none is run."""

    def text() -> str:
        return data.draw(TEXTS)

    folder = tmp_path_factory.mktemp("run")
    told, checked = folder / "told", folder / "checked"
    plan = Plan(
        PlacedLock(LockKind.REQUIREMENTS, text=f"{text()}\n{text()}=={text()} ; {text()}\n--hash={text()}\n"),
        indexes=(text(), text()),
        patches=(Patch(text() or "a", text() or "b", text(), text()),) if data.draw(st.booleans()) else (),
        build=(text(),),
        by_hand=ByHand(text(), (text(),), (text(), text()), (text(),)),
        probe=True,
    )
    for name, content in (("uv", STUB), ("fake", f"#!/bin/bash\nprintf '%s\\0' \"$@\" >>{checked}\n")):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    (folder / "s.sh").write_text(script_of(plan, "s.sh"))
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin", "PYTHON": sys.executable, "STUB_TOLD": str(told), "ENVCHECK": str(folder / "fake"),
        "HOME": str(folder),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "s.sh"], capture_output=True, cwd=folder, env=environment, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode in ((0,) if not plan.patches else (2, 4)), done.stderr
    assert not [path for path in folder.rglob("*") if path.name == "canary"]
    arguments = told.read_bytes().decode().split("\0")
    assert [word for word in index_options(plan) if word not in arguments] == []
    lock = (folder / ".venv" / ".envcheck" / "requirements.txt").read_bytes().decode()
    assert lock == plan.lock.text
    if not plan.patches and plan.by_hand and plan.by_hand.profile:
        assert plan.by_hand.profile in checked.read_bytes().decode().split("\0")


@given(TEXTS)
def test_the_name_of_the_script_cannot_leave_its_comment(name: str) -> None:
    script = script_of(Plan(PlacedLock(LockKind.PYLOCK, path="l")), name)
    head = script[: script.index("set -euo pipefail")]
    assert all(line.startswith("#") or not line for line in head.splitlines())


def test_a_nul_character_is_refused() -> None:
    with pytest.raises(InputError, match="NUL"):
        script_of(Plan(PlacedLock(LockKind.PYLOCK, path="a\0b")), "s.sh")


@pytest.mark.parametrize(
    "plan",
    [
        Plan(PlacedLock(LockKind.PYLOCK, text="x = '$(a)'\n")),
        Plan(PlacedLock(LockKind.REQUIREMENTS, path="r.txt"), conda="e", pythons=Pythons(10, 10), probe=True),
        Plan(
            PlacedLock(LockKind.REQUIREMENTS, path="it's.txt"),
            indexes=("https://x.invalid/$y",),
            editable=".",
            system="Linux",
            patches=(Patch("a/b.py", "c.py", "absent", "0" * 64),),
            trial=Trial(PlacedLock(LockKind.REQUIREMENTS, path="d.txt"), "t.sh"),
        ),
    ],
)
def test_the_script_passes_shellcheck_and_bash(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "s.sh"
    path.write_text(script_of(plan, "s.sh"))
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_the_keeper_stands_unchanged_inside_single_quotes_and_is_python_3_8() -> None:
    text = program("target/keeper.py")
    assert not set("'$`") & set(text)
    ast.parse(text, feature_version=(3, 8))


def test_what_is_installed_decides_the_digest_of_a_plan() -> None:
    plan = Plan(PlacedLock(LockKind.PYLOCK, text="a"))
    assert plan.digest() == Plan(PlacedLock(LockKind.PYLOCK, text="a"), probe=True).digest()
    assert plan.digest() != Plan(PlacedLock(LockKind.PYLOCK, text="b")).digest()
    patched = Plan(PlacedLock(LockKind.PYLOCK, text="a"), patches=(Patch("a", "b", "absent", "0" * 64),))
    assert plan.digest() != patched.digest()
    assert json.loads(patched.patches_json) == [{"file": "a", "source": "b", "before": "absent", "after": "0" * 64}]


@pytest.mark.parametrize(
    ("lowest", "highest", "words", "fits", "not_fits"),
    [
        (10, 14, "Python 3.10 or newer", (3, 15), (3, 9)),
        (10, 10, "Python 3.10", (3, 10), (3, 11)),
        (9, 11, "Python 3.9 to 3.11", (3, 9), (3, 12)),
    ],
)
def test_a_range_of_interpreters_is_said_and_tested_alike(
    lowest: int,
    highest: int,
    words: str,
    fits: tuple[int, int],
    not_fits: tuple[int, int],
) -> None:
    pythons = Pythons(lowest, highest)
    assert pythons.words == words
    for version, expected in ((fits, True), (not_fits, False)):
        condition = pythons.condition.replace("sys.version_info", repr((*version, 1)))
        assert bool(eval(condition)) is expected  # noqa: S307 - our own text


def test_the_projects_own_script_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = re.findall(r"^envcheck setup write ((?:.*\\\n)*.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    for name in ("requirements/runtime.txt", "requirements/dev.txt", "tests/run.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["setup", "write", *shlex.split(recipe.replace("\\\n", " "))]) == 0
    assert (tmp_path / "environment_setup.sh").read_text() == (ROOT / "environment_setup.sh").read_text()
