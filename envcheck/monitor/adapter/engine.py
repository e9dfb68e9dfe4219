"""A DeepSpeed engine under watch: `backward` and `step` of this one object are wrapped, nothing else of DeepSpeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.monitor.adapter.check import GradientReference
from envcheck.monitor.adapter.settings import dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.monitor.adapter.ranks import Ranks
    from envcheck.monitor.records import GradientCheck

#: Attribute of an engine that is under watch already.
MARK = "_envcheck_tap"


class EngineTap:
    """Listens to one engine.

    Args:
        engine: The DeepSpeed engine.
        ranks: All ranks; they must have agreed, or the gradient check is left out.
        guard: Runs a function and swallows what it raises.
        stepped: Called after each optimizer step, or None where a Trainer's callback does that.

    Attributes:
        check: Outcome of the gradient check of the latest step, until it is taken.
        loss: The latest loss handed to `backward`, still on its device.
    """

    def __init__(
        self, engine: Any, ranks: Ranks, guard: Callable[[Callable[[], Any]], Any], stepped: Callable[[], None] | None,  # noqa: ANN401
    ) -> None:  # fmt: skip
        self.engine = engine
        self.guard = guard
        self.stepped = stepped
        self.check: tuple[GradientCheck, ...] = ()
        self.loss: Any = None
        self.reference = GradientReference(engine, ranks, dtype_of(engine))
        self.own_backward, self.own_step = engine.backward, engine.step
        engine.backward, engine.step = self._backward, self._step
        setattr(engine, MARK, self)

    def _backward(self, loss: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        self.loss = loss.detach() if hasattr(loss, "detach") else None
        if self.reference.open:
            self.guard(lambda: self.reference.backward(loss, scale_wrt_gas=bool(options.get("scale_wrt_gas", True))))
        return self.own_backward(loss, *args, **options)

    def _step(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        boundary = bool(self.engine.is_gradient_accumulation_boundary())
        if boundary and self.reference.open:
            self.check = self.guard(self.reference.step) or ()
        result = self.own_step(*args, **options)
        if boundary and self.stepped is not None:
            self.guard(self.stepped)
        return result

    def take(self) -> tuple[GradientCheck, ...]:
        """The outcome of the latest check, once."""
        taken, self.check = self.check, ()
        return taken

    def release(self) -> None:
        """Give the engine its own methods back."""
        for name in ("backward", "step", MARK):
            self.engine.__dict__.pop(name, None)
        self.reference.release()


def tap_of(engine: Any) -> EngineTap | None:  # noqa: ANN401
    """The tap of an engine that is under watch."""
    found = engine.__dict__.get(MARK)
    return found if isinstance(found, EngineTap) else None
