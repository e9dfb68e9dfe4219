"""What a lock was solved for: the `[tool.envcheck]` table, read and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "envcheck.lock/1"

#: The option that holds the limits on what builds source archives, a line each: who installs the lock needs them too.
BUILD = "build-constraints"

#: The types of JSON values that TOML has too.
HELD = (str, int, float, dict, list)


@dataclass(frozen=True, slots=True)
class Shaping:
    """A rule that shaped the lock: its id, the combination it forbids, and the condition that keeps the lock out of it."""

    rule: str
    forbids: str
    instead: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a lock was solved for: the `[tool.envcheck]` table.

    Attributes:
        requirements: What was asked for.
        constraints: Versions that were asked for without asking for the package.
        python: `major.minor` (or the full version that was asked for).
        platform: uv's name of the target platform.
        facts: The machine facts the lock hangs on, by the vocabulary's names; lists joined by a comma.
        settings: The training settings, flat.
        others: Further training settings that the same set serves, each flat.
        uses: Usage words.
        matrix: Digest of the matrix.
        rules: The rules that shaped the lock.
        waived: Rule id -> reason.
        unavoided: Ids of rules that hang on an unknown setting and could not be avoided.
        measured: Digest of the measured run whose versions were preferred, or an empty string.
        options: Further options that change the answer: torch backend, cut-off date, limits on builds.
    """

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    python: str = ""
    platform: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Mapping[str, Any], ...] = ()
    uses: tuple[str, ...] = ()
    matrix: str = ""
    rules: tuple[Shaping, ...] = ()
    waived: Mapping[str, str] = field(default_factory=dict)
    unavoided: tuple[str, ...] = ()
    measured: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def provenance_of(said: object, where: str) -> Provenance | None:
    """The `[tool.envcheck]` table as a value; None where there is none.

    Raises:
        InputError: It is there and not what this release writes.
    """
    if said is None:
        return None
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise InputError(f"`tool.envcheck` is not `{SCHEMA}`", where=where, hints=("lock again with this release",))
    try:
        return Provenance(
            requirements=tuple(map(str, said["requirements"])),
            constraints=tuple(map(str, said.get("constraints", []))),
            python=str(said["python"]),
            platform=str(said["platform"]),
            facts={str(key): str(value) for key, value in said.get("facts", {}).items()},
            settings=dict(said.get("settings", {})),
            others=tuple(dict(item) for item in said.get("others", [])),
            uses=tuple(map(str, said.get("uses", []))),
            matrix=str(said["matrix"]),
            rules=tuple(Shaping(item["id"], item["forbids"], item["instead"]) for item in said.get("rules", [])),
            waived={str(key): str(value) for key, value in said.get("waived", {}).items()},
            unavoided=tuple(map(str, said.get("unavoided", []))),
            measured=str(said.get("measured", "")),
            options={str(key): str(value) for key, value in said.get("options", {}).items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"`tool.envcheck` is damaged: {error}", where=where, hints=("lock again",)) from error


def provenance_table(provenance: Provenance) -> dict[str, Any]:
    """The `[tool.envcheck]` table; empty parts are left out, keys of tables are sorted."""
    table: dict[str, Any] = {
        "schema": SCHEMA, "matrix": provenance.matrix, "python": provenance.python, "platform": provenance.platform,
        "requirements": list(provenance.requirements), "constraints": list(provenance.constraints),
        "uses": list(provenance.uses), "unavoided": list(provenance.unavoided), "measured": provenance.measured,
        "options": _sorted(provenance.options), "facts": _sorted(provenance.facts),
        "settings": _plain(dict(provenance.settings)), "others": [_plain(dict(item)) for item in provenance.others],
        "waived": _sorted(provenance.waived),
        "rules": [{"id": item.rule, "forbids": item.forbids, "instead": item.instead} for item in provenance.rules],
    }  # fmt: skip
    return {key: value for key, value in table.items() if value or key == "requirements"}


def _sorted(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: table[key] for key in sorted(table)}


def _plain(value: object) -> object:
    """A setting as TOML can hold it; what it cannot hold (null, known not to be set) goes out of objects and lists."""
    if isinstance(value, dict):
        return {str(key): _plain(value[key]) for key in sorted(value) if isinstance(value[key], HELD)}
    return [_plain(item) for item in value if isinstance(item, HELD)] if isinstance(value, list) else value
