"""Surveys of the parameters: what they say of training set, optimizer, gradients and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.monitor.observation import Kind, Observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.monitor.records import ParameterFact, Record

#: Names that a sentence lists before it says how many more there are.
LISTED = 3

#: Values before the first step that no initialiser gives.
GARBAGE = frozenset({"huge", "denormal"})


def _garbage(fact: ParameterFact) -> bool:
    return fact.values in GARBAGE


def _outside(fact: ParameterFact) -> bool:
    return bool(fact.trainable) and fact.in_optimizer is False and not fact.late


def _absent(fact: ParameterFact) -> bool:
    """Absent from the checkpoint, and not simply a new module that is to be trained."""
    return bool(fact.absent) and (bool(fact.beside_loaded) or fact.trainable is False)


def _reached(fact: ParameterFact) -> bool:
    return bool(fact.trainable) and fact.in_optimizer is not False and fact.received is not False and not fact.gradient_zero


#: Kind -> which parameters show it, and how it is said; the second table needs the last survey.
AT_ONCE: dict[Kind, tuple[Callable[[ParameterFact], bool], str]] = {
    Kind.WEIGHTS_NON_FINITE: (lambda fact: fact.values == "non-finite", "not finite before the first step"),
    Kind.WEIGHTS_SUSPECT: (_garbage, "values that look like uninitialised memory before the first step"),
    Kind.NOT_IN_CHECKPOINT: (_absent, "not in the checkpoint that the model was loaded from"),
    Kind.NOT_IN_OPTIMIZER: (_outside, "trainable and in no parameter group of the optimizer"),
    Kind.MADE_LATE: (lambda fact: bool(fact.late), "made or unfrozen after the optimizer was built, and not in it"),
}
AT_LAST: dict[Kind, tuple[Callable[[ParameterFact], bool], str]] = {
    Kind.NO_GRADIENT: (
        lambda fact: bool(fact.trainable) and fact.received is False,
        "trainable and never reached by a gradient",
    ),
    Kind.GRADIENT_ZERO: (
        lambda fact: bool(fact.trainable) and fact.received is not False and bool(fact.gradient_zero),
        "trainable and reached only by gradients that are exactly zero",
    ),
    Kind.NEVER_CHANGED: (lambda fact: _reached(fact) and fact.changed is False, "never changed although gradients arrive"),
    Kind.FROZEN_CHANGED: (lambda fact: fact.trainable is False and fact.changed is True, "frozen and changed all the same"),
}


class Surveys:
    """Turns surveys into observations; each kind keeps its first sight."""

    def __init__(self) -> None:
        self.seen: dict[Kind, Observation] = {}

    def see(self, record: Record) -> None:
        """Take in a survey."""
        facts = record.survey
        if all(fact.trainable is False for fact in facts):
            text = f"none of the {len(facts)} parameters is trainable"
            self._note(record, Kind.NOTHING_TRAINABLE, text, facts, len(facts))
        for kind, (shows, words) in ({**AT_ONCE, **AT_LAST} if record.complete else AT_ONCE).items():
            about = tuple(fact for fact in facts if shows(fact))
            if about:
                candidates = sum(fact.trainable is about[0].trainable for fact in facts)
                self._note(record, kind, f"{words}: {listing(about)}", about, candidates)

    def _note(self, record: Record, kind: Kind, text: str, about: tuple[ParameterFact, ...], of: int) -> None:
        values = {"absent": sum(bool(fact.absent) for fact in about), "trainable": sum(bool(fact.trainable) for fact in about)}
        self.seen.setdefault(
            kind,
            Observation(
                kind, text, record.step, record.line, record.rank, record.step, len(about), of, from_start=record.step <= 1,
                values={**values}, parameters=tuple(fact.name for fact in about),
            ),
        )  # fmt: skip

    def found(self) -> list[Observation]:
        """What is established by now."""
        return list(self.seen.values())


def listing(about: tuple[ParameterFact, ...]) -> str:
    """`` `a`, `b`, `c` and 4 more parameters``."""
    names = ", ".join(f"`{fact.name}`" for fact in about[:LISTED])
    more = len(about) - LISTED
    return f"{names} and {more} more parameters" if more > 0 else names


def notable(fact: ParameterFact) -> bool:
    """Does the parameter show anything at all?"""
    return any(shows(fact) for shows, _ in (*AT_ONCE.values(), *AT_LAST.values()))
