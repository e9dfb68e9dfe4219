"""Measured results as evidence: one JSON line with a digest over everything that was measured."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from envcheck.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.findings import Report

SCHEMA = "envcheck.measured/1"

#: What a line keeps of each scenario; the configuration tells how it was run.
KEPT = ("id", "verdict", "text", "ratio", "error", "coefficients", "rules", "notes", "config", "changes")


def line(report: Report, today: datetime.date | None = None) -> dict[str, Any]:
    """The line of a report: versions, device, scenarios with their verdicts, and `digest` over all of it."""
    data = report.extra
    body = {
        "schema": SCHEMA,
        "date": (today or datetime.datetime.now(tz=datetime.timezone.utc).date()).isoformat(),
        "python": data["python"],
        "packages": data["packages"],
        "device": data["device"],
        "world_size": data["world_size"],
        "changes": data["changes"],
        "scenarios": [{key: one[key] for key in KEPT} for one in data["scenarios"]],
    }
    return {**body, "digest": digest(body)}


def digest(body: dict[str, Any]) -> str:
    """Sixteen hex digits of the BLAKE2b hash of the canonical JSON of everything but `digest` itself."""
    plain = json.dumps({key: value for key, value in body.items() if key != "digest"}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add a line to the file; one write, so that a line is whole or not there.

    Raises:
        UsageError: The file cannot be written.
    """
    text = (json.dumps(entry, sort_keys=True) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, text)
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(f"cannot write the record: {error.strerror}", where=str(path)) from error
