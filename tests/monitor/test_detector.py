"""The detector on streams of records: played ones from streams.toml, and laws over drawn ones."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from envcheck.monitor import records
from envcheck.monitor.detector import Detector
from envcheck.monitor.observation import Kind
from envcheck.monitor.records import GradientCheck, ParameterFact, Record, Run
from envcheck.monitor.series import groups_of

CASES = tomli.loads((Path(__file__).parent / "streams.toml").read_text(encoding="utf-8"))["case"]
SERIES = ("loss", "logged_loss", "lr", "lr_integer", "grad_norm", "skipped")


def stream(case: dict[str, Any]) -> list[Record]:
    found = []
    for number in range(case["steps"]):
        fields = {name: value_at(case[name], number) for name in SERIES if name in case}
        if case.get("jitter") and number >= len(case["grad_norm"]):
            fields["grad_norm"] *= 1 + 0.01 * (number % 7)
        if number == case["steps"] - 1 and "last_lr" in case:
            fields["lr"] = case["last_lr"]
        found.append(Record(step=number + 1, **fields))
    return found


def value_at(series: Any, number: int) -> Any:
    if isinstance(series, dict):
        return series["from"] + number * series["by"]
    return series[min(number, len(series) - 1)]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_streams(case: dict[str, Any]) -> None:
    detector = Detector(Run(**case.get("run", {})))
    reported = [(record.step, one.kind.value) for record in stream(case) for one in detector.feed(record)]
    final = {one.kind.value: one for one in detector.finish()}
    assert sorted(final) == sorted(case["finds"])
    assert {kind for _, kind in reported} <= set(final)
    if "at" in case:
        assert reported[0][0] == case["at"]
    for kind, values in case.get("values", {}).items():
        assert final[kind].values | values == final[kind].values


def survey(*facts: ParameterFact, complete: bool = True) -> dict[Kind, tuple[str, ...]]:
    detector = Detector()
    detector.feed(Record(step=1, survey=facts, complete=complete))
    return {one.kind: one.parameters for one in detector.finish()}


FINE = ParameterFact("fine", trainable=True, in_optimizer=True, received=True, changed=True, values="fine")


@pytest.mark.parametrize(
    ("fact", "kind"),
    [
        (ParameterFact("p", trainable=True, in_optimizer=False), Kind.NOT_IN_OPTIMIZER),
        (ParameterFact("p", trainable=True, in_optimizer=False, late=True), Kind.MADE_LATE),
        (ParameterFact("p", trainable=True, in_optimizer=True, received=False), Kind.NO_GRADIENT),
        (ParameterFact("p", trainable=True, received=True, gradient_zero=True, changed=False), Kind.GRADIENT_ZERO),
        (ParameterFact("p", trainable=True, received=True, gradient_zero=False, changed=False), Kind.NEVER_CHANGED),
        (ParameterFact("p", trainable=False, changed=True), Kind.FROZEN_CHANGED),
        (ParameterFact("p", trainable=True, values="non-finite"), Kind.WEIGHTS_NON_FINITE),
        (ParameterFact("p", trainable=True, values="denormal"), Kind.WEIGHTS_SUSPECT),
        (ParameterFact("p", trainable=True, absent=True, beside_loaded=True), Kind.NOT_IN_CHECKPOINT),
        (ParameterFact("p", trainable=False, absent=True), Kind.NOT_IN_CHECKPOINT),
    ],
)
def test_each_fact_of_a_parameter_is_one_observation(fact: ParameterFact, kind: Kind) -> None:
    assert survey(FINE, fact) == {kind: ("p",)}


def test_what_has_not_happened_yet_is_said_only_by_the_last_survey() -> None:
    assert survey(FINE, ParameterFact("p", trainable=True, in_optimizer=True, received=False), complete=False) == {}


def test_a_module_that_is_added_and_trained_is_no_fault() -> None:
    assert survey(FINE, ParameterFact("projector", trainable=True, in_optimizer=True, absent=True, values="fine")) == {}


def test_a_frozen_model_is_named() -> None:
    assert set(survey(ParameterFact("a", trainable=False), ParameterFact("b", trainable=False))) == {Kind.NOTHING_TRAINABLE}


def test_a_wrong_gradient_is_said_at_once_with_its_words() -> None:
    detector = Detector()
    checks = (GradientCheck("w", "dropped", "only micro-batch 3 of 3 counted", 0.4, 0.9), GradientCheck("v", "equal", "equal"))
    fresh = detector.feed(Record(step=1, check=checks))
    assert [(one.kind, one.count, one.of, one.parameters) for one in fresh] == [(Kind.GRADIENT_WRONG, 1, 2, ("w",))]
    assert "only micro-batch 3 of 3 counted" in fresh[0].text


@pytest.mark.parametrize("name", ["lr", "loss_scale", "skipped", "digest"])
def test_ranks_that_differ_are_named(name: str) -> None:
    detector = Detector()
    for step, rank in itertools.product(range(1, 3), range(3)):
        numbers: dict[str, Any] = {name: 1 if rank < 2 else 2}
        detector.feed(Record(step=step, rank=rank, loss=rank + 1.5, **numbers))
    assert [(one.kind, one.rank, one.values["about"]) for one in detector.finish()] == [(Kind.RANKS_DISAGREE, 2, name)]


def test_a_skipping_step_that_is_seen_on_another_rank_too_is_one_observation() -> None:
    detector = Detector()
    fresh = [
        one.kind
        for step, rank in itertools.product(range(1, 9), range(2))
        for one in detector.feed(Record(step=step, rank=rank, overflow=True))
    ]
    assert fresh == [Kind.STEPS_SKIPPED]


finite = st.floats(min_value=1e-3, max_value=10.0)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=60))
def test_a_stream_of_ordinary_numbers_gives_no_finding(numbers: list[tuple[float, float]]) -> None:
    detector = Detector()
    for step, (loss, norm) in enumerate(numbers, 1):
        detector.feed(Record(step=step, loss=loss, lr=1e-5, grad_norm=norm * (1 + step * 1e-9), skipped=0, overflow=False))
    assert [one.kind for one in detector.finish() if one.kind is not Kind.NORM_CONSTANT] == []


@given(st.lists(st.sampled_from([0.0, 1.0, math.nan, math.inf, 1.4142135381698608, 0.3]), max_size=60))
def test_everything_reported_on_the_way_stands_at_the_end(norms: list[float]) -> None:
    detector = Detector()
    reported = {
        one.kind
        for step, norm in enumerate(norms, 1)
        for one in detector.feed(Record(step=step, loss=norm, lr=0.0, grad_norm=norm))
    }
    final = detector.finish()
    assert reported <= {one.kind for one in final}
    assert all(one.step <= one.last_step and one.count <= one.of for one in final)


records_drawn = st.builds(
    Record,
    step=st.integers(0, 9),
    rank=st.integers(0, 3),
    loss=st.none() | st.floats(),
    lr=st.none() | st.floats(),
    grad_norm=st.none() | st.floats(),
    skipped=st.none() | st.integers(0, 5),
    survey=st.lists(st.builds(ParameterFact, name=st.text(), trainable=st.none() | st.booleans())).map(tuple),
    check=st.lists(st.builds(GradientCheck, parameter=st.text(), kind=st.text(), text=st.text(), ratio=st.floats())).map(tuple),
    complete=st.booleans(),
)


@given(records_drawn)
def test_a_record_survives_json(record: Record) -> None:
    text = json.dumps(records.to_json(record), allow_nan=False)
    assert repr(records.from_json(json.loads(text))) == repr(record)


@pytest.mark.parametrize("groups", range(1, 9))
def test_sentinels_are_recognised_in_both_precisions(groups: int) -> None:
    assert groups_of(math.sqrt(groups)) is not None
    assert groups_of(math.sqrt(groups) * (1 + 1e-9)) is None


def test_memory_does_not_grow_with_the_stream() -> None:
    detector = Detector()
    sizes = []
    tracemalloc.start()
    for step in range(1, 6001):
        detector.see(Record(step=step, loss=0.0, lr=0.0, grad_norm=float(step)))
        if step in (3000, 6000):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 4096
