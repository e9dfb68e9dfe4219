"""What is wrong with an installed set, and the nogood of each: what a change has to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from envcheck.checks.registry import run_all
from envcheck.findings import Severity
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.versions import plain
from envcheck.resolve.nogoods import Nogood, Term

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from envcheck.checks.context import Context
    from envcheck.facts.model import Distribution
    from envcheck.findings import Finding
    from envcheck.resolve.judgement import Court

#: A requirement of an installed package that another version fulfils, and one that nothing fulfils.
CONFLICT, MISSING = "requirement-conflict", "requirement-missing"


class Wrong(NamedTuple):
    """A finding that is to be answered, with what must not be combined; None where versions do not decide it."""

    finding: Finding
    nogood: Nogood | None

    @property
    def firm(self) -> bool:
        """Whether it is an error; a requirement is answered where that is possible."""
        return self.finding.severity is Severity.ERROR


def to_fix(context: Context, waived: Container[str]) -> list[Finding]:
    """The errors of an environment, and the requirements that it does not fulfil, without the waived ones."""
    findings, _ = run_all(context)
    return [
        item for item in findings
        if (item.severity is Severity.ERROR or item.id in (CONFLICT, MISSING)) and item.id not in waived
    ]  # fmt: skip


def charged(court: Court, findings: Iterable[Finding]) -> Iterator[Wrong]:
    """The findings on the court's own environment, each with its nogood."""
    charges = list(court.charges(court.before))
    for finding in findings:
        if finding.id in (CONFLICT, MISSING):
            yield Wrong(finding, _of_requirement(finding, court.before.packages))
        else:
            yield Wrong(finding, next((nogood for charge, nogood in charges if charge == finding), None))


def _of_requirement(finding: Finding, packages: Mapping[str, Distribution]) -> Nogood:
    """The requiring package as it is, with the required one as it is (or absent)."""
    terms = tuple(Term(name, _exactly(packages.get(name))) for name in dict.fromkeys(finding.subjects))
    return Nogood(finding.id, finding.title, terms, because=finding.because, fixes=finding.fixes, evidence=finding.evidence)


def _exactly(package: Distribution | None) -> str:
    if package is None:
        return ABSENT
    version = plain(package.version)
    return f"=={version.version}" if version and version.exact else ANY


def unfulfilled(findings: Iterable[Finding], kind: str) -> frozenset[str]:
    """The packages that unfulfilled requirements of one kind ask for."""
    return frozenset(item.subjects[1] for item in findings if item.id == kind)
