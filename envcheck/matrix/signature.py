"""Signatures: what patterns in a training run mean. Data of `signatures/*.toml`, parsed, linted and matched. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError
from envcheck.findings import Evidence, Severity
from envcheck.matrix.conditions import package_holds, setting_holds
from envcheck.matrix.message import SEVERITIES, Message, parse_message
from envcheck.matrix.parse import (
    IDENTIFIER,
    Mistakes,
    check_specifier,
    parse_evidence,
    parse_list,
    parse_packages,
    parse_setting,
    parse_table,
    parse_text,
    parse_word,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from envcheck.facts.model import Environment
    from envcheck.matrix.rule import SettingCondition
    from envcheck.matrix.settings import Settings

#: Keys of a condition that are compared with the sighting's attribute of the same name.
FLAGS = ("from_start", "until_end")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a signature asks of: one kind of thing that was seen in a run.

    Attributes:
        kind: A word of `envcheck.monitor.observation.Kind`.
        from_start: It was there in the first record that could show it.
        until_end: It is there in the last one.
        count: Records it was seen in.
        values: What else was seen, by name.
    """

    kind: str
    from_start: bool = False
    until_end: bool = True
    count: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """One part of `when`: some sighting of one of these kinds with these attributes."""

    seen: tuple[str, ...]
    from_start: bool | None = None
    until_end: bool | None = None
    at_least: int = 1
    values: dict[str, Any] = field(default_factory=dict)

    def holds(self, sightings: Iterable[Sighting]) -> bool:
        """Whether one of the sightings is such a one."""
        return any(self._fits(one) for one in sightings)

    def _fits(self, one: Sighting) -> bool:
        if one.kind not in self.seen or one.count < self.at_least:
            return False
        if self.from_start not in (None, one.from_start) or self.until_end not in (None, one.until_end):
            return False
        return all(_same(one.values.get(name), value) for name, value in self.values.items())


def _same(value: object, wanted: object) -> bool:
    return bool(value) is wanted if isinstance(wanted, bool) else value == wanted


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that can be behind a signature.

    Attributes:
        id: Kebab-case name.
        says: What it is, in words.
        decide: The next thing to run, which tells whether it is this.
        rules: Rules of the matrix under which it happens.
        packages: When it is possible at all: normalised name -> specifier set.
        settings: Likewise, conditions on settings.
    """

    id: str
    says: str
    decide: str
    rules: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    settings: tuple[SettingCondition, ...] = ()

    def possible(self, environment: Environment, settings: Settings) -> bool | None:
        """False where the environment or the settings rule it out, True where its condition holds, None where that is open."""
        held = [package_holds(environment, name, spec) for name, spec in self.packages.items()]
        held += [setting_holds(settings, item) for item in self.settings]
        if False in held:
            return False
        return True if held and None not in held else None


@dataclass(frozen=True, slots=True)
class Signature:
    """One pattern and what it means; attributes as in `matrices/README.md`."""

    id: str
    title: str
    severity: Severity
    means: str
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()
    explains: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    file: str = ""

    def holds(self, sightings: Sequence[Sighting]) -> bool:
        """Whether the run shows it."""
        return all(part.holds(sightings) for part in self.when) and not any(part.holds(sightings) for part in self.unless)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that it asks for."""
        return frozenset(kind for part in self.when for kind in part.seen)


@dataclass(frozen=True, slots=True)
class Dating:
    """What something seen says about the release that wrote it."""

    seen: Condition
    package: str
    range: str
    says: str
    settings: tuple[SettingCondition, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Signatures:
    """All of them, in file order."""

    signatures: tuple[Signature, ...] = ()
    dates: tuple[Dating, ...] = ()
    messages: tuple[Message, ...] = ()

    def matching(self, sightings: Sequence[Sighting]) -> Iterator[Signature]:
        """The signatures that hold; one whose kinds are all explained by those before it is left out."""
        explained: set[str] = set()
        seen = {one.kind for one in sightings}
        for one in self.signatures:
            if one.holds(sightings) and (one.kinds & seen) - explained:
                explained |= one.kinds | set(one.explains)
                yield one

    def dated(self, sightings: Sequence[Sighting]) -> list[Dating]:
        """What the run says about the releases behind it."""
        return [one for one in self.dates if one.seen.holds(sightings)]


def load(folder: Path) -> Signatures:
    """The signatures of a matrix folder.

    Raises:
        InputError: Mistakes in the files, all of them at once.
    """
    from tomli import TOMLDecodeError, loads  # noqa: PLC0415 - not needed by other commands

    mistakes: list[str] = []
    signatures: list[Signature] = []
    dates: list[Dating] = []
    messages: list[Message] = []
    for path in sorted((folder / "signatures").glob("*.toml")):
        try:
            document = loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, TOMLDecodeError) as error:
            mistakes.append(f"signatures/{path.name}: {error}")
            continue
        found = parse(document, f"signatures/{path.name}", mistakes)
        signatures += found.signatures
        dates += found.dates
        messages += found.messages
    if mistakes:
        raise InputError("the signatures have mistakes", where=str(folder), problems=tuple(mistakes))
    return Signatures(tuple(signatures), tuple(dates), tuple(messages))


def parse(document: Mapping[str, Any], file: str, mistakes: list[str]) -> Signatures:
    """The signatures of one parsed file; every mistake goes to `mistakes`."""
    top = Mistakes(file, mistakes)
    _known(document, {"signature", "cause", "date", "message"}, top)
    causes = {name: _cause(name, entry, top.at(f"cause.{name}")) for name, entry in parse_table(document, "cause", top).items()}
    named: set[str] = set()
    signatures = list(parse_list(document, "signature", top, lambda entry, here: _signature(entry, causes, named, file, here)))
    for name in causes.keys() - named:
        top.at(f"cause.{name}").add("no signature names it")
    messages = parse_list(document, "message", top, lambda entry, here: parse_message(entry, file, here))
    return Signatures(tuple(signatures), tuple(parse_list(document, "date", top, _dating)), tuple(messages))


