"""A JSON document given by somebody: parsed strictly, then read with a path to every mistake."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Larger texts are refused before they are parsed.
LARGEST = 64 << 20


class Fields(dict[str, Any]):
    """A JSON object that remembers which keys were given twice."""

    twice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """Where in the document we are, and the mistakes found so far; readers further down share the list."""

    path: str = ""
    mistakes: list[str] = field(default_factory=list)

    def at(self, key: str | int) -> Reader:
        """The reader for a key or index below this one."""
        step = f"[{key}]" if isinstance(key, int) else (f".{_shown(key)}" if self.path else _shown(key))
        return Reader(f"{self.path}{step}", self.mistakes)

    def wrong(self, message: str) -> None:
        """Note a mistake at this place."""
        self.mistakes.append(f"{self.path or 'the document'}: {message}")

    def expect(self, value: Any, kind: type | tuple[type, ...], words: str) -> bool:  # noqa: ANN401 - JSON
        """Whether the value is of a kind; a mistake is noted where it is not. A boolean is no number."""
        fits = isinstance(value, kind) and (not isinstance(value, bool) or kind is bool)
        if not fits:
            self.wrong(f"must be {words}, not {kind_of(value)}")
        return fits

    def text(self, value: Any, words: str = "a text") -> str:  # noqa: ANN401 - JSON
        """The value where it is a text, else an empty one with a mistake noted."""
        return value if self.expect(value, str, words) else ""

    def texts(self, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
        """The value as a tuple of texts."""
        if not self.expect(value, list, "a list of texts"):
            return ()
        return tuple(self.at(number).text(item) for number, item in enumerate(value))

    def items(
        self,
        value: Any,  # noqa: ANN401 - JSON
        words: str = "an object",
    ) -> Iterator[tuple[str, Any, Reader]]:
        """Key, value and reader of each field of an object; keys given twice are mistakes."""
        if not self.expect(value, dict, words):
            return
        for key in getattr(value, "twice", ()):
            self.at(key).wrong("is given twice")
        for key, item in value.items():
            yield key, item, self.at(key)


def _shown(key: str) -> str:
    """A key for messages: as it is where it is harmless, else quoted, escaped and cut."""
    return key if re.fullmatch(r"[\w.+-]{1,80}", key, re.ASCII) else json.dumps(key[:80])


def kind_of(value: object) -> str:
    """What a JSON value is, for messages."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        type(None): "null",
    }
    return names.get(type(value), "an object")


def parse(text: str, where: str, what: str = "snapshot") -> Fields:
    """The JSON object of a text; `what` it should be is for messages.

    Raises:
        InputError: Too large, empty, not JSON, not an object; with line and column where there is one.
    """
    if len(text) > LARGEST:
        raise InputError(f"the {what} is larger than {LARGEST >> 20} MiB", where=where)
    if not text.strip():
        hints = ("`envcheck snapshot` writes one",) if what == "snapshot" else ()
        raise InputError(f"the {what} is empty", where=where, hints=hints)
    try:
        document = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_fields, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}:{error.colno}"
        raise InputError(f"the {what} is not JSON: {error.msg}", where=place) from error
    except RecursionError as error:
        raise InputError(f"the {what} is nested too deeply", where=where) from error
    except ValueError as error:
        raise InputError(f"the {what} is not usable JSON: {error}", where=where) from error
    if not isinstance(document, Fields):
        raise InputError(f"the {what} must be a JSON object, not {kind_of(document)}", where=where)
    return document


def _fields(pairs: list[tuple[str, Any]]) -> Fields:
    found = Fields(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        found.twice = tuple(key for key, count in counts.items() if count > 1)
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"`{name}` is not JSON")
