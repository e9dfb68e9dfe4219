"""Turn a lock into a plan: its form, the interpreters and machines its wheels are for, and whether they fit each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from envcheck.errors import InputError, UsageError
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.reproduce.plan import NEWEST, OLDEST, SHA256, LockKind, Patch, PlacedLock, Pythons, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.facts.model import Fact
    from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage

#: Where PyTorch publishes the builds whose local version names a CUDA release.
TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_LOCAL = re.compile(r"\+(cu\d{2,3}|cpu|rocm[\d.]+|xpu)$")


def read_lock(text: str, where: str) -> tuple[LockKind, Lock]:
    """A lock in either form, as the resolver reads it, with a digest for every file.

    Raises:
        InputError: It is neither form, cut off, or leaves a file open; `problems` holds every mistake.
    """
    from envcheck.resolve import pinned, pylock  # noqa: PLC0415 - one action a run

    if not text.strip():
        raise InputError("the lock is empty", where=where, hints=("a pylock.toml, or a requirements.txt with --hash",))
    kind = LockKind.PYLOCK if re.search(r"^\s*lock-version\s*=", text, re.MULTILINE) else LockKind.REQUIREMENTS
    if kind is LockKind.REQUIREMENTS and where.endswith(".toml"):
        raise InputError("the lock has no `lock-version`", where=where, hints=("is the file complete?",))
    lock = (pylock if kind is LockKind.PYLOCK else pinned).parse(text, where)
    problems = tuple(problem for package in lock.packages if (problem := _left_open(package)))
    if problems:
        raise InputError(
            "the lock does not fix every file",
            where=where,
            problems=problems,
            hints=("`envcheck lock` and `uv pip compile --generate-hashes` write digests",),
        )
    return kind, lock


def _left_open(package: LockedPackage) -> str:
    """What of a package no digest fixes; empty where all is fixed."""
    files = [*package.wheels, *([package.sdist] if package.sdist else [])]
    if package.direct.startswith(("git+", "hg+", "svn+", "bzr+")):
        commit = re.search(r"@[0-9a-f]{40,64}(?:#|$)", package.direct)
        return "" if commit else f"`{package.name}`: a repository without a whole commit id"
    if "directory" in package.table:
        return ""
    if not files:
        return f"`{package.name}` has no digest"
    if any(not SHA256.fullmatch(str(file.hashes.get("sha256", ""))) and not _strong(file) for file in files):
        return f"`{package.name}`: a file without a SHA-256 digest"
    return ""


def _strong(file: Artifact) -> bool:
    return any(
        name in ("sha384", "sha512") and re.fullmatch(r"[0-9a-f]{96,128}", str(value)) for name, value in file.hashes.items()
    )


def wheel_names(package: LockedPackage) -> tuple[str, ...]:
    """File names of all that may be installed where all are wheels and no marker decides; else nothing."""
    direct = unquote(urlsplit(package.direct).path).rpartition("/")[2]
    names = (direct,) if direct else tuple(file.name for file in package.wheels)
    known = bool(names) and all(name.endswith(".whl") for name in names)
    return names if known and not package.marker and not package.sdist else ()


def needs_its_place(text: str, kind: LockKind) -> bool:
    """Whether the lock names files relative to itself, so that it cannot go into a script."""
    if kind is LockKind.PYLOCK:
        return bool(re.search(r"^\s*(path\s*=|directory\b)|[{,]\s*path\s*=", text, re.MULTILINE))
    return bool(
        re.search(
            r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|-f\s+\.|--find-links[= ]+\.|\.{1,2}/)", text, re.MULTILINE
        )
    )


def pythons_of(lock: Lock, stated: str = "") -> Pythons:
    """The interpreters that every wheel fits, within the range that is stated, or that the lock was solved for.

    Raises:
        UsageError: There is none.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - slow to import

    solved = lock.provenance.python if lock.provenance else ""
    text = stated or (f"=={'.'.join(solved.split('.')[:2])}.*" if solved else lock.requires_python)
    try:
        allowed = SpecifierSet(text)
    except InvalidSpecifier as error:
        raise UsageError(f"`{text}` is not a range of Python versions", hints=("such as >=3.10 or ==3.10.*",)) from error
    fitting = {minor for minor in range(OLDEST, NEWEST + 1) if any(f"3.{minor}.{patch}" in allowed for patch in range(40))}
    for package in lock.packages:
        names = wheel_names(package)
        if names:
            fitting &= {minor for name in names for minor in _minors(name)}
        if not fitting:
            raise UsageError(f"no Python fits the lock: the wheels of `{package.name}` are for others than the rest")
    return Pythons(min(fitting), max(fitting))


