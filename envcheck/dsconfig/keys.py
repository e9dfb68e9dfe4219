"""The DeepSpeed key table: what each key is, and in which releases DeepSpeed reads it.

The table is `matrices/tables/deepspeed_keys.toml`; `tools/deepspeed_keys.py` makes it from DeepSpeed's own sources.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The old name of a section that DeepSpeed still reads.
OLD_SECTIONS = {"bfloat16": "bf16"}

#: How alike a name must be to be called a misspelling.
ALIKE = 0.8


class Key(NamedTuple):
    """One key.

    Attributes:
        name: Dotted.
        type: bool, int, float, str, list, object or any.
        default: As JSON, in the newest release; empty where there is none.
        computed: How DeepSpeed works out the default where `default` is not all there is to say; empty where it does not.
        defaults: Where the default changed: release and default from there on.
        nullable: Whether null is taken.
        alias: The name people write for it, where this one is only the field's name.
        allowed: The values it can have, or empty.
        least, above, most, below: Bounds, or None.
        bounds_since: First release with these bounds; empty where the first one listed has them.
        bounds_before: Bounds in the releases before that, by the same names.
        since: First release that reads it; empty where the first one listed does.
        absent: First release of a time without it, and the first that reads it again; or empty.
        removed: First release that does not; empty where the newest does.
        refused: DeepSpeed's own message where it stops at the removed key.
        deprecated: First release that calls it deprecated.
        instead: What replaces it.
        means: What it does, in DeepSpeed's words.
    """

    name: str
    type: str = "any"
    default: str = ""
    computed: str = ""
    defaults: tuple[tuple[str, str], ...] = ()
    nullable: bool = False
    alias: str = ""
    allowed: tuple[Any, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    bounds_since: str = ""
    bounds_before: Mapping[str, float] = MappingProxyType({})
    since: str = ""
    absent: tuple[str, ...] = ()
    removed: str = ""
    refused: str = ""
    deprecated: str = ""
    instead: str = ""
    means: str = ""

    def bounds_at(self, version: Version | None) -> tuple[Key, bool]:
        """The key with the bounds of a release, and whether they are certain: not where they changed and no release is known."""
        if not self.bounds_since or (version is not None and version >= Version(self.bounds_since)):
            return self, True
        if version is None:
            return self, False
        before = {word: self.bounds_before.get(word) for word in ("least", "above", "most", "below")}
        return self._replace(bounds_since="", **before), True  # type: ignore[arg-type]

    def away(self, version: Version | None) -> bool:
        """Whether a release lies in the time without the key."""
        return bool(self.absent and version is not None and Version(self.absent[0]) <= version < Version(self.absent[1]))

    def default_at(self, version: Version | None) -> str:
        """The default as JSON in a release; the newest one's where the release is not known."""
        if version is None or not self.defaults:
            return self.default
        return (
            [text for since, text in self.defaults if Version(since) <= version][-1:][0]
            if (Version(self.defaults[0][0]) <= version)
            else self.defaults[0][1]
        )


class KeyTable(NamedTuple):
    """The table.

    Attributes:
        raw: Key -> its entry in the file.
        strict: Section -> first release in which it refuses unknown keys.
        open: Sections whose keys are not listed.
        releases: The releases it was made from, oldest first.
        pydantic2: First release that refuses fractional floats for integers.
        optimizers: Optimizers DeepSpeed makes itself -> `since`, `removed`.
        schedulers: Schedulers -> `since`, `removed`, `params`.
    """

    raw: Mapping[str, dict[str, Any]] = MappingProxyType({})
    strict: Mapping[str, str] = MappingProxyType({})
    open: frozenset[str] = frozenset()
    releases: tuple[str, ...] = ()
    pydantic2: str = ""
    optimizers: Mapping[str, dict[str, str]] = MappingProxyType({})
    schedulers: Mapping[str, dict[str, Any]] = MappingProxyType({})

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> KeyTable:
        """From the parsed file."""
        return cls(
            raw=data.get("key", {}),
            strict=data.get("strict", {}),
            open=frozenset(data.get("open", {}).get("sections", ())),
            releases=tuple(data.get("releases", ())),
            pydantic2=data.get("pydantic2", ""),
            optimizers=data.get("optimizer", {}),
            schedulers=data.get("scheduler", {}),
        )

    def get(self, name: str) -> Key | None:
        """The key of a dotted name, or None."""
        entry = self.raw.get(current(name))
        if entry is None:
            return None
        values = {
            **entry,
            "allowed": tuple(entry.get("allowed", ())),
            "absent": tuple(entry.get("absent", ())),
            "defaults": tuple(map(tuple, entry.get("defaults", ()))),
        }
        return Key(name, **values)

    def is_open(self, section: str) -> bool:
        """Whether the keys of a section, or of one above it, are not listed."""
        name = current(section)
        while name:
            entry = self.raw.get(name)
            if name in self.open or (entry is not None and not self.has_keys(name)):
                return True
            name = name.rpartition(".")[0]
        return False

    def has_keys(self, section: str) -> bool:
        """Whether keys of a section are listed."""
        return any(name.startswith(f"{section}.") for name in self.raw)

    def refuses(self, section: str, version: Version | None) -> bool | None:
        """Whether a section stops at unknown keys; None where that hangs on the release, which is not known."""
        since = self.strict.get(current(section))
        if since is None:
            return False
        if version is None:
            return True if since == self.releases[0] else None
        if (entry := self.get(section)) is not None and entry.away(version):
            return False
        return version >= Version(since)

    def nearest(self, name: str) -> str:
        """The known name that an unknown one probably means, or an empty string."""
        from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

        section, _, last = current(name).rpartition(".")
        siblings = [*self.children(section)]
        if close := get_close_matches(last.lower(), siblings, 1, ALIKE):
            return f"{section}.{close[0]}".lstrip(".")
        if section and not section.startswith("zero_optimization"):
            return ""
        elsewhere = [key for key in self.raw if key.rpartition(".")[2] == last and key != name]
        if len(elsewhere) == 1 or (elsewhere and elsewhere[0].startswith("zero_optimization.")):
            return elsewhere[0]
        return ""

    def children(self, section: str) -> Iterator[str]:
        """The last parts of the keys directly in a section."""
        prefix = f"{section}." if section else ""
        for key in self.raw:
            rest = key.removeprefix(prefix)
            if key.startswith(prefix) and "." not in rest:
                yield rest

    def close_to(self, name: str) -> list[str]:
        """Dotted names that resemble a name, for `--explain`."""
        from difflib import get_close_matches  # noqa: PLC0415 - likewise

        last = {key.rpartition(".")[2]: key for key in self.raw}
        found = [key for key in self.raw if key.rpartition(".")[2] == name]
        return found or [
            *get_close_matches(name, list(self.raw), 3, ALIKE),
            *(last[item] for item in get_close_matches(name, list(last), 3, ALIKE)),
        ]


def current(name: str) -> str:
    """A dotted name with old section names replaced."""
    head, dot, rest = name.partition(".")
    return f"{OLD_SECTIONS.get(head, head)}{dot}{rest}"


def version_of(text: str) -> Version | None:
    """The release a version text leads to (`0.18.0+abc` and `0.18.0rc1` are 0.18.0), or None."""
    try:
        found = Version(text)
    except InvalidVersion:
        return None
    return Version(found.base_version)


def json_text(value: object) -> str:
    """A value as JSON, short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line of a report
