"""Error messages in a log: found while it is read, held against the rules and the message families. Pure.

A message is what stands behind `SomethingError:`, with the lines after it, as some go on; or a line with one of `WARNINGS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envcheck.checks.deep.symbols import causes
from envcheck.checks.rules import finding as finding_of
from envcheck.facts.metadata import normalised
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.match import match
from envcheck.matrix.message import filled, knows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.checks.context import Context
    from envcheck.matrix.match import Match
    from envcheck.matrix.message import Message
    from envcheck.matrix.rule import Rule

#: Different messages that are kept; the rest of a log that is full of them says no more.
MOST = 200

#: Bytes of a message that are kept, and of what stands before it that are searched for the frame it came from.
LONGEST, BEFORE = 1500, 8192

#: Rules that are named for a message, where several fit.
SHOWN = 3

#: A fragment that is shorter says nothing where the rule is not certain.
SHORTEST = 20

#: Bytes after the end of what is looked at that still belong to a word that begins before it.
AHEAD = 16

ERROR = re.compile(rb"E(?:rror|xception): ?")
WARNINGS = (b"WARNING[XFORMERS]", b"is not compatible with the current PyTorch installation")
FRAME = re.compile(rb"(?:site|dist)-packages[/\\](\w+)[/\\.]")
PREFIX = re.compile(rb"(?m)^\[(?:rank|default)\d+\]: ?")


@dataclass(frozen=True, slots=True)
class Seen:
    """One message of a log.

    Attributes:
        text: The message, with the lines after it.
        line: Its line, counted from 1.
        importer: The package in whose files the last frame before it lies, or an empty string.
    """

    text: str
    line: int
    importer: str = ""

    @property
    def first(self) -> str:
        """Its first line."""
        return self.text.partition("\n")[0].strip()


@dataclass(slots=True)
class Collector:
    """Watches a log go by and keeps its messages."""

    seen: dict[str, Seen] = field(default_factory=dict)

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks; what they hold is in `seen` afterwards."""
        rest, line, start = b"", 1, 0
        for chunk in chunks:
            yield chunk
            buffer = rest + chunk
            end = max(len(buffer) - LONGEST, start)
            self._look(buffer, start, end, line)
            keep = max(end - BEFORE, 0)
            line += buffer.count(b"\n", 0, keep)
            rest, start = buffer[keep:], end - keep
        self._look(rest, start, len(rest), line)

    def _look(self, buffer: bytes, start: int, end: int, line: int) -> None:
        """The messages that begin between `start` and `end`; a message seen before is not kept again."""
        places = [found.start() for found in ERROR.finditer(buffer, start, end + AHEAD) if found.start() < end]
        places += [place for word in WARNINGS if (place := buffer.find(word, start, end + len(word) - 1)) >= 0]
        for place in sorted(places):
            if len(self.seen) >= MOST:
                return
            begin = buffer.rfind(b"\n", 0, place) + 1
            text = PREFIX.sub(b"", buffer[max(begin, place - 300) : place + LONGEST]).decode("utf-8", "replace")
            key = text.partition("\n")[0].strip()
            if key not in self.seen:
                frames = FRAME.findall(buffer, max(begin - BEFORE, 0), begin)
                importer = frames[-1].decode() if frames else ""
                self.seen[key] = Seen(text, line + buffer.count(b"\n", 0, begin), importer)


def findings(collector: Collector, messages: Iterable[Message], context: Context, name: str, went_on: bool) -> list[Finding]:
    """What the messages of a log mean.

    Args:
        collector: What was seen.
        messages: The families.
        context: Environment, settings and matrix.
        name: The log's name.
        went_on: Training went on all the same, so that nothing here ended it for certain.
    """
    told = [rule for rule in context.matrix.candidates(context.environment) if rule.error and rule.status != "good"]
    families = list(messages)
    found: dict[str, Finding] = {}
    for seen in collector.seen.values():
        for one in _of(seen, told, families, context, name):
            capped = one._replace(severity=min(one.severity, Severity.WARNING)) if went_on else one
            if one.id not in found or found[one.id].severity < capped.severity:
                found[one.id] = capped
    return list(found.values())


