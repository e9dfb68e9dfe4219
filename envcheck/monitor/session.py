"""One watched run: records go through the detector, what it finds is said, written and acted on. Knows nothing of torch."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from envcheck.findings import Severity
from envcheck.monitor.detector import Detector
from envcheck.monitor.diagnosis import FATAL, Diagnosis
from envcheck.monitor.journal import Journal
from envcheck.monitor.records import Run
from envcheck.monitor.survey import notable

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.findings import Finding
    from envcheck.monitor.observation import Observation
    from envcheck.monitor.records import Record

T = TypeVar("T")


class Share(Protocol):
    """What the ranks know of one another's words."""

    def claim(self, name: str) -> bool:
        """True for the first rank that asks for this finding of this run."""

    def await_first(self) -> None:
        """Wait for the end of rank 0's words, not for long."""

    def done(self, rank: int, *, wait: bool) -> None:
        """This rank has said all; wait for the others, not for long: they may have to ask what was said."""


#: What to do about a finding: say it and go on; stop at any error; stop where the run computes nothing of use.
ACTIONS = ("auto", "warn", "stop")

#: Steps that another rank waits for rank 0 to say what it found itself: in step, all ranks find most things together.
HELD = 2

#: Steps of which every one is read, and the distance of those read after them.
FIRST, EVERY = 50, 10


class Session:
    """Watches one run.

    Args:
        action: One of `ACTIONS`; the environment variable ENVCHECK_MONITOR_ACTION holds where it is not given.
        on_finding: Called with each finding; what it returns (`stop`, `warn` or None for the default) decides.
        output: The journal; ENVCHECK_MONITOR_OUTPUT where it is not given, else `envcheck-monitor.jsonl` in the working folder.
        quiet: Write nothing to standard error.

    Attributes:
        findings: What was found so far.
        stop_wanted: A finding asks for the end of the run.
        share: The other ranks' words, where there are others.
    """

    def __init__(
        self, action: str | None = None, on_finding: Callable[[Finding], str | None] | None = None, output: str | None = None,
        *, quiet: bool = False,
    ) -> None:  # fmt: skip
        self.action = action or os.environ.get("ENVCHECK_MONITOR_ACTION") or "auto"
        if self.action not in ACTIONS:
            self.action = "auto"
        self.on_finding = on_finding
        self.output = output or os.environ.get("ENVCHECK_MONITOR_OUTPUT") or "envcheck-monitor.jsonl"
        self.quiet = quiet
        self.findings: list[Finding] = []
        self.stop_wanted = False
        self.broken = ""
        self.share: Share | None = None
        self._held: list[tuple[int, str, str]] = []
        self._reported: set[str] = set()
        self.begin(Run(), 0)

    def begin(self, run: Run, rank: int) -> None:
        """The run starts: what is known of it, and which rank this is."""
        self.run = run
        self.rank = rank
        self.detector = Detector(run)
        self.diagnosis = Diagnosis(run, os.environ.get("ENVCHECK_MONITOR_PYTHON"))
        self.journal = Journal(self.output, rank)
        if run.packages:
            self.journal.run(run)
        self.step = 0

    def guard(self, function: Callable[[], T]) -> T | None:
        """Run `function`; what it raises ends the watching, never the training."""
        if self.broken:
            return None
        try:
            return function()
        except Exception as error:  # noqa: BLE001 - a defect of the monitor must not end a training run
            self.broken = f"{type(error).__name__}: {error}"
            self.say(f"envcheck monitor: stopped watching after an error of its own: {self.broken}")
            if os.environ.get("ENVCHECK_MONITOR_DEBUG"):
                traceback.print_exc()
        return None

    def feed(self, record: Record) -> None:
        """Take in a record; new findings are said, written and acted on."""
        self.step = max(self.step, record.step)
        self.journal.step(replace(record, survey=tuple(fact for fact in record.survey if notable(fact))))
        if self.detector.feed(record):
            self._report(self.detector.established())

    def _report(self, seen: tuple[Observation, ...]) -> None:
        for finding, behind in self.diagnosis.findings(seen):
            if finding.id in self._reported:
                continue
            self._reported.add(finding.id)
            self.findings.append(finding)
            self._held.append((self.step, finding.id, self._words(finding)))
            from envcheck.report.jsonform import finding_data  # noqa: PLC0415 - only with a finding

            self.journal.finding(finding, self.step, finding_data(finding))
            self.stop_wanted = self.stop_wanted or self._wants_stop(finding, behind)
        self.speak()

    def speak(self, *, now: bool = False) -> None:
        """Say what waits to be said, once among the ranks: rank 0 at once, another rank what nobody said within `HELD` steps."""
        first = self.share is None or self.rank == 0
        waiting = [] if first or now else [one for one in self._held if self.step < one[0] + HELD]
        due_now, self._held = [one for one in self._held if one not in waiting], waiting
        for _, name, text in due_now:
            if self.share is None or self.share.claim(name):
                self.say(text if first else text.replace("envcheck monitor:", f"envcheck monitor: rank {self.rank}:", 1))

    def _wants_stop(self, finding: Finding, behind: tuple[Observation, ...]) -> bool:
        asked = self.on_finding(finding) if self.on_finding is not None else None
        action = asked if asked in ACTIONS else self.action
        if action == "auto":
            return finding.severity is Severity.ERROR and any(one.kind in FATAL for one in behind)
        return action == "stop" and finding.severity is Severity.ERROR

    def _words(self, finding: Finding) -> str:
        lines = [f"envcheck monitor: step {self.step}: {finding.severity.label}: {finding.title} [{finding.id}]"]
        lines += [f"  {text}" for text in finding.because]
        lines += [f"  try {fix.change}" for fix in finding.fixes]
        return "\n".join(lines)

    def note(self, text: str) -> None:
        """Write down what was not looked at."""
        self.journal.note(text)

    def say(self, text: str) -> None:
        """Tell the user."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - that is what it is for

    def end(self) -> tuple[Finding, ...]:
        """The run is over: isolated events count now; the journal is closed and the curves are drawn."""
        self.guard(lambda: self._report(self.detector.finish()))
        self.guard(self._last_words)
        if self.diagnosis.problem:
            self.guard(lambda: self.note(self.diagnosis.problem))
        self.guard(lambda: self.journal.end(steps=self.step, findings=[one.id for one in self.findings]))
        if self.rank == 0:
            self.guard(self._draw)
        return tuple(self.findings)

    def _last_words(self) -> None:
        if self._held and self.share is not None and self.rank:
            self.share.await_first()
        self.speak(now=True)
        if self.share is not None:
            self.share.done(self.rank, wait=self.rank == 0 and bool(self.findings))

    def _draw(self) -> None:
        from envcheck.monitor.curves import draw  # noqa: PLC0415 - at the end

        problem = draw(self.journal.path)
        if problem:
            self.say(f"envcheck monitor: {problem}")


def due(step: int) -> bool:
    """Is the step one whose numbers are read? Each reading of a number on a GPU waits for it."""
    return step <= FIRST or step % EVERY == 0
