"""The form of a lock that every pip knows: a requirements file with one pinned version and its hashes a line.

`[tool.envcheck]` stands at its head as TOML behind `#: `.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import tomli

from envcheck.errors import InputError, UsageError
from envcheck.facts.metadata import normalised
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage
from envcheck.resolve.provenance import provenance_of, provenance_table

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What begins a line of `[tool.envcheck]`.
COMMENT = "#: "


def render(lock: Lock) -> str:
    """The lock as requirements that `pip install --require-hashes` accepts; markers are kept.

    Raises:
        UsageError: A package has no hash (a repository or a folder).
    """
    import tomli_w  # noqa: PLC0415 - only when a lock is written

    unhashed = [package.requirement for package in lock.packages if not package.hashes]
    if unhashed:
        raise UsageError(
            f"no hash exists for {', '.join(f'`{text}`' for text in unhashed)}",
            hints=("write a `pylock.toml`, which can hold repositories and folders", "or name a wheel or an archive by its URL"),
        )
    lines = []
    if lock.provenance:
        said = tomli_w.dumps({"tool": {"envcheck": provenance_table(lock.provenance)}})
        lines += [f"{COMMENT}{line}".rstrip() for line in said.rstrip().split("\n")]
    for package in lock.packages:
        lines += [f"# {reason}" for reason in package.because]
        marker = f" ; {package.marker}" if package.marker else ""
        lines.append(" \\\n    ".join([f"{package.requirement}{marker}", *(f"--hash={text}" for text in package.hashes)]))
    return "\n".join(lines) + "\n"


def parse(text: str, where: str = "requirements.txt") -> Lock:
    """A requirements file in which every line is pinned; hashes where they are recorded.

    Raises:
        InputError: A line is not a pinned requirement; all of them at once.
    """
    said = "\n".join(line[len(COMMENT) :] for line in text.splitlines() if line.startswith(COMMENT.strip()))
    try:
        table = tomli.loads(said).get("tool", {}).get("envcheck")
    except tomli.TOMLDecodeError as error:
        raise InputError(f"the `{COMMENT.strip()}` lines are damaged: {error}", where=where, hints=("lock again",)) from error
    packages, wrong = [], []
    for number, line in _logical_lines(text):
        package = _pinned(line)
        if isinstance(package, LockedPackage):
            packages.append(package)
        else:
            wrong.append(f"line {number}: {package}")
    if wrong or not packages:
        raise InputError("not a lock", where=where, problems=tuple(wrong or ["no pinned requirement"]))
    return Lock(tuple(sorted(packages, key=lambda item: item.name)), "", provenance_of(table, where), "")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Requirement lines with continuations joined, comments and index options left out."""
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        start = start if held else number
        if bare.endswith("\\"):
            held += bare[:-1] + " "
            continue
        whole, held = (held + bare).strip(), ""
        if whole and not whole.startswith(("#", "-i", "--index-url", "--extra-index-url", "--find-links", "-f ")):
            yield start, whole.split(" #")[0].strip()


def _pinned(line: str) -> LockedPackage | str:
    """A pinned requirement, or what is wrong with the line."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - only with a requirements file

    head, *options = line.split(" --")
    hashes = [option.partition("=")[2].strip() for option in options if option.startswith("hash=")]
    try:
        found = Requirement(head.strip())
    except InvalidRequirement as error:
        return f"`{head.strip()[:80]}` is not a requirement: {str(error).splitlines()[0]}"
    pins = [part.version for part in found.specifier if part.operator in ("==", "===") and not part.version.endswith(".*")]
    if not pins and not found.url:
        return f"`{head.strip()[:80]}` is not pinned to one version"
    name = normalised(found.name)
    files = tuple(Artifact("", "", dict([text.split(":", 1)])) for text in hashes if ":" in text)
    marker = str(found.marker) if found.marker else ""
    return LockedPackage(name, pins[0] if pins else _version_of(found.url or ""), marker, files, None, found.url or "")


def _version_of(url: str) -> str:
    """The version in a wheel's name, or an empty string."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return name.split("-")[1] if name.endswith(".whl") and name.count("-") >= 4 else ""  # noqa: PLR2004 - parts of a wheel name
