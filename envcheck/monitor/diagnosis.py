"""Observations -> findings: which signature they make, its causes in order with the rules that fit here, and what to try."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from envcheck.errors import EnvcheckError
from envcheck.findings import Finding, Severity
from envcheck.monitor.observation import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.forensics.diagnose import Where
    from envcheck.matrix.signature import Signatures
    from envcheck.monitor.observation import Observation
    from envcheck.monitor.records import Run

#: Kinds that are worth knowing and no fault in themselves.
MILD = frozenset({
    Kind.LR_ENDED, Kind.NORM_JUMP, Kind.NO_GRADIENT, Kind.GRADIENT_ZERO, Kind.FROZEN_CHANGED, Kind.NOT_IN_CHECKPOINT,
})  # fmt: skip

#: Kinds after which the run computes nothing of use: the default is to stop.
FATAL = frozenset({
    Kind.NOTHING_TRAINABLE, Kind.WEIGHTS_NON_FINITE, Kind.GRADIENT_WRONG, Kind.LR_ZERO, Kind.NORM_SENTINEL, Kind.STEPS_SKIPPED,
    Kind.SCALE_EXHAUSTED,
})  # fmt: skip


class Diagnosis:
    """Explains observations by the signatures of the matrix, narrowed by the run's packages and settings.

    Without a readable matrix a finding says what was seen, and no cause.

    Args:
        run: What is known of the run.
        elsewhere: An interpreter that has envcheck with all it needs, asked where this one has not.
    """

    def __init__(self, run: Run, elsewhere: str | None) -> None:
        self.run = run
        self.elsewhere = elsewhere
        self.problem = ""
        self._loaded: tuple[Signatures, Where] | None = None

    def findings(self, seen: Sequence[Observation]) -> list[tuple[Finding, tuple[Observation, ...]]]:
        """The findings that these observations make, each with the observations behind it, most specific first."""
        if not seen:
            return []
        loaded = None if self.elsewhere else self._load()
        if loaded is None:
            return self._asked(seen) or [(bare(one), (one,)) for one in seen]
        from envcheck.forensics import diagnose  # noqa: PLC0415 - only when something was seen

        signatures, where = loaded
        matching = list(signatures.matching(diagnose.sightings(seen)))
        rules = diagnose.rules_of(matching, where)
        found = []
        said: set[Kind] = set()
        for one in matching:
            behind = tuple(item for item in seen if item.kind.value in one.kinds)
            found.append((diagnose.finding(one, diagnose.causes(one, where, rules), seen, where, ""), behind))
            said |= {Kind(kind) for kind in one.kinds | set(one.explains)}
        return found + [(bare(one), (one,)) for one in seen if one.kind not in said]

    def _asked(self, seen: Sequence[Observation]) -> list[tuple[Finding, tuple[Observation, ...]]]:
        if not self.elsewhere:
            return []
        from envcheck.monitor import explain  # noqa: PLC0415 - only when something was seen

        try:
            return explain.ask(self.elsewhere, self.run, seen)
        except EnvcheckError as error:
            self.problem = f"causes are not named: {error.message}"
            return []

    def _load(self) -> tuple[Signatures, Where] | None:
        if self._loaded is None and not self.problem:
            try:
                self._loaded = load(self.run)
            except Exception as error:  # noqa: BLE001 - no matrix must not end a training run
                self.problem = f"causes are not named: {type(error).__name__}: {error}"
        return self._loaded


def load(run: Run) -> tuple[Signatures, Where]:
    """The signatures, and what narrows them in this run.

    Raises:
        EnvcheckError: The matrix cannot be read.
    """
    from envcheck.facts.model import Distribution, Environment, Known  # noqa: PLC0415 - only when something was seen
    from envcheck.forensics.diagnose import Where  # noqa: PLC0415 - likewise
    from envcheck.matrix import database, signature  # noqa: PLC0415 - likewise
    from envcheck.matrix.settings import Settings  # noqa: PLC0415 - likewise

    matrix = database.load(None)
    packages = {name: Distribution(name, version) for name, version in run.packages.items()}
    python = ".".join(str(part) for part in sys.version_info[:3])
    environment = Environment(packages, facts={"python": Known(python, "this process")})
    whole = "zero_optimization.stage" in run.settings
    settings = Settings(dict(run.settings), deepspeed_complete=whole, uses=frozenset(run.uses))
    return signature.load(matrix.folder), Where(environment, settings, matrix)


def bare(one: Observation) -> Finding:
    """An observation as a finding without causes."""
    severity = Severity.WARNING if one.kind in MILD else Severity.ERROR
    return Finding(
        f"run-{one.kind.value}", severity, one.text[:1].upper() + one.text[1:], one.parameters[:1] or ("loss",),
        {one.kind.value: f"{one.count} of {one.of}"}, (one.text,),
    )  # fmt: skip
