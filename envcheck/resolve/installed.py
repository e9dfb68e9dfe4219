"""What is installed, as a resolver: uv asked, without installing anything, which packages a set of conditions would change.

uv takes an installed version's metadata from the environment, so local builds, editable installs and wheels of other
indexes stay as they are and need not be found anywhere. A snapshot is put to uv as a folder with its metadata alone.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from envcheck.checks.requirements import applies, marker_environment, parse
from envcheck.errors import ToolError
from envcheck.process import run
from envcheck.resolve.nogoods import INSTALLED, NEVER, Step
from envcheck.resolve.search import Answer, Refusal

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from envcheck.facts.model import Distribution, Environment
    from envcheck.process import Completed

#: Seconds for one question; building a source distribution for its metadata is part of it.
DEADLINE = 600.0

CHANGE = re.compile(r"^ ([-+~]) ([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)

#: A pinned requirement with its hashes, as uv writes it.
PINNED = re.compile(r"^([a-z0-9-]+)==.*\n(?:    --hash=.*\n)*", re.MULTILINE)

#: How uv says that it cannot reach an index, rather than that nothing fits.
UNREACHABLE = re.compile(
    r"error sending request|failed to fetch|could not connect|connection (refused|reset)|dns error|network|timed out",
    re.IGNORECASE,
)


class Direction(Enum):
    """Which way a package may move: to older versions or to newer ones, the nearest first; in, or out."""

    OLDER = "<"
    NEWER = ">"
    ADDED = "added"
    GONE = "removed"

    @property
    def word(self) -> str:
        """For progress."""
        return {Direction.OLDER: "older", Direction.NEWER: "newer"}.get(self, self.value)


@dataclass(frozen=True, slots=True)
class Move:
    """A package that may change, and which way."""

    name: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Target:
    """The environment that a change is sought for.

    Attributes:
        uv: The program.
        options: Which environment uv looks at.
        versions: What is installed where uv sees it and can be pinned: name -> version.
        unseen: What uv must neither look for nor add: installed elsewhere, or missing already.
        fixed: What must stay: editable, built locally, or installed from a URL.
        complete: False for a snapshot that does not name every package; what it lacks is then not counted as added.
        eased: Packages that stay although others require another version of them: conflicts that are to be left.
    """

    uv: str
    options: tuple[str, ...]
    versions: Mapping[str, str]
    unseen: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    complete: bool = True
    eased: frozenset[str] = frozenset()


def target_of(environment: Environment, uv: str, python: str | None, prefix: str) -> Target:
    """The environment as uv sees it.

    Args:
        environment: The facts.
        uv: The program.
        python: The interpreter, or None for a snapshot.
        prefix: Its prefix, or the folder that `write_metadata` filled for a snapshot.
    """
    packages = environment.packages.values()
    seen = {item.name: item for item in packages if _version(item.version) and (python is None or _below(item, prefix))}
    version = environment.text("python")
    wanted = ("--python-version", version) if version else ()
    return Target(
        uv=uv,
        options=("--python", python) if python else ("--python", sys.executable, "--prefix", prefix, *wanted),
        versions={name: item.version for name, item in sorted(seen.items())},
        unseen=frozenset(missing(environment)) | (environment.packages.keys() - seen.keys()),
        fixed=frozenset(item.name for item in packages if item.editable or item.direct_url),
        complete=environment.complete,
    )


def _below(item: Distribution, prefix: str) -> bool:
    return Path(os.path.realpath(item.location)).is_relative_to(os.path.realpath(prefix))


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def missing(environment: Environment) -> set[str]:
    """The packages that installed ones require and that are not there."""
    markers = marker_environment(environment, environment.text("python") or ".".join(map(str, sys.version_info[:3])))
    needs = (parse(line) for item in environment.packages.values() for line in item.requires)
    wanted = {need.name for need in needs if need and applies(need, "", markers)}
    return wanted - environment.packages.keys()


def write_metadata(environment: Environment, folder: Path) -> None:
    """Write the metadata of a snapshot's packages where an environment below `folder` would have it."""
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for item in environment.packages.values():
        if _version(item.version):
            info = site / f"{item.name.replace('-', '_')}-{item.version}.dist-info"
            info.mkdir(parents=True)
            requires = "".join(f"Requires-Dist: {' '.join(line.split())}\n" for line in item.requires)
            head = f"Metadata-Version: 2.1\nName: {item.name}\nVersion: {item.version}\n{requires}"
            (info / "METADATA").write_text(head, encoding="utf-8")
            (info / "RECORD").touch()


