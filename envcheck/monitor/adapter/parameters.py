"""What happens to the parameters: in the optimizer? reached by gradients? changed? with what values at the start?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envcheck.monitor.records import ParameterFact

if TYPE_CHECKING:
    import torch

#: Elements of a parameter that are kept to see whether it changes.
SAMPLE = 64

#: No initialiser gives larger values, nor many non-zero ones smaller than the second number.
HUGE, DENORMAL = 1e6, 1e-30

#: Of the non-zero values of a parameter, the share of denormals that only uninitialised memory has.
DENORMAL_SHARE = 0.05

#: A change is due when the learning rates so far add up to so many roundings of the largest value.
ROUNDINGS = 16

#: Attributes in which DeepSpeed's optimizers keep the lists of the model's parameters.
GROUP_LISTS = ("bit16_groups", "fp16_groups", "bf16_groups", "fp16_params")


@dataclass(slots=True)
class Watched:
    """One parameter under watch: its state before the first step, and what reached it."""

    name: str
    parameter: torch.nn.Parameter
    trainable: bool
    before: torch.Tensor | None
    values: str = ""
    received: int = 0
    largest: torch.Tensor | None = None
    handle: Any = None


class ParameterWatch:
    """Watches all parameters of a model for the first steps.

    Args:
        model: The bare model, not the engine around it.
        absent: Names that its checkpoint lacks, and of these the ones beside loaded parameters; None where not known.
    """

    def __init__(self, model: torch.nn.Module, absent: tuple[set[str], set[str]] | None = None) -> None:
        self.model = model
        self.absent = absent
        self.rate_sum = 0.0
        self.watched = [_watch(name, parameter) for name, parameter in model.named_parameters()]
        _judge_values(self.watched)
        for one in self.watched:
            if one.trainable:
                one.handle = one.parameter.register_hook(_listener(one))

    def release(self) -> None:
        """Take every hook off the model."""
        for one in self.watched:
            if one.handle is not None:
                one.handle.remove()
                one.handle = None

    def digest(self) -> float:
        """A sum over the samples: equal on all ranks where the parameters are. Costs a synchronisation."""
        import torch  # noqa: PLC0415 - torch is there already

        parts = [local(one.parameter) for one in self.watched]
        flat = [_spread(part).double().cpu() for part in parts if part is not None and part.numel()]
        weights = torch.cat(flat) if flat else torch.zeros(1, dtype=torch.float64)
        return float(weights @ torch.cos(torch.arange(weights.numel(), dtype=torch.float64)))

    def survey(self, optimizer: Any, *, complete: bool) -> tuple[ParameterFact, ...]:  # noqa: ANN401
        """What is known now of every parameter, the ones that appeared since included."""
        inside = members(optimizer)
        known = {id(one.parameter): one for one in self.watched}
        facts = []
        for name, parameter in self.model.named_parameters():
            one = known.get(id(parameter))
            facts.append(self._fact(name, parameter, one, inside, complete=complete))
        return tuple(facts)

    def _fact(
        self, name: str, parameter: torch.nn.Parameter, one: Watched | None, inside: set[int] | None, *, complete: bool
    ) -> ParameterFact:
        within = None if inside is None else id(parameter) in inside
        late = parameter.requires_grad and within is False and (one is None or not one.trainable)
        absent, beside = self.absent or (None, None)
        received = zero = changed = None
        if one is not None and complete and one.trainable:
            received = one.received > 0
            zero = received and one.largest is not None and float(one.largest) == 0
        if one is not None and complete:
            changed = self._changed(one)
        return ParameterFact(
            name, bool(parameter.requires_grad), within, late, received, zero, changed, one.values if one else "",
            None if absent is None else name in absent, None if beside is None else name in beside,
        )  # fmt: skip

    def _changed(self, one: Watched) -> bool | None:
        """True or False where it can be told; an equal sample says nothing while no visible change is due."""
        import torch  # noqa: PLC0415 - torch is there already

        now = _sample(one.parameter)
        if now is None or one.before is None or now.shape != one.before.shape:
            return None
        if not torch.equal(now.cpu(), one.before.cpu()):
            return True
        if not one.trainable:
            return False
        largest = float(one.before.abs().max()) if one.before.numel() else 0.0
        gradient = 0.0 if one.largest is None else float(one.largest)
        rounding = torch.finfo(now.dtype).eps * max(largest, 1e-3)
        return False if self.rate_sum * min(1.0, gradient) > ROUNDINGS * rounding else None


def _watch(name: str, parameter: torch.nn.Parameter) -> Watched:
    sample = _sample(parameter)
    return Watched(name, parameter, bool(parameter.requires_grad), None if sample is None else sample.clone())


def _listener(one: Watched) -> Any:  # noqa: ANN401 - a tensor hook
    def listen(gradient: torch.Tensor) -> None:
        one.received += 1
        if gradient.numel():
            size = gradient.detach().abs().amax().float()
            one.largest = size if one.largest is None else one.largest.maximum(size)

    return listen


def local(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """This rank's part of the parameter as the model computes with it, flat; None on the meta device."""
    shard = getattr(parameter, "ds_tensor", None)
    data = parameter.detach() if shard is None else shard.detach()
    return None if data.is_meta else data.reshape(-1)


