"""Put on PYTHONPATH, this makes a healthy DeepSpeed faulty: a scenario that is labelled with one of ENVCHECK_FAULTS gets it.

It runs in the target interpreter; the probe's worker knows nothing of it. Which scenario has begun stands in the rank's journal.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from typing import Any

FAULTS = os.environ.get("ENVCHECK_FAULTS", "").split(",")
RANK = int(os.environ.get("RANK", "0"))
NAME = "layers.0.weight"
TWIN = "layers.1.weight"
#: Places of NAME and TWIN in the flat buffer of the float32 MLP: after the embedding (37 x 12) and layer 0 (12 x 12 + 12).
FIRST, SECOND, SIZE = 444, 600, 144


class Patcher(importlib.abc.MetaPathFinder):
    """Lets DeepSpeed import as usual, then wraps its `initialize`."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002 - the protocol's arguments
        if name != "deepspeed":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            wrap(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def wrap(deepspeed: Any) -> None:
    original = deepspeed.initialize

    def initialize(*args: Any, **kwargs: Any) -> Any:
        scenario = begun(sys.argv[3])
        for fault in FAULTS:
            if scenario.endswith("-mlp-" + fault):
                before(fault, kwargs["model"], kwargs["optimizer"], kwargs["config"]["gradient_accumulation_steps"])
        return original(*args, **kwargs)

    deepspeed.initialize = initialize


def begun(journal: str) -> str:
    """The scenario that this rank is in."""
    with open(journal, encoding="utf-8") as file:  # noqa: PTH123 - as the worker writes it
        return str(json.loads(file.readlines()[-1])["scenario"])


def before(fault: str, model: Any, optimizer: Any, accumulation: int) -> None:  # noqa: C901, PLR0912 - one branch a fault
    """Plant the fault in the model's hooks or the optimizer's step."""
    named = dict(model.named_parameters())
    if fault == "scale-one":
        named[NAME].register_hook(lambda grad: grad * 0.5)
    elif fault == "zero-one":
        named[NAME].register_hook(lambda grad: grad * 0)
    elif fault == "noise-one":
        named[NAME].register_hook(lambda grad: grad.flip(0))
    elif fault == "drop-rank" and RANK == 1:
        for parameter in named.values():
            parameter.register_hook(lambda grad: grad * 0)
    elif fault == "drop-micro-batch":
        for parameter in named.values():
            parameter.register_hook(counting(lambda count, grad: grad * 0 if count % accumulation == 1 else grad))
    elif fault == "nan-on-rank-1-from-step-2" and RANK == 1:
        named[NAME].register_hook(counting(lambda count, grad: grad * float("nan") if count >= accumulation else grad))
    elif fault == "freeze":
        frozen = named[NAME].requires_grad_(False)
        for group in optimizer.param_groups:
            group["params"] = [one for one in group["params"] if one is not frozen]
    elif fault in ("die", "hang") and RANK == 1:
        optimizer.step = ending(fault)
    elif fault in ("never-step", "step-twice", "swap"):
        optimizer.step = stepping(fault, optimizer, optimizer.step)
    elif fault == "keep-one-still":
        optimizer.step = still(optimizer, optimizer.step)


def counting(function: Any) -> Any:
    count = -1

    def hook(grad: Any) -> Any:
        nonlocal count
        count += 1
        return function(count, grad)

    return hook


def stepping(fault: str, optimizer: Any, step: Any) -> Any:
    def never(*_: Any, **__: Any) -> None:
        return None

    def twice(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        step(*args, **kwargs)

    def swapped(*args: Any, **kwargs: Any) -> None:
        flat = optimizer.param_groups[0]["params"][0].grad
        if flat is not None and RANK == 0:
            first = flat[FIRST : FIRST + SIZE].clone()
            flat[FIRST : FIRST + SIZE] = flat[SECOND : SECOND + SIZE]
            flat[SECOND : SECOND + SIZE] = first
        step(*args, **kwargs)

    return {"never-step": never, "step-twice": twice, "swap": swapped}[fault]


def ending(fault: str) -> Any:
    def step(*_: Any, **__: Any) -> None:
        if fault == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(3600)

    return step


def still(optimizer: Any, step: Any) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        if RANK == 0:
            flat = optimizer.param_groups[0]["params"][0]
            kept = flat.data[FIRST : FIRST + SIZE].clone()
            step(*args, **kwargs)
            flat.data[FIRST : FIRST + SIZE] = kept
        else:
            step(*args, **kwargs)

    return function


if FAULTS != [""]:
    sys.meta_path.insert(0, Patcher())
