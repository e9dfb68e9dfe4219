"""What the Trainer logged: joined to the steps it is about, and explained. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Record = dict[str, Any]


def attach(records: Sequence[tuple[int, Record]]) -> list[tuple[int, Record]]:
    """The records with each log line put into its step as `logged` (and the types of its values as `logged_types`)."""
    lines = {(rank, one["step"]): one for rank, one in records if one["event"] == "log" and "loss" in one.get("logs", {})}
    joined = []
    for rank, one in records:
        line = lines.get((rank, one.get("step", -1))) if one["event"] == "step" else None
        joined.append((rank, {**one, "logged": line["logs"], "logged_types": line.get("types", {})} if line else one))
    return joined


def explain(records: Sequence[tuple[int, Record]], steps: Sequence[Record]) -> tuple[str, ...]:
    """Sentences about loss 0.0, lr 0.0 and missing gradients: which of their several causes it was."""
    return (*cut(records), *_losses(steps), *_rates(steps))


def cut(records: Sequence[tuple[int, Record]]) -> list[str]:
    """Trainable parameters that get no gradient even without DeepSpeed."""
    for rank, one in records:
        if rank == 0 and one["event"] == "plain" and one["count"]:
            names = ", ".join(f"`{name}`" for name in one["without_gradient"][:3])
            note = (
                f"{one['count']} trainable parameters get no gradient in plain torch either ({names}): the graph is cut before "
                "them, as by gradient checkpointing whose inputs require no gradient (`enable_input_require_grads`)"
            )
            return [note]
    return []


def _losses(steps: Sequence[Record]) -> list[str]:
    notes = []
    for one in steps:
        logged = one.get("logged", {}).get("loss")
        raw = [_number(loss) for loss in one.get("losses", [])]
        if logged == 0.0 and any(not math.isfinite(loss) for loss in raw):
            notes.append(
                f"loss 0.0 logged in step {one['step'] + 1} is a NaN or Inf that `logging_nan_inf_filter` took out of the log"
            )
        elif logged == 0.0 and any(raw):
            notes.append(f"loss 0.0 logged in step {one['step'] + 1} although the model returned {raw[0]:.4g}")
    return notes[:3]


def _rates(steps: Sequence[Record]) -> list[str]:
    notes = []
    for one in steps:
        logged = one.get("logged", {}).get("learning_rate")
        if logged is None or logged != 0:
            continue
        step = one["step"] + 1
        if one.get("overflow") or one.get("skipped_steps"):
            notes.append(f"lr 0.0 in step {step}: the optimizer skipped the step on overflow, so the schedule has not advanced")
        elif one.get("logged_types", {}).get("learning_rate") == "int":
            notes.append(f"lr 0 (an integer) in step {step}: DeepSpeed owns the schedule and has never stepped it")
        elif one.get("expected_lr") == 0:
            notes.append(f"lr 0.0 in step {step} is right: the schedule begins (or ends) there, warm-up has not started")
        elif step == len(steps):
            notes.append(f"lr 0.0 in step {step}: the schedule has come to its end")
        else:
            notes.append(f"lr 0.0 in step {step}, and the schedule says {one.get('expected_lr')}")
    return notes[:3]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