def _known(entry: Mapping[str, Any], keys: set[str], here: Mistakes) -> None:
    for key in sorted(entry.keys() - keys):
        here.add(f"unknown key `{key}`")


def _needs(entry: Mapping[str, Any], keys: Iterable[str], here: Mistakes) -> None:
    for key in keys:
        if not entry.get(key):
            here.add(f"`{key}` is missing")


def _cause(name: str, entry: Any, here: Mistakes) -> Cause:  # noqa: ANN401 - TOML values
    entry = entry if isinstance(entry, dict) else {}
    _known(entry, {"says", "decide", "rules", "when"}, here)
    _needs(entry, ("says", "decide"), here)
    when = parse_table(entry, "when", here)
    _known(when, {"packages", "settings"}, here.at("when"))
    return Cause(
        name, parse_text(entry, "says", here), parse_text(entry, "decide", here),
        rules=tuple(parse_list(entry, "rules", here, parse_word)),
        packages=parse_packages(parse_table(when, "packages", here), here.at("when.packages")),
        settings=tuple(parse_list(when, "settings", here.at("when"), parse_setting)),
    )  # fmt: skip


def _signature(
    entry: Any, causes: Mapping[str, Cause], named: set[str], file: str, here: Mistakes,  # noqa: ANN401 - TOML values
) -> Signature | None:  # fmt: skip
    if not isinstance(entry, dict):
        here.add("must be a table")
        return None
    here = here.at(str(entry.get("id", "")))
    _known(entry, {"id", "title", "severity", "when", "unless", "explains", "means", "causes", "evidence"}, here)
    _needs(entry, ("id", "title", "severity", "when", "means", "causes", "evidence"), here)
    if not IDENTIFIER.fullmatch(str(entry.get("id", ""))):
        here.add("`id` must be kebab-case")
    if entry.get("severity") not in SEVERITIES:
        here.add(f"`severity` must be one of {', '.join(SEVERITIES)}")
    wanted = list(parse_list(entry, "causes", here, parse_word))
    for name in (name for name in wanted if name not in causes):
        here.add(f"`causes` names `{name}`, which is not defined")
    named.update(wanted)
    return Signature(
        parse_text(entry, "id", here), parse_text(entry, "title", here),
        SEVERITIES.get(str(entry.get("severity")), Severity.INFO), parse_text(entry, "means", here),
        when=tuple(parse_list(entry, "when", here, _condition)), unless=tuple(parse_list(entry, "unless", here, _condition)),
        explains=tuple(parse_list(entry, "explains", here, parse_word)),
        causes=tuple(causes[name] for name in wanted if name in causes),
        evidence=tuple(parse_list(entry, "evidence", here, parse_evidence)), file=file,
    )  # fmt: skip


def _condition(item: Any, here: Mistakes) -> Condition | None:  # noqa: ANN401 - TOML values
    if not isinstance(item, dict):
        here.add("must be a table")
        return None
    _known(item, {"seen", "at_least", "values", *FLAGS}, here)
    _needs(item, ("seen",), here)
    for key in FLAGS:
        if not isinstance(item.get(key, True), bool):
            here.add(f"`{key}` must be true or false")
    if not isinstance(item.get("at_least", 1), int):
        here.add("`at_least` must be a number")
    return Condition(
        tuple(parse_list(item, "seen", here, parse_word)), item.get("from_start"), item.get("until_end"),
        item.get("at_least", 1), parse_table(item, "values", here),
    )  # fmt: skip


def _dating(item: Any, here: Mistakes) -> Dating | None:  # noqa: ANN401 - TOML values
    if not isinstance(item, dict):
        here.add("must be a table")
        return None
    _known(item, {"when", "package", "range", "says", "settings", "evidence"}, here)
    _needs(item, ("when", "package", "range", "says", "evidence"), here)
    check_specifier(item.get("range"), here)
    seen = _condition(item.get("when"), here.at("when"))
    if seen is None:
        return None
    return Dating(
        seen, parse_text(item, "package", here), parse_text(item, "range", here), parse_text(item, "says", here),
        tuple(parse_list(item, "settings", here, parse_setting)), tuple(parse_list(item, "evidence", here, parse_evidence)),
    )  # fmt: skip


def audit(signatures: Signatures, rules: frozenset[str], kinds: frozenset[str]) -> list[str]:
    """What `envcheck matrix lint` refuses beyond mistakes of form: unknown rules and kinds, patterns that never speak.

    Args:
        signatures: What was loaded.
        rules: Ids of the matrix's rules.
        kinds: The words of `envcheck.monitor.observation.Kind`.
    """
    found = []
    seen: set[str] = set()
    for one in signatures.signatures:
        place = f"{one.file}: {one.id}"
        if one.id in seen or one.id in rules:
            found.append(f"{place}: the id is taken")
        seen.add(one.id)
        unknown = (one.kinds | set(one.explains) | {kind for part in one.unless for kind in part.seen}) - kinds
        found += [f"{place}: `{kind}` is no kind of observation" for kind in sorted(unknown)]
        for cause in one.causes:
            found += [f"{place}: cause {cause.id}: no rule `{rule}`" for rule in cause.rules if rule not in rules]
    for message in signatures.messages:
        if message.id in seen or message.id in rules:
            found.append(f"{message.file}: {message.id}: the id is taken")
        seen.add(message.id)
    strange = {kind for one in signatures.dates for kind in one.seen.seen} - kinds
    return found + [f"date: `{kind}` is no kind of observation" for kind in sorted(strange)]