def _minors(name: str) -> Iterator[int]:
    """Minor versions of CPython that a wheel's file name is for."""
    tags = name.removesuffix(".whl").split("-")[-3:]
    for python in tags[0].split("."):
        single = re.fullmatch(r"cp3(\d+)", python)
        if single and "abi3" not in tags[1].split("."):
            yield int(single[1])
        elif single:
            yield from range(int(single[1]), NEWEST + 1)
        elif re.fullmatch(r"py3\d*", python):
            yield from range(max(OLDEST, int(python[3:] or 0)), NEWEST + 1)


def machine_of(lock: Lock) -> tuple[str, str]:
    """System and architecture that the lock was solved for, or that a package's wheels are all for; empty where any will do."""
    target = lock.provenance.platform if lock.provenance else ""
    platforms = [target] if target else []
    platforms += [
        name.removesuffix(".whl").rpartition("-")[2]
        for package in lock.packages
        for name in wheel_names(package)[:1]
        if all(other.removesuffix(".whl").endswith(name.removesuffix(".whl")[-6:]) for other in wheel_names(package))
    ]
    linux = [platform for platform in platforms if "linux" in platform]
    machines = {word for word in ("x86_64", "aarch64") if any(word in platform for platform in linux)}
    return "Linux" if linux else "", machines.pop() if len(machines) == 1 else ""


def torch_indexes(lock: Lock) -> tuple[str, ...]:
    """PyTorch's index for a torch whose local version names a build, where the lock itself names no file for it."""
    found = {
        match[1]
        for package in lock.packages
        if package.name in ("torch", "torchvision", "torchaudio")
        and not any(file.url for file in package.wheels)
        and not package.direct
        and (match := TORCH_LOCAL.search(package.version))
    }
    return tuple(f"{TORCH_INDEX}{tag}" for tag in sorted(found))


def build_limits(lock: Lock) -> tuple[str, ...]:
    """What the lock was solved with as limits on what builds source archives."""
    from envcheck.resolve.provenance import BUILD  # noqa: PLC0415 - one action a run

    return tuple(lock.provenance.options.get(BUILD, "").splitlines()) if lock.provenance else ()


def as_environment(lock: Lock, minor: int) -> Environment:
    """The environment that the lock makes on Python 3.`minor` (0: not known), as far as its wheels' names decide."""
    facts: dict[str, Fact] = {"python": Known(f"3.{minor}", "the lock")} if minor else {}
    packages = {}
    for package in lock.packages:
        names = wheel_names(package)
        if package.version:
            packages[package.name] = Distribution(package.name, package.version, direct_url=names[0] if len(names) == 1 else "")
    return Environment(packages=packages, facts=facts, source="the lock")


def read_patches(text: str, where: str) -> tuple[Patch, ...]:
    """A patch file: `[[patch]]` tables with `file`, `source`, `before` and `after`.

    Raises:
        InputError: Not TOML, or fields missing or wrong; `problems` holds every mistake.
    """
    import tomli  # noqa: PLC0415 - only with --patches

    try:
        document = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"the patch list is not TOML: {error}", where=where) from error
    entries = document.get("patch")
    if not isinstance(entries, list) or not entries:
        raise InputError("the patch list has no [[patch]]", where=where)
    problems: list[str] = []
    patches = [patch for number, entry in enumerate(entries, 1) if (patch := _patch(entry, number, problems))]
    if problems:
        raise InputError("the patch list has mistakes", where=where, problems=tuple(problems))
    return tuple(patches)


def _patch(entry: object, number: int, problems: list[str]) -> Patch | None:
    fields = entry if isinstance(entry, dict) else {}
    texts = {key: fields.get(key) for key in ("file", "source", "before", "after")}
    for key, value in texts.items():
        if not isinstance(value, str):
            problems.append(f"patch {number}: `{key}` must be a text")
        elif key in ("before", "after") and not (SHA256.fullmatch(value) or (key == "before" and value in ("absent", "locked"))):
            more = ", or `absent`, or `locked`" if key == "before" else ""
            problems.append(f"patch {number}: `{key}` must be a SHA-256 digest{more}")
        elif key in ("file", "source"):
            try:
                check_path(value, f"`{key}`")
            except UsageError as error:
                problems.append(f"patch {number}: {error.message}")
    if any(not isinstance(value, str) for value in texts.values()):
        return None
    return Patch(**{key: str(value) for key, value in texts.items()})


def placed(text: str, kind: LockKind, packages: int, beside: str = "") -> PlacedLock:
    """The lock of a plan: beside the script under that path, or inside it.

    Raises:
        InputError: It names files relative to itself and was to go into the script.
    """
    if beside:
        return PlacedLock(kind, path=check_path(beside, "the lock"), packages=packages)
    if needs_its_place(text, kind):
        hint = "use --beside to leave it a file beside the script"
        raise InputError("the lock names files relative to itself and cannot go into the script", hints=(hint,))
    if "\0" in text or "\r" in text.replace("\r\n", "\n"):
        raise InputError("the lock holds control characters")
    return PlacedLock(kind, text=text.replace("\r\n", "\n"), packages=packages)
