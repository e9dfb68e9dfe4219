"""The report to paste into an issue: no user names, no home folders, no tokens, and no markup of strangers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.report.escape import code_span, markdown, prose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.findings import Finding, Report


def render(report: Report) -> str:
    """The report as GitHub-flavoured Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"### envcheck: {report.verdict.value}"
    if report.stack:
        yield from ("", "| what | value |", "|---|---|")
        yield from (f"| {markdown(row.name)} | {code_span(row.value)} |" for row in report.stack)
    for finding in report.findings:
        yield ""
        yield from _finding(finding)
    for item in report.waived:
        yield ""
        yield f"**waived** {prose(item.finding.title)} ({code_span(item.finding.id)}): {markdown(item.reason)}"
    for note in report.notes:
        yield from ("", prose(note))
    if report.skipped:
        yield from ("", "<details><summary>not decided</summary>", "")
        yield from (f"- {prose(skip.reason)}" for skip in report.skipped)
        yield from ("", "</details>")


def _finding(finding: Finding) -> Iterator[str]:
    depends = "" if finding.certain else " (depends)"
    yield f"**{finding.severity.label}{depends}: {prose(finding.title)}** ({code_span(finding.id)})"
    yield ""
    if finding.place:
        yield f"- at {code_span(finding.place)}"
    if finding.symptom:
        yield f"- seen as: {prose(finding.symptom)}"
    yield from (f"- why: {prose(reason)}" for reason in finding.because)
    if finding.fixes:
        join = ", " if finding.together else " or "
        yield f"- fix: {join.join(_change(fix.kind, fix.change) for fix in finding.fixes)}"
    if finding.evidence:
        yield f"- evidence: {', '.join(_reference(item.shown) for item in finding.evidence)}"


def _change(kind: str, change: str) -> str:
    return prose(change) if kind == "do" else code_span(change)


def _reference(ref: str) -> str:
    """`owner/repo#1` stays plain so that it becomes a link; everything else is literal."""
    owner, _, number = ref.partition("#")
    parts = owner.split("/")
    plain = (
        len(parts) == 2  # noqa: PLR2004 - owner and repository
        and number.isdigit()
        and all(part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts)
    )
    return ref if plain else markdown(ref)
