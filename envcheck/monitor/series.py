"""Series of one rank: loss, learning rate, gradient norm, skipped steps; a few numbers each, however long the run."""

from __future__ import annotations

import math
import operator
import statistics
import struct
from collections import deque
from typing import TYPE_CHECKING

from envcheck.monitor.observation import Kind, Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.monitor.records import Record, Run

#: Records in a row that make a pattern; under fp16 the first steps are skipped until the loss scale fits.
FEW, FEW_FP16 = 3, 8

#: Equal norms in a row that no training gives.
CONSTANT = 5

#: Most parameter groups whose -1 sentinels are looked for in a norm: DeepSpeed's norm of a non-finite gradient is their 2-norm.
MOST_GROUPS = 64

#: Norms that the median is taken over, and those needed before a jump can be called one.
WINDOW, ENOUGH = 32, 8

#: A jump: this many times the median and the highest norm of the first records; once is enough beyond the second factor.
JUMP, HUGE_JUMP, ABOVE_FIRST = 100.0, 1000.0, 10.0

#: The loss scaler's own words when it gives up (deepspeed/runtime/fp16/loss_scaler.py).
EXHAUSTED = "Current loss scale already at minimum"


class Streak:
    """Counts records that show something: in all, in a row, from the start, until now."""

    def __init__(self) -> None:
        self.first: Record | None = None
        self.last: Record | None = None
        self.begin: Record | None = None
        self.count = self.of = self.row = self.longest = 0
        self.from_start = False

    def see(self, record: Record, *, hit: bool) -> None:
        """Count one record in which it could have been seen."""
        self.of += 1
        if not hit:
            self.row = 0
            return
        self.count += 1
        self.row += 1
        self.begin = record if self.row == 1 else self.begin
        self.longest = max(self.longest, self.row)
        self.first = self.first or record
        self.last = record
        self.from_start = self.from_start or self.of == 1

    def miss(self, records: int) -> None:
        """Count records that do not show it."""
        self.of += records
        self.row = 0

    @property
    def span(self) -> int:
        """Optimizer steps from the first to the last record of the present row, both counted."""
        return self.last.step - self.begin.step + 1 if self.row and self.last and self.begin else 0

    def lasts(self, few: int) -> bool:
        """Is it there in so many records in a row, or in two that lie as many steps apart?"""
        return self.row >= few or (self.row > 1 and self.span >= few)

    def observation(self, kind: Kind, text: str, **values: str | float | bool) -> Observation:
        """What was counted, as an observation."""
        assert self.first is not None  # noqa: S101 - only asked after a hit
        assert self.last is not None  # noqa: S101 - likewise
        return Observation(
            kind, text, self.first.step, self.first.line, self.first.rank, self.last.step, self.count, self.of,
            self.from_start, self.row > 0, values,
        )  # fmt: skip


class Losses:
    """The loss: exactly zero, not finite, or not finite behind a log that says otherwise."""

    def __init__(self) -> None:
        self.zero, self.bad, self.filtered = Streak(), Streak(), Streak()
        self.norm: float | None = None

    def see(self, record: Record) -> None:
        """Take in one record."""
        shown = record.logged_loss if record.loss is None else record.loss
        if shown is None:
            return
        self.zero.see(record, hit=shown == 0 and not self._alive(record))
        self.bad.see(record, hit=not math.isfinite(shown))
        if record.loss is not None and record.logged_loss is not None:
            hidden = not math.isfinite(record.loss) and math.isfinite(record.logged_loss)
            self.filtered.see(record, hit=hidden)
        self.norm = record.grad_norm

    def pass_over(self, records: int, norm: float) -> None:
        """Take in records whose logged losses are finite and not 0; `norm` is the last one's."""
        self.zero.miss(records)
        self.bad.miss(records)
        self.norm = norm

    def _alive(self, record: Record) -> bool:
        """Do gradients flow? A loss may be zero by design (policy gradients) or print as 0.0 because it is rounded."""
        norm = record.grad_norm
        moves = norm is not None and math.isfinite(norm) and norm > 0
        return moves and (record.rounded or (norm != self.norm and not groups_of(norm or 0.0)))

    def found(self, *, ended: bool) -> list[Observation]:
        """What is established by now; isolated zeros count only when the stream has ended."""
        seen = []
        if self.filtered.count and self.filtered.last is not None:
            text = f"the model's loss is {self.filtered.last.loss}, the log says {self.filtered.last.logged_loss}"
            seen.append(self.filtered.observation(Kind.LOSS_FILTERED, text))
        if self.bad.count:
            seen.append(self.bad.observation(Kind.LOSS_NON_FINITE, f"the loss is not finite in {_of(self.bad)}"))
        if self.zero.longest > 1 or (ended and self.zero.count):
            text = f"the loss is exactly 0 in {_of(self.zero)}"
            seen.append(self.zero.observation(Kind.LOSS_ZERO, text, longest=self.zero.longest))
        return seen


