"""What a script comes to as a request for a lock: requirements, overrides, files laid over, and all that no lock holds."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from envcheck.facts.metadata import normalised
from envcheck.matrix.versions import satisfies
from envcheck.reproduce.expansion import SITE
from envcheck.reproduce.faults import INSTALLERS
from envcheck.reproduce.intent import TORCH_INDEX, place_of
from envcheck.reproduce.plan import Patch
from envcheck.reproduce.project import build_requires
from envcheck.reproduce.steps import (
    Clone,
    Download,
    Install,
    NotUnderstood,
    Remove,
    System,
    TouchSitePackages,
)
from envcheck.reproduce.wanted import Kind, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from envcheck.reproduce.intent import Asked, Intent
    from envcheck.reproduce.script import Script
    from envcheck.reproduce.steps import Step
    from envcheck.reproduce.wanted import Wanted

#: Of conda's packages, those that PyPI has under the same name and the same versions, as training scripts install them.
ON_PYPI = frozenset(
    {"torch", "torchvision", "torchaudio", "numpy", "scipy", "pandas", "pip", "setuptools", "wheel", "packaging", "ninja"}
)

#: Indexes that a lock has anyway.
USUAL = re.compile(r"https://pypi\.org/simple/?$|https://download\.pytorch\.org/whl/(?:nightly/)?(?:cu\d+|cpu)/?$")

#: Options that mean something to pip and nothing to a lock.
DROPPED = {
    "--no-deps": "the lock holds what its packages require",
    "--pre": "the lock takes pre-releases only where one is named",
    "--user": "the lock goes into the environment",
}


@dataclass(frozen=True, slots=True)
class Left:
    """A step, or a part of one, that the lock does not hold: its line, what it is, and why."""

    line: int
    what: str
    why: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"line {self.line}: {self.what} ({self.why})"


@dataclass(frozen=True, slots=True)
class Wish:
    """A script's intention.

    Attributes:
        requirements: PEP 508 lines, one a package: what decides its version at the end of the script.
        overrides: Of them, those that a later line installs over an earlier pin, whatever others require.
        later: Versions that a later line than the first asks for: what pip installs then in spite of what is there.
        constraints: Lines of constraint files.
        python: `major.minor`, or an empty string.
        backend: `cpu` or a CUDA tag where the script takes torch from PyTorch's index, else an empty string.
        find_links: Places of wheels.
        editable: The folder of the project that it installs in place, or an empty string.
        patches: Files that it copies into site-packages and that lie beside the script.
        left: What else it does.
        decided: Where the script itself leaves open whether something is installed.
    """

    requirements: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    python: str = ""
    backend: str = ""
    find_links: tuple[str, ...] = ()
    editable: str = ""
    patches: tuple[Patch, ...] = ()
    left: tuple[Left, ...] = ()
    decided: tuple[str, ...] = ()


@dataclass(slots=True)
class _Wishing:
    folder: Path
    intent: Intent
    order: dict[int, int]
    fetched: dict[str, str]
    left: list[Left] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    patches: dict[str, Patch] = field(default_factory=dict)
    editable: str = ""
    links: list[str] = field(default_factory=list)
    backend: str = ""


def wish_of(script: Script, steps: Sequence[Step], intent: Intent, folder: Path) -> Wish:
    """What a script asks for.

    Args:
        script: The script, for what could not be followed in it.
        steps: Its steps in order.
        intent: What they ask for together.
        folder: Its folder; files that it copies are read there.
    """
    order = {id(step.command): number for number, step in enumerate(steps)}
    state = _Wishing(folder, intent, order, _fetched(steps))
    for step in steps:
        _step(state, step)
    lines = _decisive(state, steps)
    state.left += [Left(item.line, item.source, item.reason) for item in script.unread]
    unread = [(step.command.line, file) for step, file in intent.listed if file.reason]
    state.left += [Left(line, f"installs what {file.file} lists", file.reason) for line, file in unread]
    final = intent.final()
    over = [name for name in lines if final[name].wanted.version and _replaced(intent, final[name])]
    begun = [order[id(item.step.command)] for item in intent.asked if item.wanted.name not in INSTALLERS]
    first = min(begun, default=0)
    later = [name for name in lines if final[name].wanted.specifier and order[id(final[name].step.command)] > first]
    return Wish(
        requirements=(*(lines[name] for name in sorted(lines)), *_builders(state, lines)),
        overrides=tuple(lines[name] for name in over),
        later=tuple(lines[name] for name in later if name not in over),
        constraints=tuple(dict.fromkeys(item.text for item in intent.constraints if item.kind in (Kind.PINNED, Kind.RANGE))),
        python=".".join(intent.python.split(".")[:2]),
        backend=state.backend,
        find_links=tuple(dict.fromkeys(state.links)),
        editable=state.editable,
        patches=tuple(state.patches.values()),
        left=tuple(sorted(set(state.left), key=lambda item: (item.line, item.what))),
        decided=tuple(dict.fromkeys(state.decided)),
    )


def _decisive(state: _Wishing, steps: Sequence[Step]) -> dict[str, str]:
    """The requirement line of each package that stands at the end of the script."""
    lines: dict[str, str] = {}
    for item in (item for item in state.intent.asked if not item.wanted.name):
        _line(state, item)
    for name, item in state.intent.final().items():
        line = _line(state, item)
        if line and not _gone(steps, name, state.order[id(item.step.command)]):
            lines[name] = line
            if item.step.command.branches:
                state.decided.append(f"line {item.line} runs in some cases only; the lock takes it: {item.step.command.source}")
    return lines


def _builders(state: _Wishing, lines: dict[str, str]) -> list[str]:
    """What builds the project that is installed in place: the new script builds it with what the environment has."""
    wanted = build_requires(state.folder / state.editable) if state.editable else []
    return [line for line in wanted if read(line).name not in lines]


def _step(state: _Wishing, step: Step) -> None:
    """What one step means beside the requirements."""
    if isinstance(step, Install):
        _install(state, step)
    elif not (isinstance(step, TouchSitePackages) and not step.command.branches and _patch(state, step)):
        told = _told(state, step)
        if told:
            state.left.append(Left(step.command.line, *told))


def _told(state: _Wishing, step: Step) -> tuple[str, str] | None:
    """What a step does that no lock holds, and why; None where it changes nothing, or makes the environment itself."""
    match step:
        case TouchSitePackages(verb=verb, target=target):
            return f"{verb} {target}", "files changed inside site-packages"
        case Download(url=url):
            if state.fetched.get(url.rpartition("/")[2]) == url and _installed(state, url):
                return None
            return f"downloads {url}", "a file, not a package"
        case Clone(url=url):
            return f"clones {url}", "a repository, not a package"
        case System(tool=tool, names=names):
            return f"{tool}: {' '.join(names)}", "packages of the operating system"
        case Remove(names=names):
            gone = [name for name in names if normalised(name) not in state.intent.final()]
            return (f"removes {' '.join(gone)}", "what the lock brings in is not removed") if gone else None
        case NotUnderstood(command=command, reason=reason):
            return command.source, reason
        case _:
            return None


def _install(state: _Wishing, step: Install) -> None:
    line = step.command.line
    for flag in sorted(DROPPED.keys() & step.flags):
        state.decided.append(f"line {line}: `{flag}` is not kept: {DROPPED[flag]}")
    if step.locked and step.tool == "uv sync":
        state.left.append(Left(line, "uv sync", "it installs what uv.lock says: `uv export --format pylock.toml` is the lock"))
    for index in step.indexes:
        found = TORCH_INDEX.search(index)
        if found:
            state.backend = found[1]
        elif not step.tool.startswith("conda") and not USUAL.match(index):
            _link(state, step, index)
    for wanted in step.wanted:
        if wanted.kind is Kind.LOCAL and step.tool != "uv sync":
            _project(state, step, wanted)
        elif step.tool.startswith("conda") and wanted.name != "python":
            _conda(state, line, wanted)


def _link(state: _Wishing, step: Install, place: str) -> None:
    option = next((word.text for word in step.command.arguments if word.text.startswith(("-f", "--find-links"))), "")
    if option:
        state.links.append(place)
    else:
        state.left.append(
            Left(step.command.line, f"the index {place}", "set UV_INDEX to it before you lock, and before you run the script")
        )


def _project(state: _Wishing, step: Install, wanted: Wanted) -> None:
    found = place_of(state.folder, step, wanted.url)
    shown = found[1] if found is not None and any((found[0] / name).is_file() for name in ("pyproject.toml", "setup.py")) else ""
    if shown and "--editable" in step.flags and state.editable in ("", shown):
        state.editable = shown
    else:
        why = (
            "a project is installed in place only, and only one, from below the script"
            if shown
            else "it does not lie beside the script"
        )
        state.left.append(Left(step.command.line, f"installs {wanted.text}", why))


def _conda(state: _Wishing, line: int, wanted: Wanted) -> None:
    build = re.fullmatch(r"==(\d+)\.(\d)(?:\.\*|\.\d+)?", wanted.specifier) if wanted.name == "pytorch-cuda" else None
    if build:
        state.backend = f"cu{build[1]}{build[2]}"
    elif wanted.name not in ON_PYPI:
        state.left.append(Left(line, f"conda's {wanted.text}", "no package of PyPI, as far as is known"))


def _patch(state: _Wishing, step: TouchSitePackages) -> bool:
    """Turn a copy into site-packages into patches where every file lies beside the script; returns whether that worked."""
    inside = step.target.partition(SITE)[2] or re.sub(r"^.*?(?:site|dist)-packages", "", step.target)
    target = inside.strip("/")
    if step.verb != "copies" or step.command.name != "cp" or not target or "$" in target or "*" in target:
        return False
    if step.folder is None:
        return False
    found: dict[str, Patch] = {}
    into = step.target.endswith("/") or len(step.sources) > 1 or not posixpath.splitext(target)[1]
    for source in step.sources:
        place = source if source.startswith(("/", "~")) else posixpath.normpath(posixpath.join(step.folder, source))
        place += "/." if source.endswith("/.") else ""
        for file, below in _files(state.folder, place, recursive=_recursive(step), into=into):
            digest = hashlib.sha256((state.folder / file).read_bytes()).hexdigest()
            name = posixpath.normpath(f"{target}/{below}") if below else target
            found[name] = Patch(name, file, "locked", digest)
    state.patches.update(found)
    return bool(found)


def _recursive(step: TouchSitePackages) -> bool:
    return any(re.fullmatch(r"-\w*[rRa]\w*|--recursive|--archive", word.text) for word in step.command.arguments)


def _files(folder: Path, plain: str, *, recursive: bool, into: bool) -> Iterator[tuple[str, str]]:
    """The files of a `cp` source: below the script's folder, and below the target (empty: the target is the file)."""
    if plain.startswith(("/", "~")) or ".." in plain.split("/") or re.search(r"[$?\[<]", plain) or "*" in plain.removesuffix("*"):
        return
    base = folder / plain.removesuffix("*")
    if plain.endswith("/*") or plain == "*":
        roots = sorted(base.iterdir()) if base.is_dir() else []
        above = base
    elif base.is_file():
        yield plain, base.name if into else ""
        return
    else:
        roots, above = ([base], base.parent) if base.is_dir() else ([], base)
        above = base if plain.endswith("/.") else above
    for root in roots:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file()) if recursive else []
        for path in files:
            if "__pycache__" not in path.parts:
                yield path.relative_to(folder).as_posix(), path.relative_to(above).as_posix()


