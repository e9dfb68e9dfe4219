"""What every way in shares: a session, the ranks, the watched parameters, and one record after each optimizer step."""

from __future__ import annotations

import atexit
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.monitor import checkpoint
from envcheck.monitor.adapter import settings
from envcheck.monitor.adapter.engine import EngineTap, tap_of
from envcheck.monitor.adapter.parameters import ParameterWatch
from envcheck.monitor.adapter.ranks import Ranks
from envcheck.monitor.records import Record
from envcheck.monitor.session import EVERY, FIRST, Session, due

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from envcheck.monitor.records import GradientCheck, Run

#: Steps after which the last survey is taken, and the fewest that one is worth taking for.
WINDOW, FEWEST = 10, 3

#: Steps after which the ranks compare their numbers.
COMPARED = (1, 2, WINDOW)


class Watch:
    """One training run under watch.

    Args:
        session: Where records go.
        model: The bare model.
        optimizer: The optimizer, wrapped or not.
        engine: The DeepSpeed engine, or None.
        run: What is known of the run, made from the number of ranks.
        stepped: Called by the engine after each optimizer step; None where somebody else calls `after_step`.
    """

    def __init__(
        self, session: Session, model: torch.nn.Module, optimizer: Any, engine: Any, run: Callable[[int], Run],  # noqa: ANN401
        stepped: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.session = session
        self.model = model
        self.optimizer = optimizer
        self.engine = engine
        self.ranks = Ranks()
        self.steps = 0
        self.losses: list[Any] = []
        self.pending: Record | None = None
        self.others: list[Record] = []
        self.stop_at: int | None = None
        self.ended = False
        session.begin(run(self.ranks.size), self.ranks.rank)
        number = _number()
        together = self.ranks.agree(f"begin/{number}")
        session.share = self.ranks.words(number)
        if not together:
            session.note("not every rank has a monitor: the ranks are not compared and the gradient check is left out")
        self.tap = self._tap(stepped)
        self.parameters: ParameterWatch | None = ParameterWatch(model, absent_of(model))
        self._survey(0)
        atexit.register(session.guard, self.end)

    def _tap(self, stepped: Callable[[], None] | None) -> EngineTap | None:
        if self.engine is None:
            return None
        earlier = tap_of(self.engine)
        if earlier is not None:
            earlier.release()
        tap = EngineTap(self.engine, self.ranks, self.session.guard, stepped)
        if tap.reference.why_not:
            self.session.note(f"gradient check left out: {tap.reference.why_not}")
        return tap

    def _survey(self, step: int, *, complete: bool = False) -> None:
        if self.parameters is None:
            return
        facts = self.parameters.survey(self.optimizer, complete=complete)
        self.session.feed(Record(step, self.ranks.rank, survey=facts, complete=complete))
        if complete:
            self.parameters.release()
            self.parameters = None

    def before_step(self) -> None:
        """A step begins: the last one is complete now, its log line included."""
        self.flush()
        if self.parameters is not None:
            self.parameters.rate_sum += settings.rate_of(self.optimizer) or 0.0

    def after_step(self, rate: float | None = None, norm: Any = None) -> None:  # noqa: ANN401
        """An optimizer step was taken, or skipped: read what is due."""
        self.steps += 1
        checks = self.tap.take() if self.tap else ()
        read = due(self.steps) or bool(checks)
        if read:
            self.pending = self._record(checks, rate, norm)
        self.losses.clear()
        if self.steps in COMPARED and self.ranks.together and self.ranks.size > 1:
            self._compare()

    def _record(self, checks: tuple[GradientCheck, ...], rate: float | None, norm: Any) -> Record:  # noqa: ANN401
        if norm is None and self.engine is not None:
            norm = settings.norm_of(self.engine)
        for one in checks:
            if one.kind == "skipped":
                self.session.note(f"gradient check of `{one.parameter}`: could not verify: {one.text}")
        skipped = getattr(self.engine, "skipped_steps", None)
        return Record(
            self.steps, self.ranks.rank, loss=self._loss(),
            lr=settings.rate_of(self.optimizer) if rate is None else rate,
            grad_norm=settings.number(norm), loss_scale=settings.scale_of(self.engine),
            skipped=None if skipped is None else int(skipped), overflow=settings.overflow_of(self.optimizer), check=checks,
        )  # fmt: skip

    def _loss(self) -> float | None:
        """The mean of the micro-batches' losses as the model returned them; of the last where only the engine saw it."""
        losses = self.losses or ([self.tap.loss] if self.tap and self.tap.loss is not None else [])
        numbers = settings.numbers(losses)
        return sum(numbers) / len(numbers) if numbers else None

    def _compare(self) -> None:
        """Every rank learns every other's numbers; a collective, in steps that are the same on all ranks."""
        import torch  # noqa: PLC0415 - torch is there already

        mine = self.pending
        replicated = settings_stage(self.engine) != 3 and self.parameters is not None  # noqa: PLR2004 - a ZeRO stage
        digest = self.parameters.digest() if replicated and self.parameters else float("nan")
        known = [mine.lr, mine.loss_scale, mine.skipped] if mine else [None] * 3
        numbers = torch.tensor([digest, *(float("nan") if one is None else float(one) for one in known)], dtype=torch.float64)
        if mine is not None:
            self.pending = replace(mine, digest=None if digest != digest else digest)  # noqa: PLR0124 - NaN
        for rank, one in enumerate(self.ranks.gather(numbers)):
            if rank != self.ranks.rank:
                values = [None if value != value else value for value in one.tolist()]  # noqa: PLR0124 - NaN
                skips = None if values[3] is None else int(values[3])
                self.others.append(Record(self.steps, rank, digest=values[0], lr=values[1], loss_scale=values[2], skipped=skips))

    def flush(self) -> None:
        """Hand the finished record on, and see to a stop that it asks for."""
        record, self.pending = self.pending, None
        if record is not None:
            self.session.feed(record)
        self.session.speak()
        for other in self.others:
            self.session.feed(other)
        self.others.clear()
        if record is not None and record.step in (1, WINDOW):
            self._survey(record.step, complete=record.step == WINDOW)
        if self.session.stop_wanted and self.stop_at is None and self.ranks.together and self.ranks.size > 1:
            self.stop_at = next_poll(self.steps)
            self.ranks.propose(self.stop_at)

    def stops(self) -> bool:
        """Is this the step to stop after? The same answer on every rank: a stop is agreed before any rank is there."""
        if self.ranks.size == 1:
            return self.session.stop_wanted
        return self.ranks.together and polled(self.steps) and self.ranks.proposed(self.steps)

    def end(self) -> None:
        """The run is over; a second call does nothing."""
        if self.ended:
            return
        self.ended = True
        self.flush()
        if self.parameters is not None:
            if self.steps >= FEWEST:
                self._survey(self.steps, complete=True)
            else:
                self.parameters.release()
        if self.tap is not None:
            self.tap.release()
        self.session.end()


def polled(step: int) -> bool:
    """Do the ranks ask after this step whether to stop?"""
    return step <= FIRST or step % EVERY == 0


def next_poll(step: int) -> int:
    """The first polled step that no rank can have reached: the ranks are at most one step apart."""
    return next(later for later in range(step + 1, step + 2 * EVERY + 2) if polled(later))


def settings_stage(engine: Any) -> int | None:  # noqa: ANN401
    """The ZeRO stage of an engine; None without one."""
    return None if engine is None else int(engine.zero_optimization_stage())


def _number() -> int:
    """How many models have been put under watch, this one included; the same on all ranks."""
    count = int(getattr(Watch, "_count", 0)) + 1
    Watch._count = count  # type: ignore[attr-defined]  # noqa: SLF001 - our own
    return count


def absent_of(model: Any) -> tuple[set[str], set[str]] | None:  # noqa: ANN401
    """What the checkpoint that the model says it was loaded from lacks; None where that cannot be told."""
    folder = getattr(model, "name_or_path", None)
    if not isinstance(folder, str) or not folder or not Path(folder).is_dir():
        return None
    held = checkpoint.names(folder)
    if held is None:
        return None
    names = [name for name, _ in model.named_parameters()]
    return checkpoint.absent(names, held, str(getattr(model, "base_model_prefix", "") or ""))
