"""The short stack table that a report opens with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Known
from envcheck.findings import StackRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context
    from envcheck.facts.model import Environment

#: Always shown; `not installed` is news about these.
CORE = ("torch", "deepspeed", "transformers", "accelerate")

#: Shown where installed.
OTHERS = ("peft", "trl", "flash-attn", "xformers", "bitsandbytes", "triton", "vllm", "torchvision", "numpy")


def stack_rows(context: Context) -> Iterator[StackRow]:
    """Python, the packages that decide how training behaves, driver, GPUs and toolkit."""
    environment = context.environment
    yield StackRow("environment", environment.source or "unknown", environment.prefix)
    yield _fact(environment, "python", "python")
    for name in (*CORE, *OTHERS):
        found = environment.packages.get(name)
        if found is not None:
            yield StackRow(name, found.version + _build(environment, name), found.location)
        elif name in CORE:
            yield StackRow(name, "not installed" if environment.complete else "unknown")
    yield _fact(environment, "driver", "driver")
    yield StackRow("gpu", _gpus(environment))
    yield _fact(environment, "cuda_toolkit", "cuda toolkit")
    matrix = context.matrix
    yield StackRow("matrix", f"{len(matrix)} rules ({matrix.origin})", matrix.place)


def _build(environment: Environment, name: str) -> str:
    fact = environment.fact("torch_cuda")
    if name != "torch" or "+" in environment.packages[name].version:
        return ""
    if isinstance(fact, Known):
        return f" (CUDA {fact.value})"
    return " (no CUDA)" if isinstance(fact, Absent) else ""


def _fact(environment: Environment, name: str, label: str) -> StackRow:
    fact = environment.fact(name)
    if isinstance(fact, Known):
        return StackRow(label, str(fact.value), fact.source)
    return StackRow(label, "none found" if isinstance(fact, Absent) else "unknown")


def _gpus(environment: Environment) -> str:
    if environment.gpus is None:
        return "unknown"
    if not environment.gpus:
        return "none found"
    names: dict[str, int] = {}
    for gpu in environment.gpus:
        text = gpu.name or "GPU"
        if gpu.compute_capability:
            text += f" ({gpu.compute_capability})"
        if gpu.memory_mib:
            text += f" {round(gpu.memory_mib / 1024)} GiB"
        names[text] = names.get(text, 0) + 1
    return ", ".join(f"{count} x {text}" if count > 1 else text for text, count in names.items())
