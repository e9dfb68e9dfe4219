"""Digest the files of a list: run as `python -I -S hash_worker.py LIST ANSWER`. Standard library only, Python 3.8 syntax.

LIST is JSON, `[[algorithm, path], ...]`; ANSWER gets one line for each, in order: the digest in hexadecimal, or `!` and why not.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys

#: Read at once; a smaller file is one read and one digest.
BLOCK = 1 << 20


def digest(algorithm: str, path: str, buffer: memoryview) -> str:
    """The digest in hexadecimal, or `!` and a reason; a named pipe does not block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        return "!" + (getattr(error, "strerror", None) or "not a path")
    try:
        size = os.readv(descriptor, [buffer])
        if size < BLOCK:
            return hashlib.new(algorithm, buffer[:size]).hexdigest()
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "!not a regular file"
        state = hashlib.new(algorithm, buffer)
        while size:
            size = os.readv(descriptor, [buffer])
            state.update(buffer[:size])
        return state.hexdigest()
    except OSError as error:
        return "!" + (error.strerror or "unreadable")
    finally:
        os.close(descriptor)


def main() -> None:
    """Digest every file of the list."""
    with open(sys.argv[1], encoding="ascii") as stream:  # noqa: PTH123 - pathlib is slow to import
        wanted = json.load(stream)
    buffer = memoryview(bytearray(BLOCK))
    with open(sys.argv[2], "w", encoding="utf-8") as out:  # noqa: PTH123 - as above
        out.writelines(digest(algorithm, path, buffer) + "\n" for algorithm, path in wanted)


if __name__ == "__main__":
    main()
