"""What statistics come to."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.findings import Severity
from envcheck.params import judge
from envcheck.params.ask import Answer, read

FINE: dict[str, Any] = {
    "name": "w", "trainable": True, "dtype": "float32", "dimensions": 2, "looked": 100, "not_finite": 0, "zeros": 0,
    "denormal": 0, "largest": 0.1, "mean": 0.0, "std": 0.02, "constant": False, "fill": 0.0,
}  # fmt: skip
DRAW = {"std": 0.02, "mean": 0.0, "constant": False, "zeros": 0}


@pytest.mark.parametrize(
    ("changes", "absent", "words"),
    [
        ({}, True, ""),
        ({"largest": 1e20}, False, "values up to 1e+20"),
        ({"denormal": 80}, False, "below 1e-30"),
        ({"constant": True, "std": 0.0, "fresh": [DRAW]}, True, "all elements are 0"),
        ({"constant": True, "std": 0.0, "fresh": [DRAW]}, False, ""),
        ({"constant": True, "std": 0.0, "fresh": [DRAW | {"constant": True, "std": 0.0}]}, True, ""),
        ({"constant": True, "std": 0.0, "fresh": []}, True, ""),
        ({"constant": True, "std": 0.0, "fresh": [DRAW], "dimensions": 1}, True, ""),
        ({"std": 5.0, "fresh": [DRAW]}, True, "standard deviation 5"),
        ({"std": 5.0, "fresh": [DRAW, DRAW | {"std": 4.0}]}, True, ""),
        ({"std": 5.0, "fresh": [DRAW]}, False, ""),
        ({"std": 0.3, "fresh": [DRAW]}, True, ""),
        ({"not_finite": 3, "largest": 1e30}, True, ""),
    ],
)
def test_suspicion(changes: dict[str, Any], absent: bool, words: str) -> None:
    found = judge.suspicion(FINE | changes, absent=absent)
    assert (words in found) if words else not found


def ids(answer: Answer, missing: tuple[str, ...] = ()) -> dict[str, Severity]:
    found = [*judge.values(answer, missing), *judge.gradients(answer, missing), *judge.ties_and_dtypes(answer)]
    return {one.id: one.severity for one in found}


def answer(**values: dict[str, Any]) -> Answer:
    found = Answer(values={name: FINE | {"name": name} | changes for name, changes in values.items()})
    found.model = {"parameters": [{"name": name, "trainable": one["trainable"]} for name, one in found.values.items()]}
    return found


def test_a_sound_model_gives_nothing() -> None:
    assert ids(answer(a={}, b={"trainable": False})) == {}


def test_unwritten_memory_is_certain() -> None:
    assert ids(answer(a={"fill": 1.0, "largest": 1.7e38}))["params-uninitialised"] is Severity.ERROR
    assert ids(answer(a={"meta": True}))["params-uninitialised"] is Severity.ERROR
    assert set(ids(answer(a={"fill": 0.01}))) == set()


def test_gradients_and_flags() -> None:
    found = answer(a={}, b={}, c={"trainable": False})
    found.gradients = {"a": "none", "b": "fine"}
    found.reached = ("c",)
    found.tied = False
    assert ids(found, ("c",)) == {
        "params-missing-and-frozen": Severity.WARNING, "params-unreachable": Severity.WARNING, "params-frozen": Severity.INFO,
        "params-tie-broken": Severity.WARNING,
    }  # fmt: skip
    found.gradients = {"a": "none", "b": "none"}
    assert ids(found)["params-unreachable"] is Severity.ERROR


def test_dtypes_of_trainable_parameters_alone_count() -> None:
    assert "params-dtype-mix" in ids(answer(a={}, b={"dtype": "bfloat16"}))
    assert "params-dtype-mix" not in ids(answer(a={}, b={"dtype": "bfloat16", "trainable": False}))


def test_an_answer_that_a_crash_cut_off() -> None:
    text = '{"event": "versions", "torch": "2.0"}\n{"event": "doing", "stage": "from_pretrained"}\n{"event": "val'
    found = read(text)
    assert (found.versions, found.last, found.model) == ({"torch": "2.0"}, "from_pretrained", None)