@dataclass(slots=True)
class Installed:
    """A resolver over the installed set.

    Attributes:
        target: The environment.
        moves: The packages that may change; every other installed one is pinned.
        loose: True to keep the others only where that is possible.
        pins: Versions to pin packages to instead of the installed ones.
    """

    target: Target
    moves: tuple[Move, ...]
    loose: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)

    def specifiers(self) -> dict[str, str]:
        """For every package that is to be there what it may be: pinned, older, newer, or anything."""
        free = {move.name: move.direction for move in self.moves}
        found = {name: "" for name, direction in free.items() if direction is Direction.ADDED}
        for name, version in self.target.versions.items():
            if name not in free:
                found[name] = "" if self.loose and name not in self.target.fixed else f"=={self.pins.get(name, version)}"
            elif free[name] is not Direction.GONE:
                found[name] = f"{free[name].value}{Version(version).public}"
        found.update({name: f"=={version}" for name, version in self.pins.items() if name not in found})
        return found

    def gone(self) -> frozenset[str]:
        """The packages that are to go."""
        return frozenset(move.name for move in self.moves if move.direction is Direction.GONE)

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        """The installed set after the smallest change that uv finds, or why there is none.

        Raises:
            ToolError: uv failed for another reason, such as an index that cannot be reached.
        """
        specifiers = self.specifiers()
        never = sorted(step.name for step in steps if step.clause == NEVER and step.name in specifiers)
        if never:
            return Refusal(f"`{never[0]}` is not uninstalled here")
        added = sorted(step.name for step in steps if step.clause == INSTALLED and step.name not in specifiers)
        wanted = [*(f"{name}{spec}" for name, spec in specifiers.items()), *added]
        bounds = sorted(
            {f"{step.name}{step.clause}" for step in steps if step.clause} | {f"{name}{NEVER}" for name in self.gone()}
        )
        named = specifiers.keys() | set(added)
        ended = self._run(wanted, bounds, self.target.unseen - named)
        if ended.returncode == 0:
            return Answer(self._changed(ended.stderr, named))
        reason = _reason(ended.stderr)
        if ended.returncode != 1 or UNREACHABLE.search(ended.stderr):
            raise ToolError(f"uv could not resolve ({ended.outcome}): {reason}", hints=("is the package index reachable?",))
        return Refusal(reason)

    def _run(self, wanted: Iterable[str], constraints: Iterable[str], unseen: Iterable[str]) -> Completed:
        newer = any(move.direction is Direction.NEWER for move in self.moves)
        with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
            lines = {
                "requirements": wanted, "constraints": constraints,
                "overrides": [*map(nowhere, sorted(unseen)), *self._left()],
            }  # fmt: skip
            for name, text in lines.items():
                Path(folder, name).write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
            return run(
                [
                    self.target.uv, "pip", "install", "--dry-run", "--no-progress", "--color", "never", *self.target.options,
                    "--resolution", "lowest-direct" if newer else "highest",
                    "-r", f"{folder}/requirements", "-c", f"{folder}/constraints", "--overrides", f"{folder}/overrides",
                ],
                timeout=DEADLINE,
            )  # fmt: skip

    def _left(self) -> list[str]:
        moving = {move.name for move in self.moves}
        staying = sorted((self.target.eased & self.target.versions.keys()) - moving)
        return [f"{name}=={self.target.versions[name]}" for name in staying]

    def _changed(self, said: str, named: Container[str]) -> dict[str, str]:
        versions = {name: version for name, version in self.target.versions.items() if name not in self.gone()}
        for sign, name, version in CHANGE.findall(said):
            key = re.sub(r"[-_.]+", "-", name).lower()
            if sign == "-":
                versions.pop(key, None)
            elif self.target.complete or key in self.target.versions or key in named:
                versions[key] = version
        return versions


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    start = next((number for number, line in enumerate(lines) if line.startswith("error")), 0)
    return " ".join(line for line in lines[start:] if line)[:2000]


def hashed(target: Target, versions: Mapping[str, str]) -> str:
    """These packages as requirements with the hashes of every file of theirs.

    Dependencies are resolved away rather than switched off: for a wheel in a folder uv computes the hash only when it
    reads the metadata.

    Raises:
        ToolError: uv cannot say them.
    """
    options = list(target.options)
    if "--prefix" in options:
        del options[options.index("--prefix") : options.index("--prefix") + 2]
    pins = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
        overrides = Path(folder, "overrides")
        others = sorted((target.versions.keys() | target.unseen) - versions.keys())
        overrides.write_text("".join(f"{nowhere(name)}\n" for name in others), encoding="utf-8")
        ended = run(
            [
                target.uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate",
                "--color", "never", "--overrides", str(overrides), *options, "-",
            ],
            timeout=DEADLINE, stdin=pins,
        )  # fmt: skip
    blocks = {found[1]: found[0] for found in PINNED.finditer(ended.stdout)}
    lost = sorted(name for name in versions if "--hash=" not in blocks.get(name, ""))
    if ended.returncode != 0 or lost:
        raise ToolError(f"uv could not say the hashes of {', '.join(lost)} ({ended.outcome}): {_reason(ended.stderr)}")
    return "".join(blocks[name] for name in sorted(versions))


def nowhere(name: str) -> str:
    """The requirement that overrides every other one of this package, and never holds."""
    return f'{name} ; python_version < "0"'
