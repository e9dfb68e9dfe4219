"""Observations get their causes from the matrix, the ones that fit the run's packages and settings first."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.errors import ToolError
from envcheck.monitor import explain
from envcheck.monitor.detector import Detector
from envcheck.monitor.diagnosis import Diagnosis
from envcheck.monitor.records import GradientCheck, ParameterFact, Record, Run

if TYPE_CHECKING:
    from envcheck.findings import Finding
    from envcheck.monitor.observation import Observation


def seen(*stream: Record) -> tuple[Observation, ...]:
    detector = Detector()
    for record in stream:
        detector.feed(record)
    return detector.finish()


def zero2(deepspeed: str, accumulation: int, **more: Any) -> Run:
    settings = {"zero_optimization.stage": 2, "gradient_accumulation_steps": accumulation, "bf16.enabled": True, **more}
    return Run({"deepspeed": deepspeed, "transformers": "4.57.6", "torch": "2.13.0"}, settings, "bf16")


def check(kind: str, text: str) -> tuple[Observation, ...]:
    return seen(Record(1, check=(GradientCheck("w", kind, text, 0.4, 0.9),)))


def survey(**fact: Any) -> tuple[Observation, ...]:
    return seen(Record(0, survey=(ParameterFact("other", trainable=True), ParameterFact("w", **fact))))


#: Name -> (run, observations, id of the first finding, words of its first cause).
CASES: dict[str, tuple[Run, tuple[Observation, ...], str, str]] = {
    "last-micro-batch": (
        zero2("0.17.6", 3), check("dropped", "only micro-batch 3 of 3 counted"),
        "run-gradient-wrong",
        "1. this DeepSpeed loses micro-batches of the accumulation (holds here: deepspeed-zero2-last-micro-batch",
    ),
    "not-averaged": (
        replace(zero2("0.12.6", 2, **{"zero_optimization.stage": 1, "world_size": 2}), uses=("deepspeed-on-cpu",)),
        check("dropped", "rank 1 missing, and scaled by 2: multiplied by the ranks (2)"),
        "run-gradient-not-averaged",
        "1. this DeepSpeed leaves gradients unreduced under these settings (holds here: deepspeed-cpu-zero1-not-averaged)",
    ),
    "not-averaged-once": (
        zero2("0.13.1", 2, **{"zero_optimization.stage": 1, "world_size": 2, "data_types.grad_accum_dtype": "fp32"}),
        check("not averaged", "micro-batch 2 of 2 not averaged over the ranks (rank 0's own)"),
        "run-gradient-not-averaged",
        "1. this DeepSpeed leaves gradients unreduced under these settings (holds here: deepspeed-zero1-bf16-fp32-accum-not-",
    ),
    "divided-twice": (
        zero2("0.18.3", 4), check("scaled", "scaled by 1/4: divided by the accumulation steps (4) twice"),
        "run-gradient-scaled", "1. the loss is divided by the accumulation steps by the loop and by DeepSpeed",
    ),
    "garbage": (
        zero2("0.19.8", 1), survey(trainable=True, values="non-finite", absent=True, beside_loaded=True),
        "run-weights-not-finite", "1. new parameters (an extended projector) were left as uninitialised memory",
    ),
    "left-out": (
        zero2("0.19.8", 1), survey(trainable=True, in_optimizer=False), "run-not-in-optimizer", "1. the parameter groups",
    ),
    "late": (
        zero2("0.19.8", 1), survey(trainable=True, in_optimizer=False, late=True), "run-made-late", "1. a module was added",
    ),
    "frozen": (
        zero2("0.19.8", 1), seen(Record(0, survey=(ParameterFact("w", trainable=False),))), "run-nothing-trainable",
        "1. `requires_grad_(False)` over the whole model",
    ),
    "short-checkpoint": (
        zero2("0.19.8", 1), survey(trainable=True, absent=True, beside_loaded=True), "run-not-in-checkpoint",
        "1. the module was made larger",
    ),
}  # fmt: skip


def said(found: list[tuple[Finding, tuple[Observation, ...]]]) -> list[str]:
    return [text for finding, _ in found for text in finding.because]


@pytest.mark.parametrize("name", CASES)
def test_the_cause_that_fits_comes_first(name: str) -> None:
    run, observations, first, words = CASES[name]
    found = Diagnosis(run, None).findings(observations)
    assert found[0][0].id == first
    causes = [text for text in found[0][0].because if text[0].isdigit()]
    assert causes[0].startswith(words)
    assert found[0][1]
    assert all(one in observations for one in found[0][1])


def test_a_rule_of_another_release_is_not_named() -> None:
    found = Diagnosis(zero2("0.19.8", 3), None).findings(check("dropped", "micro-batch 1 of 3 missing"))
    assert "deepspeed-zero2-last-micro-batch" not in " ".join(said(found))


def test_nan_weights_explain_everything_that_follows_from_them() -> None:
    stream = [Record(0, survey=(ParameterFact("w", trainable=True, values="non-finite"),))]
    stream += [Record(step, loss=float("nan"), logged_loss=0.0, lr=0.0, grad_norm=0.0, skipped=step) for step in range(1, 9)]
    found = Diagnosis(zero2("0.19.8", 1), None).findings(seen(*stream))
    assert [finding.id for finding, _ in found] == ["run-weights-not-finite"]


def test_another_interpreter_says_the_same() -> None:
    run, observations, _, _ = CASES["last-micro-batch"]
    assert explain.ask(sys.executable, run, observations) == Diagnosis(run, None).findings(observations)


def test_an_interpreter_without_envcheck_leaves_what_was_seen(tmp_path: Any) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho not json\n", encoding="utf-8")
    broken.chmod(0o755)
    run, observations, _, _ = CASES["last-micro-batch"]
    with pytest.raises(ToolError, match="no answer that could be read"):
        explain.ask(str(broken), run, observations)
    made = Diagnosis(run, str(broken))
    assert "only micro-batch 3 of 3 counted" in " ".join(said(made.findings(observations)))
    assert "no answer" in made.problem
