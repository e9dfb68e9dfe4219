"""Watches the first steps of a training run and says when, where and why it goes wrong.

One line switches it on: `Trainer(callbacks=[envcheck.monitor.TrainerMonitor()])`, `envcheck.monitor.watch(engine)` for a
DeepSpeed engine, or `envcheck.monitor.step(loss=..., lr=..., grad_norm=..., model=...)` in a loop of one's own. Importing this
module imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envcheck.monitor.adapter.loop import Monitor, end, step, watch
    from envcheck.monitor.adapter.trainer import TrainerMonitor

__all__ = ["Monitor", "TrainerMonitor", "end", "step", "watch"]

#: Name -> module that has it; each is imported when it is first asked for.
HOMES = {"Monitor": "loop", "end": "loop", "step": "loop", "watch": "loop", "TrainerMonitor": "trainer"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or function
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - only when something is asked for

    return getattr(importlib.import_module(f"envcheck.monitor.adapter.{HOMES[name]}"), name)