class Rates:
    """The learning rate: zero and staying so, from the start or after it was not."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.zero, self.ended = Streak(), Streak()
        self.highest = 0.0
        self.integers = 0
        self.stuck = False
        self.over = False

    def see(self, record: Record) -> None:
        """Take in one record."""
        if record.lr is None:
            return
        self.highest = max(self.highest, record.lr)
        self.integers += record.lr_integer
        self.zero.see(record, hit=record.lr == 0 and self.highest == 0)
        self.ended.see(record, hit=record.lr == 0 and self.highest > 0 and not self._due(record.step))
        few = FEW_FP16 if self.run.dtype == "fp16" else FEW
        self.stuck = self.stuck or self.zero.lasts(few)
        self.over = self.over or self.ended.lasts(FEW)

    def pass_over(self, records: int, highest: float) -> None:
        """Take in records whose learning rates are not 0 and at most `highest`."""
        self.highest = max(self.highest, highest)
        self.zero.miss(records)
        self.ended.miss(records)

    def _due(self, step: int) -> bool:
        """Is the schedule to end about here?"""
        return self.run.max_steps is not None and step >= self.run.max_steps - max(1, self.run.max_steps // 100)

    def found(self) -> list[Observation]:
        """What is established by now."""
        seen = []
        if self.stuck:
            text = f"the learning rate is 0 in {_of(self.zero)}"
            seen.append(self.zero.observation(Kind.LR_ZERO, text, integers=self.integers))
        if self.over:
            text = f"the learning rate, at most {self.highest:.4g} before, is 0 in {self.ended.count} records"
            seen.append(self.ended.observation(Kind.LR_ENDED, text, highest=self.highest))
        return seen


class Norms:
    """The gradient norm: zero, not finite, a sentinel of DeepSpeed's, constant, or jumping."""

    def __init__(self, run: Run) -> None:
        self.few_bad = {"fp16": FEW_FP16, "": FEW}.get(run.dtype, 1)
        self.zero, self.bad, self.sentinel, self.same, self.jump = (Streak() for _ in range(5))
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.first_highest = 0.0
        self.previous: float | None = None
        self.seen = 0
        self.established: dict[Kind, str] = {}
        self.groups: tuple[int, str] = (0, "")
        self.largest = 0.0

    def see(self, record: Record) -> None:
        """Take in one record."""
        norm = record.grad_norm
        if norm is None:
            return
        self.seen += 1
        named = None if record.rounded else groups_of(norm)
        self.bad.see(record, hit=not math.isfinite(norm))
        if self.seen > 1 or norm:  # DeepSpeed says 0.0 before it has completed a step
            self.zero.see(record, hit=norm == 0)
        self.sentinel.see(record, hit=named is not None and (self.sentinel.row == 0 or norm == self.previous))
        self.same.see(record, hit=norm == self.previous and norm != 0 and math.isfinite(norm) and not record.rounded)
        if named and self.sentinel.row > 1:
            self.groups = named
        self._see_jump(record, norm)
        self.previous = norm
        self._establish(norm)

    def calm(self, norms: Sequence[float]) -> bool:
        """Do these norms, the next ones, show nothing at all? False also where only `see` could tell."""
        return bool(
            self.seen > WINDOW
            and min(norms) > 0
            and max(norms) <= ABOVE_FIRST * self.first_highest
            and norms[0] != self.previous
            and not any(map(operator.eq, norms, norms[1:]))
            and SENTINELS.isdisjoint(norms)
        )

    def pass_over(self, norms: Sequence[float]) -> None:
        """Take in norms that are calm."""
        self.seen += len(norms)
        for streak in (self.zero, self.bad, self.sentinel, self.same, self.jump):
            streak.miss(len(norms))
        self.recent.extend(norms[-WINDOW:])
        self.previous = norms[-1]

    def _see_jump(self, record: Record, norm: float) -> None:
        if not math.isfinite(norm) or norm == 0:
            return
        jumped = False
        if len(self.recent) >= ENOUGH and norm > ABOVE_FIRST * self.first_highest:
            median = statistics.median(self.recent)
            jumped = norm > JUMP * median
            if jumped and norm > HUGE_JUMP * median:
                self.established.setdefault(Kind.NORM_JUMP, "")
        self.jump.see(record, hit=jumped)
        if jumped:
            self.largest = max(self.largest, norm / statistics.median(self.recent))
        self.recent.append(norm)
        if self.seen <= WINDOW:
            self.first_highest = max(self.first_highest, 0.0 if jumped else norm)

    def _establish(self, norm: float) -> None:
        repeated = self.groups[0] and self.sentinel.row >= (2 if self.groups[0] > 1 else FEW)
        for kind, holds in (
            (Kind.NORM_ZERO, self.zero.lasts(FEW)),
            (Kind.NORM_NON_FINITE, self.bad.row >= self.few_bad),
            (Kind.NORM_SENTINEL, bool(repeated)),
            (Kind.NORM_CONSTANT, self.same.row >= CONSTANT - 1 and not repeated),
            (Kind.NORM_JUMP, self.jump.count >= FEW),
        ):
            if holds:
                self.established.setdefault(kind, repr(norm))

    def found(self) -> list[Observation]:
        """What is established by now."""
        seen = []
        for kind, shown in self.established.items():
            if kind is Kind.NORM_ZERO:
                seen.append(self.zero.observation(kind, f"the gradient norm is exactly 0 in {_of(self.zero)}"))
            elif kind is Kind.NORM_NON_FINITE:
                seen.append(self.bad.observation(kind, f"the gradient norm is not finite in {_of(self.bad)}", norm=shown))
            elif kind is Kind.NORM_SENTINEL:
                groups, precision = self.groups
                text = f"the gradient norm is {shown} again and again, DeepSpeed's mark of a non-finite one in {groups} groups"
                seen.append(self.sentinel.observation(kind, text, norm=shown, groups=groups, precision=precision))
            elif kind is Kind.NORM_CONSTANT:
                text = f"the gradient norm is {shown} in {self.same.longest + 1} records in a row"
                seen.append(self.same.observation(kind, text, norm=shown))
            else:
                text = f"the gradient norm jumps to {self.largest:.3g} times its median"
                seen.append(self.jump.observation(kind, text, factor=self.largest))
        return seen


