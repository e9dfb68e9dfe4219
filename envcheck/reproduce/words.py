"""The words of one command, and what can be told from them alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = ("sh", "bash", "dash", "ksh", "ash")

#: Words before a command that change nothing about what it installs, a Dockerfile's RUN among them; sudo's options with a value
#: are rare enough to leave.
PREFIXES = ("sudo", "command", "exec", "nohup", "time", "builtin", "env", "nice", "stdbuf", "retry", "RUN")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command; where not all of it is known, `text` holds the source of the rest."""

    text: str
    known: bool = True


def one_line(text: str, width: int = 160) -> str:
    """A text on one line, cut at `width`."""
    flat = " ".join(text.replace("\\\n", " ").split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def unescaped(text: str) -> str:
    """The content of a double-quoted string: a backslash counts before dollar, backtick, quote, backslash and line end."""
    return re.sub(r'\\([$`"\\])', r"\1", text.replace("\\\n", ""))


def errexit(words: list[Word]) -> bool:
    """Whether the arguments of `set` switch stopping at the first failure on."""
    texts = [word.text for word in words]
    short = any(re.fullmatch(r"-[a-zA-Z]*e[a-zA-Z]*", text) for text in texts)
    return short or any(pair == ("-o", "errexit") for pair in pairwise(texts))


def nested_script(words: list[Word]) -> str | None:
    """The text of `bash -c TEXT` or `eval TEXT` where all of it is known."""
    name = words[0].text.rpartition("/")[2]
    rest = words[1:]
    if name == "eval" and rest and all(word.known for word in rest):
        return " ".join(word.text for word in rest)
    if name in SHELLS:
        for flag, text in pairwise(rest):
            if re.fullmatch(r"-[a-z]*c", flag.text) and text.known:
                return text.text
    return None


def stripped(words: list[Word]) -> list[Word]:
    """The words without `sudo`, `env NAME=VALUE`, `conda run -n NAME` and the like in front."""
    rest = list(words)
    while rest:
        name = rest[0].text.rpartition("/")[2]
        if name == "command" and len(rest) > 1 and rest[1].text in ("-v", "-V"):
            return rest
        if name in PREFIXES and len(rest) > 1:
            rest = list(_after_options(rest[1:], ("-u", "-g", "-n")))
        elif name in ("conda", "mamba", "micromamba") and len(rest) > 1 and rest[1].text == "run":
            rest = list(_after_options(rest[2:], ("-n", "--name", "-p", "--prefix", "--cwd")))
        elif name == "uv" and len(rest) > 1 and rest[1].text == "run" and not _uv_flags(rest[2:]):
            rest = rest[2:]
        else:
            return rest
    return rest


def _uv_flags(words: list[Word]) -> bool:
    return not words or words[0].text.startswith("-")


def _after_options(words: list[Word], valued: tuple[str, ...]) -> Iterator[Word]:
    """The words after leading options and assignments."""
    rest = list(words)
    while rest and (rest[0].text.startswith("-") or re.match(r"[A-Za-z_]\w*=", rest[0].text)):
        option = rest.pop(0).text
        if option in valued and rest:
            rest.pop(0)
        if option == "--":
            break
    yield from rest
