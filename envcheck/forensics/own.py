"""Lines of somebody's own loop, as `step 3 loss 2.31 lr 1e-5 grad_norm 0.8` and progress bars (`loss=2.31, lr=1e-05]`).

mmengine, Megatron, torchtitan, verl and Lightning write such lines. One entry a line, with the loss that is trained on. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: A number as loops print it. What would go on as a word, a path or another number is none.
NUMBER = rb"(?:nan\b|NaN\b|-?[Ii]nf\b|-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?(?!\.?\d))(?![\w/%])"

#: Between a name and its number: progress bars have `=`, tables are padded, `tensor(2.31, ...)` counts too; a key of a dictionary
#: ends with a quote and is none of these.
BETWEEN = rb"(?!')[ \t]{0,8}[:=]?[ \t]{0,8}['\"]?(?:tensor\()?"

#: `loss` and its number, as far as it tells losses from other words; `Loss` too.
LOSS = rb"oss(?P<between>" + BETWEEN + rb")(?P<own>" + NUMBER + rb")"

_LOSS = re.compile(LOSS)

#: May the bytes hold such a line at all? Cheaper than `LOSS`, and true wherever that is found.
HINT = re.compile(rb"oss(?!')[ \t]{0,8}[:=]?[ \t]{0,8}['\"]?(?:tensor\()?(?:[nN]a|-?[Ii]nf|-?\d)")

#: What stands before `loss` where that is the end of a longer name: the loss that is trained on.
NAMED = re.compile(rb"(?:^|[^A-Za-z0-9_/])(?:[Tt]rain(?:ing)?|step|total|lm|gpt|ce|sft|actor|(?:actor/)?(?:pg|policy))[_/]$")
INSIDE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/")

#: A word before it that makes it another.
OTHER = re.compile(rb"(?:eval|val|valid|validation|test|best|aux\w*)[ _-]*$", re.IGNORECASE)
OTHERS = re.compile(rb"[ae][lsu]", re.IGNORECASE)
COLOUR = re.compile(rb"\x1b\[[\d;]*m")

#: What may stand between another name and its number.
APART = rb"(?:[ \t:='\"\[(]|tensor\(){1,12}"

#: Of lower-case text; each begins with a literal, as `ANY` in `entries` does.
RATE = re.compile(rb"(?:lr|learning[ _]rate)" + APART + rb"(" + NUMBER + rb")")
NORM = re.compile(rb"norm" + APART + rb"(" + NUMBER + rb")")
OF_GRADIENT = re.compile(rb"(?:grad(?:ient)?[ _-]?|(?:^|[^a-z0-9])g)$")
BAR = re.compile(rb"\| *(\d+)/(?:\d+|\?) \[")

#: Zero after rounding, as far as one can see: `0.00`, not `0.0` or `0`, which a float that is 0 prints as.
ROUNDED_TO_ZERO = re.compile(rb"-?0\.00+$")

#: A norm written with fewer characters may repeat by chance.
DIGITS = 8

#: No line is longer than this.
LONGEST_LINE = 4096


class Line(NamedTuple):
    """What one line of a loop says.

    Attributes:
        loss: As it is written.
        rate: The learning rate likewise, or empty.
        norm: The gradient norm likewise, or empty.
        bar: The step that a progress bar shows before it; None where there is no bar.
    """

    loss: bytes
    rate: bytes = b""
    norm: bytes = b""
    bar: int | None = None

    @property
    def rounded(self) -> bool:
        """Whether the norm is written with so few digits that it may repeat by chance."""
        return len(self.norm) < DIGITS


def line_of(buffer: bytes, found: re.Match[bytes]) -> Line | None:
    """The line that a match of `LOSS` stands in; None where it is of an evaluation, another loss, or not the line's first."""
    start, end = found.span()
    if not _counts(buffer, start, found["between"]):
        return None
    begin = buffer.rfind(b"\n", max(start - LONGEST_LINE, 0), start) + 1 or max(start - LONGEST_LINE, 0)
    begin = buffer.rfind(b"\r", begin, start) + 1 or begin
    if b"oss" in buffer[begin:start] and any(
        _counts(buffer, other.start(), other[1]) for other in _LOSS.finditer(buffer, begin, start)
    ):
        return None
    until = buffer.find(b"\n", end, end + LONGEST_LINE)
    until = until if until >= 0 else end + LONGEST_LINE
    text = buffer[begin : max(buffer.find(b"\r", end, until), 0) or until]
    text = (COLOUR.sub(b"", text) if b"\x1b" in text else text).lower()
    bar = BAR.search(text) if b"| " in text else None
    return Line(found["own"], _rate(text), _norm(text), int(bar[1]) if bar else None)


def _counts(buffer: bytes, start: int, between: bytes) -> bool:
    """Whether a number behind `oss`, which begins at `start`, is that of the loss which is trained on."""
    if not between or buffer[start - 1 : start] not in (b"l", b"L"):
        return False
    before = buffer[max(start - 48, 0) : start - 1]
    before = COLOUR.sub(b"", before) if b"\x1b" in before else before
    if before and before[-1] in INSIDE and not NAMED.search(before[-24:]):
        return False
    near = before[-16:]
    return not (OTHERS.search(near) and OTHER.search(near))


def _rate(text: bytes) -> bytes:
    for word in (b"lr", b"learning"):
        at = text.find(word)
        while at >= 0:
            if not (word == b"lr" and text[max(at - 1, 0) : at].isalnum()):
                found = RATE.match(text, at)
                if found is not None:
                    return b"" if ROUNDED_TO_ZERO.match(found[1]) else found[1]
            at = text.find(word, at + 1)
    return b""


def _norm(text: bytes) -> bytes:
    for found in NORM.finditer(text):
        if OF_GRADIENT.search(text, max(found.start() - 10, 0), found.start()):
            return b"" if ROUNDED_TO_ZERO.match(found[1]) else found[1]
    return b""
