"""The interpreter whose environment is looked at: ours, or another one that describes itself."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.errors import CouldNotLookError, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.process import Completed

#: Seconds that another interpreter may take to describe itself; a cold network disk needs several.
DEADLINE = 20.0

#: Where an interpreter lies in the folder of a venv, of a conda environment, or in their bin folder.
IN_FOLDER = ("bin/python", "bin/python3", "python", "python3", "Scripts/python.exe", "python.exe")

ANSWER_LIMIT = 16 << 20

WHAT_TO_GIVE = "give an interpreter (`.venv/bin/python`), the folder of a venv, or the venv's `bin` folder"


class Interpreter(NamedTuple):
    """An interpreter as it described itself.

    Attributes:
        executable: Its path.
        version: `3.10.14`.
        prefix: `sys.prefix`.
        base_prefix: `sys.base_prefix`; differs from `prefix` in a venv.
        path: `sys.path`, without the current folder or script folder that the command line puts first.
        user_site: The user's site-packages where it is used, else an empty string.
        markers: Values for environment markers.
        glibc: Version of the GNU C library, or an empty string.
        variables: The environment variables that matter (`query.matters`).
    """

    executable: str
    version: str
    prefix: str
    base_prefix: str
    path: tuple[str, ...] = ()
    user_site: str = ""
    markers: Mapping[str, str] = MappingProxyType({})
    glibc: str = ""
    variables: Mapping[str, str] = MappingProxyType({})


def own() -> Interpreter:
    """The running interpreter."""
    from envcheck.facts.query import describe  # noqa: PLC0415 - the other path does not need it imported

    described = _checked(describe(), sys.executable)
    path = described.path
    return described if not _first_is_ours(path) else described._replace(path=path[1:])


def _first_is_ours(path: tuple[str, ...]) -> bool:
    """Whether the first entry of `sys.path` only comes from how envcheck was started."""
    if not path or getattr(sys.flags, "safe_path", False):
        return False
    name = sys.argv[0] if sys.argv else ""
    script = os.path.dirname(os.path.realpath(name)) if name else ""  # noqa: PTH120 - pathlib is slow
    try:
        return path[0] in ("", os.getcwd(), script)  # noqa: PTH109 - as above
    except OSError:  # the current folder was deleted
        return path[0] in ("", script)


def other(python: str, *, timeout: float = DEADLINE) -> Interpreter:
    """Ask the interpreter at `python` (an interpreter, a venv folder, its bin folder, a program on PATH).

    Raises:
        CouldNotLookError: Nothing there, not a Python, or no answer in time.
    """
    executable = locate(python)
    answer, ended = _ask(executable, timeout)
    if ended.timed_out and not answer:
        raise CouldNotLookError(
            f"this interpreter did not describe itself within {timeout:g} s", where=executable,
            hints=(f"run `{executable} -c pass` to see what holds it up (a `sitecustomize`, a `.pth` file)",),
        )  # fmt: skip
    try:
        return _checked(_parsed(answer), executable)
    except ValueError:
        raise CouldNotLookError(
            f"this is not a usable Python interpreter: {_failure(ended)}", where=executable,
            hints=("the interpreter must be Python 3.8 or newer", WHAT_TO_GIVE),
        ) from None  # fmt: skip


def locate(python: str) -> str:
    """The path of the interpreter that `python` means.

    Raises:
        CouldNotLookError: There is none.
    """
    where = os.path.expanduser(python)  # noqa: PTH111 - keeps `..` and links as they were given
    try:
        found = _located(where)
    except ValueError as error:
        raise CouldNotLookError(f"not a path: {error}", where=repr(python), hints=(WHAT_TO_GIVE,)) from error
    if found is None:
        shown = python if python.isprintable() and python else repr(python)
        raise CouldNotLookError(_nothing_there(where), where=shown, hints=(WHAT_TO_GIVE,))
    return found


def _located(where: str) -> str | None:
    if os.path.isdir(where):  # noqa: PTH112 - as above
        candidates = [os.path.join(where, name) for name in IN_FOLDER]  # noqa: PTH118 - as above
    elif os.path.lexists(where) or os.sep in where or not where:
        candidates = [where]
    else:
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        candidates = [os.path.join(folder, where) for folder in folders if folder]  # noqa: PTH118 - as above
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - as above
            return os.path.abspath(path)  # noqa: PTH100 - `resolve` would leave a venv
    return None


def _nothing_there(where: str) -> str:
    if os.path.isdir(where):  # noqa: PTH112 - as above
        for name in IN_FOLDER:
            link = os.path.join(where, name)  # noqa: PTH118 - as above
            if os.path.islink(link):  # noqa: PTH114 - as above
                target = os.readlink(link)  # noqa: PTH115 - as above
                return f"its interpreter is gone: `{name}` points to `{target}`"
        return "no Python interpreter in this folder"
    if os.path.isfile(where):  # noqa: PTH113 - as above
        return "this file cannot be run"
    if os.path.islink(where):  # noqa: PTH114 - as above
        return f"a broken link, to `{os.readlink(where)}`"  # noqa: PTH115 - as above
    return "no such file or folder" if os.sep in where or not where else "no such file, and no such program on PATH"


def _ask(executable: str, timeout: float) -> tuple[bytes, Completed]:
    import tempfile  # noqa: PLC0415 - only for another interpreter
    from pathlib import Path  # noqa: PLC0415 - as above

    from envcheck.facts.machine import read_start  # noqa: PLC0415 - as above
    from envcheck.process import run  # noqa: PLC0415 - as above

    text = Path(__file__).with_name("query.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
        answer = str(Path(folder, "answer.json"))
        try:
            # Not `-I`: PYTHONPATH, the user site and .pth files are part of the environment.
            ended = run([executable, "-B", "-c", text, answer], timeout=timeout)
        except ToolError as error:
            raise CouldNotLookError(error.message, where=executable, hints=(WHAT_TO_GIVE,)) from error
        try:
            return read_start(answer, ANSWER_LIMIT), ended
        except OSError:
            return b"", ended


def _parsed(answer: bytes) -> Any:  # noqa: ANN401 - JSON
    import json  # noqa: PLC0415 - only for another interpreter

    try:
        return json.loads(answer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _checked(answer: Any, executable: str) -> Interpreter:  # noqa: ANN401 - JSON
    """The answer as an `Interpreter`.

    Raises:
        ValueError: It is not what `query.describe` gives.
    """
    if not isinstance(answer, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for every wrong answer
    try:
        texts = {name: answer[name] for name in ("version", "prefix", "base_prefix", "user_site", "glibc")}
        path, markers, variables = answer["path"], answer["markers"], answer["variables"]
    except KeyError as error:
        raise ValueError(f"no {error}") from error
    values = [*texts.values(), *path, *markers.values(), *variables.values()]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a value that is not a text")
    named = answer.get("executable") or executable
    return Interpreter(executable=str(named), path=tuple(path), markers=markers, variables=variables, **texts)


def _failure(ended: Completed) -> str:
    """How it ended, with the last line that it wrote to standard error."""
    lines = ended.stderr.strip().splitlines()
    last = "".join(letter if letter.isprintable() else "?" for letter in lines[-1])[:200] if lines else ""
    return f"{ended.outcome}: {last}" if last else f"{ended.outcome}, without an answer"
