"""Find, load and look up profiles. Nothing of this is on the path of a check without a profile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import tomli

from envcheck.errors import InputError, UsageError
from envcheck.matrix.profile_reading import read_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from envcheck.matrix.profile import Profile

SEPARATORS = re.compile(r"[^a-z0-9]+")

#: So many names are suggested.
SUGGESTED = 4


def load_profiles(folder: Path) -> list[Profile]:
    """Every profile of the matrix in `folder`, by file and place in it.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    profiles, mistakes = parse_folder(folder)
    if mistakes:
        raise InputError(
            f"{len(mistakes)} mistakes in the profiles", where=str(folder / "profiles"), problems=tuple(mistakes),
            hints=("`matrices/README.md` explains every key",),
        )  # fmt: skip
    return profiles


def parse_folder(folder: Path) -> tuple[list[Profile], list[str]]:
    """Every profile of `folder/profiles`, and every mistake in its files."""
    profiles: list[Profile] = []
    mistakes: list[str] = []
    for path in sorted((folder / "profiles").glob("*.toml")):
        name = f"profiles/{path.name}"
        try:
            found, wrong = read_profiles(tomli.loads(path.read_text(encoding="utf-8")), name)
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError) as error:
            mistakes.append(f"{name}: {error}")
            continue
        profiles += found
        mistakes += wrong
    return profiles, [*mistakes, *_taken(profiles)]


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


def find_profile(profiles: Sequence[Profile], name: str) -> Profile:
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


def _hints(names: dict[str, Profile], wanted: str) -> tuple[str, ...]:
    from difflib import get_close_matches  # noqa: PLC0415 - only on this path

    near = dict.fromkeys(names[key].id for key in get_close_matches(wanted, names, n=SUGGESTED, cutoff=0.5))
    listing = "`envcheck profiles` lists them"
    return (f"did you mean {', '.join(f'`{identity}`' for identity in near)}?", listing) if near else (listing,)