def _master(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """This rank's part of the float32 copy that the optimizer steps, where it can be read without a collective."""
    mapping = getattr(parameter, "_hp_mapping", None)
    if mapping is not None:
        fragment = mapping.get_hp_fragment()
        return None if fragment is None else fragment.detach().reshape(-1)
    return None


def _sample(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """Some elements, evenly spread: of the float32 copy where there is one, else of the working copy."""
    flat = _master(parameter)
    if flat is None:
        flat = local(parameter)
    if flat is None or not flat.numel():
        return None
    return _spread(flat).detach().clone()


def _spread(flat: torch.Tensor) -> torch.Tensor:
    return flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE]


def _judge_values(watched: list[Watched]) -> None:
    """Look once at all values, with one synchronisation for each device."""
    import torch  # noqa: PLC0415 - torch is there already

    by_device: dict[Any, list[tuple[Watched, torch.Tensor]]] = {}
    for one in watched:
        flat = local(one.parameter)
        if flat is not None and flat.numel() and flat.is_floating_point():
            by_device.setdefault(flat.device, []).append((one, _measure(flat)))
    for pairs in by_device.values():
        for (one, _), numbers in zip(pairs, torch.stack([numbers for _, numbers in pairs]).tolist(), strict=True):
            one.values = _word(*numbers)


def _measure(flat: torch.Tensor) -> torch.Tensor:
    """All finite (1 or 0), the largest magnitude, its number of non-zero values, and of tiny non-zero ones."""
    import torch  # noqa: PLC0415 - torch is there already

    size = flat.abs()
    tiny = ((size > 0) & (size < DENORMAL)).sum()
    return torch.stack([torch.isfinite(flat).all().float(), size.amax().float(), (size > 0).sum().float(), tiny.float()])


def _word(finite: float, largest: float, count: float, tiny: float) -> str:
    if not finite:
        return "non-finite"
    if largest > HUGE:
        return "huge"
    if count and tiny / count > DENORMAL_SHARE:
        return "denormal"
    return "fine" if count else "zero"


def members(optimizer: Any) -> set[int] | None:  # noqa: ANN401 - any optimizer, wrapped or not
    """Ids of the parameters that the optimizer steps; None where that cannot be told."""
    found: set[int] = set()
    for layer in layers(optimizer):
        for name in GROUP_LISTS:
            found |= _ids(getattr(layer, name, None))
        if not found:
            found |= _ids([group.get("params") for group in getattr(layer, "param_groups", None) or []])
    return found or None


def layers(optimizer: Any) -> list[Any]:  # noqa: ANN401
    """The optimizer and those it wraps, outermost first."""
    found: list[Any] = []
    while optimizer is not None and len(found) < 4 and all(optimizer is not one for one in found):  # noqa: PLR2004
        found.append(optimizer)
        optimizer = getattr(optimizer, "optimizer", None)
    return found


def _ids(lists: Any) -> set[int]:  # noqa: ANN401
    found: set[int] = set()
    for one in lists if isinstance(lists, (list, tuple)) else ():
        if isinstance(one, (list, tuple)):
            found |= _ids(one)
        elif hasattr(one, "requires_grad"):
            found.add(id(one))
    return found
