"""Records in, observations out: pure, in one pass, with a state that does not grow with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.monitor.observation import Kind, Observation
from envcheck.monitor.records import Run
from envcheck.monitor.series import Losses, Norms, Rates, Skips
from envcheck.monitor.survey import Surveys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from envcheck.monitor.records import GradientCheck, Record

#: Steps of which the ranks' numbers are kept for comparison.
KEPT_STEPS = 4

#: Norms that differ by less, relatively, are the same number.
NORM_TOLERANCE = 1e-5

#: Outcomes of a gradient check that are no fault of the engine.
NO_FAULT = frozenset({"equal", "skipped"})


class Detector:
    """Takes records of one or several ranks, in order of steps; says what is new, and at the end all there is.

    Args:
        run: What is known of the run; thresholds depend on its dtype and length.
    """

    def __init__(self, run: Run | None = None) -> None:
        self.run = run or Run()
        self._ranks: dict[int, _Series] = {}
        self._surveys = Surveys()
        self._agreement = _Agreement()
        self._checks: dict[Kind, Observation] = {}
        self._reported: set[Kind] = set()

    def feed(self, record: Record) -> tuple[Observation, ...]:
        """Take in one record; returns the observations that it establishes, each kind once in the whole run."""
        self.see(record)
        fresh = [one for one in self._all(ended=False) if one.kind not in self._reported]
        self._reported.update(one.kind for one in fresh)
        return tuple(fresh)

    def see(self, record: Record) -> None:
        """Take in one record without asking what is new: for streams that nobody waits for."""
        series = self._ranks.get(record.rank)
        if series is None:
            series = self._ranks[record.rank] = _Series(self.run)
        series.see(record)
        self._agreement.see(record)
        if record.survey:
            self._surveys.see(record)
        if record.check:
            self._see_check(record)

    def calm(self, norms: Sequence[float], rank: int = 0) -> bool:
        """Would these norms, the next ones of a rank, show nothing?"""
        series = self._ranks.get(rank)
        return series is not None and series.norms.calm(norms)

    def pass_over(self, rates: Sequence[float], norms: Sequence[float], *, overflow: bool | None, rank: int = 0) -> None:
        """Take in, at once, steps of which nothing is to be said: what `see` would make of them one by one.

        Their losses are finite and not 0, their rates are above 0, their norms are calm, no step was skipped; the next steps
        of the rank go to `see`.
        """
        series = self._ranks[rank]
        series.losses.pass_over(len(norms), norms[-1])
        series.rates.pass_over(len(norms), max(rates))
        series.norms.pass_over(norms)
        series.skips.pass_over(len(norms), overflow=overflow)

    def established(self) -> tuple[Observation, ...]:
        """What `feed` has returned so far, with the present counts."""
        return tuple(one for one in self._all(ended=False) if one.kind in self._reported)

    def finish(self) -> tuple[Observation, ...]:
        """Everything established, isolated events too, in the order in which it was first seen."""
        return tuple(sorted(self._all(ended=True), key=lambda one: (one.step, list(Kind).index(one.kind))))

    def _all(self, *, ended: bool) -> list[Observation]:
        """One observation of each kind: the earliest of all ranks."""
        found: dict[Kind, Observation] = {}
        for series in self._ranks.values():
            for one in series.found(ended=ended):
                if one.kind not in found or one.step < found[one.kind].step:
                    found[one.kind] = one
        more = [*self._surveys.found(), *self._agreement.found(), *self._checks.values()]
        return [*found.values(), *more]

    def _see_check(self, record: Record) -> None:
        wrong = [one for one in record.check if one.kind not in NO_FAULT]
        if wrong:
            kind = Kind.GRADIENT_NON_FINITE if wrong[0].kind == "non-finite" else Kind.GRADIENT_WRONG
            self._checks.setdefault(kind, _check_observation(kind, record, wrong))


def _check_observation(kind: Kind, record: Record, wrong: list[GradientCheck]) -> Observation:
    worst = wrong[0]
    text = f"the engine's gradient is not that of the micro-batches: {worst.text} (norm {worst.ratio:.3g} of the right one)"
    ranks = worst.text.startswith("rank") or "over the ranks" in worst.text  # not "divided by the ranks": a wrong factor
    if kind is Kind.GRADIENT_NON_FINITE:
        text = f"a gradient is not finite: {worst.text}"
    return Observation(
        kind, text, record.step, record.line, None, record.step, len(wrong), len(record.check), from_start=True,
        values={"kind": worst.kind, "text": worst.text, "ratio": worst.ratio, "error": worst.error, "ranks": ranks},
        parameters=tuple(one.parameter for one in wrong),
    )  # fmt: skip


class _Series:
    """The trackers of one rank."""

    def __init__(self, run: Run) -> None:
        self.losses, self.rates, self.norms, self.skips = Losses(), Rates(run), Norms(run), Skips(run)

    def see(self, record: Record) -> None:
        for tracker in (self.losses, self.rates, self.norms, self.skips):
            tracker.see(record)

    def found(self, *, ended: bool) -> Iterable[Observation]:
        yield from self.losses.found(ended=ended)
        yield from self.rates.found()
        yield from self.norms.found()
        yield from self.skips.found()


class _Agreement:
    """Numbers that are the same on all ranks when all is well: lr, gradient norm, loss scale, skipped steps, digest."""

    def __init__(self) -> None:
        self.steps: dict[int, Record] = {}
        self.wrong: Observation | None = None
        self.norms = 0

    def see(self, record: Record) -> None:
        """Compare with the first rank that reported the same step."""
        if record.step <= 0:
            return
        other = self.steps.setdefault(record.step, record)
        if len(self.steps) > KEPT_STEPS:
            del self.steps[next(iter(self.steps))]
        if other.rank == record.rank or self.wrong:
            return
        name = _difference(other, record)
        self.norms += name == "grad_norm"
        if name and (name != "grad_norm" or self.norms > 1):
            mine, theirs = getattr(record, name), getattr(other, name)
            text = f"{WORDS[name]} is {theirs} on rank {other.rank} and {mine} on rank {record.rank}"
            self.wrong = Observation(
                Kind.RANKS_DISAGREE, text, record.step, record.line, record.rank, record.step, values={"about": name}
            )

    def found(self) -> list[Observation]:
        """What is established by now."""
        return [self.wrong] if self.wrong else []


#: What is compared, in the order of how much a difference says.
WORDS = {
    "digest": "the checksum of the parameters",
    "skipped": "the number of skipped steps",
    "loss_scale": "the loss scale",
    "lr": "the learning rate",
    "grad_norm": "the gradient norm",
}


def _difference(left: Record, right: Record) -> str:
    """The first number that both have and that differs, or an empty string; NaN equals NaN."""
    for name in WORDS:
        one, two = getattr(left, name), getattr(right, name)
        if one is None or two is None or one == two or (one != one and two != two):  # noqa: PLR0124 - NaN
            continue
        if name != "grad_norm" or not abs(one - two) <= NORM_TOLERANCE * max(abs(one), abs(two)):
            return name
    return ""
