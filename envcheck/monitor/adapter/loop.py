"""The monitor in a loop of one's own: over a DeepSpeed engine, or step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.monitor.adapter import settings
from envcheck.monitor.adapter.watch import Watch
from envcheck.monitor.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from envcheck.findings import Finding


class EngineMonitor:
    """A DeepSpeed engine under watch; made by `watch`.

    Attributes:
        stop: A finding asks for the end of the run; the same on all ranks after the same step.
    """

    def __init__(self, engine: Any, session: Session, max_steps: int | None) -> None:  # noqa: ANN401
        self.session = session
        self.stop = False
        self._watch = Watch(
            session, engine.module, engine.optimizer, engine,
            lambda ranks: settings.run_of(engine, ranks, None, max_steps), self._stepped,
        )  # fmt: skip

    def _stepped(self) -> None:
        self._watch.after_step()
        self._watch.before_step()
        self.stop = self.stop or self._watch.stops()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far."""
        return tuple(self.session.findings)

    def end(self) -> tuple[Finding, ...]:
        """Training is over; returns every finding. Called at exit where it was not called before."""
        self.session.guard(self._watch.end)
        return self.findings


def watch(
    engine: Any, action: str | None = None, on_finding: Callable[[Finding], str | None] | None = None,  # noqa: ANN401
    output: str | None = None, *, max_steps: int | None = None, quiet: bool = False,
) -> EngineMonitor | None:  # fmt: skip
    """Put a DeepSpeed engine under watch, right after `deepspeed.initialize`, on every rank.

    Args:
        engine: What `deepspeed.initialize` returned first.
        action: `auto`, `warn` or `stop`; a stop sets the monitor's `stop`, the loop decides.
        on_finding: Called with each finding.
        output: The journal.
        max_steps: Optimizer steps that the run is to take, so that a schedule that ends too early is seen.
        quiet: Write nothing to standard error.

    Returns:
        The monitor, or None where the engine could not be watched (a message says why).
    """
    session = Session(action, on_finding, output, quiet=quiet)
    return session.guard(lambda: EngineMonitor(engine, session, max_steps))


class Monitor:
    """The monitor for a loop without a Trainer and without DeepSpeed.

    Args:
        action: `auto`, `warn` or `stop`; a stop sets `stop`, the loop decides.
        on_finding: Called with each finding.
        output: The journal.
        max_steps: Optimizer steps that the run is to take.
        quiet: Write nothing to standard error.

    Attributes:
        stop: A finding asks for the end of the run; the same on all ranks after the same step.
    """

    def __init__(
        self, action: str | None = None, on_finding: Callable[[Finding], str | None] | None = None, output: str | None = None,
        *, max_steps: int | None = None, quiet: bool = False,
    ) -> None:  # fmt: skip
        self.session = Session(action, on_finding, output, quiet=quiet)
        self.max_steps = max_steps
        self.stop = False
        self._watch: Watch | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far."""
        return tuple(self.session.findings)

    def model(self, model: torch.nn.Module, optimizer: Any = None) -> None:  # noqa: ANN401
        """Watch the parameters from before the first backward; later calls do nothing."""
        if self._watch is None and not self.session.broken:
            bare = getattr(model, "module", model)
            self._watch = self.session.guard(
                lambda: Watch(
                    self.session, bare, optimizer, None, lambda ranks: settings.run_of(None, ranks, None, self.max_steps)
                )
            )

    def step(
        self, *, loss: Any = None, lr: float | None = None, grad_norm: Any = None, model: Any = None, optimizer: Any = None,  # noqa: ANN401
    ) -> bool:  # fmt: skip
        """One optimizer step was taken.

        Args:
            loss: The loss; a tensor is not read before it is due, and then one step late.
            lr: The learning rate; that of the optimizer where it is not given.
            grad_norm: The gradient norm, a number or a tensor.
            model: The model; first given here, its gradients are watched from the next step.
            optimizer: The optimizer.

        Returns:
            True where the run should end.
        """
        if model is not None:
            self.model(model, optimizer)
        if self._watch is not None:
            self.session.guard(lambda: self._step(loss, lr, grad_norm))
        return self.stop

    def _step(self, loss: Any, lr: float | None, grad_norm: Any) -> None:  # noqa: ANN401
        watch = self._watch
        if watch is None:
            return
        watch.before_step()
        if watch.parameters is not None and lr is not None and watch.optimizer is None:
            watch.parameters.rate_sum += lr
        if loss is not None:
            watch.losses.append(loss.detach() if hasattr(loss, "detach") else loss)
        watch.after_step(lr, grad_norm)
        self.stop = self.stop or watch.stops()

    def end(self) -> tuple[Finding, ...]:
        """Training is over; returns every finding. Called at exit where it was not called before."""
        if self._watch is not None:
            self.session.guard(self._watch.end)
        return self.findings


_DEFAULT: list[Monitor] = []


def step(**fields: Any) -> bool:  # noqa: ANN401 - as Monitor.step
    """`Monitor.step` of one monitor for the whole process; never raises."""
    if not _DEFAULT:
        _DEFAULT.append(Monitor())
    return _DEFAULT[0].step(**fields)


def end() -> tuple[Finding, ...]:
    """`Monitor.end` of that monitor."""
    return _DEFAULT.pop().end() if _DEFAULT else ()
