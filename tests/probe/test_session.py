"""The rules of the matrix that explain a verdict."""

from __future__ import annotations

import pytest

from envcheck.matrix.database import Matrix, load
from envcheck.probe import explain, spec, userconfig
from envcheck.probe.attribution import Kind
from envcheck.probe.compare import Result


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load(cache=False)


def packages(deepspeed: str) -> dict[str, str]:
    return {"deepspeed": deepspeed, "torch": "2.13.0", "transformers": "4.57.6", "accelerate": "1.12.0"}


def rules(
    matrix: Matrix, deepspeed: str, scenario: spec.Scenario, kind: Kind = Kind.DROPPED, device: str = "", **others: str
) -> list[str]:
    installed = {**packages(deepspeed), **others}
    return [rule.id for rule in explain.rules_for(Result(scenario, kind, ""), installed, 2, matrix, device)]


OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


@pytest.mark.parametrize(
    ("deepspeed", "scenario", "rule"),
    [
        ("0.17.6", spec.scenario("engine", "mlp", 2, "fp32", 3), "deepspeed-zero2-last-micro-batch"),
        ("0.18.2", spec.scenario("trainer", "llama-tied", 2, "bf16", 3), "deepspeed-zero2-last-micro-batch"),
        ("0.18.3", spec.scenario("trainer", "llama-tied", 2, "bf16", 3), "deepspeed-0183-divides-twice"),
        ("0.18.4", spec.scenario("engine", "mlp-outputs", 1, "bf16", 3), "deepspeed-zero12-multi-output-scaled-twice"),
        ("0.16.9", spec.scenario("engine", "mlp", 2, "bf16", 3, "offload", **OFFLOAD), "deepspeed-zero2-offload-drops-middle"),
        ("0.18.2", spec.scenario("engine", "mlp", 0, "bf16", 3), "deepspeed-zero0-bf16-never-zeroed"),
        ("0.18.5", spec.scenario("engine", "mlp", 0, "bf16", 3), "deepspeed-zero0-bf16-scaled-65536"),
    ],
)
def test_the_rule_that_explains_a_measured_fault_is_found(
    matrix: Matrix, deepspeed: str, scenario: spec.Scenario, rule: str
) -> None:
    assert rules(matrix, deepspeed, scenario)[0] == rule


def test_every_division_too_many_has_a_rule(matrix: Matrix) -> None:
    """Measured on 0.18.3 at accumulation 3: 1/9 under the Trainer below stage 3, 1/3 at stage 3 and for an own loop."""
    trainer, logits = "deepspeed-0183-divides-twice", "deepspeed-0183-logits-divide-again"
    own = "deepspeed-zero12-multi-output-scaled-twice"
    for stage in (0, 1, 2):
        assert set(rules(matrix, "0.18.3", spec.scenario("trainer", "llama-tied", stage, "fp32", 3))) == {trainer, logits}
        assert rules(matrix, "0.18.3", spec.scenario("engine", "mlp-outputs", stage, "fp32", 3)) == [own]
        assert rules(matrix, "0.19.5", spec.scenario("engine", "mlp-outputs", stage, "fp32", 3)) == [own]
        assert rules(matrix, "0.18.4", spec.scenario("trainer", "llama-tied", stage, "fp32", 3)) == []
    assert rules(matrix, "0.18.3", spec.scenario("trainer", "llama-tied", 3, "fp32", 3)) == [trainer]
    assert rules(matrix, "0.18.3", spec.scenario("engine", "mlp-outputs", 3, "fp32", 3)) == []


def test_a_trainer_that_asks_for_the_scaling_meets_the_logits_hook_in_every_release_that_has_it(matrix: Matrix) -> None:
    one, other = (spec.scenario("trainer", "llama-tied", stage, "bf16", 3) for stage in (2, 3))
    twice, again = "transformers-deepspeed-accumulation-underscale", "deepspeed-logits-divide-again-before-449"
    assert set(rules(matrix, "0.18.4", one, transformers="4.48.3")) == {twice, again}
    assert rules(matrix, "0.18.4", other, transformers="4.48.3") == [twice]
    assert rules(matrix, "0.19.6", one, transformers="4.48.3") == [twice]


