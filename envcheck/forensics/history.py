"""The run behind a log: its entries as records for the monitor's detector, and what the detector does not keep. Pure."""

from __future__ import annotations

import math
import operator
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from envcheck.forensics.entries import BF16_SKIPPED, OVERFLOW, Lines, Source
from envcheck.matrix.signature import Sighting
from envcheck.monitor.detector import Detector
from envcheck.monitor.observation import Kind
from envcheck.monitor.records import Record, Run
from envcheck.monitor.series import FEW, FEW_FP16, groups_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from envcheck.forensics.entries import Entry
    from envcheck.monitor.observation import Observation

#: A kind of our own: DeepSpeed says that it skipped a bf16 step, or its norm is that of the step before.
STEP_SKIPPED = "step-skipped"

#: A norm written with fewer characters may repeat by chance.
DIGITS = 10

#: Points kept of each curve; when there are twice as many, every second one goes.
POINTS = 512

#: Lines among which a second node's copy of a line is looked for.
COPIES = 8

#: Norms kept from the beginning, to compare with another log's.
HEAD = 200


@dataclass(slots=True)
class Curve:
    """A thinned series of (line, loss, lr, norm): memory does not grow with the log."""

    points: list[tuple[int, float | None, float | None, float | None]] = field(default_factory=list)
    every: int = 1
    seen: int = 0

    def add(self, record: Record) -> None:
        """Take in one record."""
        if self.seen % self.every == 0:
            self.points.append((record.step, record.logged_loss, record.lr, record.grad_norm))
            if len(self.points) >= 2 * POINTS:
                del self.points[1::2]
                self.every *= 2
        self.seen += 1

    def extend(self, step: int, lines: Lines, count: int) -> None:
        """Take in the first `count` lines, of which the first is `step`."""
        base = self.seen
        at = -base % self.every
        while at < count:
            self.seen = base + at
            self.add(Record(step + at, logged_loss=lines.losses[at], lr=lines.rates[at], grad_norm=lines.norms[at]))
            at += 1
            at += -(base + at) % self.every
        self.seen = base + count


@dataclass(slots=True)
class Reports:
    """What DeepSpeed's own lines count: optimizer steps, and how many of them were skipped, which bf16 does without a word.

    Attributes:
        step: Steps at the latest report.
        skipped: Of these, skipped.
        row: Reports in a row since each of which most steps were skipped.
        longest: The longest such row.
    """

    step: int = 0
    skipped: int = 0
    row: int = 0
    longest: int = 0

    def see(self, step: int, skipped: int) -> None:
        """Take in one report; another rank's copy of one says nothing."""
        if step > self.step:
            self.row = self.row + 1 if 2 * (skipped - self.skipped) >= step - self.step else 0
            self.longest = max(self.longest, self.row)
        self.step, self.skipped = step, skipped

    def calm(self, reports: list[tuple[int, int]]) -> bool:
        """Do these, the next ones, count steps and no skipped one?"""
        steps = [self.step, *(step for step, _ in reports)]
        return all(map(operator.lt, steps, steps[1:])) and all(skipped == self.skipped for _, skipped in reports)


