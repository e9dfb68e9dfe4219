"""`envcheck-monitor.jsonl`: one JSON line for the run, each step that was read, each finding, and the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from envcheck.monitor import records

if TYPE_CHECKING:
    from envcheck.findings import Finding
    from envcheck.monitor.records import Record, Run

SCHEMA = "envcheck.monitor/1"


class Journal:
    """Appends lines and flushes each, so that they outlive a crash. Rank 0 writes all; other ranks only their findings.

    Args:
        path: The file of rank 0; rank N writes `NAME.rankN.jsonl` beside it, if it has anything to say.
        rank: This rank.
    """

    def __init__(self, path: str, rank: int) -> None:
        place = Path(path)
        self.path = place if rank == 0 else place.with_name(f"{place.stem}.rank{rank}{place.suffix}")
        self.rank = rank
        self._head: dict[str, Any] = {}
        self._file: IO[str] | None = None

    def run(self, run: Run) -> None:
        """What is known of the run."""
        self._head = {"event": "run", "schema": SCHEMA, "rank": self.rank, **plain({n: getattr(run, n) for n in run.__slots__})}
        if self.rank == 0:
            self._open()

    def step(self, record: Record) -> None:
        """One record."""
        if self.rank == 0:
            self._write({"event": "step", **records.to_json(record)})

    def finding(self, finding: Finding, step: int, line: dict[str, Any]) -> None:
        """One finding; `line` is its report form."""
        self._write({"event": "finding", "at": step, "rank": self.rank, **line, "title": finding.title})

    def note(self, text: str) -> None:
        """Something that was not looked at, with the reason."""
        self._write({"event": "note", "text": text})

    def end(self, **fields: Any) -> None:  # noqa: ANN401 - plain values
        """The run is over."""
        if self.rank == 0 or self._file is not None:
            self._write({"event": "end", **fields})
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        self._write(self._head)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None  # noqa: S101 - opened above
        self._file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        self._file.flush()


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """The value as JSON can hold it: non-finite numbers as words, what is no plain value as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
