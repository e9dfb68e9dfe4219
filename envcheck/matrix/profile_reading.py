"""Read a profiles file: every mistake of the file at once, each with the path to its key."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from envcheck.facts.document import Reader
from envcheck.matrix.profile import (
    QUANTITIES,
    USES,
    Apart,
    Bound,
    LeftOut,
    Locking,
    Need,
    Pitfall,
    Profile,
    Provenance,
    Recipe,
    Server,
    Source,
    Step,
    Verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

IDENTIFIER = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?")

#: Fields that hold requirement lines.
REQUIREMENTS = frozenset({"requires", "overrides", "also", "build", "stand_ins"})

#: Tables inside a profile, by the name of their class.
RECORDS: dict[str, type] = {
    cls.__name__: cls for cls in (Apart, Bound, LeftOut, Locking, Need, Pitfall, Provenance, Recipe, Server, Source, Step, Verify)
}


def read_profiles(document: Mapping[str, Any], file: str) -> tuple[list[Profile], list[str]]:
    """Profiles of one parsed TOML document and every mistake in it.

    Args:
        document: The parsed file: `profile` (list of tables) and `pitfall` (list of tables shared by several).
        file: Its name, for messages.
    """
    top = Reader(file)
    for key in document.keys() - {"profile", "pitfall"}:
        top.wrong(f"unknown key `{key}`")
    found = list(_profiles(document.get("profile", []), file, top))
    shared = list(_shared(document.get("pitfall", []), {profile.id for profile in found}, top))
    return [_with_shared(profile, shared) for profile in found], top.mistakes


def _profiles(entries: Any, file: str, top: Reader) -> Iterator[Profile]:  # noqa: ANN401 - TOML values
    if not top.at("profile").expect(entries, list, "an array of tables (`[[profile]]`)"):
        return
    for index, entry in enumerate(entries):
        identity = entry.get("id") if isinstance(entry, dict) else None
        here = Reader(f"{file}: {identity}" if isinstance(identity, str) else f"{file}: profile {index + 1}", top.mistakes)
        profile = read_record(Profile, entry, here)
        if profile is not None:
            _check_whole(profile, here)
            yield replace(profile, file=file)


def _shared(entries: Any, known: set[str], top: Reader) -> Iterator[tuple[frozenset[str], Pitfall]]:  # noqa: ANN401
    if not top.at("pitfall").expect(entries, list, "an array of tables (`[[pitfall]]`)"):
        return
    for index, entry in enumerate(entries):
        here = top.at("pitfall").at(index)
        if not here.expect(entry, dict, "a table"):
            continue
        names = here.at("profiles").texts(entry.get("profiles", []))
        for name in (name for name in names if name not in known):
            here.at("profiles").wrong(f"no profile of this file is called `{name}`")
        pitfall = read_record(Pitfall, {key: value for key, value in entry.items() if key != "profiles"}, here)
        if pitfall is not None:
            yield frozenset(names), pitfall


def _with_shared(profile: Profile, shared: list[tuple[frozenset[str], Pitfall]]) -> Profile:
    return replace(profile, pitfalls=(*profile.pitfalls, *(item for names, item in shared if profile.id in names)))


def read_record(cls: type[T], value: Any, here: Reader) -> T | None:  # noqa: ANN401 - TOML values
    """A table as a dataclass: the fields' annotations say what each key must be.

    Returns:
        The record, or None where it is no table or lacks a key (mistakes are noted).
    """
    if not here.expect(value, dict, "a table"):
        return None
    known = {entry.name: entry for entry in fields(cls) if cls is not Profile or entry.name != "file"}  # type: ignore[arg-type]
    for key in value.keys() - known.keys():
        here.wrong(f"unknown key `{key}`")
    needed = [name for name, entry in known.items() if entry.default is MISSING and entry.default_factory is MISSING]
    for name in (name for name in needed if name not in value):
        here.wrong(f"`{name}` is missing")
    read = {name: _field(str(entry.type), name, value[name], here.at(name)) for name, entry in known.items() if name in value}
    found = {name: item for name, item in read.items() if item is not None}
    return cls(**found) if found.keys() >= set(needed) else None


def _field(kind: str, name: str, value: Any, here: Reader) -> Any:  # noqa: ANN401 - TOML values
    """One value by its annotation: a text, a flag, texts, a table of texts, or records."""
    if kind in READERS:
        read = READERS[kind](value, here)
        if name in REQUIREMENTS:
            _check_requirements(read, here)
        return read
    inner = kind.removeprefix("tuple[").removesuffix(", ...]").removesuffix(" | None")
    if not kind.startswith("tuple["):
        return read_record(RECORDS[inner], value, here)
    if not here.expect(value, list, "an array of tables"):
        return ()
    read = (read_record(RECORDS[inner], item, here.at(index)) for index, item in enumerate(value))
    return tuple(item for item in read if item is not None)


def _text(value: Any, here: Reader) -> str:  # noqa: ANN401 - TOML values
    """A text; a number or a date is taken as it is written."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return str(value) if hasattr(value, "isoformat") else here.text(value)