def test_a_division_too_many_explains_nothing_that_is_merely_missing(matrix: Matrix) -> None:
    """Whether a user's own model returns logits is not known; a verdict that is not scaled says that it does no harm."""
    one = spec.scenario("engine", "mymod:build", 2, "bf16", 3, "offload", **OFFLOAD)
    offload, twice = "deepspeed-zero2-offload-drops-middle", "deepspeed-zero12-multi-output-scaled-twice"
    found = {
        text: {rule.id for rule in explain.rules_for(Result(one, Kind.DROPPED, text), packages("0.18.4"), 2, matrix)}
        for text in ("micro-batch 2 of 3 missing", "micro-batch 2 of 3 missing, and scaled by 1/3")
    }
    assert list(found.values()) == [{offload}, {offload, twice}]


def test_what_only_a_cpu_does_wrongly_explains_nothing_on_a_gpu(matrix: Matrix) -> None:
    one = spec.scenario("engine", "mlp", 2, "fp32", 3, "not-contiguous", contiguous_gradients=False)
    assert rules(matrix, "0.19.7", one, device="cpu, gloo") == ["deepspeed-cpu-not-contiguous-not-averaged"]
    assert rules(matrix, "0.19.7", one, device="cuda:0 (NVIDIA H100), nccl") == []
    assert rules(matrix, "0.19.8", one, device="cpu, gloo") == []


def test_a_way_out_answers_every_rule_that_explains_the_verdict(matrix: Matrix) -> None:
    """0.18.4 answers the division under the Trainer, and still has the loss scale of ZeRO-0."""
    one = Result(spec.scenario("trainer", "llama-tied", 0, "bf16", 3), Kind.SCALED, "")
    found = explain.rules_for(one, packages("0.18.3"), 2, matrix)
    assert len(found) == 3
    changes = [fix.change for fix in explain.ways_out(found)]
    assert "deepspeed>=0.19.6" in changes
    assert "deepspeed==0.18.4" not in changes
    assert not any("gradient_accumulation_steps" in change for change in changes)
    assert explain.ways_out([]) == ()


def test_a_schedule_that_stops_at_an_empty_group_is_explained(matrix: Matrix) -> None:
    head, whole = (spec.scenario("trainer", model, 2, "bf16", 3) for model in ("llama-head", "llama-tied"))
    assert rules(matrix, "0.19.8", head, Kind.CRASHED) == ["trainer-empty-group-strict-zip"]
    assert rules(matrix, "0.19.8", whole, Kind.CRASHED) == []


def test_nothing_explains_a_fault_of_a_good_release(matrix: Matrix) -> None:
    for scenario in spec.quick(spec.STAGE_ORDER, ("engine", "trainer")):
        assert rules(matrix, "0.19.8", scenario) == []


def test_a_loss_alone_is_not_explained_by_the_rule_about_logits(matrix: Matrix) -> None:
    assert rules(matrix, "0.18.4", spec.scenario("engine", "mlp", 2, "fp32", 3)) == []


def test_the_users_settings_decide_too(matrix: Matrix) -> None:
    one = userconfig.scenarios({"zero_optimization": {"stage": 2}}, {"gradient_accumulation_steps": 8}, None, ("trainer",), None)[
        0
    ]
    assert rules(matrix, "0.18.2", one) == ["deepspeed-zero2-last-micro-batch"]


def test_races_that_a_cpu_cannot_show_are_listed_for_the_releases_that_have_them(matrix: Matrix) -> None:
    assert explain.not_examined(packages("0.14.2"), matrix)
    assert not any("producer-streams" in rule.id for rule in explain.not_examined(packages("0.19.8"), matrix))
