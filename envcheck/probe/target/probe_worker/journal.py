"""What a rank has to say, as JSON lines in its own file, written before every risky stage."""

from __future__ import annotations

import json
import math
import time
import traceback
from typing import Any

#: Characters of an exception's message, and lines of its traceback, that are kept.
MESSAGE_LIMIT = 2000
TRACE_LINES = 12


class Journal:
    """Append-only; every line is flushed, so that it outlives a crash of this process."""

    def __init__(self, path: str, rank: int) -> None:
        self.rank = rank
        self.scenario = ""
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, PTH123 - open for the life of the process

    def write(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """One line: the event, when, the scenario, and the given plain values."""
        record = {"event": event, "time": round(time.time(), 3), "scenario": self.scenario}
        record.update(fields)
        self._file.write(json.dumps(plain(record)) + "\n")
        self._file.flush()

    def doing(self, stage: str) -> None:
        """Say what comes next; the last such line of a dead rank is where it died."""
        self.write("doing", stage=stage)

    def failed(self, error: BaseException) -> None:
        """An exception, with the end of its traceback."""
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.write(
            "failed",
            type=type(error).__name__,
            message=str(error)[:MESSAGE_LIMIT],
            trace="".join(lines).splitlines()[-TRACE_LINES:],
        )


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """The value with non-finite floats as the words `nan`, `inf`, `-inf`, which JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
