"""What a project beside a script requires: pyproject.toml, setup.cfg, a literal setup.py, requirement files, environment.yml."""

from __future__ import annotations

import ast
import configparser
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envcheck.facts.metadata import normalised
from envcheck.reproduce.wanted import Wanted, read, read_conda

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Files beside a script are read up to this many characters.
LARGEST = 1 << 20

#: `-r` files may name others; deeper chains are not followed.
DEPTH = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """Requirements that a file lists.

    Attributes:
        file: Its name for messages, relative to the script.
        wanted: The requirements.
        hashed: True where every requirement has a digest.
        reason: Why it could not be read, or an empty string.
        indexes: Package indexes that the file names.
        name: The project's own name.
    """

    file: str
    wanted: tuple[Wanted, ...] = ()
    hashed: bool = False
    reason: str = ""
    indexes: tuple[str, ...] = ()
    name: str = ""


@dataclass(slots=True)
class _Lines:
    wanted: list[Wanted] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    bare: int = 0


def read_project(folder: Path, shown: str, extras: Iterable[str]) -> Listed:
    """What `pip install FOLDER[EXTRAS]` requires, as far as the files say it without being run."""
    wished = frozenset(normalised(extra) for extra in extras)
    for name, reader in (("pyproject.toml", _pyproject), ("setup.cfg", _setup_cfg), ("setup.py", _setup_py)):
        text = _text(folder / name)
        if text is not None:
            found = reader(text, wished)
            if found is not None:
                lines, project = found
                return Listed(f"{shown}{name}", tuple(read(line) for line in lines), name=normalised(project))
    names = [name for name in ("pyproject.toml", "setup.cfg", "setup.py") if (folder / name).is_file()]
    if names:
        return Listed(f"{shown}{names[0]}", reason="its dependencies are computed when it is built")
    return Listed(f"{shown}pyproject.toml", reason="there is no such file beside the script")


def _text(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(LARGEST)
    except OSError:
        return None


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _pyproject(text: str, extras: frozenset[str]) -> tuple[list[str], str] | None:
    import tomli  # noqa: PLC0415 - only where there is a project

    try:
        document = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError):
        return None
    project = document.get("project")
    if not isinstance(project, dict) or "dependencies" in _texts(project.get("dynamic")):
        return None
    lines = _texts(project.get("dependencies"))
    groups = project.get("optional-dependencies")
    lines += _chosen(groups if isinstance(groups, dict) else {}, extras)
    return lines, str(project.get("name", ""))


def build_requires(folder: Path) -> list[str]:
    """What builds a project: `build-system.requires` of its pyproject.toml, or setuptools where that says nothing (PEP 518)."""
    import tomli  # noqa: PLC0415 - only where there is a project

    try:
        document = tomli.loads(_text(folder / "pyproject.toml") or "")
    except (tomli.TOMLDecodeError, RecursionError):
        document = {}
    table = document.get("build-system")
    return _texts(table.get("requires")) if isinstance(table, dict) and "requires" in table else ["setuptools"]


def _chosen(groups: dict[str, object], extras: frozenset[str]) -> list[str]:
    return [line for name, value in groups.items() if normalised(name) in extras for line in _texts(value)]


def _setup_cfg(text: str, extras: frozenset[str]) -> tuple[list[str], str] | None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    if not parser.has_option("options", "install_requires"):
        return None
    groups = dict(parser.items("options.extras_require")) if parser.has_section("options.extras_require") else {}
    lines = _split(parser.get("options", "install_requires"))
    lines += [line for name, value in groups.items() if normalised(name) in extras for line in _split(value)]
    return lines, parser.get("metadata", "name", fallback="")


def _split(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def _setup_py(text: str, extras: frozenset[str]) -> tuple[list[str], str] | None:
    """Literal arguments of the `setup(...)` call; None where one of them is computed."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    call = next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "setup"
        ),
        None,
    )
    if call is None:
        return None
    given: dict[str, object] = {}
    for keyword in call.keywords:
        if keyword.arg in ("install_requires", "extras_require", "name"):
            try:
                given[keyword.arg] = ast.literal_eval(keyword.value)
            except (ValueError, RecursionError):
                return None
    groups = given.get("extras_require")
    lines = _texts(given.get("install_requires", [])) + _chosen(groups if isinstance(groups, dict) else {}, extras)
    return lines, str(given.get("name", ""))


def read_requirements(path: Path, shown: str, depth: int = 0, text: str | None = None) -> Listed:
    """A pip requirements file, the files it includes too; `text` is its content where the script itself writes it."""
    text = _text(path) if text is None else text
    if text is None:
        return Listed(shown, reason="it is not there beside the script")
    lines = _Lines()
    for line in re.sub(r"\\\n", " ", text).splitlines():
        reason = _line(line.partition(" #")[0].strip(), path, depth, lines)
        if reason:
            return Listed(shown, reason=reason)
    return Listed(shown, tuple(lines.wanted), bool(lines.wanted) and not lines.bare, indexes=tuple(lines.indexes))


def _line(line: str, path: Path, depth: int, lines: _Lines) -> str:
    """Read one line into `lines`; the reason where that is not possible."""
    if not line or line.startswith("#"):
        return ""
    option = re.match(r"(-r|--requirement|-c|--constraint|-i|--index-url|--extra-index-url|-f|--find-links)[ =]+(\S+)", line)
    if option and option[1] in ("-r", "--requirement"):
        if depth >= DEPTH:
            return "it includes too many files one in another"
        inner = read_requirements(path.parent / option[2], option[2], depth + 1)
        lines.wanted += inner.wanted
        lines.bare += 0 if inner.hashed else len(inner.wanted)
        return f"`{option[2]}`: {inner.reason}" if inner.reason else ""
    if option and option[1] not in ("-c", "--constraint"):
        lines.indexes.append(option[2])
        return ""
    text = re.sub(r"^(-e|--editable)[ =]+", "", line)
    if text.startswith("-"):
        return ""
    found = read(re.split(r"\s+--", text, maxsplit=1)[0])
    lines.wanted.append(found)
    lines.bare += "--hash=" not in line and not found.digest
    return ""


def read_conda_file(path: Path, shown: str) -> Listed:
    """The dependencies of conda's environment.yml, in the plain form that `conda env export` writes."""
    text = _text(path)
    if text is None:
        return Listed(shown, reason="it is not there beside the script")
    wanted: list[Wanted] = []
    inside = pip = False
    for line in text.splitlines():
        bare = line.split(" #")[0].rstrip()
        if re.match(r"\S", bare):
            inside, pip = bare.startswith("dependencies:"), False
        item = re.match(r"(\s*)-\s+(.*)", bare) if inside else None
        if item and item[2].strip("'\" ") == "pip:":
            pip = True
        elif item:
            pip = pip and len(item[1]) > 2  # noqa: PLR2004 - pip's own items are indented below it
            value = item[2].strip("'\" ")
            wanted.append(read(value) if pip else read_conda(value))
    return Listed(shown, tuple(wanted), reason="" if wanted else "no dependencies could be read in it")
