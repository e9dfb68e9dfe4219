"""The bare engine: `deepspeed.initialize`, forward, backward, step; what it did, next to what it should have done."""

from __future__ import annotations

import gc
from typing import Any, Dict, List, Optional, Set

import torch

from . import models, observe
from .reference import Named, Reference


class Steps:
    """Compares steps with the reference on rank 0 and writes one line for each."""

    def __init__(self, context: Any, scenario: Dict[str, Any], reference: Optional[Reference], names: List[str]) -> None:  # noqa: ANN401
        self.names = names
        self.context = context
        self.scenario = scenario
        self.reference = reference
        self.earlier: Optional[Named] = None
        self.last_after: Optional[Named] = None

    def record(self, step: int, before: Named, after: Named, seen: Dict[str, Any], batches: List[models.Batch]) -> None:
        """Rank 0: run the reference at `before` over the batches of all ranks (rank-major), project, write."""
        fields = dict(seen)
        grads = fields.pop("grads", None)
        if self.reference is not None:
            found, losses, noise = self.reference.gradients(before, batches)
            rate = float(seen.get("lr") or 0.0)
            divisor = rate or 1.0
            observed = {"update": {name: (before[name].double() - after[name].double()) / divisor for name in before}}
            if grads is not None:
                observed["grad"] = grads
            fields["params"] = observe.project(observed, found, self.earlier, before)
            for entry in fields["params"]:
                entry["noise"] = noise.get(entry["name"], 0.0)
            fields["reference_losses"] = losses
            fields["moved_between"] = self._moved(before)
            self._remember(found, after)
        self.context.journal.write("step", step=step, **fields)

    def _moved(self, before: Named) -> float:
        """Largest change of any parameter between the last step's end and this one's begin: zero when all is well."""
        if self.last_after is None:
            return 0.0
        return max(float((before[name] - self.last_after[name]).abs().max()) for name in before)

    def _remember(self, found: List[Named], after: Named) -> None:
        mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        if self.earlier is None:
            self.earlier = mean
        else:
            self.earlier = {name: self.earlier[name] + mean[name] for name in mean}
        self.last_after = after


def run(context: Any, scenario: Dict[str, Any]) -> None:  # noqa: ANN401 - the worker's context
    """One scenario on the bare engine; every rank calls it."""
    import deepspeed

    journal = context.journal
    journal.doing("build model")
    model = models.build(scenario["model"], scenario["seed"])
    reference = Reference(model, scenario["dtype"]) if context.rank == 0 else None
    journal.doing("deepspeed.initialize")
    steps = Steps(context, scenario, reference, observe.trainable(model))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        journal.write("note", note="no trainable parameters")
        return
    engine = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(trainable, lr=scenario["lr"]),
        config=scenario["config"],
        model_parameters=trainable,
    )[0]
    try:
        _train(context, scenario, engine, steps, models.vocabulary_of(model))
    finally:
        _dispose(engine)


def _train(context: Any, scenario: Dict[str, Any], engine: Any, steps: Steps, vocabulary: int) -> None:  # noqa: ANN401
    for step in range(scenario["steps"]):
        mine = _batches(scenario, vocabulary, step, context.rank)
        context.journal.doing(f"step {step + 1}: read parameters")
        rough: Set[str] = set()
        before = observe.parameters(engine, steps.names, scenario["stage"], rough)
        seen = _one_step(context, scenario, engine, mine, step, steps.names)
        seen["rough"] = sorted(rough)
        context.journal.doing(f"step {step + 1}: read parameters after it")
        after = observe.parameters(engine, steps.names, scenario["stage"])
        if scenario["stage"] != observe.PARTITIONED:
            seen["digest"] = observe.digest(engine.module)
        everything = []
        if context.rank == 0:
            for rank in range(context.world_size):
                everything += _batches(scenario, vocabulary, step, rank)
        steps.record(step, before, after, seen, everything)


def _batches(scenario: Dict[str, Any], vocabulary: int, step: int, rank: int) -> List[models.Batch]:
    return [
        models.batch(vocabulary, scenario["seed"], step, rank, micro, scenario["micro_batch"])
        for micro in range(scenario["accumulation"])
    ]


def _one_step(
    context: Any,  # noqa: ANN401
    scenario: Dict[str, Any],
    engine: Any,  # noqa: ANN401
    batches: List[models.Batch],
    step: int,
    names: List[str],
) -> Dict[str, Any]:
    """Forward and backward for every micro-batch, then the step; returns what the engine says of it."""
    calls = scenario.get("backward_calls", "engine")
    rate = float(engine.optimizer.param_groups[0]["lr"])
    losses = []
    grads = None
    for micro, batch in enumerate(batches):
        last = micro == len(batches) - 1
        context.journal.doing(f"step {step + 1}: micro-batch {micro + 1} of {len(batches)}")
        if calls == "boundary":
            engine.set_gradient_accumulation_boundary(last)
        loss = models.loss_of(engine(**context.move(batch)))
        losses.append(float(loss.detach()))
        engine.backward(loss if calls == "engine" else loss / len(batches))
        if last:
            if _gradients_readable(scenario):
                context.journal.doing(f"step {step + 1}: read gradients")
                grads = _gradients(context, engine, names)
            context.journal.doing(f"step {step + 1}: optimizer step")
        if calls == "engine" or last:
            engine.step()
    return {
        "losses": losses,
        "lr": rate,
        "grads": grads,
        "norm": _norm(engine),
        "clip": _clip(engine),
        "skipped_steps": int(getattr(engine, "skipped_steps", 0)),
        "overflow": bool(getattr(engine.optimizer, "overflow", False)),
        "loss_scale": float(getattr(engine.optimizer, "loss_scale", 1.0) or 1.0),
    }


def _gradients_readable(scenario: Dict[str, Any]) -> bool:
    """False under round_robin_gradients, where the updates decide alone.

    `safe_get_full_grad` of 0.17.5 to 0.19.8 takes another parameter's fragment there, raises on one rank alone and so leaves the
    ranks in different collectives.
    """
    return not scenario["config"].get("zero_optimization", {}).get("round_robin_gradients")


def _gradients(context: Any, engine: Any, names: List[str]) -> Optional[Dict[str, Any]]:  # noqa: ANN401
    """The gradients through DeepSpeed's API; a release that cannot give them is noted, the updates still decide."""
    try:
        return observe.gradients(engine.module, names)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        context.journal.write("note", note=f"gradients cannot be read: {type(error).__name__}: {str(error)[:200]}")
        return None


def _norm(engine: Any) -> Optional[float]:  # noqa: ANN401
    value = engine.get_global_grad_norm() if hasattr(engine, "get_global_grad_norm") else None
    return None if value is None else float(value)


def _clip(engine: Any) -> float:  # noqa: ANN401
    """The norm the engine clips to: 0.0 for none. Releases differ in what an absent key means."""
    value = engine.gradient_clipping() if hasattr(engine, "gradient_clipping") else 0.0
    return float(value or 0.0)


def _dispose(engine: Any) -> None:  # noqa: ANN401
    """Free the engine's hooks and buffers before the next scenario."""
    if hasattr(engine, "destroy"):
        engine.destroy()
    del engine
    gc.collect()
    gc.freeze()  # what is still alive (imports, mostly) is not looked through again
