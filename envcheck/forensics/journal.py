"""A monitor's file (`envcheck-monitor.jsonl`) as the run behind it: every record goes to the monitor's own detector. Pure."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from envcheck.forensics.history import History
from envcheck.monitor import records
from envcheck.monitor.records import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What the first line of every monitor's file begins with.
HEAD = b'{"event": "run", "schema": "envcheck.monitor/1"'


def read(lines: Iterable[bytes]) -> History:
    """The run that the lines of a monitor's file tell of; a line that a crash cut off is left out.

    Raises:
        ValueError: A value is not of its kind.
    """
    history = History()
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
        except ValueError:
            continue
        event = data.get("event") if isinstance(data, dict) else None
        if event == "run":
            history = History(_run(data))
            history.rank = data.get("rank")
        elif event == "step":
            history.see_record(replace(records.from_json(data), line=number))
    return history


def _run(data: dict[str, Any]) -> Run:
    return Run(**{item.name: data[item.name] for item in fields(Run) if item.name in data})
