"""What is read from tensors: each wait for a GPU counts, so losses of one step are read together."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from envcheck.monitor.adapter.settings import numbers

if TYPE_CHECKING:
    import pytest


class Tensor:
    """A number on a device: reading one is counted."""

    reads = 0

    def __init__(self, values: list[float], device: str = "gpu") -> None:
        self.values, self.device = values, device

    def detach(self) -> Tensor:
        return self

    double = detach

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        assert shape == ()
        if len(self.values) != 1:
            raise RuntimeError("invalid shape")
        return self

    def tolist(self) -> list[float]:
        Tensor.reads += 1
        return self.values

    def __float__(self) -> float:
        Tensor.reads += 1
        return self.values[0]


def stack(tensors: list[Tensor]) -> Tensor:
    if len({one.device for one in tensors}) > 1:
        raise RuntimeError("Expected all tensors to be on the same device")
    return Tensor([value for one in tensors for value in one.values])


def test_losses_of_one_step_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(stack=stack))
    monkeypatch.setattr(Tensor, "reads", 0)
    assert numbers([Tensor([1.0]), Tensor([2.0]), Tensor([4.0])]) == [1.0, 2.0, 4.0]
    assert Tensor.reads == 1


def test_what_cannot_be_read_together_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(stack=stack))
    assert numbers([Tensor([1.0]), Tensor([2.0], "other gpu")]) == [1.0, 2.0]
    assert numbers([Tensor([1.0]), 2, None, "3 apples"]) == [1.0, 2.0]
    monkeypatch.delitem(sys.modules, "torch")
    assert numbers([1, 2.5]) == [1.0, 2.5]
    assert numbers([]) == []
