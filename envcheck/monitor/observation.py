"""What the detector can see in a stream of records. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Kind(str, Enum):
    """The kinds of observation; each is something seen, not yet a cause."""

    LOSS_ZERO = "loss-zero"
    LOSS_NON_FINITE = "loss-non-finite"
    LOSS_FILTERED = "loss-filtered"
    LR_ZERO = "lr-zero"
    LR_ENDED = "lr-ended"
    NORM_ZERO = "norm-zero"
    NORM_NON_FINITE = "norm-non-finite"
    NORM_SENTINEL = "norm-sentinel"
    NORM_CONSTANT = "norm-constant"
    NORM_JUMP = "norm-jump"
    STEPS_SKIPPED = "steps-skipped"
    SCALE_EXHAUSTED = "scale-exhausted"
    NOTHING_TRAINABLE = "nothing-trainable"
    NO_GRADIENT = "no-gradient"
    GRADIENT_ZERO = "gradient-zero"
    NEVER_CHANGED = "never-changed"
    FROZEN_CHANGED = "frozen-changed"
    NOT_IN_OPTIMIZER = "not-in-optimizer"
    MADE_LATE = "made-late"
    WEIGHTS_NON_FINITE = "weights-non-finite"
    WEIGHTS_SUSPECT = "weights-suspect"
    NOT_IN_CHECKPOINT = "not-in-checkpoint"
    GRADIENT_NON_FINITE = "gradient-non-finite"
    GRADIENT_WRONG = "gradient-wrong"
    RANKS_DISAGREE = "ranks-disagree"


@dataclass(frozen=True, slots=True)
class Observation:
    """One kind of thing, from where it began.

    Attributes:
        kind: What it is.
        text: One sentence with the numbers, without a full stop.
        step: The step it was first seen in.
        line: The line of the log it was first seen in; 0 without a log.
        rank: The rank it was first seen on; None where it is about all of them.
        last_step: The latest step it was seen in.
        count: Records it was seen in.
        of: Records in which it could have been seen.
        from_start: It was there in the first record that could show it.
        until_end: It is there in the latest record that could show it.
        values: What was seen, by name, as plain values (the names depend on the kind).
        parameters: Names of the parameters it is about.
    """

    kind: Kind
    text: str
    step: int
    line: int = 0
    rank: int | None = None
    last_step: int = 0
    count: int = 1
    of: int = 1
    from_start: bool = False
    until_end: bool = True
    values: dict[str, str | int | float | bool] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
