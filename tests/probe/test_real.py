"""The probe on real DeepSpeed releases, on the CPU with two gloo ranks: known faults, planted faults, and no false alarm."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envcheck.probe import session, spec
from envcheck.probe.attribution import Kind
from tests.probe.targets import target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.probe.compare import Result
    from envcheck.probe.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.network]

FAULTS = Path(__file__).parent / "faults"

#: fault planted by faults/sitecustomize.py -> (kind, words of the verdict)
PLANTED = {
    "none": (Kind.EQUAL, "equal"),
    "scale-one": (Kind.SCALED, "scaled by 1/2: divided by the ranks (2) twice in `layers.0.weight`"),
    "zero-one": (Kind.ZERO, "zero gradient in `layers.0.weight`"),
    "noise-one": (Kind.CORRUPTED, "not a combination of the true gradients in `layers.0.weight`"),
    "drop-rank": (Kind.DROPPED, "rank 1 missing"),
    "drop-micro-batch": (Kind.DROPPED, "micro-batch 2 of 3 missing"),
    "swap": (Kind.SWAPPED, "has the gradient of `layers.1.weight` in `layers.0.weight` and 1 more"),
    "nan-on-rank-1-from-step-2": (
        Kind.NON_FINITE,
        "non-finite since step 2 in `layers.0.weight` (the optimizer skipped the step)",
    ),
    "never-step": (Kind.NOT_STEPPED, "not stepped: no parameter moved"),
    "step-twice": (Kind.STEPPED_TWICE, "stepped twice: the update is twice the gradient"),
    "freeze": (Kind.FROZEN, "frozen: no gradient, not stepped in `layers.0.weight`"),
    "keep-one-still": (Kind.NOT_STEPPED, "not stepped although its gradient is right in `layers.0.weight`"),
    "none-again": (Kind.EQUAL, "equal"),
}


def probe(version: str, scenarios: list[spec.Scenario], **environ: str) -> Outcome:
    return session.probe(target(version), scenarios, world_size=2, device="cpu", timeout=1800, environ={**os.environ, **environ})


def planting(*faults: str) -> dict[str, str]:
    """The variables that plant each of these faults in the scenario that is labelled with it."""
    path = os.pathsep.join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "ENVCHECK_FAULTS": ",".join(faults)}


def verdicts(results: Sequence[Result]) -> dict[str, str]:
    return {one.scenario.id: one.text for one in results}


def seeds() -> list[spec.Scenario]:
    models = ("mlp", "mlp-outputs", "mlp-tied", "mlp-frozen", "llama-tied")
    return [
        replace(spec.scenario("engine", models[seed % 5], (2, 1, 3, 0)[seed % 4], dtype, 1 + seed % 3), seed=seed)
        for seed in range(2, 52)
        for dtype in ("fp32", "bf16")  # DeepSpeed does no fp16 on the CPU
    ]


def trainer_causes() -> list[spec.Scenario]:
    """The Trainer on models and settings that each show loss 0.0, lr 0.0 or missing gradients for a reason of its own."""
    one = spec.scenario("trainer", "llama-tied", 2, "bf16", 3)
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    warm_up = {"lr_scheduler_type": "linear", "warmup_steps": 1, "max_grad_norm": 1.0}
    return [
        replace(one, model="models:nan_projector", label="nan", training_args=warm_up),
        replace(one, model="models:all_frozen", label="frozen"),
        replace(one, label="warm-up", training_args=warm_up),
        replace(one, model="models:cut_by_checkpointing", label="cut", training_args=checkpointing),
    ]


@dataclass(frozen=True)
class Healthy:
    """What the probe found on 0.19.8, by what was run."""

    planted: Sequence[Result]
    quick: Sequence[Result]
    seeds: Sequence[Result]
    causes: dict[str, Result]
    changes: Sequence[str]


@pytest.fixture(scope="module")
def healthy() -> Healthy:
    """All of it in one set of processes (starting them costs as much as fifty scenarios), with no compiler and a port taken."""
    one = spec.scenario("engine", "mlp", 2, "fp32", 3)
    sets = [
        [replace(one, label=fault) for fault in PLANTED], spec.quick(spec.STAGE_ORDER, ("engine", "trainer")), seeds(),
        trainer_causes(),
    ]  # fmt: skip
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it: as good
            taken.bind(("127.0.0.1", 29500))
            taken.listen()
        found = probe("0.19.8", [item for part in sets for item in part], **planting(*PLANTED), PATH="/nowhere")
    assert len(found.results) == sum(map(len, sets))
    left = iter(found.results)
    planted, quick, clean, causes = ([next(left) for _ in part] for part in sets)
    return Healthy(planted, quick, clean, {one.scenario.label: one for one in causes}, found.changes)


def test_every_planted_fault_is_caught_and_told_apart(healthy: Healthy) -> None:
    assert {one.scenario.label: (one.kind, one.text) for one in healthy.planted} == PLANTED


def test_a_rank_that_hangs_or_dies_for_real_is_named_and_the_rest_is_run() -> None:
    one = spec.scenario("engine", "mlp", 2, "fp32", 3)
    scenarios = [replace(one, label=label) for label in ("before", "hang", "between", "die")]
    environ = {**os.environ, **planting("hang", "die")}
    found = session.probe(target("0.19.8"), scenarios, world_size=2, device="cpu", timeout=600, environ=environ, stall=15.0)
    assert [one.kind for one in found.results] == [Kind.EQUAL, Kind.HUNG, Kind.EQUAL, Kind.CRASHED]
    _, hung, _, died = found.results
    assert "rank 1 in `step 1: optimizer step`" in hung.text
    assert any("sitecustomize.py" in note and "in step" in note for note in hung.notes)
    assert died.text == "crashed: rank 1 ended by SIGSEGV in `step 1: optimizer step`"


def test_neither_a_compiler_nor_a_free_port_is_needed(healthy: Healthy) -> None:
    assert any(one.scenario.config["zero_optimization"].get("offload_optimizer") for one in healthy.quick)
    assert {one.text for one in [healthy.planted[0], *healthy.quick]} == {"equal"}
    assert any("deepspeed_shm_comm is not built" in change for change in healthy.changes)


def test_fifty_clean_seeds_in_every_dtype_give_no_alarm(healthy: Healthy) -> None:
    assert len(healthy.seeds) == 100
    wrong = {one.scenario.id: one.text for one in healthy.seeds if not one.good}
    assert wrong == {}


def test_the_quick_set_is_clean_on_0_19_8(healthy: Healthy) -> None:
    assert set(verdicts(healthy.quick).values()) == {"equal"}


def test_0_17_6_counts_only_the_last_micro_batch() -> None:
    found = probe("0.17.6", spec.quick((2, 1, 3), ("engine", "trainer")))
    last = "only micro-batch 3 of 3 counted"
    assert verdicts(found.results) == {
        "engine-zero2-fp32-accumulation3-mlp-small-buckets": last,
        "engine-zero2-bf16-accumulation3-mlp-outputs": last,
        "engine-zero2-fp32-accumulation1-mlp-tied-clipped": "equal",
        "engine-zero2-bf16-accumulation3-mlp-frozen-offload": "micro-batch 2 of 3 missing",
        "trainer-zero2-bf16-accumulation3-llama-tied": last,
        "trainer-zero2-bf16-accumulation3-llama-projector": last,
        "engine-zero1-bf16-accumulation3-mlp-outputs": "equal",
        "engine-zero1-fp32-accumulation3-mlp": "equal",
        "trainer-zero1-bf16-accumulation3-llama-tied": "equal",
        "engine-zero3-bf16-accumulation3-mlp-outputs": "equal",
        "trainer-zero3-bf16-accumulation3-llama-tied": "equal",
    }


def test_0_18_3_divides_once_too_often_for_the_trainer_and_once_more_for_the_logits() -> None:
    found = probe("0.18.3", spec.quick(spec.STAGE_ORDER, ("engine", "trainer")))
    twice = "scaled by 1/3: divided by the accumulation steps (3) twice"
    thrice = "scaled by 1/9: divided by the accumulation steps (3) three times"
    assert verdicts(found.results) == {
        "engine-zero2-fp32-accumulation3-mlp-small-buckets": "equal",
        "engine-zero2-bf16-accumulation3-mlp-outputs": twice,
        "engine-zero2-fp32-accumulation1-mlp-tied-clipped": "equal",
        "engine-zero2-bf16-accumulation3-mlp-frozen-offload": "micro-batch 2 of 3 missing",
        "trainer-zero2-bf16-accumulation3-llama-tied": thrice,
        "trainer-zero2-bf16-accumulation3-llama-projector": thrice,
        "engine-zero1-bf16-accumulation3-mlp-outputs": twice,
        "engine-zero1-fp32-accumulation3-mlp": "equal",
        "trainer-zero1-bf16-accumulation3-llama-tied": thrice,
        "engine-zero3-bf16-accumulation3-mlp-outputs": "equal",
        "trainer-zero3-bf16-accumulation3-llama-tied": twice,
        "engine-zero0-bf16-accumulation3-mlp": "scaled by 1/65536",
        "trainer-zero0-bf16-accumulation3-llama-tied": (
            "scaled by 1/65536, and divided by the accumulation steps (3) three times"
        ),
    }


@pytest.mark.gpu
def test_the_same_code_runs_on_a_gpu() -> None:
    python = os.environ.get("ENVCHECK_PROBE_GPU_PYTHON")
    if not python:
        pytest.skip("ENVCHECK_PROBE_GPU_PYTHON names no interpreter with a CUDA build of torch and DeepSpeed")
    for ranks in (1, 2):
        found = session.probe(python, spec.quick((2, 0), ("engine",)), world_size=ranks, device="cuda", timeout=600)
        assert found.device.startswith("cuda")
        assert set(verdicts(found.results).values()) == {"equal"}


def test_loss_zero_for_a_nan_that_the_log_filtered_and_lr_zero_for_skipped_steps(healthy: Healthy) -> None:
    found = healthy.causes["nan"]
    assert found.kind is Kind.NON_FINITE
    assert "in plain torch too" in found.text
    notes = "\n".join(found.notes)
    assert "holds 256 non-finite values before any training" in notes
    assert "`logging_nan_inf_filter` took out of the log" in notes
    assert "skipped the step on overflow" in notes


def test_no_trainable_parameters_are_named(healthy: Healthy) -> None:
    assert (healthy.causes["frozen"].kind, healthy.causes["frozen"].text) == (Kind.NOT_STEPPED, "no trainable parameters")


def test_lr_zero_before_warm_up_is_no_fault(healthy: Healthy) -> None:
    found = healthy.causes["warm-up"]
    assert found.kind is Kind.EQUAL
    assert any("warm-up has not started" in note for note in found.notes)


def test_gradients_cut_by_checkpointing_are_named(healthy: Healthy) -> None:
    found = healthy.causes["cut"]
    assert not found.good
    assert any("`model.layers.0.mlp.down_proj.weight`" in note and "enable_input_require_grads" in note for note in found.notes)
