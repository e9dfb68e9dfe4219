"""What the checks say of an environment, remembered: the same facts, settings, matrix and checks give the same answer."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from envcheck import __version__
from envcheck.cache import cache_folder, digest, read_cached, write_cached
from envcheck.findings import Evidence, Finding, Fix, Report, Severity, Skip, StackRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envcheck.checks.context import Context


def answer(context: Context, environ: Mapping[str, str]) -> Report:
    """The checks' findings and skips, the stack table and the notes; computed only where the cache does not have them.

    The cache's key is the content of everything the checks look at, so that nothing but the time is saved.
    """
    base = cache_folder(environ)
    if base is None:
        return compute(context)
    code = tuple(_code())
    file = f"{base}/answer-{_key(context, code)}.json"
    known = _recalled(read_cached(file))
    if known is None:
        from envcheck.matrix.remembered import remembering  # noqa: PLC0415 - not where the answer is known

        with remembering(environ, code):
            known = compute(context)
        write_cached(file, json.dumps(_plain(known), separators=(",", ":")).encode())
    return known


def compute(context: Context) -> Report:
    """Run every check."""
    from envcheck.checks.known_good import notes  # noqa: PLC0415 - not where the answer is known
    from envcheck.checks.registry import run_all  # noqa: PLC0415 - likewise
    from envcheck.cli.stack import stack_rows  # noqa: PLC0415 - likewise

    findings, skipped = run_all(context)
    return Report(tuple(findings), tuple(skipped), tuple(stack_rows(context)), tuple(notes(context)))


def _key(context: Context, code: tuple[str, ...]) -> str:
    """A digest over facts, settings, matrix and the code that looks at them."""
    matrix = context.matrix
    where = (matrix.digest, matrix.place, matrix.origin)
    parts = (repr(context.environment), repr(context.settings), *where, __version__, *code)
    return digest(*(part.encode(errors="surrogatepass") for part in parts))


def _code() -> Iterator[str]:
    """Name, size and time of every module that an answer depends on."""
    package = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - pathlib is slow
    for place in ("", "checks", "matrix", "facts", "cli"):
        with os.scandir(f"{package}/{place}") as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".py"):
                    stat = entry.stat()
                    yield f"{entry.name} {stat.st_size} {stat.st_mtime_ns}"


def _plain(report: Report) -> dict[str, Any]:
    return {
        "findings": [
            [item.id, int(item.severity), item.title, item.subjects, item.observed, item.because, item.certain,
             [[fix.kind, fix.change] for fix in item.fixes], [[source.kind, source.ref] for source in item.evidence],
             item.symptom, item.place, item.together]
            for item in report.findings
        ],
        "skipped": [[item.check, item.reason, item.asked] for item in report.skipped],
        "stack": [[item.name, item.value, item.source] for item in report.stack],
        "notes": report.notes,
    }  # fmt: skip


def _recalled(content: bytes | None) -> Report | None:
    """The report that `_plain` made; None where it is not there or not whole."""
    if not content:
        return None
    try:
        data = json.loads(content)
        return Report(
            findings=tuple(_finding(*item) for item in data["findings"]),
            skipped=tuple(Skip(*item) for item in data["skipped"]),
            stack=tuple(StackRow(*item) for item in data["stack"]),
            notes=tuple(data["notes"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _finding(*fields: Any) -> Finding:  # noqa: ANN401 - JSON
    name, severity, title, subjects, observed, because, certain, fixes, evidence, symptom, place, together = fields
    return Finding(
        name, Severity(severity), title, tuple(subjects), observed, tuple(because), certain,
        tuple(Fix(*item) for item in fixes), tuple(Evidence(*item) for item in evidence), symptom, place, together,
    )  # fmt: skip
