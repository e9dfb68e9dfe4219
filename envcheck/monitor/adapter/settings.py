"""What an engine, an optimizer and a Trainer say of themselves, read without a collective and without computing anything."""

from __future__ import annotations

import math
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from envcheck.monitor.adapter.parameters import layers
from envcheck.monitor.records import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Distributions whose versions decide causes.
PACKAGES = ("torch", "deepspeed", "transformers", "accelerate", "peft", "trl")


def versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The installed versions of the named distributions."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def dtype_of(engine: Any) -> str:  # noqa: ANN401
    """The dtype that the engine computes in: fp32, bf16 or fp16."""
    for name, word in (("bfloat16_enabled", "bf16"), ("fp16_enabled", "fp16")):
        if getattr(engine, name, bool)():
            return word
    return "fp32"


def engine_settings(engine: Any) -> dict[str, Any]:  # noqa: ANN401
    """The DeepSpeed configuration in force, as the matrix names it (dotted keys)."""
    from envcheck.matrix.settings import flatten  # noqa: PLC0415 - only when an engine is met

    config = getattr(getattr(engine, "_config", None), "_param_dict", None) or getattr(engine, "config", None) or {}
    flat = flatten(config) if isinstance(config, dict) else {}
    flat["zero_optimization.stage"] = int(engine.zero_optimization_stage())
    flat["gradient_accumulation_steps"] = int(engine.gradient_accumulation_steps())
    flat["bf16.enabled"], flat["fp16.enabled"] = (dtype_of(engine) == word for word in ("bf16", "fp16"))
    return flat


def run_of(engine: Any, ranks: int, more: dict[str, Any] | None = None, max_steps: int | None = None) -> Run:  # noqa: ANN401
    """What is known of a run with this engine, or None without DeepSpeed."""
    settings: dict[str, Any] = {**(more or {}), "world_size": ranks}
    if engine is None:
        return Run(versions(), settings, max_steps=max_steps, ranks=ranks, logging_steps=1)
    settings.update(engine_settings(engine))
    owner = "deepspeed" if settings.get("scheduler.type") else "client"
    uses = ("deepspeed-on-cpu",) if getattr(getattr(engine, "device", None), "type", "") == "cpu" else ()
    return Run(
        versions(), settings, dtype_of(engine), max_steps, settings["gradient_accumulation_steps"], ranks, 1, owner, uses,
    )  # fmt: skip


def rate_of(optimizer: Any) -> float | None:  # noqa: ANN401
    """The highest learning rate of all groups."""
    rates = [float(group["lr"]) for group in getattr(optimizer, "param_groups", None) or [] if "lr" in group]
    return max(rates, default=None)


def norm_of(engine: Any) -> Any:  # noqa: ANN401
    """The engine's global gradient norm of the step it completed last: a number or a tensor, not yet read."""
    return engine.get_global_grad_norm() if hasattr(engine, "get_global_grad_norm") else None


def number(value: Any) -> float | None:  # noqa: ANN401
    """The value as a float; reading a tensor on a GPU waits for it."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def numbers(values: Sequence[Any]) -> list[float]:
    """Those of the values that are numbers; tensors are read together, so that a GPU is waited for once."""
    torch = sys.modules.get("torch")
    if torch is not None and len(values) > 1:
        try:
            together = torch.stack([value.detach().double().reshape(()) for value in values])
            return [float(one) for one in together.tolist()]
        except (AttributeError, TypeError, RuntimeError):
            pass  # not all are tensors of one number on one device
    return [one for one in map(number, values) if one is not None]


def overflow_of(optimizer: Any) -> bool | None:  # noqa: ANN401
    """Was the latest step skipped? None where the optimizer does not say."""
    for layer in layers(optimizer):
        if isinstance(getattr(layer, "overflow", None), bool):
            return bool(layer.overflow)
    return None


def scale_of(engine: Any) -> float | None:  # noqa: ANN401
    """The loss scale in force, where it is more than 1."""
    value = number(getattr(getattr(engine, "optimizer", None), "loss_scale", None))
    return None if value is None or math.isnan(value) else value
