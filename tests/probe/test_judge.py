"""A step of several parameters is judged as a whole where one explanation covers it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from envcheck.probe import judge, spec
from envcheck.probe.attribution import Kind

RANKS, ACCUMULATION = 2, 3
SCENARIO = spec.scenario("engine", "mlp", 2, "fp32", ACCUMULATION)
COUNT = RANKS * ACCUMULATION

Vector = list[float]


def record(weights: list[list[Vector]]) -> dict[str, Any]:
    """A journal's step in which element e of parameter p moved by sum over k of weights[p][e][k] * gradient k / COUNT."""
    generator = random.Random(7)  # noqa: S311 - not a secret
    params = []
    for number, elements in enumerate(weights):
        grads = [[generator.gauss(0, 1) for _ in elements] for _ in range(COUNT)]
        seen = [sum(w * g[e] for w, g in zip(elements[e], grads, strict=True)) / COUNT for e in range(len(elements))]
        params.append(
            {
                "name": f"layers.{number}.weight",
                "numel": len(elements),
                "size": 1.0,
                "noise": 0.0,
                "gram": [[sum(a * b for a, b in zip(one, other, strict=True)) for other in grads] for one in grads],
                "update": {
                    "state": "ok",
                    "dots": [sum(a * b for a, b in zip(seen, one, strict=True)) for one in grads],
                    "square": sum(value * value for value in seen),
                    "others": {},
                },
            }
        )
    return {"step": 0, "lr": 1.0, "clip": 0.0, "rough": [], "reference_losses": [1.0] * COUNT, "params": params}


RIGHT = [1.0] * COUNT
OWN = [[2.0] * ACCUMULATION + [0.0] * ACCUMULATION, [0.0] * ACCUMULATION + [2.0] * ACCUMULATION]


def verdict(weights: list[list[Vector]]) -> tuple[Kind, str]:
    found = judge.judge_step(SCENARIO, RANKS, record(weights))
    return found.kind, found.text


def test_a_right_step_is_equal() -> None:
    assert verdict([[RIGHT] * 20] * 4) == (Kind.EQUAL, "equal")


@pytest.mark.parametrize("straddling", [0, 1])
def test_partitions_that_each_hold_their_own_ranks_gradients_are_not_averaged(straddling: int) -> None:
    """As ZeRO leaves it when nothing is reduced; one parameter may lie in both partitions."""
    between = [[OWN[0]] * 10 + [OWN[1]] * 10] * straddling
    kind, text = verdict([[OWN[0]] * 20, [OWN[0]] * 20, *between, [OWN[1]] * 20, [OWN[1]] * 20])
    assert (kind, text) == (
        Kind.NOT_AVERAGED,
        "not averaged over the ranks: each moved its part of the parameters by its own gradients",
    )


def test_one_rank_that_is_missing_everywhere_is_not_that() -> None:
    assert verdict([[OWN[0]] * 20] * 4) == (Kind.DROPPED, "rank 1 missing, and scaled by 2: multiplied by the ranks (2)")
    half = [1.0] * ACCUMULATION + [0.0] * ACCUMULATION
    assert verdict([[half] * 20] * 4) == (Kind.DROPPED, "rank 1 missing")
