"""What `packaging` says of texts, remembered: whether a version is in a range never changes.

Importing its parsers and asking them is almost a third of a check in which nothing was compared before.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from envcheck.cache import cache_folder, digest, read_object, write_cached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Function = TypeVar("Function", bound="Callable[..., Any]")

#: More answers than this are not kept: what was not asked for this time goes.
MOST = 20_000


class _Store:
    """Function and texts -> answer: those of the cache, and those given in this run; None where nothing is remembered."""

    known: dict[str, Any] | None = None
    given: dict[str, Any] | None = None


_store = _Store()


def remembered(function: Function) -> Function:
    """A pure function of texts whose answer is a JSON value: within `remembering` it is asked once and for all."""

    @lru_cache(maxsize=16384)
    def ask(*texts: str) -> Any:  # noqa: ANN401 - what the function gives
        known, given = _store.known, _store.given
        if known is None or given is None:
            return function(*texts)
        key = f"{function.__name__}{texts}"
        given[key] = known[key] if key in known else function(*texts)
        return given[key]

    return cast("Function", ask)


@contextmanager
def remembering(environ: Mapping[str, str], code: tuple[str, ...]) -> Iterator[None]:
    """Read what is known, and afterwards keep what has come.

    Args:
        environ: Variables that say where the cache is; without one nothing is remembered.
        code: What tells one state of the code that answers from another.
    """
    import packaging  # noqa: PLC0415 - its version alone

    base = cache_folder(environ)
    if base is None:
        yield
        return
    parts = (packaging.__version__, *code)
    file = f"{base}/compared-{digest(*(part.encode(errors='surrogatepass') for part in parts))}.json"
    known, given = read_object(file), dict[str, Any]()
    _store.known, _store.given = known, given
    try:
        yield
    finally:
        _store.known = _store.given = None
    if not given.keys() <= known.keys():
        kept = known if len(known) + len(given) <= MOST else {}
        write_cached(file, json.dumps({**kept, **given}, separators=(",", ":")).encode())
