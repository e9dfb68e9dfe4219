"""Training logs as entries: Trainer lines, `trainer_state.json`, DeepSpeed's own lines, a monitor's file, own loops. Pure.

One expression finds everything that matters in a stream of bytes, whatever stands around it (progress bars, prefixes that
launchers put before a rank's lines, warnings), so that memory does not grow with the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from envcheck.forensics import own

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

#: An entry that begins before the end of a chunk may reach so many bytes into the next one.
LONGEST = 4096

#: Bytes whose lines are taken together where they are all alike.
PIECE = 1 << 18

#: Fewer are looked at one by one.
FEWEST_ALIKE = 32

#: A Trainer line as nearly all are: in plain numbers, or as texts (transformers 5). The others are taken apart pair by pair.
NUMBER = rb"(\d+\.?\d*(?:e[+-]?\d+)?)"
USUAL = (
    rb"\{'loss': ('?)" + NUMBER + rb"\1, 'grad_norm': \1" + NUMBER + rb"\1, 'learning_rate': \1" + NUMBER
    + rb"\1(?:, '(?:epoch|num_\w+|mean_\w+|entropy)': '?[\d.e+-]+'?)*\}"
)  # fmt: skip

#: Every alternative begins with a literal, so that the search skips what cannot begin one.
ANY = (
    rb"\{[^{}]{2,4000}\}"
    rb"|OVERFLOW!(?: Skipping step\. Gradients|[\w .]{0,60}: \d+, reducing to (?P<scale>\d+))?"
    rb"|Current loss scale already at minimum"
    rb"|tried to get lr value before"
    rb"|step=(?P<step>\d+), skipped=(?P<skipped>\d+), lr=\[(?P<lr>[^\],]*)"
    rb"|Total optimization steps = [\d,]+"
    rb"|Gradient Accumulation steps = [\d,]+"
    rb'|max_steps": \d+'
    rb'|logging_steps": \d+'
    rb"|"
) + own.LOSS
TOKEN = re.compile(ANY)
WHOLE = re.compile(USUAL)

#: Where one of these stands, or an own loop's loss, lines are looked at one by one.
NOTEWORTHY = (
    b"OVERFLOW!", b"Current loss scale", b"tried to get lr", b"Total optimization", b"Gradient Accumulation", b'_steps": ',
)  # fmt: skip
REPORT = re.compile(rb"step=(\d+), skipped=(\d+), lr=\[")
OBJECT = re.compile(rb"\{[^{}]{2,4000}\}")

PAIR = re.compile(rb"""['"](\w+)['"]:\s*('[^']*'|"[^"]*"|[^,}\s]+)""")

#: What launchers write before a line: torchrun `[default0]:` and `[rank0]:`, srun -l `0:`, mpirun `[1,0]<stdout>:`,
#: ray `(worker pid=1)`, the DeepSpeed launcher over pdsh `node-1:`.
PREFIX = re.compile(rb"\s*(\[(?:default|rank)\d+\]:|\d+:|\[\d+,\d+\](?:<\w+>)?:|\([\w ]+pid=[^)]*\)|[\w.-]+:)\s+$")
PREFIXED = re.compile(rb"[:)]\s+\{'loss'")

#: What DeepSpeed says when it skips a step: under fp16 (where it then lowers the loss scale), and from 0.19.8 on under bf16.
OVERFLOW, BF16_SKIPPED = "overflow", "bf16 skipped"

#: A warning or exception, by its first letter.
MESSAGES = {b"C": "Current loss scale already at minimum", b"t": "lr asked for before the first step"}

#: What facts are called in the log, and here.
FACTS = {"Total optimization steps": "max_steps", "Gradient Accumulation steps": "accumulation", "max_steps": "max_steps",
         "logging_steps": "logging_steps"}  # fmt: skip

#: What other writers call the Trainer's names.
NAMES = {b"loss": "loss", b"learning_rate": "lr", b"lr": "lr", b"grad_norm": "grad_norm", b"gradient_norm": "grad_norm",
         b"step": "step", b"global_step": "step", b"logged_loss": "logged_loss", b"rank": "rank", b"lr_integer": "lr_integer",
         b"skipped": "skipped", b"loss_scale": "loss_scale"}  # fmt: skip


class Source(str, Enum):
    """Who wrote an entry."""

    TRAINER = "trainer"
    DEEPSPEED = "deepspeed"
    OWN = "own"
    FACT = "fact"


@dataclass(slots=True)
class Entry:
    """One thing that the log says about training.

    Attributes:
        source: Who wrote it.
        numbers: By name: `loss`, `lr`, `grad_norm`, `step`, `skipped`, `loss_scale`, or of a fact its name; None where the log
            says None.
        message: A warning or exception: `OVERFLOW`, `BF16_SKIPPED` or one of `MESSAGES`.
        line: Its line, counted from 1.
        prefix: What a launcher put before it, which tells ranks apart; or empty.
        lr_integer: The learning rate is written as the integer 0.
        quoted: The numbers are written as texts, as transformers 5 does.
        rounded: The norm is written with so few digits that it may repeat by chance.
        bar: The step that a progress bar shows before it.
    """

    source: Source
    numbers: dict[str, float | None] = field(default_factory=dict)
    message: str = ""
    line: int = 0
    prefix: str = ""
    lr_integer: bool = False
    quoted: bool = False
    rounded: bool = False
    bar: int | None = None


@dataclass(slots=True)
class Lines:
    """Many usual lines of a Trainer's, with nothing of note between them.

    Attributes:
        losses: One of each line, as the next two.
        norms: Gradient norms.
        rates: Learning rates.
        text: The piece of the log that holds them.
        line: The piece's first line, counted from 1.
        quoted: Some numbers are written as texts.
        reports: DeepSpeed's own lines between them: step, and steps skipped since the start.
    """

    losses: list[float]
    norms: list[float]
    rates: list[float]
    text: bytes
    line: int
    quoted: bool
    reports: list[tuple[int, int]]

    def entries(self, last: int | None = None) -> Iterator[Entry]:
        """The lines one by one; `last` of them where that is given."""
        start = 0 if last is None else len(self.text)
        for _ in range(last or 0):
            start = self.text.rindex(b"{'loss'", 0, start)
        yield from _each(self.text, start, len(self.text), len(self.text), self.line + self.text.count(b"\n", 0, start))


def read(chunks: Iterable[bytes]) -> Iterator[Entry | Lines]:
    """The entries of a log that comes in pieces of any size, where many lines are alike together; constant memory."""
    rest, line = b"", 1
    for chunk in chunks:
        buffer = rest + chunk
        limit = max(len(buffer) - LONGEST, 0)
        limit = max(buffer.rfind(b"\n", 0, limit), buffer.rfind(b"\r", 0, limit)) + 1 or limit  # whole lines, where there are any
        if not limit:
            rest = buffer
            continue
        end, line = yield from _scan(buffer, limit, line)
        rest = buffer[end:]
    yield from _scan(rest, len(rest), line)


def _scan(buffer: bytes, limit: int, line: int) -> Generator[Entry | Lines, None, tuple[int, int]]:
    """The entries that begin before `limit`; returns where the next scan has to begin, and its line."""
    start = 0
    while (cut := buffer.rfind(b"}", start, min(start + PIECE, limit)) + 1) > start:  # nothing of note reaches across a `}`
        lines = _alike(buffer[start:cut], line)
        if lines is not None:
            yield lines
        else:
            yield from _each(buffer, start, cut, cut, line)
        line += buffer.count(b"\n", start, cut)
        start = cut
    return (yield from _each(buffer, start, len(buffer), limit, line))


def _alike(text: bytes, line: int) -> Lines | None:
    """The piece as usual lines, where it holds nothing else that counts; None where it does."""
    found = WHOLE.findall(text)
    if len(found) < FEWEST_ALIKE or any(word in text for word in NOTEWORTHY) or own.HINT.search(text):
        return None
    if text.count(b"\n{'loss'") + text.startswith(b"{'loss'") < len(found) and PREFIXED.search(text):
        return None
    if text.count(b"{") > len(found) and sum(map(_is_of_a_step, OBJECT.findall(text))) > len(found):
        return None
    quotes, *columns = zip(*found, strict=True)
    losses, norms, rates = (list(map(float, column)) for column in columns)
    reports = REPORT.findall(text) if b", skipped=" in text else []
    return Lines(losses, norms, rates, text, line, b"'" in quotes, [(int(step), int(skipped)) for step, skipped in reports])


def _is_of_a_step(token: bytes) -> bool:
    """May the object tell of a training step, as an evaluation or a configuration does not?"""
    return b"'loss'" in token or b'"loss"' in token or b"logged_loss" in token


def _each(buffer: bytes, start: int, end: int, limit: int, line: int) -> Generator[Entry, None, tuple[int, int]]:
    """The entries between `start` and `end` that begin before `limit`, one by one; returns as `_scan`."""
    counted = start
    for found in TOKEN.finditer(buffer, start, end):
        begin = found.start()
        if begin >= limit:
            break
        line += buffer.count(b"\n", counted, begin)
        counted, start = begin, found.end()
        entry = _entry(found, buffer)
        if entry is not None:
            entry.line = line
            yield entry
    start = max(start, limit)
    return start, line + buffer.count(b"\n", counted, start)


def _entry(found: re.Match[bytes], buffer: bytes) -> Entry | None:
    token = found[0]
    if token[:1] == b"{":
        return _object(token, buffer, found.start())
    if found["step"] is not None:
        return Entry(Source.DEEPSPEED, {name: number(found[name]) for name in ("step", "skipped", "lr")})
    if found["own"] is not None:
        return _own(found, buffer)
    if token.startswith((b"Total", b"Gradient", b"max_steps", b"logging_steps")):
        name, _, value = token.replace(b'"', b"").replace(b":", b" =").partition(b" = ")
        return Entry(Source.FACT, {FACTS[name.strip().decode()]: number(value.replace(b",", b""))})
    if token.startswith(b"OVERFLOW"):
        scale = {"loss_scale": number(found["scale"])} if found["scale"] else {}
        return Entry(Source.DEEPSPEED, scale, message=BF16_SKIPPED if token.endswith(b"Gradients") else OVERFLOW)
    return Entry(Source.DEEPSPEED, message=MESSAGES[token[:1]])


def _object(token: bytes, buffer: bytes, start: int) -> Entry | None:
    """A Trainer line, an element of `log_history`, or a line of JSON; None where it tells of no training step."""
    if b"loss" not in token:
        return None
    usual = WHOLE.fullmatch(token)
    if usual is not None:
        quote, loss, norm, lr = usual.groups()
        known: dict[str, float | None] = {"loss": float(loss), "grad_norm": float(norm), "lr": float(lr)}
        return Entry(
            Source.TRAINER, known, prefix=_prefix(buffer, start), lr_integer=lr == b"0" and not quote, quoted=bool(quote)
        )
    numbers: dict[str, float | None] = {}
    integer = quoted = False
    for key, value in PAIR.findall(token):
        name = NAMES.get(key)
        if name is not None:
            integer = integer or (name == "lr" and value == b"0") or (name == "lr_integer" and value == b"true")
            quoted = quoted or value[:1] in b"'\""
            numbers[name] = number(value.strip(b"'\""))
    if "loss" not in numbers and "logged_loss" not in numbers:
        return None
    return Entry(Source.TRAINER, numbers, prefix=_prefix(buffer, start), lr_integer=integer, quoted=quoted)


def _own(found: re.Match[bytes], buffer: bytes) -> Entry | None:
    """A line of somebody's own loop."""
    line = own.line_of(buffer, found)
    if line is None:
        return None
    told = {"loss": line.loss, "lr": line.rate, "grad_norm": line.norm}
    numbers = {name: number(value) for name, value in told.items() if value}
    return Entry(Source.OWN, numbers, prefix=_prefix(buffer, found.start()), rounded=line.rounded, bar=line.bar)


def _prefix(buffer: bytes, start: int) -> str:
    """What stands between the beginning of the line and the entry, where a launcher wrote it."""
    if start == 0 or buffer[start - 1 : start] == b"\n":  # a line of its own, as nearly all are
        return ""
    head = buffer[max(start - 64, 0) : start]
    head = head[max(head.rfind(b"\n"), head.rfind(b"\r")) + 1 :]
    found = PREFIX.match(head) if head else None
    return found[1].decode(errors="replace") if found else ""


def number(text: bytes) -> float | None:
    """A number as it is written: `nan` and `inf` are numbers; None for `None`, `null` and what is none."""
    try:
        return float(text)
    except ValueError:
        return None
