"""Plain torch: the gradient of every (rank, micro-batch), in float64, at the parameters that were observed."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Tuple

import torch
from torch import nn

from .models import Batch, loss_of

Named = Dict[str, torch.Tensor]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Reference:
    """A float64 copy of the model and, for low precision, a plain copy in the dtype under test.

    The second copy says how much of a difference is the dtype's own rounding.
    """

    def __init__(self, model: nn.Module, dtype: str) -> None:
        self.dtype = DTYPES[dtype]
        rounded = copy.deepcopy(model).to(self.dtype).cpu()
        self.exact = copy.deepcopy(rounded).double()
        self.plain = rounded if dtype != "fp32" else None
        self.relative: Dict[str, float] = {}

    def gradients(self, values: Named, batches: List[Batch]) -> Tuple[List[Named], List[float], Dict[str, float]]:
        """Gradients and losses of every batch, and the rounding error of each parameter's mean gradient (a norm).

        `values` are rounded to the dtype.

        A gradient is flat float64; a parameter without one has zeros.
        """
        found, losses = _backward(self.exact, values, self.dtype, batches)
        if self.plain is None:
            return found, losses, {}
        if not self.relative:
            low, _ = _backward(self.plain, values, self.dtype, batches)
            self.relative = {name: _relative(name, found, low) for name in found[0]}
        return found, losses, {name: value * _mean_norm(name, found) for name, value in self.relative.items()}


def _relative(name: str, found: List[Named], low: List[Named]) -> float:
    """Rounding error of a parameter's mean gradient in the low dtype, relative to it; measured once, at the first step."""
    error = torch.stack([one[name] - other[name] for one, other in zip(low, found)]).mean(dim=0)
    size = _mean_norm(name, found)
    return float(error.norm()) / size if size else 0.0


def _mean_norm(name: str, found: List[Named]) -> float:
    return float(torch.stack([one[name] for one in found]).mean(dim=0).norm())


def _backward(model: nn.Module, values: Named, dtype: Any, batches: List[Batch]) -> Tuple[List[Named], List[float]]:  # noqa: ANN401
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in values:
                parameter.copy_(values[name].view_as(parameter).to(dtype))
    found, losses = [], []
    for one in batches:
        model.zero_grad(set_to_none=True)
        loss = loss_of(model(**one))
        loss.backward()
        losses.append(float(loss.detach()))
        found.append({name: _flat(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad})
    return found, losses


def _flat(parameter: nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), dtype=torch.float64)
    return parameter.grad.detach().double().flatten()
