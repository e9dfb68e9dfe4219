"""Findings about single keys: unknown, given twice, too new, removed, deprecated, and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from envcheck.dsconfig.keys import current
from envcheck.dsconfig.subject import LOADER, MODEL, READER, ZERO, Subject, shown
from envcheck.dsconfig.values import AUTO, value_problems
from envcheck.findings import Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.dsconfig.document import Entry
    from envcheck.dsconfig.keys import Key


def duplicate(subject: Subject, entry: Entry) -> Finding:
    """A key that its object already has."""
    first = next(item for item in subject.document.entries() if item.path == entry.path)
    return Finding(
        "ds-config-duplicate-key",
        Severity.ERROR,
        f"The key `{entry.path}` is given twice",
        (entry.path,),
        {entry.path: f"{shown(first)}, then {shown(entry)}"},
        (
            f"it is first given on line {first.place.line}",
            "DeepSpeed refuses duplicate keys; transformers and accelerate silently take the last one",
        ),
        fixes=(Fix("do", f"delete one of the two `{entry.key}`"),),
        evidence=(MODEL, LOADER),
        place=subject.at(entry.place),
    )


def key(subject: Subject, entry: Entry) -> Iterator[Finding]:
    """Unknown, too new, removed or deprecated keys, and their values."""
    section = entry.path.rpartition(".")[0]
    known = subject.table.get(entry.path)
    if known is None:
        if section and subject.table.is_open(section):
            yield from value(subject, entry)
        elif not section or section_known(subject, section):
            yield from unread(subject, entry, unknown(subject, entry, section))
        return
    if (finding := not_read(subject, entry, known)) is not None:
        yield from unread(subject, entry, finding)
        return
    if subject.version is None and known.refused:
        yield Finding(
            "ds-config-removed-later",
            Severity.INFO,
            f"`{entry.path}` is refused by DeepSpeed {known.removed} and later",
            (entry.path,),
            {entry.path: shown(entry)},
            (known.refused,),
            certain=False,
            evidence=(READER,),
            place=subject.at(entry.place),
        )
    if known.deprecated and (subject.version is None or subject.version >= Version(known.deprecated)):
        yield Finding(
            "ds-config-deprecated-key",
            Severity.WARNING,
            f"`{entry.path}` is deprecated",
            (entry.path,),
            {entry.path: shown(entry)},
            (f"use `{known.instead}` instead",) if known.instead else (),
            fixes=(Fix("do", f"write `{known.instead}` instead of `{entry.key}`"),) if known.instead else (),
            evidence=(MODEL,),
            place=subject.at(entry.place),
        )
    if known.alias and known.alias in subject.document.by_path:
        yield both_names(subject, entry, subject.document.by_path[known.alias])
    yield from value(subject, entry)


def unread(subject: Subject, entry: Entry, finding: Finding) -> Iterator[Finding]:
    """A key that this DeepSpeed does not read; where that does no harm, an `auto` still stops the Trainer."""
    yield finding
    if subject.trainer and finding.severity is not Severity.ERROR and entry.value.plain == AUTO:
        yield from value(subject, entry)


def not_read(subject: Subject, entry: Entry, known: Key) -> Finding | None:
    """A key of releases before or after the installed one; None where it is read, or no release is known."""
    version, section = subject.version, entry.path.rpartition(".")[0]
    if version is None:
        return None
    if known.since and version < Version(known.since):
        return wrong_release(subject, entry, section, f"DeepSpeed reads it since {known.since}")
    if known.removed and version >= Version(known.removed):
        text = f"DeepSpeed removed it in {known.removed}" + (f": {known.refused}" if known.refused else "")
        return wrong_release(subject, entry, section, text, refused=bool(known.refused))
    if known.away(version):
        text = f"DeepSpeed {known.absent[0]} and later do not read it; {known.absent[1]} does again"
        return wrong_release(subject, entry, section, text)
    return None


def both_names(subject: Subject, entry: Entry, other: Entry) -> Finding:
    """A key given under both of its names."""
    return Finding(
        "ds-config-both-names",
        Severity.ERROR,
        f"`{entry.path}` and `{other.key}` are the same key",
        (entry.path, other.path),
        {entry.path: shown(entry), other.path: shown(other)},
        (f"`{other.key}` is on line {other.place.line}", "DeepSpeed refuses the second name as unknown"),
        fixes=(Fix("do", f"remove `{entry.key}`"),),
        evidence=(ZERO,),
        place=subject.at(entry.place),
    )


def section_known(subject: Subject, section: str) -> bool:
    """Whether a section is known at all: below an unknown one, one finding is enough."""
    return subject.table.get(section) is not None and subject.table.has_keys(current(section))


def unknown(subject: Subject, entry: Entry, section: str) -> Finding:
    """A key that no listed release reads."""
    nearest = subject.table.nearest(entry.path)
    refuses = subject.table.refuses(section, subject.version) if section else False
    remark = entry.key.startswith(("_", "//", "#")) or entry.key.lower() in (
        "comment",
        "comments",
        "note",
        "description",
    )
    where = f"`{section}`" if section else "the top level"
    if refuses:
        text, severity = f"DeepSpeed refuses unknown keys in {where} and stops", Severity.ERROR
    elif refuses is None:
        since = subject.table.strict[current(section)]
        text = f"from DeepSpeed {since} on, {where} refuses unknown keys; before, they are ignored silently"
        severity = Severity.WARNING
    else:
        text = f"DeepSpeed ignores unknown keys at {where} silently: the setting has no effect"
        severity = Severity.ERROR if nearest else Severity.WARNING
    if remark and not refuses:
        severity = Severity.INFO
    return Finding(
        "ds-config-unknown-key",
        severity,
        f"DeepSpeed has no key `{entry.path}`",
        (entry.path,),
        {entry.path: shown(entry)},
        (text, *((f"the nearest known key is `{nearest}`",) if nearest else ())),
        certain=refuses is not None,
        fixes=(Fix("do", f"write `{nearest}`" if nearest else f"remove `{entry.path}`"),),
        evidence=(MODEL if section else READER,),
        place=subject.at(entry.place),
    )


def wrong_release(subject: Subject, entry: Entry, section: str, text: str, *, refused: bool = False) -> Finding:
    """A key that the installed DeepSpeed does not read."""
    stops = refused or bool(section and subject.table.refuses(section, subject.version))
    new = "since" in text
    return Finding(
        "ds-config-key-too-new" if new else "ds-config-key-removed",
        Severity.ERROR if stops else Severity.WARNING,
        f"DeepSpeed {subject.version} does not {'know' if new else 'read'} `{entry.path}`",
        (entry.path, "deepspeed"),
        {entry.path: shown(entry), "deepspeed": str(subject.version)},
        (text, "it stops at the key" if stops else "it ignores the key silently"),
        fixes=(Fix("do", f"remove `{entry.path}`"),),
        evidence=(READER,),
        place=subject.at(entry.place),
    )


def value(subject: Subject, entry: Entry) -> Iterator[Finding]:
    """What is wrong with the value of a key."""
    section = entry.path.rpartition(".")[0]
    strict = bool(section) and subject.table.refuses(section, subject.version) is not False
    pydantic2 = subject.version is None or subject.version >= Version(subject.table.pydantic2)
    known, bounded = subject.table.get(entry.path), True
    if known is not None:
        known, bounded = known.bounds_at(subject.version)
    for problem in value_problems(
        known, entry, strict=strict, pydantic2=pydantic2, trainer=subject.trainer, bounded=bounded, five=subject.five
    ):
        yield Finding(
            problem.id,
            problem.severity,
            problem.title,
            (entry.path,),
            {entry.path: shown(entry)},
            problem.because,
            certain=problem.certain,
            fixes=tuple(Fix("config", f"{entry.path}={change}") for change in problem.change),
            evidence=(MODEL if strict else READER,),
            place=subject.at(entry.place),
        )
