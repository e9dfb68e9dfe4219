"""The reference check of the first steps, on real tensors.

A tensor hook on a few parameters keeps a sample of each micro-batch's own gradient, before DeepSpeed touches it. Hooks on
the model's outputs and on the loss that goes into `engine.backward` tell by how much DeepSpeed scaled that backward. When the
engine is about to step, its gradient is read where this rank holds it, without a collective; then the ranks share what they have.
What must hold: gradient / loss scale = c * mean over ranks of the sum over micro-batches of d(loss) / d(parameter), with c = 1 /
accumulation steps, or 1 where the caller said `scale_wrt_gas=False`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.monitor.gradient import MOST_ROWS, judge, not_finite, skipped
from envcheck.probe.attribution import Shape

if TYPE_CHECKING:
    import torch

    from envcheck.monitor.adapter.ranks import Ranks
    from envcheck.monitor.records import GradientCheck

#: Elements of a parameter that are compared.
ELEMENTS = 4096

#: Parameters that are compared.
PARAMETERS = 3

#: Optimizer steps that are checked; the second shows gradients that were not cleared.
STEPS = 2


@dataclass(slots=True)
class _Backward:
    """One micro-batch's backward: the gradient at each of the model's outputs, before and after the engine's own hooks.

    Attributes:
        factor: What the caller wants this micro-batch's gradient multiplied by.
        root: Gradient at the handed-over loss, where it is none of the outputs.
        before: Output's place -> gradient that reaches it.
        after: Output's place -> gradient that leaves it.
        loss_output: Place of the output that is a loss.
    """

    factor: float = 1.0
    root: Any = None
    before: dict[int, Any] = field(default_factory=dict)
    after: dict[int, Any] = field(default_factory=dict)
    loss_output: int | None = None

    def scale(self) -> float:
        """What the gradients that reach the parameters are multiplied by, in all; outputs behind the loss included."""
        ratios = {key: float(self.after[key]) / float(self.before[key]) for key in self.before if float(self.before[key])}
        root = self.root if self.root is not None or self.loss_output is None else self.before.get(self.loss_output)
        total = 1.0 if root is None else float(root)
        if self.loss_output in ratios:
            total *= ratios.pop(self.loss_output)
        return total * next(iter(ratios.values()), 1.0)


class _Sampled:
    """One parameter whose micro-batch gradients are kept."""

    def __init__(self, name: str, parameter: torch.nn.Parameter) -> None:
        import torch  # noqa: PLC0415 - torch is there already

        self.name = name
        self.parameter = parameter
        self.numel = int(getattr(parameter, "ds_numel", parameter.numel()))
        count = min(self.numel, ELEMENTS)
        self.places = torch.linspace(0, self.numel - 1, count, dtype=torch.float64).round().long().unique()
        self.rows: list[torch.Tensor] = []
        self.earlier: torch.Tensor | None = None
        self.handle = parameter.register_hook(self._keep)

    def _keep(self, gradient: torch.Tensor) -> None:
        places = self.places.to(gradient.device)
        self.rows.append(gradient.detach().reshape(-1)[places].float())


class GradientReference:
    """Checks the first steps of one engine.

    Args:
        engine: The DeepSpeed engine.
        ranks: All ranks, agreed.
        dtype: What gradients are accumulated in: fp32, bf16 or fp16.
    """

    def __init__(self, engine: Any, ranks: Ranks, dtype: str) -> None:  # noqa: ANN401
        self.engine = engine
        self.ranks = ranks
        self.dtype = dtype
        self.backwards: list[_Backward] = []
        self.outputs: dict[int, tuple[Any, Any]] = {}
        self.checked = 0
        self.why_not = obstacle(engine, ranks, dtype)
        chosen = [] if self.why_not else choose(engine.module)
        self.sampled = [_Sampled(name, parameter) for name, parameter in chosen]
        self.current = _Backward()
        self.handles = []
        if chosen:
            self.handles = [engine.module.register_forward_hook(self._before), engine.register_forward_hook(self._after)]

    @property
    def open(self) -> bool:
        """Is there a step left to check?"""
        return bool(self.sampled) and self.checked < STEPS

    def _before(self, _module: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
        """The model returned: hooks that come before the engine's own."""
        self.current = _Backward()
        self.outputs = {key: (tensor, tensor.grad_fn) for key, tensor in enumerate(_tensors(output))}
        for key, (tensor, _) in self.outputs.items():
            tensor.register_hook(_recorder(self.current.before, key))

    def _after(self, _module: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
        """The engine returned: hooks that come after its own."""
        for key, tensor in enumerate(_tensors(output)):
            tensor.register_hook(_recorder(self.current.after, key))

    def backward(self, loss: Any, scale_wrt_gas: bool) -> None:  # noqa: ANN401
        """`engine.backward` is called with this loss."""
        one = self.current
        one.factor = 1 / self.engine.gradient_accumulation_steps() if scale_wrt_gas else 1.0
        one.loss_output = next((key for key, (tensor, _) in self.outputs.items() if tensor.numel() == 1), None)
        if all(loss.grad_fn is not made_by for _, made_by in self.outputs.values()):  # an in-place product is another loss
            loss.register_hook(_setter(one))
        self.outputs = {}
        self.backwards.append(one)

    def step(self) -> tuple[GradientCheck, ...]:
        """The engine is about to step on all ranks: compare. A collective."""
        import torch  # noqa: PLC0415 - torch is there already

        if self.why_not:
            return (skipped("", self.why_not),)
        parts = [self._part(one) for one in self.sampled]
        whole = [float(ok) for _, _, ok in parts] + [0.0] * (PARAMETERS - len(parts))
        shared = self.ranks.gather(torch.tensor([float(len(self.backwards)), *whole], dtype=torch.float64))
        same = all(torch.equal(one, shared[0]) for one in shared)
        found = tuple(self._compare(one, part, same=same) for one, part in zip(self.sampled, parts, strict=True))
        self.checked += 1
        self._clear()
        if not self.open:
            self.release()
        return found

    def _part(self, one: _Sampled) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """Scaled micro-batch gradients (M, K), this rank's part of the engine's (2, K: values, owned), and if they are whole.

        Raises nothing: the other ranks wait for it.
        """
        import torch  # noqa: PLC0415 - torch is there already

        count, width = len(self.backwards), one.places.numel()
        rows = torch.zeros(count, width, dtype=torch.float64)
        held = torch.zeros(2, width, dtype=torch.float64)
        try:
            return self._scaled(one, rows), self._held(one, held), True
        except Exception:  # noqa: BLE001 - internals of DeepSpeed that this release has not, or hooks that were not called
            return rows, held, False

    def _scaled(self, one: _Sampled, rows: torch.Tensor) -> torch.Tensor:
        for index, (row, backward) in enumerate(zip(one.rows, self.backwards, strict=True)):
            rows[index] = row.double().cpu() * (backward.factor * len(rows) / backward.scale())
        return rows

    def _held(self, one: _Sampled, held: torch.Tensor) -> torch.Tensor:
        fragment, start = held_gradient(self.engine, one.parameter)
        if fragment is not None:
            inside = (one.places >= start) & (one.places < start + fragment.numel())
            values = fragment[(one.places[inside] - start).to(fragment.device)]
            held[0, inside] = values.double().cpu() / loss_scale(self.engine)
            held[1, inside] = 1.0
        return held

    def _compare(self, one: _Sampled, part: tuple[torch.Tensor, torch.Tensor, bool], *, same: bool) -> GradientCheck:
        import torch  # noqa: PLC0415 - torch is there already

        rows, held, _ = part
        if not same or not part[2]:
            return skipped(one.name, "the gradient could not be read, or the ranks took different numbers of micro-batches")
        shared = torch.stack(self.ranks.gather(torch.cat([rows, held])))
        basis, values, owned = shared[:, :-2], shared[:, -2].sum(0), shared[:, -1].sum(0)
        if not bool((owned == 1).all()):
            return skipped(one.name, "the ranks' parts of the gradient do not make a whole")
        size, count = basis.shape[0], basis.shape[1]
        bad = [(r, m) for r in range(size) for m in range(count) if not bool(torch.isfinite(basis[r, m]).all())]
        if bad:
            return not_finite(one.name, sorted(bad, key=lambda place: place[::-1]), size, count)
        if size * count > MOST_ROWS:
            basis, size = basis.mean(0, keepdim=True), 1
        if count > MOST_ROWS:
            basis, count = basis.mean(1, keepdim=True), 1
        flat = basis.reshape(size * count, -1)
        expected = flat.mean(0)
        table = flat if one.earlier is None else torch.cat([flat, one.earlier[None]])
        shape = Shape(size, count, one.earlier is not None)
        one.earlier = expected
        if not bool(torch.isfinite(values).all()):
            return skipped(one.name, "the engine's gradient is not finite although the micro-batches' are")
        return judge(one.name, (table @ table.T).tolist(), (table @ values).tolist(), float(values @ values), shape, self.dtype)

    def _clear(self) -> None:
        self.backwards = []
        for one in self.sampled:
            one.rows = []

    def release(self) -> None:
        """Take every hook off."""
        for handle in [*self.handles, *(one.handle for one in self.sampled)]:
            handle.remove()
        self.handles = []
        self.sampled = []


def _recorder(where: dict[int, Any], key: int) -> Any:  # noqa: ANN401
    def record(gradient: torch.Tensor) -> None:
        where[key] = gradient.detach().float().norm()

    return record


def _setter(one: _Backward) -> Any:  # noqa: ANN401
    def record(gradient: torch.Tensor) -> None:
        one.root = gradient.detach().float().norm()

    return record


def _tensors(output: Any) -> list[Any]:  # noqa: ANN401
    """The tensors of a model's answer that a gradient can reach, in the order of the answer."""
    import torch  # noqa: PLC0415 - torch is there already

    if isinstance(output, torch.Tensor):
        return [output] if output.requires_grad else []
    values = list(output.values()) if hasattr(output, "values") else list(output) if isinstance(output, (list, tuple)) else []
    return [one for one in values if isinstance(one, torch.Tensor) and one.requires_grad]


def choose(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """A few trainable parameters: the smallest, the largest, and one between; the same on all ranks."""
    sized = [
        (int(getattr(parameter, "ds_numel", parameter.numel())), name, parameter)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and int(getattr(parameter, "ds_numel", parameter.numel()))
    ]
    sized.sort(key=lambda one: one[:2])
    picks = sorted({0, len(sized) // 2, len(sized) - 1})[:PARAMETERS] if sized else []
    return [(sized[index][1], sized[index][2]) for index in picks]


def obstacle(engine: Any, ranks: Ranks, dtype: str) -> str:  # noqa: ANN401
    """Why the check cannot be made with this engine, or an empty string. The same on all ranks."""
    if not ranks.together:
        return "not every rank has a monitor"
    config = getattr(engine, "_config", None)
    zero = getattr(config, "zero_config", None)
    if getattr(zero, "round_robin_gradients", False):
        return "under round_robin_gradients DeepSpeed's table of gradients names the wrong parameters"
    if getattr(engine, "mpu", None) is not None or getattr(engine, "has_moe_layers", False):
        return "model-parallel ranks hold different parameters"
    if getattr(engine, "zero_optimization_stage", int)() == 0 and dtype != "fp32":
        return "under ZeRO-0 in low precision DeepSpeed gives no gradient that could be trusted"
    return ""


def held_gradient(engine: Any, parameter: torch.nn.Parameter) -> tuple[torch.Tensor | None, int]:  # noqa: ANN401
    """This rank's part of the parameter's accumulated gradient and its first element; None where it has no part.

    Reads what is held locally (deepspeed/utils/tensor_fragment.py, runtime/zero/stage3.py); no collective.
    """
    import torch.distributed as dist  # noqa: PLC0415 - torch is there already

    stage = engine.zero_optimization_stage()
    if stage == 3:  # noqa: PLR2004 - a ZeRO stage
        table = engine.optimizer._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition  # noqa: SLF001
        place = dist.get_rank(group=parameter.ds_process_group)
        return table[parameter.ds_id].detach().reshape(-1), place * parameter.partition_numel()
    if stage == 0:
        first = not dist.is_initialized() or dist.get_rank() == 0
        return (parameter.grad.detach().reshape(-1), 0) if first else (None, 0)
    mapping = getattr(parameter, "_hp_mapping", None)
    if mapping is None:
        return None, 0
    table = mapping.offload_gradient_dict if mapping.use_offload else mapping.gradient_dict
    fragment = table[mapping.param_group_index][parameter._index_in_param_group]  # noqa: SLF001
    address = mapping.lp_fragment_address
    flat = fragment.detach().reshape(-1)
    if flat.numel() == parameter.numel() != address.numel:
        flat = flat.narrow(0, address.start, address.numel)
    return flat, address.start


def loss_scale(engine: Any) -> float:  # noqa: ANN401
    """What the gradients in the engine are still multiplied by."""
    value = getattr(engine.optimizer, "loss_scale", 1.0)
    return float(value or 1.0)
