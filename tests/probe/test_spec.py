"""The sets of scenarios, and what becomes of the user's own configuration."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.errors import InputError
from envcheck.probe import spec, userconfig

BOTH = (spec.ENGINE, spec.TRAINER)
ALL = ("fp32", "bf16", "fp16")

VILA = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_optimization": {
        "stage": 2,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
    },
}


def test_the_mission_comes_first_and_every_stage_and_path_is_there() -> None:
    chosen = spec.quick(spec.STAGE_ORDER, BOTH)
    assert [stage for stage, _ in itertools.groupby(one.stage for one in chosen)] == [2, 1, 3, 0]
    assert {(one.stage, one.path) for one in chosen} == set(itertools.product(range(4), BOTH))


def test_every_stage_has_a_scenario_whose_faults_only_accumulation_shows() -> None:
    for stage in range(4):
        assert any(one.accumulation > 1 for one in spec.quick((stage,), (spec.ENGINE,)))


def test_the_thorough_set_holds_the_quick_one_and_no_name_twice() -> None:
    chosen = [one.id for one in spec.thorough(spec.STAGE_ORDER, BOTH, ALL)]
    assert len(set(chosen)) == len(chosen)
    assert {one.id for one in spec.quick(spec.STAGE_ORDER, BOTH)} <= set(chosen)


@pytest.mark.parametrize(
    "words",
    [
        "clipped",
        "frozen",
        "tied",
        "overlap",
        "small-buckets",
        "large-buckets",
        "offload",
        "not-contiguous",
        "round-robin",
        "marked-boundaries",
        "unmarked-boundaries",
        "fp16",
        "accumulation1-",
        "projector",
    ],
)
def test_the_thorough_set_covers(words: str) -> None:
    assert any(words in one.id for one in spec.thorough((2,), BOTH, ALL))


def ours(config: dict[str, Any], args: dict[str, Any] | None = None, path: str = spec.ENGINE) -> spec.Scenario:
    return userconfig.scenarios(config, args, None, (path,), None)[0]


def test_a_config_of_autos_becomes_numbers_on_the_bare_engine() -> None:
    one = ours(VILA, {"bf16": True, "gradient_accumulation_steps": 2})
    assert (one.stage, one.dtype, one.accumulation) == (2, "bf16", 2)
    assert one.config["bf16"] == {"enabled": True}
    assert one.config["fp16"]["enabled"] is False
    assert one.config["zero_optimization"]["overlap_comm"] is True
    assert one.config["zero_optimization"]["sub_group_size"] == userconfig.MOST_BUCKET
    assert "auto" not in str(one.config)


def test_the_trainer_gets_its_autos() -> None:
    one = ours(VILA, {"bf16": True, "gradient_accumulation_steps": 2, "warmup_ratio": 0.03, "num_train_epochs": 3}, spec.TRAINER)
    assert one.config["gradient_accumulation_steps"] == "auto"
    assert one.config["bf16"] == {"enabled": "auto"}
    assert one.training_args["warmup_ratio"] == 0.03
    assert any("`num_train_epochs`" in change for change in one.changes)


def test_what_nobody_says_is_taken_and_said() -> None:
    one = ours(VILA)
    assert (one.dtype, one.accumulation) == ("fp32", 3)
    assert any("fp32 taken" in change for change in one.changes)
    assert any("`gradient_accumulation_steps` is `auto` or absent" in change for change in one.changes)
    assert ours(VILA, {"bf16": True}).accumulation == 1  # the default of the TrainingArguments that are given


def test_arguments_that_are_replaced_are_not_called_left_out() -> None:
    one = ours(VILA, {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "seed": 3}, spec.TRAINER)
    listed = "\n".join(one.changes)
    assert "`learning_rate` 0.001 replaced by 1" in listed
    assert "`per_device_train_batch_size` 8 replaced by 4" in listed
    assert "left out: `seed`" in listed


def test_every_change_is_listed() -> None:
    config = {
        "optimizer": {"type": "AdamW"},
        "scheduler": {"type": "WarmupLR"},
        "tensorboard": {"enabled": True},
        "gradient_accumulation_steps": 64,
        "train_batch_size": 1024,
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 5e8, "offload_param": {"device": "nvme", "nvme_path": "/x"}},
    }
    one = ours(config)
    listed = "\n".join(one.changes)
    for name in (
        "optimizer",
        "scheduler",
        "tensorboard",
        "gradient_accumulation_steps",
        "train_batch_size",
        "reduce_bucket_size",
        "offload_param",
    ):
        assert name in listed
    assert one.accumulation == userconfig.MOST_ACCUMULATION
    assert "optimizer" not in one.config


def test_the_users_dictionary_is_left_alone() -> None:
    config = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e8}}
    userconfig.scenarios(config, None, (0, 3), BOTH, None)
    assert config == {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e8}}


def test_another_stage_is_a_listed_change() -> None:
    found = userconfig.scenarios(VILA, None, (2, 3), (spec.ENGINE,), None)
    assert [one.stage for one in found] == [2, 3]
    assert "`zero_optimization.stage` 2 replaced by 3, as asked" in found[1].changes
    assert not any("stage" in change for change in found[0].changes)


@pytest.mark.parametrize("zero", [{"stage": 4}, {"stage": "two"}, {"stage": None}, [], "2"])
def test_a_stage_that_is_none_is_an_input_error(zero: object) -> None:
    with pytest.raises(InputError, match="zero_optimization"):
        ours({"zero_optimization": zero})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("auto"),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["stage", "enabled", "fp16", "device"]), inner, max_size=3)
        ),
    )
)
def test_no_config_ends_in_anything_but_a_scenario_or_an_input_error(value: object) -> None:
    for key in ("zero_optimization", "bf16", "fp16", "gradient_accumulation_steps", "gradient_clipping", "optimizer"):
        try:
            ours({key: value})
        except InputError:
            continue
