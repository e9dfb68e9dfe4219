"""What checks say: findings, skips and the report that holds them. Values only."""

from __future__ import annotations

from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(IntEnum):
    """How bad a finding is; ordered, so that `max` is the worst."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def label(self) -> str:
        """The lower-case word that reports and options use."""
        return self.name.lower()


class Verdict(str, Enum):
    """What a whole report comes to; `unknown` when something asked for could not be examined."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNKNOWN = "unknown"


class Evidence(NamedTuple):
    """Where a claim comes from; `kind` is issue, fix, code, docs or probe."""

    kind: str
    ref: str

    @property
    def shown(self) -> str:
        """The reference in words: that of a probe is the digest of a line of `matrices/measured/`."""
        return f"probe run {self.ref}" if self.kind == "probe" else self.ref


class Fix(NamedTuple):
    """One way out; `kind` is package, setting, fact or do; `change` is the requirement, assignment or sentence."""

    kind: str
    change: str


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes:
        id: The rule's or check's name, kebab-case.
        severity: How bad it is here.
        title: One line saying what is wrong.
        subjects: Every package, setting or fact the diagnosis is about.
        observed: What was seen of each subject that is known.
        because: The reasons, one sentence each.
        certain: False where a condition is unknown or a version is not a plain release.
        fixes: Ways out, best first; alternatives, unless `together`.
        evidence: Where the claim comes from.
        symptom: What the user sees, or an empty string.
        place: `file:line:column` of the cause, where there is one.
        together: Every one of the fixes is needed, not one of them.
    """

    id: str
    severity: Severity
    title: str
    subjects: tuple[str, ...] = ()
    observed: Mapping[str, str] = MappingProxyType({})
    because: tuple[str, ...] = ()
    certain: bool = True
    fixes: tuple[Fix, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    symptom: str = ""
    place: str = ""
    together: bool = False


class Skip(NamedTuple):
    """Something that was not decided, with the reason; `asked` when the user asked for it by name."""

    check: str
    reason: str
    asked: bool = False


class Waived(NamedTuple):
    """A finding that a waiver silenced."""

    finding: Finding
    reason: str
    until: str


class StackRow(NamedTuple):
    """One line of the stack table: a package or fact, what it is, and where that was read."""

    name: str
    value: str
    source: str = ""


class Report(NamedTuple):
    """Everything a command has to say.

    Attributes:
        findings: Most severe first.
        skipped: What was not decided.
        stack: The stack table that text reports open with.
        notes: Good news and context, one sentence each (known-good sets that cover the environment).
        waived: Findings silenced by a waiver.
        extra: Additional top-level JSON fields of a command (already plain data).
    """

    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skip, ...] = ()
    stack: tuple[StackRow, ...] = ()
    notes: tuple[str, ...] = ()
    waived: tuple[Waived, ...] = ()
    extra: Mapping[str, Any] = MappingProxyType({})

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings, or None without any."""
        return max((finding.severity for finding in self.findings), default=None)

    @property
    def verdict(self) -> Verdict:
        """`error` or `warning` by the worst finding; else `unknown` if something asked for was skipped; else `ok`."""
        worst = self.worst
        if worst is Severity.ERROR:
            return Verdict.ERROR
        if any(skip.asked for skip in self.skipped):
            return Verdict.UNKNOWN
        return Verdict.WARNING if worst is Severity.WARNING else Verdict.OK


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Most severe first, certain before uncertain, then by id: the order of every report."""
    return tuple(sorted(findings, key=lambda item: (-item.severity, not item.certain, item.id, item.title)))