def _of(seen: Seen, rules: Iterable[Rule], families: Iterable[Message], context: Context, name: str) -> Iterator[Finding]:
    """Rules that hold here and say this; else the family, with the rules that are possible."""
    matches = list(_matches(seen, rules, context))
    firm = [one for one in matches if _firm(one)]
    for one in firm[:SHOWN]:
        yield _by_rule(one, seen, context, name)
    if firm:
        return
    possible = [one for one in matches if len(one.rule.error) >= SHORTEST]
    family = next(((one, hit) for one in families if (hit := one.pattern.search(seen.text))), None)
    if family:
        yield _by_family(family[0], family[1], possible, seen, context, name)
    elif possible:
        yield _by_possible(possible, seen, context, name)


def _matches(seen: Seen, rules: Iterable[Rule], context: Context) -> Iterator[Match]:
    """The rules that know the message and of which nothing is false; of nested fragments the longest."""
    known = [rule for rule in rules if knows(rule.error, seen.text)]
    environment = context.matrix.completed(context.environment)
    for rule in known:
        if any(rule.error != other.error and rule.error in other.error for other in known):
            continue
        found = match(rule, environment, context.settings, context.matrix.kinds)
        if found is not None:
            yield found


def _firm(one: Match) -> bool:
    """Whether everything is true but what the message itself tells: that the code does this, under settings that allow it."""
    if one.open_packages or one.open_facts or not one.rule.packages:
        return False
    return one.decided or len(one.rule.error) >= SHORTEST


def _by_rule(one: Match, seen: Seen, context: Context, name: str) -> Finding:
    found = finding_of(one, context.environment, context.settings)
    own = Severity.ERROR if one.rule.status == "bad" and not one.inexact else Severity.WARNING
    return found._replace(
        severity=own, certain=one.decided and not one.inexact, because=(f"the log says: {seen.first[:300]}", *found.because),
        place=f"{name}:{seen.line}",
    )  # fmt: skip


def _by_family(family: Message, hit: re.Match[str], possible: list[Match], seen: Seen, context: Context, name: str) -> Finding:
    values = {key: value or "" for key, value in hit.groupdict().items()}
    values["top"] = values.get("module", "").partition(".")[0]
    values["importer"] = seen.importer or "the program"
    subjects = tuple(dict.fromkeys(normalised(text) for one in family.subjects if (text := filled(one, values)).strip()))
    packages = context.environment.packages
    observed = {one: packages[one].version for one in subjects if one in packages}
    because = [f"the log says: {seen.first[:300]}", filled(family.means, values)]
    if values.get("symbol"):
        because += causes(context, [values["symbol"]], (), observed.get("torch", "")).reasons
    because += [f"`{one}` is {version} here" for one, version in observed.items()]
    because += [f"perhaps rule {one.rule.id}: {one.rule.title}" for one in possible[:SHOWN]]
    return Finding(
        family.id, family.severity, filled(family.title, values), subjects or ("log",), observed, tuple(because),
        certain=False, fixes=tuple(Fix("do", filled(one, values)) for one in family.do), evidence=family.evidence,
        place=f"{name}:{seen.line}",
    )  # fmt: skip


def _by_possible(possible: list[Match], seen: Seen, context: Context, name: str) -> Finding:
    """The message is known, and which of the rules it is cannot be told."""
    first, alone = possible[0].rule, len(possible) == 1
    missing = "some of their versions are not known" if context.environment.packages else "give --python or --snapshot"
    return Finding(
        "message-of-rules",
        Severity.WARNING if alone else Severity.INFO,
        f"The message is that of: {first.title}" if alone else "The message is that of several rules",
        tuple(dict.fromkeys(subject for one in possible[:SHOWN] for subject in one.rule.subjects)),
        {},
        (
            f"the log says: {seen.first[:300]}",
            *(f"rule {one.rule.id}: {one.rule.title}" for one in possible[:5]),
            f"not decided: {missing}",
        ),
        certain=False,
        fixes=tuple(fix.as_fix() for fix in first.fix) if alone else (),
        evidence=first.evidence,
        place=f"{name}:{seen.line}",
    )
