"""Waivers: findings that the project accepts, with a reason and an end date; echoed, never silent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.errors import InputError
from envcheck.findings import Finding, Fix, Severity, Waived

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable

FILES = (".envcheck.toml", "pyproject.toml")
EXAMPLE = 'rule-id = { reason = "why it is accepted", until = 2027-01-31 }'


class Waiver(NamedTuple):
    """One accepted finding; `until` is the last day it holds, None for no end."""

    id: str
    reason: str
    until: datetime.date | None
    file: str


def find(start: str) -> list[Waiver]:
    """Waivers of the nearest `.envcheck.toml` (`[waivers]`) or `pyproject.toml` (`[tool.envcheck.waivers]`).

    The search goes from `start` upwards; a folder with `.git` ends it.

    Raises:
        InputError: The file cannot be read, or a waiver in it is malformed (all at once).
    """
    folder = os.path.abspath(start)  # noqa: PTH100 - pathlib is slow to import, here and below
    while True:
        for name in FILES:
            path = os.path.join(folder, name)  # noqa: PTH118 - as above
            if os.path.isfile(path) and (waivers := read(path)):  # noqa: PTH113 - as above
                return waivers
        parent = os.path.dirname(folder)  # noqa: PTH120 - as above
        if parent == folder or os.path.exists(os.path.join(folder, ".git")):  # noqa: PTH110, PTH118 - as above
            return []
        folder = parent


def read(path: str) -> list[Waiver]:
    """Waivers of one file; see `find`."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            content = stream.read()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    if b"waivers" not in content:
        return []
    import tomli  # noqa: PLC0415 - most projects have no waivers

    try:
        document = tomli.loads(content.decode())
    except (UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"not readable as TOML: {error}", where=path) from error
    table = document.get("tool", {}).get("envcheck", {}) if path.endswith("pyproject.toml") else document
    return parse(table.get("waivers", {}) if isinstance(table, dict) else {}, path)


def parse(table: Any, file: str) -> list[Waiver]:  # noqa: ANN401 - TOML values
    """Waivers of a table rule id -> `{ reason, until }`.

    Raises:
        InputError: Malformed, every mistake at once.
    """
    if not isinstance(table, dict):
        raise InputError("`waivers` must be a table", where=file, hints=(EXAMPLE,))
    import datetime  # noqa: PLC0415 - most projects have no waivers

    problems = []
    waivers = []
    for name, entry in table.items():
        reason = entry.get("reason") if isinstance(entry, dict) else None
        until = entry.get("until") if isinstance(entry, dict) else None
        if not isinstance(reason, str) or not reason.strip():
            problems.append(f"waivers.{name}: needs a `reason`")
        elif until is not None and not isinstance(until, datetime.date):
            problems.append(f"waivers.{name}: `until` must be a date without quotes (2027-01-31)")
        else:
            day = until.date() if isinstance(until, datetime.datetime) else until
            waivers.append(Waiver(name, reason, day, file))
    if problems:
        raise InputError("malformed waivers", where=file, problems=tuple(problems), hints=(EXAMPLE,))
    return waivers


def apply(
    findings: Iterable[Finding], waivers: Iterable[Waiver], today: datetime.date | None = None,
) -> tuple[list[Finding], list[Waived]]:  # fmt: skip
    """Findings that remain, with one added for each expired or unused waiver, and those that were waived."""
    today = today or _today()
    given = {waiver.id: waiver for waiver in waivers}
    kept: list[Finding] = []
    waived: list[Waived] = []
    used: set[str] = set()
    for finding in findings:
        waiver = given.get(finding.id)
        if waiver is None:
            kept.append(finding)
            continue
        used.add(waiver.id)
        if _expired(waiver, today):
            kept.append(finding)
        else:
            waived.append(Waived(finding, waiver.reason, str(waiver.until or "")))
    for waiver in given.values():
        if _expired(waiver, today):
            kept.append(_stale(waiver, f"expired on {waiver.until}", Severity.WARNING))
        elif waiver.id not in used:
            kept.append(_stale(waiver, "is not used: nothing here has this id", Severity.INFO))
    return kept, waived


def in_force(waivers: Iterable[Waiver], today: datetime.date | None = None) -> dict[str, str]:
    """Id -> reason of the waivers that have not expired."""
    today = today or _today()
    return {waiver.id: waiver.reason for waiver in waivers if not _expired(waiver, today)}


def _today() -> datetime.date:
    import datetime  # noqa: PLC0415 - most projects have no waivers

    return datetime.datetime.now(tz=datetime.timezone.utc).date()


def _expired(waiver: Waiver, today: datetime.date) -> bool:
    return waiver.until is not None and waiver.until < today


def _stale(waiver: Waiver, what: str, severity: Severity) -> Finding:
    return Finding(
        id="waiver-expired" if severity is Severity.WARNING else "waiver-unused",
        severity=severity,
        title=f"the waiver for `{waiver.id}` {what}",
        subjects=("waivers",),
        observed={"waivers": waiver.id},
        because=(f"{waiver.file} accepts it because: {waiver.reason}",),
        fixes=(Fix("do", f"remove the waiver from {waiver.file.rpartition('/')[2]}, or give it a new end date"),),
    )