def _line(state: _Wishing, item: Asked) -> str:
    """The PEP 508 line of a requirement; empty, and told in `left`, where it has none."""
    wanted = item.wanted
    if item.step.tool.startswith("conda") and wanted.name not in ON_PYPI:
        return ""
    extras = sorted({extra for other in state.intent.asked if other.wanted.name == wanted.name for extra in other.wanted.extras})
    name = wanted.name + (f"[{','.join(extras)}]" if extras else "")
    marker = f" ; {wanted.marker}" if wanted.marker else ""
    match wanted.kind:
        case Kind.PINNED | Kind.RANGE | Kind.BARE:
            return f"{name}{_specifier(state.intent, item)}{marker}"
        case Kind.WHEEL | Kind.ARCHIVE if wanted.name and "://" in _address(state, wanted):
            return f"{name} @ {_address(state, wanted)}{marker}"
        case Kind.VCS if "git+" in wanted.text:
            part = re.search(r"subdirectory=[^&]+", wanted.text.partition("#")[2])
            ref = f"@{wanted.ref}" if wanted.ref else ""
            return f"{name} @ git+{wanted.url}{ref}" + (f"#{part[0]}" if part else "") + marker
        case _:
            reason = (
                "what it is depends on something not known here"
                if wanted.kind is Kind.UNKNOWN
                else "it names no package of an index"
            )
            state.left.append(Left(item.line, f"installs {wanted.text}", reason))
            return ""


