"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from envcheck.errors import UsageError


def write_whole(name: str, text: str, what: str) -> None:
    """Write UTF-8 text under a temporary name in the same folder, then rename it.

    Raises:
        UsageError: The file cannot be written; `what` says in the message what it would have been.
    """
    path = Path(name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot write the {what}: {reason}", where=name) from error
