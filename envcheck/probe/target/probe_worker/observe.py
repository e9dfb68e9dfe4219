"""Read full parameters and gradients out of an engine, and project what was seen on what should have been seen."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Set, Tuple

import torch
from torch import nn

Named = Dict[str, torch.Tensor]

#: The stage that partitions the parameters themselves.
PARTITIONED = 3


def trainable(module: nn.Module) -> List[str]:
    """Names of the parameters that are to be trained; asked before DeepSpeed sees the model."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def parameters(engine: Any, names: List[str], stage: int, rough: Optional[Set[str]] = None) -> Named:  # noqa: ANN401
    """The named parameters in full, flat, as float32 on the CPU: the master copy where there is one.

    A collective under ZeRO-1/2/3: every rank must call it. Names without a readable master go into `rough`, and so do those
    whose master, as DeepSpeed's API gives it, is not what the model computes with: the model's own copy is then taken.
    """
    read = _api("safe_get_full_fp32_param")
    masters = _unfused_masters(engine.optimizer)
    found = {}
    for name, parameter in engine.module.named_parameters():
        if name in names:
            value = _full(read, parameter, stage, masters)
            if value is None or (stage != PARTITIONED and not _same(value, parameter)):
                value = parameter
                if rough is not None:
                    rough.add(name)
            found[name] = value.detach().float().cpu().flatten().clone()
    return found


def gradients(module: nn.Module, names: List[str]) -> Dict[str, Optional[torch.Tensor]]:
    """Every named parameter's accumulated gradient, flat float64; None where the API gives none."""
    read = _api("safe_get_full_grad")
    found: Dict[str, Optional[torch.Tensor]] = {}
    for name, parameter in module.named_parameters():
        if name in names:
            value = read(parameter) if read is not None else parameter.grad
            found[name] = None if value is None else value.detach().double().cpu().flatten()
    return found


def digest(module: nn.Module) -> Dict[str, List[float]]:
    """Sum and weighted sum of the working copy of each parameter: equal on all ranks where it is replicated."""
    found = {}
    for name, parameter in module.named_parameters():
        values = parameter.detach().double().cpu().flatten()
        weights = torch.cos(torch.arange(values.numel(), dtype=torch.float64))
        found[name] = [float(values.sum()), float(values @ weights)]
    return found


def _api(name: str) -> Any:  # noqa: ANN401 - a function of DeepSpeed, or None in a release without it
    import deepspeed.utils

    return getattr(deepspeed.utils, name, None)


def _same(master: torch.Tensor, parameter: nn.Parameter) -> bool:
    """Does the master copy, rounded, make the working copy? NaN equals NaN here."""
    if master.numel() != parameter.numel():
        return False
    rounded = master.detach().reshape(parameter.shape).to(parameter.device, parameter.dtype)
    return bool(torch.isclose(rounded.float(), parameter.detach().float(), rtol=0.01, atol=1e-6, equal_nan=True).all())


def _full(
    read: Any,  # noqa: ANN401
    parameter: nn.Parameter,
    stage: int,
    masters: Dict[int, torch.Tensor],
) -> Optional[torch.Tensor]:
    if id(parameter) in masters:
        return masters[id(parameter)]
    value = read(parameter) if read is not None else None
    if value is None and stage == PARTITIONED:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return value


def _unfused_masters(optimizer: Any) -> Dict[int, torch.Tensor]:  # noqa: ANN401
    """The float32 copies of DeepSpeed's unfused low-precision optimizer (stage 0), which its API does not reach."""
    working, masters = getattr(optimizer, "fp16_groups", None), getattr(optimizer, "fp32_groups", None)
    if not working or not masters:
        return {}
    return {
        id(low): high
        for lows, highs in zip(working, masters)
        for low, high in zip(lows, highs)
        if getattr(low, "shape", None) == getattr(high, "shape", 0)
    }


def project(seen: Dict[str, Named], basis: List[Named], earlier: Optional[Named], before: Named) -> List[Dict[str, Any]]:
    """For each parameter the inner products from which the coefficients can be fitted.

    Args:
        seen: `update` and `grad`: parameter name -> what was observed (flat float64).
        basis: One gradient per (rank, micro-batch), rank-major.
        earlier: Sum of the expected gradients of all earlier steps, or None.
        before: Parameter values before the step (for their size).

    Returns:
        Per parameter: `gram` (K x K), and for each observation its state, `dots` (K), `square`; `others` are the
        inner products of the observation with the expected gradients of other parameters of the same shape.
    """
    names = list(basis[0])
    expected = {name: sum(one[name] for one in basis) / len(basis) for name in names}
    return [_record(name, seen, basis, earlier, before, expected) for name in names]


def _record(
    name: str, seen: Dict[str, Named], basis: List[Named], earlier: Optional[Named], before: Named, expected: Named
) -> Dict[str, Any]:
    rows = [one[name] for one in basis]
    if earlier is not None:
        rows.append(earlier[name])
    matrix = torch.stack(rows)
    record = {
        "name": name,
        "numel": matrix.shape[1],
        "size": float(before[name].double().norm()),
        "gram": (matrix @ matrix.T).tolist(),
    }
    for kind, values in seen.items():
        record[kind] = _observation(values.get(name), matrix, name, expected)
    return record


def _observation(value: Optional[torch.Tensor], matrix: torch.Tensor, name: str, expected: Named) -> Dict[str, Any]:
    if value is None:
        return {"state": "none"}
    if value.numel() != matrix.shape[1]:
        return {"state": "shape", "numel": value.numel()}
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        return {"state": "non-finite", "count": bad}
    twins = {
        other: float(value @ gradient)
        for other, gradient in expected.items()
        if other != name and gradient.numel() == value.numel()
    }
    return {
        "state": "ok",
        "dots": (matrix @ value).tolist(),
        "square": float(value @ value),
        "others": dict(list(twins.items())[:16]),
    }


def scan(module: nn.Module) -> List[Tuple[str, int]]:
    """Parameters that hold non-finite values: name and count."""
    found = []
    for name, parameter in module.named_parameters():
        count = int((~torch.isfinite(parameter.detach())).sum())
        if count:
            found.append((name, count))
    return found


def norm(values: List[float]) -> float:
    """Root of the sum of squares."""
    return math.sqrt(sum(value * value for value in values))
