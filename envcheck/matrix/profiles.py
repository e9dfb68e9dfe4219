"""Find, load and look up profiles. Nothing of this is on the path of a check without a profile."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import tomli

from envcheck.errors import InputError, UsageError
from envcheck.matrix.profile_reading import read_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from envcheck.matrix.profile import Profile

IDENTITY = re.compile(r"""\s*id\s*=\s*["'](.*?)["']""")
SEPARATORS = re.compile(r"[^a-z0-9]+")

#: So many names are suggested.
SUGGESTED = 4


class Named(NamedTuple):
    """What a profile is called, and the file it is in."""

    id: str
    name: str
    aliases: tuple[str, ...]
    file: str


def load_profiles(folder: Path) -> list[Profile]:
    """Every profile of the matrix in `folder`, by file and place in it.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    profiles, mistakes = parse_folder(folder)
    if mistakes:
        raise _mistaken(folder, mistakes)
    return profiles


def parse_folder(folder: Path) -> tuple[list[Profile], list[str]]:
    """Every profile of `folder/profiles`, and every mistake in its files."""
    profiles: list[Profile] = []
    documents, mistakes = _documents(folder)
    for name, document in documents.items():
        found, wrong = read_profiles(document, name)
        profiles += found
        mistakes += wrong
    return profiles, with_lines(folder, [*mistakes, *_taken(profiles)])


def with_lines(folder: Path, mistakes: Sequence[str]) -> list[str]:
    """Mistakes (`FILE: ID.KEY: TEXT`) with the line of the key, or of the profile, behind the file's name."""
    texts: dict[str, str] = {}
    found = []
    for mistake in mistakes:
        file, _, rest = mistake.partition(": ")
        if file not in texts and file.startswith("profiles/"):
            texts[file] = (folder / file).read_text(encoding="utf-8", errors="replace")
        line = line_of(texts.get(file, ""), rest)
        found.append(f"{file}:{line}: {rest}" if line else mistake)
    return found


def line_of(text: str, place: str) -> int:
    """The line that a place in a profiles file (`ID.KEY[2].KEY: ...`, or `profile 2: ...`) is at; 0 where it is not found.

    That is the line on which the outermost key begins, and for a mistake of a whole profile the one that names it.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip().startswith("[[profile]]")] + [len(lines)]
    for index, (start, end) in enumerate(pairwise(starts)):
        named = {match[1]: number for number in range(start, end) if (match := IDENTITY.match(lines[number]))}
        for identity, number in {**named, f"profile {index + 1}": start}.items():
            if place.startswith((f"{identity}.", f"{identity}:")):
                key = re.match(r"(\w+)| unknown key `(\w+)`", place[len(identity) + 1 :])
                return next((at + 1 for at in range(start, end) if key and _begins(lines[at], key[1] or key[2])), number + 1)
    return 0


def _begins(line: str, key: str) -> bool:
    return bool(re.match(rf"\s*(\[\[?profile\.)?{re.escape(key)}\s*(=|\.|\])", line))


def open_profile(folder: Path, name: str) -> Profile:
    """The profile that is called so; only the file it is in is read whole, so mistakes in others do not matter.

    Raises:
        UsageError: None is called so, or several.
        InputError: Mistakes in its file.
    """
    documents, _ = _documents(folder)
    found = find_name([named for file, document in documents.items() for named in _names(document, file)], name)
    profiles, mistakes = read_profiles(documents[found.file], found.file)
    if mistakes:
        raise _mistaken(folder, with_lines(folder, mistakes))
    return next(profile for profile in profiles if profile.id == found.id)


def _documents(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    documents: dict[str, dict[str, Any]] = {}
    mistakes: list[str] = []
    for path in sorted((folder / "profiles").glob("*.toml")):
        name = f"profiles/{path.name}"
        try:
            documents[name] = tomli.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError) as error:
            mistakes.append(f"{name}: {error}")
    return documents, mistakes


def _names(document: dict[str, Any], file: str) -> Iterator[Named]:
    """The names in a file whose values are not checked yet."""
    entries = document.get("profile", [])
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            aliases = entry.get("aliases", [])
            words = tuple(item for item in aliases if isinstance(item, str)) if isinstance(aliases, list) else ()
            yield Named(entry["id"], str(entry.get("name", "")), words, file)


def _mistaken(folder: Path, mistakes: list[str]) -> InputError:
    return InputError(
        f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the profiles", where=str(folder / "profiles"),
        problems=tuple(mistakes), hints=("`matrices/README.md` explains every key",),
    )  # fmt: skip


def _taken(profiles: Sequence[Profile]) -> list[str]:
    """Ids and aliases that two profiles claim."""
    first: dict[str, Profile] = {}
    return [
        f"{profile.file}: {profile.id}: the name `{name}` is taken by `{first[key].id}` ({first[key].file})"
        for profile in profiles
        for name in (profile.id, *profile.aliases)
        if first.setdefault(key := plain(name), profile) is not profile
    ]


def plain(name: str) -> str:
    """A name without case, spaces and punctuation: `VILA 1.5`, `vila-1.5` and `vila_1_5` are one."""
    return SEPARATORS.sub("", name.lower())


def find_name(profiles: Sequence[Named], name: str) -> Named:
    """The profile that is called so, in any spelling; the beginning of a name will do where it is the only one.

    Raises:
        UsageError: None, or several; with the nearest names.
    """
    wanted = plain(name)
    names = {plain(called): profile for profile in profiles for called in (*profile.aliases, profile.name, profile.id)}
    if wanted in names:
        return names[wanted]
    beginning = {profile.id: profile for key, profile in names.items() if wanted and key.startswith(wanted)}
    if len(beginning) == 1:
        return next(iter(beginning.values()))
    if beginning:
        raise UsageError(
            f"`{name}` may be any of {len(beginning)} profiles",
            hints=tuple(f"`{identity}`: {profile.name}" for identity, profile in beginning.items()),
        )
    raise UsageError(f"no profile is called `{name}`", hints=_hints(names, wanted))


def _hints(names: Mapping[str, Named], wanted: str) -> tuple[str, ...]:
    from difflib import get_close_matches  # noqa: PLC0415 - only on this path

    near = dict.fromkeys(names[key].id for key in get_close_matches(wanted, names, n=SUGGESTED, cutoff=0.5))
    listing = "`envcheck profiles` lists them"
    return (f"did you mean {', '.join(f'`{identity}`' for identity in near)}?", listing) if near else (listing,)