@dataclass(slots=True)
class Side:
    """The lines of one kind of writer: the Trainer's, or an own loop's.

    Attributes:
        lines: Lines with a loss.
        ranks: Launcher prefix -> rank, in the order they appear.
        steps: Lines so far, by rank.
        bad_norms: What the gradient norm was on lines whose loss is 0 or not finite: words of `norm_word`, counted.
        losses: First and last finite loss.
        lr: Lowest and highest learning rate.
        norms: Lowest and highest finite norm.
        head: The first lines' (loss, norm), for a comparison.
        first_lr_zero: The learning rate of the first line is 0.
        quoted: Numbers are written as texts.
        norm_seen: Some line has a gradient norm.
    """

    detector: Detector
    lines: int = 0
    ranks: dict[str, int] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    bad_norms: Counter[str] = field(default_factory=Counter)
    losses: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    head: list[tuple[float | None, float | None]] = field(default_factory=list)
    first_lr_zero: bool = False
    quoted: bool = False
    norm_seen: bool = False
    curve: Curve = field(default_factory=Curve)
    recent: deque[tuple[float | None, ...]] = field(default_factory=lambda: deque(maxlen=COPIES))
    previous_norm: float | None = None
    previous_loss: float | None = None
    stale: int = 0
    stale_now: bool = False
    drawn: tuple[int | None, dict[str, float | None]] = (None, {})

    def take(self, record: Record) -> None:
        """Take in one line."""
        self.lines += 1
        self.detector.see(record)
        self.curve.add(record)
        loss, lr, norm = record.logged_loss, record.lr, record.grad_norm
        if loss is not None and math.isfinite(loss) and loss != 0:
            self.losses = [self.losses[0] if self.losses else loss, loss]
        else:
            self.bad_norms[norm_word(norm, self.previous_norm)] += 1
        if lr is not None:
            self.first_lr_zero = lr == 0 if self.lines == 1 else self.first_lr_zero
            self.lr = _span(self.lr, lr)
        if norm is not None:
            self.norm_seen = True
            self.norms = _span(self.norms, norm) if math.isfinite(norm) else self.norms
        self._see_stale(loss, norm)
        self.previous_norm, self.previous_loss = norm, loss
        if len(self.head) < HEAD:
            self.head.append((loss, norm))

    def calm(self, lines: Lines) -> bool:
        """Do these lines, the next ones of the only rank, show nothing at all? False also where only `take` could tell."""
        if len(self.head) < HEAD or not self.losses or self.ranks != {"": 0}:
            return False
        if min(lines.losses) <= 0 or min(lines.rates) <= 0 or math.inf in (max(lines.losses), max(lines.rates)):
            return False
        norms = [*(norm for _, _, norm in self.recent), *lines.norms]
        repeated = any(any(map(operator.eq, norms, norms[apart:])) for apart in range(1, COPIES + 1))
        return not repeated and self.detector.calm(lines.norms)

    def pass_over(self, lines: Lines, count: int, *, overflow: bool | None) -> None:
        """Take in at once the first `count` of lines that are calm; the others go to `take`."""
        losses, rates, norms = lines.losses[:count], lines.rates[:count], lines.norms[:count]
        self.curve.extend(self.steps[0] + 1, lines, count)
        self.detector.pass_over(rates, norms, overflow=overflow)
        self.lines += count
        self.steps[0] += count
        self.losses = [self.losses[0], losses[-1]]
        self.lr = _span(_span(self.lr, min(rates)), max(rates))
        self.norms = _span(_span(self.norms, min(norms)), max(norms))
        self.previous_loss, self.previous_norm = losses[-1], norms[-1]
        self.norm_seen, self.stale_now = True, False
        self.recent.extend(zip(losses[-COPIES:], rates[-COPIES:], norms[-COPIES:], strict=True))

    def _see_stale(self, loss: float | None, norm: float | None) -> None:
        """Count a norm that repeats the one before to the last digit under another loss: that of a step that was skipped."""
        self.stale_now = bool(norm) and norm == self.previous_norm and loss != self.previous_loss and len(repr(norm)) > DIGITS
        self.stale += self.stale_now and groups_of(norm or 0.0) is None

    def copied(self, entry: Entry) -> bool:
        """Is it the line of another node, which says the same? A line that says 0 or NaN may rightly repeat."""
        found = entry.numbers
        loss = found.get("loss")
        numbers = (loss, found.get("lr"), found.get("grad_norm"))
        again = bool(loss) and math.isfinite(loss or math.nan) and numbers in self.recent
        self.recent.append(numbers)
        return again

    def redrawn(self, entry: Entry) -> bool:
        """Does a progress bar show again what it showed? It does at every redraw, and beside the next step until that is done."""
        bar, numbers = self.drawn
        self.drawn = entry.bar, entry.numbers
        loss = entry.numbers.get("loss")
        return numbers == entry.numbers if loss and math.isfinite(loss) else bar == entry.bar


def _span(span: list[float], value: float) -> list[float]:
    if not span:
        return [value, value]
    if value < span[0]:
        span[0] = value
    elif value > span[1]:
        span[1] = value
    return span