def _flag(value: Any, here: Reader) -> bool:  # noqa: ANN401 - TOML values
    return bool(here.expect(value, bool, "true or false") and value)


def _groups(value: Any, here: Reader) -> dict[str, tuple[str, ...]]:  # noqa: ANN401 - TOML values
    found = {key: below.texts(lines) for key, lines, below in here.items(value, "a table")}
    for key, lines in found.items():
        _check_requirements(lines, here.at(key))
    return found


def _table(value: Any, here: Reader) -> dict[str, Any]:  # noqa: ANN401 - TOML values
    return dict(value) if here.expect(value, dict, "a table") else {}


READERS: dict[str, Callable[[Any, Reader], Any]] = {
    "str": _text,
    "bool": _flag,
    "tuple[str, ...]": lambda value, here: here.texts(value),
    "dict[str, tuple[str, ...]]": _groups,
    "dict[str, Any]": _table,
}


def _check_whole(profile: Profile, here: Reader) -> None:
    """What must hold of a profile's values."""
    for name in (profile.id, *profile.aliases):
        if not IDENTIFIER.fullmatch(name):
            here.at("id").wrong(f"must be kebab-case, not `{name}`")
    for word in (word for word in profile.use if word not in USES):
        here.at("use").wrong(f"must be of {', '.join(USES)}, not `{word}`")
    _check_specifier(profile.python, here.at("python"))
    for name in (name for name in profile.groups if name not in profile.optional):
        here.at("groups").wrong(f"`optional` has no `{name}`")
    if profile.server not in ("", "required"):
        here.at("server").wrong("must be `required` or left out")
    if not DATE.fullmatch(profile.source.date) or not DATE.fullmatch(profile.provenance.reviewed):
        here.wrong("`source.date` and `provenance.reviewed` must be dates (2026-11-24, or 2026-11)")
    _check_records(profile, here)


def _check_records(profile: Profile, here: Reader) -> None:
    """What must hold of the tables inside a profile."""
    lines = {"apart": [item.spec for item in profile.apart], "bounds": [item.spec for item in profile.bounds],
             "forbids": [item.spec for item in profile.forbids]}  # fmt: skip
    for key, specs in lines.items():
        for index, spec in enumerate(specs):
            _check_requirements((spec,), here.at(key).at(index))
    for index, server in enumerate(profile.servers):
        _check_specifier(server.spec, here.at("servers").at(index).at("spec"))
        if server.package:
            _check_requirements((server.requirement,), here.at("servers").at(index))
    for index, need in enumerate(profile.needs):
        _check_need(need, here.at("needs").at(index))
    for index, step in enumerate(profile.steps):
        if step.verify:
            _check_verify(step.verify, here.at("steps").at(index).at("verify"))


def _check_need(need: Need, here: Reader) -> None:
    if need.what not in QUANTITIES:
        here.at("what").wrong(f"must be one of {', '.join(QUANTITIES)}, not `{need.what}`")
    if bool(need.at_least) == bool(need.at_most):
        here.wrong("needs exactly one of `at_least` and `at_most`")
    if need.at_most and need.what != "compute_capability":
        here.wrong("`at_most` is for compute_capability")
    try:
        Version(need.at_least or need.at_most)
    except InvalidVersion:
        here.wrong(f"`{need.at_least or need.at_most}` is not a number or version")


def _check_verify(verify: Verify, here: Reader) -> None:
    ways = [name for name in ("installed", "program", "patched", "git") if getattr(verify, name)]
    if len(ways) != 1:
        here.wrong("needs exactly one of installed, program, patched, git")
    if verify.installed:
        _check_requirements((verify.installed,), here.at("installed"))
    if verify.git and not verify.url:
        here.wrong("`git` needs a `url`")
    _check_specifier(verify.instead, here.at("instead"))


def _check_requirements(lines: tuple[str, ...], here: Reader) -> None:
    for line in lines:
        try:
            Requirement(line)
        except InvalidRequirement:
            here.wrong(f"`{line}` is not a requirement")


def _check_specifier(text: str, here: Reader) -> None:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        here.wrong(f"`{text}` is not a specifier set")
