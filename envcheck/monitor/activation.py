"""Switch the monitor on without a change of code: `ENVCHECK_MONITOR=1`.

`activate` is called by `envcheck_startup`, the entry point in the group `torch.backends`, which torch loads at the end of its own
import (2.5 and later, torch/__init__.py `_import_device_backends`), and by the `sitecustomize` that `envcheck run` puts on the
path (any torch).
It waits until `transformers.trainer` and `deepspeed` are imported, then gives every Trainer a `TrainerMonitor`, and every engine
that no Trainer owns a hook. Nothing here imports either.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: Module -> what is done to it after its import.
WAITING: dict[str, Callable[[Any], None]] = {}

#: Mark of a function that was wrapped already.
MARK = "_envcheck_monitor"


def wanted() -> bool:
    """Is the monitor asked for?"""
    return os.environ.get("ENVCHECK_MONITOR", "") not in ("", "0")


def activate() -> None:
    """Wait for the Trainer and for DeepSpeed, if the monitor is asked for. Never raises; a second call does nothing."""
    if not wanted() or WAITING or sys.version_info < (3, 10):
        return
    WAITING.update({"transformers.trainer": watch_trainers, "deepspeed": watch_engines})
    sys.meta_path.insert(0, _Waiter())
    for name, then in list(WAITING.items()):
        module = sys.modules.get(name)
        if module is not None and _unfinished(module):
            _once_finished(module, then)
        elif module is not None:
            _quietly(then, module)


class _Waiter(importlib.abc.MetaPathFinder):
    """Lets a module be found as usual and runs a function after it was executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if name not in WAITING or getattr(self, "inside", False):
            return None
        self.inside = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.inside = False
        if spec is not None and spec.loader is not None:
            _after(spec.loader, WAITING[name])
        return spec


def _after(loader: Any, then: Callable[[Any], None]) -> None:  # noqa: ANN401 - any loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _quietly(then, module)

    loader.exec_module = exec_module


def _unfinished(module: ModuleType) -> bool:
    """Is it being imported? It is what imports torch, then, where torch is what calls `activate`."""
    return bool(getattr(object.__getattribute__(module, "__spec__"), "_initializing", False))


def _once_finished(module: ModuleType, then: Callable[[Any], None]) -> None:
    """Run a function with the module when it is first asked for something after its import."""
    own = type(module)

    class Unfinished(own):  # type: ignore[valid-type, misc]
        def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a module
            if object.__getattribute__(self, "__class__") is Unfinished and not _unfinished(self):
                self.__class__ = own  # type: ignore[assignment]
                _quietly(then, self)
            return own.__getattribute__(self, name)

    module.__class__ = Unfinished


def _quietly(function: Callable[[Any], None], module: Any) -> None:  # noqa: ANN401 - a module
    try:
        function(module)
    except Exception as error:  # noqa: BLE001 - the training must start
        print(f"envcheck monitor: could not attach: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201


def watch_trainers(module: Any) -> None:  # noqa: ANN401 - transformers.trainer
    """Every Trainer gets the callback when its `train` is called, unless it has one."""
    train = module.Trainer.train
    if getattr(train, MARK, False):
        return

    def watched(self: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - a Trainer
        _quietly(add_callback, self)
        return train(self, *args, **options)

    setattr(watched, MARK, True)
    watched.__wrapped__ = train  # type: ignore[attr-defined]
    module.Trainer.train = watched


def add_callback(trainer: Any) -> None:  # noqa: ANN401 - a Trainer
    """Give a Trainer its monitor."""
    from envcheck.monitor import TrainerMonitor  # noqa: PLC0415 - transformers is there now

    if not any(isinstance(one, TrainerMonitor) for one in trainer.callback_handler.callbacks):
        monitor = TrainerMonitor()
        trainer.add_callback(monitor)
        monitor.on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)


def watch_engines(module: Any) -> None:  # noqa: ANN401 - deepspeed
    """Every engine that `deepspeed.initialize` makes outside a Trainer is watched."""
    initialize = module.initialize
    if getattr(initialize, MARK, False):
        return

    def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as DeepSpeed's
        made = initialize(*args, **options)
        if not in_trainer():
            from envcheck.monitor import watch  # noqa: PLC0415 - torch is there now

            watch(made[0])
        return made

    setattr(watched, MARK, True)
    watched.__wrapped__ = initialize  # type: ignore[attr-defined]
    module.initialize = watched


def in_trainer() -> bool:
    """Is a Trainer on the stack? Its callback watches the engine that is being made."""
    transformers = sys.modules.get("transformers.trainer")
    kind = getattr(transformers, "Trainer", None)
    frame = sys._getframe() if kind is not None else None  # noqa: SLF001 - documented, and what there is
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), kind):  # type: ignore[arg-type]
            return True
        frame = frame.f_back
    return False