def norm_word(norm: float | None, previous: float | None) -> str:
    """The gradient norm of a line whose loss is bad, in a word."""
    if norm is None:
        return "absent"
    if norm == 0:
        return "zero"
    if not math.isfinite(norm):
        return "non-finite"
    if norm == previous and groups_of(norm) is None:
        return "stale"
    return "sentinel" if groups_of(norm) else "finite"


class History:
    """Takes entries in order; at the end says what was seen.

    Args:
        run: What is known of the run from elsewhere.

    Attributes:
        rank: The rank whose monitor wrote the file; None where no monitor did.
        checked: A monitor has compared the engine's gradients with those of the micro-batches.
        scale: The loss scale that the latest overflow left.
    """

    def __init__(self, run: Run | None = None) -> None:
        self.run = run or Run()
        self.rank: int | None = None
        self.checked = False
        self.facts: dict[str, float] = {}
        self.sides = {source: Side(Detector(self.run)) for source in (Source.TRAINER, Source.OWN)}
        self.overflows = 0
        self.last_overflow = 0
        self.overflow_ended = False
        self.scale: float | None = None
        self.reports = Reports()
        self.messages: Counter[str] = Counter()

    def see(self, entries: Iterable[Entry | Lines]) -> None:
        """Take in entries."""
        for entry in entries:
            if isinstance(entry, Lines):
                self._see_lines(entry)
            else:
                self._see_one(entry)

    def _see_one(self, entry: Entry) -> None:
        if entry.source is Source.FACT:
            self.facts.update((name, value) for name, value in entry.numbers.items() if value is not None)
        elif entry.source is Source.DEEPSPEED:
            self._see_deepspeed(entry)
        else:
            self._see_line(entry)

    def _see_deepspeed(self, entry: Entry) -> None:
        """A line of DeepSpeed's: an overflow counts for the next line with a loss."""
        if not entry.message:
            step, skipped = entry.numbers.get("step"), entry.numbers.get("skipped")
            if step is not None and skipped is not None:
                self.reports.see(int(step), int(skipped))
            return
        self.messages[entry.message] += 1
        if entry.message in (OVERFLOW, BF16_SKIPPED):
            self.overflows += 1
            self.scale = entry.numbers.get("loss_scale", self.scale)
            return
        for side in self.sides.values():
            side.detector.see(Record(step=side.lines, message=entry.message, line=entry.line))

    def see_record(self, record: Record) -> None:
        """Take in one record of a monitor's."""
        side = self.sides[Source.TRAINER]
        self.checked = self.checked or any(one.kind != "skipped" for one in record.check)
        shown = record.loss if record.logged_loss is None else record.logged_loss
        side.steps[record.rank] = record.step
        if shown is None or record.rank != self.rank:
            side.detector.see(record)
        else:
            side.take(replace(record, logged_loss=shown))

    def _see_lines(self, lines: Lines) -> None:
        """Many lines: at once where they show nothing, but for the last ones, which later ones are compared with."""
        side = self.sides[Source.TRAINER]
        if self.overflows != self.last_overflow or not self.reports.calm(lines.reports) or not side.calm(lines):
            for entry in lines.entries():
                self._see_one(entry)
            return
        side.quoted = side.quoted or lines.quoted
        self.overflow_ended = False
        for report in lines.reports[-1:]:
            self.reports.see(*report)
        side.pass_over(lines, len(lines.losses) - COPIES, overflow=False if self.overflows else None)
        for entry in lines.entries(COPIES):
            self._see_one(entry)

    def _see_line(self, entry: Entry) -> None:
        side = self.sides[entry.source]
        if entry.source is Source.TRAINER and side.copied(entry) and not entry.prefix:
            return
        if entry.bar is not None and side.redrawn(entry):
            return
        rank = side.ranks.setdefault(entry.prefix, len(side.ranks))
        step = side.steps[rank] = side.steps.get(rank, 0) + 1
        numbers = entry.numbers
        known = numbers.get("step")
        overflow = self.overflows > self.last_overflow if self.overflows else None
        self.last_overflow, self.overflow_ended = self.overflows, bool(overflow)
        side.quoted = side.quoted or entry.quoted
        skipped = numbers.get("skipped")
        record = Record(
            step=int(known) if known else step, rank=rank, logged_loss=numbers.get("logged_loss", numbers.get("loss")),
            lr=numbers.get("lr"), lr_integer=entry.lr_integer, grad_norm=numbers.get("grad_norm"),
            loss_scale=numbers.get("loss_scale"), skipped=int(skipped) if skipped is not None else None,
            overflow=overflow, line=entry.line, rounded=entry.rounded,
        )  # fmt: skip
        if rank and entry.source is Source.OWN:  # what a loop prints may be the rank's own share
            side.detector.see(replace(record, lr=None, grad_norm=None))
        elif rank:
            side.detector.see(record)
        else:
            side.take(record)

    @property
    def side(self) -> Side:
        """The lines that are judged: the Trainer's where there are any."""
        trainer = self.sides[Source.TRAINER]
        return trainer if trainer.lines else self.sides[Source.OWN]

    def observations(self) -> tuple[Observation, ...]:
        """What was seen; a bad loss also says what the norm was on its lines (`values["norm"]`)."""
        side = self.side
        words = [word for word, _ in side.bad_norms.most_common()]
        norm = words[0] if len(words) == 1 else "mixed" if words else "absent"
        return tuple(
            replace(one, values={**one.values, "norm": norm}) if one.kind in (Kind.LOSS_ZERO, Kind.LOSS_NON_FINITE) else one
            for one in side.detector.finish()
        )

    def extra(self) -> list[tuple[Sighting, str]]:
        """What only the log's text tells, with a sentence each: steps that were skipped."""
        count, stale, reports = self.messages[BF16_SKIPPED], self.side.stale, self.reports
        if not self.side.lines and self.overflows >= FEW_FP16 and self.scale is not None and self.scale <= 1:
            text = f"DeepSpeed skipped {_steps(self.overflows)} on overflow and lowered the loss scale to {self.scale:g}"
            return [(Sighting(Kind.STEPS_SKIPPED.value, from_start=True, count=self.overflows), text)]
        if not self.overflows and reports.longest >= (FEW_FP16 if self.run.dtype == "fp16" else FEW):
            text = f"DeepSpeed counts {reports.skipped} skipped steps of {reports.step}"
            return [(Sighting(Kind.STEPS_SKIPPED.value, until_end=reports.row > 0, count=reports.skipped), text)]
        if count:
            last = self.overflows > self.last_overflow or self.overflow_ended
            text = f"DeepSpeed says that it skipped {_steps(count)} with non-finite gradients"
            return [(Sighting(STEP_SKIPPED, until_end=last, count=count), text)]
        if stale:
            text = f"the gradient norm repeats that of the line before to the last digit in {stale} of {self.side.lines} lines"
            return [(Sighting(STEP_SKIPPED, until_end=self.side.stale_now, count=stale), text)]
        return []

    def summary(self) -> dict[str, Any]:
        """What the log holds, as plain data."""
        side = self.side
        trainer = side is self.sides[Source.TRAINER]
        source = "monitor" if self.rank is not None else (Source.TRAINER if trainer else Source.OWN).value
        return {
            "lines": side.lines, "source": source, "ranks": max(len(side.steps), 1), "overflows": self.overflows,
            "loss": _plain(side.losses), "learning_rate": _plain(side.lr), "grad_norm": _plain(side.norms), **self.facts,
        }  # fmt: skip


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _plain(values: list[float]) -> list[float | str]:
    return [value if math.isfinite(value) else repr(value) for value in values]


def healthy(history: History) -> str:
    """One sentence on a log in which nothing is wrong."""
    side = history.side
    parts = [f"{side.lines} lines"]
    if side.losses:
        parts.append(f"loss {side.losses[0]:.4g} to {side.losses[-1]:.4g}")
    if side.lr:
        parts.append(f"learning rate {side.lr[0]:.3g} to {side.lr[1]:.3g}")
    if side.norms:
        parts.append(f"gradient norm {side.norms[0]:.3g} to {side.norms[1]:.3g}")
    return f"healthy: {', '.join(parts)}"
