"""The user's cache: files that can be made again at any time, each written under a temporary name and renamed.

A cache that is absent, damaged, full or not writable is never an error: what it would have saved is computed.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of each kind of file so many are kept, the newest.
KEPT = 8


def cache_folder(environ: Mapping[str, str]) -> str | None:
    """Where the cache lives: `ENVCHECK_CACHE`, else `envcheck` below `XDG_CACHE_HOME` or `~/.cache`; None without a home."""
    if environ.get("ENVCHECK_CACHE"):
        return environ["ENVCHECK_CACHE"]
    home = environ.get("HOME", "")
    base = environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home and os.path.isdir(home) else "")  # noqa: PTH112 - pathlib is slow
    return f"{base}/envcheck" if base.startswith("/") else None


def digest(*parts: bytes) -> str:
    """A name for content: 32 hexadecimal digits over the parts and their lengths."""
    from _blake2 import blake2b  # noqa: PLC0415 - as hashlib does, which also loads OpenSSL: an eighth of a check

    found = blake2b(digest_size=16)
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.hexdigest()


def read_cached(path: str) -> bytes | None:
    """The content of a cache file; None where it cannot be read."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - pathlib is slow
            return stream.read()
    except (OSError, ValueError):
        return None


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a cache file; an empty one where there is none that can be read."""
    content = read_cached(path)
    try:
        document = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def write_cached(path: str, content: bytes) -> None:
    """Keep `content`, readable for this user only; the oldest files of the same kind and ending go."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - pathlib is slow
        _drop_old(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
        os.replace(temporary, path)  # noqa: PTH105 - pathlib is slow
    except (OSError, ValueError):
        return


def _drop_old(path: str) -> None:
    """Files are called KIND-DIGEST.ENDING."""
    where, _, name = path.rpartition("/")
    kind, ending = name.partition("-")[0] + "-", name.rpartition(".")[2]
    with os.scandir(where) as entries:
        same = [entry for entry in entries if entry.name.startswith(kind) and entry.name.endswith(ending)]
    for _, old in sorted((entry.stat().st_mtime_ns, entry.path) for entry in same)[: max(len(same) - KEPT + 1, 0)]:
        os.unlink(old)  # noqa: PTH108 - pathlib is slow
