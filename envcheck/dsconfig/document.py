"""Parse a DeepSpeed JSON with the place of every key, tolerating what people write, and never failing.

DeepSpeed itself reads a file with hjson, which takes comments, trailing commas and single quotes;
transformers and accelerate read the
same file with `json`, which takes none. Every such thing is noted as a `Problem`, and the document goes on.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Deeper documents are refused: real ones have four levels, and the parser recurses once a level.
DEEPEST = 64

#: Characters; real files have some thousand.
LARGEST = 4 << 20

#: Digits of an integer; Python itself refuses to read more than 4300.
LONGEST_NUMBER = 400

NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
LOOSE_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*)?\.?[\d_]*(?:[eE][+-]?\d+)?")
WORD = re.compile(r"[A-Za-z_$][\w$.-]*")
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
FOREIGN: dict[str, Any] = {
    "True": True,
    "False": False,
    "None": None,
    "TRUE": True,
    "FALSE": False,
    "NULL": None,
    "undefined": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
}
#: What some editors put before the text.
MARK = "\ufeff"

SPACE = " \t\r\n\ufeff\u00a0"


class Place(NamedTuple):
    """A position in the text: 1-based line and column, and the offset."""

    line: int
    column: int
    offset: int


class Problem(NamedTuple):
    """Something in the text that strict JSON does not allow; `fatal` where nothing after it could be read."""

    kind: str
    message: str
    place: Place
    end: int
    fatal: bool = False


class Value(NamedTuple):
    """A value with the text it came from.

    Attributes:
        plain: A scalar, or a list of plain values; None for objects.
        entries: The entries of an object, duplicates included; None for anything else.
        place: Where it begins.
        end: Offset after it.
        raw: The text of a scalar.
    """

    plain: Any
    entries: tuple[Entry, ...] | None
    place: Place
    end: int
    raw: str = ""


class Entry(NamedTuple):
    """One `key: value` of an object; `path` is dotted."""

    key: str
    path: str
    place: Place
    value: Value
    key_end: int


class Document(NamedTuple):
    """A parsed file.

    Attributes:
        text: The text.
        root: The outermost value, or None where nothing could be read.
        problems: What strict JSON would not allow, in order.
        duplicates: Entries that an earlier entry of the same object already named.
        by_path: Dotted name -> entry; of duplicates the last.
    """

    text: str
    root: Value | None
    problems: tuple[Problem, ...] = ()
    duplicates: tuple[Entry, ...] = ()
    by_path: Mapping[str, Entry] = MappingProxyType({})

    @property
    def usable(self) -> bool:
        """Whether an object was read to its end."""
        return self.root is not None and self.root.entries is not None and not any(item.fatal for item in self.problems)

    def entries(self) -> Iterator[Entry]:
        """Every entry at every depth, in file order, duplicates included."""
        if self.root is not None:
            yield from _walk(self.root)

    def plain(self) -> dict[str, Any]:
        """The document as `json.loads` would give it (the last of duplicate keys wins); empty where it is not usable."""
        return _plain(self.root) if self.usable and self.root is not None else {}

    def place(self, path: str) -> Place | None:
        """Where the dotted key is, or its nearest section that is there."""
        while path:
            if path in self.by_path:
                return self.by_path[path].place
            path = path.rpartition(".")[0]
        return None


def _walk(value: Value) -> Iterator[Entry]:
    for entry in value.entries or ():
        yield entry
        yield from _walk(entry.value)


def _plain(value: Value) -> Any:  # noqa: ANN401 - JSON values
    if value.entries is None:
        return value.plain
    return {entry.key: _plain(entry.value) for entry in value.entries}


def parse(text: str) -> Document:
    """Parse a document; never raises for any text."""
    reader = _Reader(text[: LARGEST + 1])
    root: Value | None = None
    try:
        if len(text) > LARGEST:
            reader.stop("too-large", f"the document is longer than {LARGEST >> 20} Mi characters", 0)
        root = reader.document()
    except _StopReadingError:
        pass
    index: dict[str, Entry] = {}
    document = Document(text, root, tuple(reader.problems), tuple(reader.duplicates), index)
    index.update({entry.path: entry for entry in document.entries()})
    return document


class _StopReadingError(Exception):
    """Nothing further can be made of the text."""


class _Reader:
    """A recursive-descent reader over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.problems: list[Problem] = []
        self.duplicates: list[Entry] = []
        self.starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        """Line and column of an offset."""
        line = bisect_right(self.starts, offset)
        return Place(line, offset - self.starts[line - 1] + 1, offset)

    def note(self, kind: str, message: str, offset: int, end: int | None = None) -> None:
        """Note something that strict JSON refuses."""
        self.problems.append(Problem(kind, message, self.place(offset), self.at if end is None else end))

    def stop(self, kind: str, message: str, offset: int) -> NoReturn:
        """Note something after which nothing can be read."""
        self.problems.append(Problem(kind, message, self.place(offset), offset, fatal=True))
        raise _StopReadingError

    def document(self) -> Value:
        """The whole text."""
        if self.text.startswith(MARK):
            self.at = 1
            self.note("byte-order-mark", "the file begins with a byte order mark", 0)
        self.space()
        if self.at >= len(self.text):
            self.stop("empty", "the document is empty", 0)
        value = self.value("", 0)
        self.space()
        if self.at < len(self.text):
            self.stop("after-end", f"unexpected {self.shown()} after the end of the document", self.at)
        if value.entries is None:
            self.stop("not-an-object", "the document must be an object `{...}`", value.place.offset)
        return value

    def shown(self) -> str:
        """What stands here, for messages."""
        return f"`{self.text[self.at]}`" if self.at < len(self.text) else "end of the text"

    def space(self) -> None:
        """Pass over white space and comments; comments are noted."""
        text = self.text
        while self.at < len(text):
            if text[self.at] in SPACE:
                self.at += 1
                continue
            start = self.at
            if text[start] == "#" or text.startswith("//", start):
                end = text.find("\n", start)
                end = len(text) if end < 0 else end
                self.at = end - 1 if text[end - 1] == "\r" else end
            elif text.startswith("/*", start):
                end = text.find("*/", start + 2)
                if end < 0:
                    self.stop("comment", "a comment `/*` is not closed", start)
                self.at = end + 2
            else:
                return
            self.note("comment", "a comment", start)

    def value(self, path: str, depth: int) -> Value:
        """The value that begins here."""
        if depth > DEEPEST:
            self.stop("too-deep", f"nested more than {DEEPEST} levels deep", self.at)
        start = self.at
        sign = self.text[start : start + 1]
        if sign == "{":
            return self.object(path, depth)
        if sign == "[":
            return self.list(path, depth)
        if sign and sign in "\"'":
            plain: Any = self.string()
        elif sign and (sign in "+-." or sign.isdigit()):
            plain = self.number()
        else:
            plain = self.word()
        return Value(plain, None, self.place(start), self.at, self.text[start : self.at])

    def object(self, path: str, depth: int) -> Value:
        """An object; duplicate keys are kept and noted."""
        start = self.at
        self.at += 1
        entries: list[Entry] = []
        seen: set[str] = set()
        while not self.closed("}", start, "object"):
            entry = self.entry(path, depth)
            if entry.key in seen:
                self.duplicates.append(entry)
            seen.add(entry.key)
            entries.append(entry)
            self.comma("}")
        return Value(None, tuple(entries), self.place(start), self.at)

    def entry(self, path: str, depth: int) -> Entry:
        """One `key: value`."""
        start = self.at
        sign = self.text[start]
        if sign in "\"'":
            key = self.string()
        elif found := WORD.match(self.text, start):
            key, self.at = found[0], found.end()
            self.note("unquoted-key", f"the key `{key}` is not quoted", start)
        else:
            self.stop("syntax", f"expected a key, found {self.shown()}", start)
        key_end = self.at
        self.space()
        if self.text[self.at : self.at + 1] != ":":
            self.stop("syntax", f"expected `:` after the key `{key[:40]}`, found {self.shown()}", self.at)
        self.at += 1
        self.space()
        if self.text[self.at : self.at + 1] in ("", "}", ","):
            self.stop("syntax", f"the key `{key[:40]}` has no value", self.at)
        name = f"{path}.{key}" if path else key
        return Entry(key, name, self.place(start), self.value(name, depth + 1), key_end)

    def list(self, path: str, depth: int) -> Value:
        """An array; objects inside it become plain."""
        start = self.at
        self.at += 1
        items: list[Any] = []
        while not self.closed("]", start, "array"):
            items.append(_plain(self.value(f"{path}[{len(items)}]", depth + 1)))
            self.comma("]")
        return Value(items, None, self.place(start), self.at, self.text[start : self.at])

    def closed(self, bracket: str, start: int, what: str) -> bool:
        """Whether the closing bracket stands here; it is then passed."""
        self.space()
        if self.at >= len(self.text):
            self.stop("not-closed", f"the {what} that begins here is not closed", start)
        if self.text[self.at] == bracket:
            self.at += 1
            return True
        return False

    def comma(self, bracket: str) -> None:
        """The comma between items; a trailing or a missing one is noted."""
        end = self.at
        self.space()
        here = self.text[self.at : self.at + 1]
        if here in (bracket, ""):
            return
        if here != ",":
            if here in "}]:":
                self.stop("syntax", f"unexpected {self.shown()}", self.at)
            self.note("missing-comma", "a comma is missing", end, end)
            return
        offset = self.at
        self.at += 1
        self.space()
        if self.text[self.at : self.at + 1] == bracket:
            self.note("trailing-comma", "a comma before the closing bracket", offset, offset + 1)
        elif self.text[self.at : self.at + 1] == ",":
            self.stop("syntax", "two commas", self.at)

    def string(self) -> str:
        """A string in double or single quotes."""
        start = self.at
        quote = self.text[start]
        end = start + 1
        while True:
            end = _first(self.text, quote, end)
            if end < 0:
                self.stop("syntax", "a string is not closed", start)
            if self.text[end] == quote:
                break
            if self.text[end] == "\n":
                self.stop("syntax", "a string is not closed on its line", start)
            end += 2
        self.at = end + 1
        if quote == "'":
            self.note("single-quotes", "a string in single quotes", start)
        return self.unescaped(self.text[start + 1 : end], start)

    def unescaped(self, inner: str, start: int) -> str:
        """The content of a string; escapes that JSON does not have are noted and kept as they are."""
        if "\\" not in inner and "\t" not in inner:
            return inner
        try:
            return str(json.loads(f'"{inner}"', strict=False))
        except (ValueError, RecursionError):
            self.note("escape", "an escape that JSON does not have", start)
            return inner

    def number(self) -> int | float:
        """A number; forms that only Python or hjson take are noted."""
        start = self.at
        found = NUMBER.match(self.text, start)
        loose = LOOSE_NUMBER.match(self.text, start)
        end = max(found.end() if found else start, loose.end() if loose else start)
        text = self.text[start:end]
        if self.text.startswith(("Infinity", "inf"), end):
            self.at = end + (8 if self.text.startswith("Infinity", end) else 3)
            self.note("not-finite", "a number that is not finite", start)
            return float("-inf") if text == "-" else float("inf")
        if len(text) > LONGEST_NUMBER or not any(sign.isdigit() for sign in text):
            self.stop(
                "syntax",
                "a number is too long" if len(text) > LONGEST_NUMBER else f"expected a value, found {self.shown()}",
                start,
            )
        self.at = end
        strict = found is not None and found.end() == end
        if not strict:
            self.note("number", f"`{text}` is not how JSON writes a number", start)
        try:
            if found and strict and not found[1] and not found[2]:
                return int(text)
            return _loose_number(text)
        except ValueError:
            self.stop("syntax", f"`{text}` is not a number", start)

    def word(self) -> Any:  # noqa: ANN401 - JSON values
        """`true`, `false`, `null`, and what other languages write instead."""
        start = self.at
        found = WORD.match(self.text, start)
        if not found:
            self.stop("syntax", f"expected a value, found {self.shown()}", start)
        word = found[0]
        self.at = found.end()
        if word in WORDS:
            return WORDS[word]
        if word in FOREIGN:
            kind = "not-finite" if word in ("NaN", "Infinity") else "foreign-word"
            self.note(kind, f"`{word}` is not JSON", start)
            return FOREIGN[word]
        self.note("unquoted-text", f"the text `{word[:40]}` is not quoted", start)
        return word


def _loose_number(text: str) -> int | float:
    """A number as Python writes it; whole ones stay integers."""
    bare = text.replace("_", "")
    return int(bare) if re.fullmatch(r"[+-]?\d+", bare) else float(bare)


def _first(text: str, quote: str, start: int) -> int:
    """The offset of the next quote, backslash or line end; -1 without any."""
    found = (_STOPS_DOUBLE if quote == '"' else _STOPS_SINGLE).search(text, start)
    return found.start() if found else -1


_STOPS_DOUBLE = re.compile(r'["\\\n]')
_STOPS_SINGLE = re.compile(r"['\\\n]")