def _specifier(intent: Intent, item: Asked) -> str:
    """The versions that are left: those of the line that decides, within earlier ranges where both can hold."""
    found = SpecifierSet(item.wanted.specifier)
    for other in intent.asked:
        if other is item:
            break
        if other.wanted.name == item.wanted.name and other.wanted.kind is Kind.RANGE and item.wanted.kind is Kind.RANGE:
            both = found & SpecifierSet(other.wanted.specifier)
            found = found if both.is_unsatisfiable() else both
    return str(found)


def _fetched(steps: Sequence[Step]) -> dict[str, str]:
    """By its name, the address of each wheel that the script downloads."""
    names = {step.file.rpartition("/")[2]: step.url for step in steps if isinstance(step, Download)}
    return {name: url for name, url in names.items() if name.endswith(".whl") and "$" not in url}


def _address(state: _Wishing, wanted: Wanted) -> str:
    """Where a wheel or archive comes from: its URL, or that of the download of the file that is named."""
    return wanted.url if "://" in wanted.url else state.fetched.get(wanted.url.rpartition("/")[2], "")


def _installed(state: _Wishing, url: str) -> bool:
    return any(item.wanted.kind is Kind.WHEEL and _address(state, item.wanted) == url for item in state.intent.asked)


def _replaced(intent: Intent, item: Asked) -> bool:
    """Whether another line that runs too asked for another version of the same package."""
    others = [other for other in intent.asked if other.wanted.name == item.wanted.name and other is not item]
    together = [other.wanted for other in others if not other.step.command.excludes(item.step.command)]
    return any(wanted.version and satisfies(item.wanted.version, f"=={wanted.version}") is False for wanted in together)


def _gone(steps: Sequence[Step], name: str, at: int) -> bool:
    """Whether a later step uninstalls the package."""
    return any(isinstance(step, Remove) and name in map(normalised, step.names) for step in steps[at + 1 :])
