"""`TrainerMonitor`: the monitor as a callback of `transformers.Trainer`."""

from __future__ import annotations

import atexit
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import transformers

from envcheck.monitor.adapter import settings
from envcheck.monitor.adapter.ranks import Ranks
from envcheck.monitor.adapter.watch import Watch
from envcheck.monitor.records import ParameterFact, Record, Run
from envcheck.monitor.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from envcheck.findings import Finding

#: TrainingArguments that conditions of the matrix and the signatures ask for.
ARGUMENTS = (
    "learning_rate", "warmup_steps", "warmup_ratio", "lr_scheduler_type", "max_grad_norm", "gradient_checkpointing", "optim",
    "logging_nan_inf_filter", "per_device_train_batch_size", "bf16", "fp16", "label_smoothing_factor",
    "average_tokens_across_devices",
)  # fmt: skip


class TrainerMonitor(transformers.TrainerCallback):
    """Watches a Trainer: `Trainer(callbacks=[TrainerMonitor()])`. Every rank must have it, or the ranks are not compared.

    Args:
        action: `auto` (stop cleanly where the run computes nothing of use), `warn`, or `stop` at every error.
        on_finding: Called with each finding; may return `stop` or `warn` to decide itself.
        output: The journal, a file of JSON lines.
        quiet: Write nothing to standard error.
    """

    def __init__(
        self, action: str | None = None, on_finding: Callable[[Finding], str | None] | None = None, output: str | None = None,
        *, quiet: bool = False,
    ) -> None:  # fmt: skip
        self.session = Session(action, on_finding, output, quiet=quiet)
        self.watch: Watch | None = None
        self.began = False
        self.handle: Any = None
        self.frozen: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far."""
        return tuple(self.session.findings)

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:  # noqa: ANN401, ARG002
        """The Trainer is made: a model without a trainable parameter may not even reach the first step."""
        if model is not None:
            names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
            if not names:
                self.frozen = tuple(name for name, _ in model.named_parameters())
                atexit.register(self._never_began)

    def _never_began(self) -> None:
        if not self.began:
            self.session.guard(self._report_frozen)

    def _report_frozen(self) -> None:
        if Ranks().rank:
            return  # all ranks have the same model
        self.session.begin(Run(settings.versions(), logging_steps=1), 0)
        self.session.feed(Record(0, survey=tuple(ParameterFact(name, trainable=False) for name in self.frozen)))
        self.session.end()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **more: Any) -> None:  # noqa: ANN401, ARG002
        """Training starts: attach to the model, the optimizer and the engine."""
        self.began = True
        self.session.guard(lambda: self._attach(args, state, model, optimizer, trainer_on_stack()))

    def _attach(self, args: Any, state: Any, model: Any, optimizer: Any, trainer: Any) -> None:  # noqa: ANN401
        engine = engine_of(trainer)
        told = {name: plain(getattr(args, name)) for name in ARGUMENTS if hasattr(args, name)}
        told["gradient_accumulation_steps"] = args.gradient_accumulation_steps
        told["model_type"] = getattr(getattr(model, "config", None), "model_type", None)
        bare = engine.module if engine is not None else getattr(model, "module", model)
        stepping = engine.optimizer if engine is not None else optimizer or getattr(trainer, "optimizer", None)
        self.watch = Watch(
            self.session, bare, stepping, engine, lambda ranks: run_of(engine, ranks, told, state.max_steps, args),
        )  # fmt: skip
        self.handle = bare.register_forward_hook(self._returned)

    def _returned(self, module: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
        """Keep the raw loss, before the Trainer filters it; nothing is read yet."""
        if self.watch is not None and module.training:
            loss = output.get("loss") if hasattr(output, "get") else output[0] if isinstance(output, tuple) and output else output
            if hasattr(loss, "detach") and loss.numel() == 1:
                self.watch.losses.append(loss.detach())

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ANN401, ARG002
        """A step begins."""
        if self.watch is not None:
            self.session.guard(self.watch.before_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:  # noqa: ANN401, ARG002
        """A step ended."""
        if self.watch is None:
            return None
        self.session.guard(self.watch.after_step)
        if self.session.guard(self.watch.stops):
            control.should_training_stop = True
            if self.watch.ranks.rank == 0:
                self.session.say(f"envcheck monitor: training is stopped after step {self.watch.steps}")
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:  # noqa: ANN401, ARG002
        """A line of the log: what it says goes into the record of its step."""
        if self.watch is not None and logs and "loss" in logs:
            self.session.guard(lambda: self._logged(logs))

    def _logged(self, logs: Any) -> None:  # noqa: ANN401
        watch = self.watch
        if watch is None:
            return
        record = watch.pending or Record(watch.steps, watch.ranks.rank, lr=settings.rate_of(watch.optimizer))
        rate = logs.get("learning_rate")
        norm = record.grad_norm if watch.engine is not None else settings.number(logs.get("grad_norm"))
        integer = isinstance(rate, int) and not isinstance(rate, bool)
        watch.pending = replace(record, logged_loss=settings.number(logs["loss"]), lr_integer=integer, grad_norm=norm)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ANN401, ARG002
        """Training is over."""
        if self.watch is not None:
            self.session.guard(self.watch.end)
            self.watch = None
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


def trainer_on_stack() -> Any:  # noqa: ANN401
    """The Trainer whose callback is being called. Callbacks are handed no engine, in any release; the caller has it."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - documented, and what there is
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, transformers.Trainer):
            return found
        frame = frame.f_back
    return None


def engine_of(trainer: Any) -> Any:  # noqa: ANN401
    """The Trainer's DeepSpeed engine, or None."""
    for name in ("deepspeed", "model_wrapped"):
        found = getattr(trainer, name, None)
        if hasattr(found, "zero_optimization_stage") and hasattr(found, "backward"):
            return found
    return None


def run_of(engine: Any, ranks: int, told: dict[str, Any], max_steps: int, args: Any) -> Run:  # noqa: ANN401
    """What is known of a Trainer's run."""
    run = settings.run_of(engine, ranks, told, max_steps)
    dtype = run.dtype or ("bf16" if getattr(args, "bf16", False) else "fp16" if getattr(args, "fp16", False) else "fp32")
    return replace(run, dtype=dtype, accumulation=args.gradient_accumulation_steps)


def plain(value: Any) -> Any:  # noqa: ANN401
    """An argument as JSON can hold it; an enum as its value."""
    value = getattr(value, "value", value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