class Skips:
    """Optimizer steps that were skipped by overflow."""

    def __init__(self, run: Run) -> None:
        self.few = FEW_FP16 if run.dtype == "fp16" else FEW
        self.skip, self.exhausted = Streak(), Streak()
        self.before: int | None = None
        self.again = False

    def see(self, record: Record) -> None:
        """Take in one record."""
        if EXHAUSTED in record.message:
            self.exhausted.see(record, hit=True)
        more = record.skipped is not None and record.skipped > (self.before or 0)
        if record.skipped is not None:
            self.before = record.skipped
        if record.skipped is None and record.overflow is None:
            return
        self.skip.see(record, hit=bool(record.overflow) or more)
        often = self.skip.count >= FEW_FP16 and 4 * self.skip.count > self.skip.of
        self.again = self.again or self.skip.row >= self.few or often

    def pass_over(self, records: int, *, overflow: bool | None) -> None:
        """Take in records of steps that were not skipped; `overflow` is None where that is not known."""
        if overflow is not None:
            self.skip.miss(records)

    def found(self) -> list[Observation]:
        """What is established by now."""
        seen = []
        if self.again:
            text = f"the optimizer skipped {self.skip.count} of {self.skip.of} steps on overflow"
            seen.append(self.skip.observation(Kind.STEPS_SKIPPED, text, longest=self.skip.longest))
        if self.exhausted.count:
            seen.append(self.exhausted.observation(Kind.SCALE_EXHAUSTED, "the loss scale is at its minimum"))
        return seen


def _sentinels() -> dict[float, tuple[int, str]]:
    found = {}
    for groups in range(1, MOST_GROUPS + 1):
        double = math.sqrt(groups)
        single = struct.unpack("f", struct.pack("f", double))[0]
        found[single] = (groups, "float32")
        found[double] = (groups, "either" if double == single else "float64")
    return found


#: A norm that sentinels make -> the number of parameter groups, and the precision of the root: float64, float32 or either.
#: DeepSpeed up to 0.13.1 takes the root in double precision, from 0.16.6 in single precision.
NAMED = _sentinels()
SENTINELS = frozenset(NAMED)


def groups_of(norm: float) -> tuple[int, str] | None:
    """What `NAMED` says of a norm; None where it is a norm like any other."""
    return NAMED.get(norm)


def _of(streak: Streak) -> str:
    return f"{streak.count} of {streak.of} records"
