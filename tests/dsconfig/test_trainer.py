"""Launch commands as they are pasted, and what every `auto` becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.dsconfig.auto import Effective, Run, effective, mismatches
from envcheck.dsconfig.document import parse
from envcheck.dsconfig.lint import default_table
from envcheck.dsconfig.trainer import from_command, from_json
from envcheck.errors import UsageError
from envcheck.matrix.settings import flatten

HERE = Path(__file__).parent
TABLE = default_table()


def table_of(name: str, run: Run) -> dict[str, Effective]:
    document = json.loads((HERE / "good" / f"{name}.json").read_text(encoding="utf-8"))
    return {row.key: row for row in effective(flatten(document), run, TABLE)}


def test_llava_fine_tuning_against_zero3() -> None:
    trainer = from_command((HERE / "launch" / "llava-finetune.sh").read_text(encoding="utf-8"))
    assert trainer.deepspeed == "./scripts/zero3.json"
    rows = table_of("vila-zero3", Run(trainer, 8, 5120, "4.36.2", "0.9.5"))
    assert {key: row.value for key, row in rows.items() if row.known} == {
        "fp16.enabled": False,
        "bf16.enabled": True,
        "train_micro_batch_size_per_gpu": 16,
        "train_batch_size": 128,
        "gradient_accumulation_steps": 1,
        "zero_optimization.reduce_bucket_size": 26214400,
        "zero_optimization.stage3_prefetch_bucket_size": 23592960.0,
        "zero_optimization.stage3_param_persistence_threshold": 51200,
    }
    assert rows["gradient_clipping"].shown == "0.0"
    assert rows["scheduler.type"].shown == "cosine"


def test_vila_alignment_leaves_open_what_the_cluster_decides() -> None:
    trainer = from_command((HERE / "launch" / "vila-align.sh").read_text(encoding="utf-8"))
    assert trainer.deepspeed == "./scripts/zero2.json"
    assert trainer.world_size is None
    rows = table_of("vila-zero2", Run(trainer, None, 2560, "4.36.2", "0.9.5"))
    assert rows["bf16.enabled"].value is True
    assert not rows["train_micro_batch_size_per_gpu"].known
    assert not rows["train_batch_size"].known
    assert rows["zero_optimization.reduce_bucket_size"].value == 6553600
    assert trainer.get("learning_rate") == 1e-3


def test_without_a_trainer_nothing_is_decided() -> None:
    rows = table_of("vila-zero2", Run())
    assert rows
    assert not any(row.known for row in rows.values())


@pytest.mark.parametrize(
    ("version", "value"), [("4.37.2", 0.9 * 2561 * 2561), ("4.46.0", int(0.9 * 2561 * 2561)), ("", int(0.9 * 2561 * 2561))]
)
def test_the_prefetch_bucket_was_a_float(version: str, value: float) -> None:
    rows = table_of("vila-zero3", Run(from_json({}), 1, 2561, version))
    assert rows["zero_optimization.stage3_prefetch_bucket_size"].value == value


def test_warm_up_and_betas() -> None:
    trainer = from_json({"max_steps": 1000, "warmup_ratio": 0.0301, "adam_beta2": 0.95})
    rows = table_of("llava-zero3-offload", Run(trainer, 2, 4096))
    assert rows["scheduler.params.warmup_num_steps"].value == 31
    assert rows["scheduler.params.warmup_min_lr"].value == 0
    assert rows["optimizer.params.betas"].value == [0.9, 0.95]
    assert rows["scheduler.type"].decided.startswith("the file")


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        ("torchrun --nnodes=2 --nproc_per_node=8 t.py", 16),
        ("torchrun --nproc-per-node 4 t.py", 4),
        ("deepspeed --num_gpus 2 t.py", 2),
        ("deepspeed --include localhost:0,1,3 t.py", 3),
        ("accelerate launch --num_processes 16 --num_machines 2 t.py", 16),
        ("torchrun --nnodes=$N --nproc_per_node=8 t.py", None),
        ("torchrun --nproc_per_node=auto t.py", None),
        ("deepspeed t.py", None),
    ],
)
def test_ranks_of_a_launcher(words: str, ranks: int | None) -> None:
    assert from_command(words).world_size == ranks


def test_forms_of_a_value() -> None:
    values = from_command("x.py --bf16 --lr=1e-4 --a-b 1 --c 'x y' --d 1 2 --e $F --g None | tee log").values
    assert values == {"bf16": True, "lr": 1e-4, "a_b": 1, "c": "x y", "d": [1, 2], "e": "auto", "g": None}


def test_open_quotes_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        from_command("x.py --a 'b")


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_no_command_makes_it_fail(command: str) -> None:
    try:
        trainer = from_command(command)
    except UsageError:
        return
    effective(flatten({"train_batch_size": "auto", "fp16": {"enabled": "auto"}}), Run(trainer), TABLE)


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
ARGUMENTS = st.sampled_from(
    [
        "per_device_train_batch_size", "learning_rate", "max_steps", "warmup_ratio", "warmup_steps", "bf16", "adam_beta1",
        "deepspeed",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(ARGUMENTS, NUMBERS, max_size=5))
def test_no_arguments_make_it_fail(values: dict[str, Any]) -> None:
    document = parse((HERE / "good" / "llava-zero3-offload.json").read_text(encoding="utf-8"))
    run = Run(from_json(values), 2, 64, "4.57.6", "0.19.8")
    effective(flatten(document.plain()), run, TABLE)
    assert not list(mismatches(document, "x", run))


def test_a_value_that_differs_is_named_with_both() -> None:
    document = parse('{"gradient_clipping": 0.5,\n "bf16": {"enabled": true}}')
    found = list(mismatches(document, "x", Run(from_json({"bf16": True}))))
    assert [(item.subjects[0], item.place) for item in found] == [("gradient_clipping", "x:1:2")]
    assert "(its default)" in found[0].because[0]


def rows_of(document: dict[str, Any], run: Run) -> dict[str, Effective]:
    return {row.key: row for row in effective(flatten(document), run, TABLE)}


@pytest.mark.parametrize(
    ("version", "arguments", "value"),
    [
        ("5.24.0", {"warmup_steps": 0.1, "max_steps": 1000}, 100),
        ("5.24.0", {"warmup_steps": 7}, 7),
        ("4.57.6", {"warmup_ratio": 0.1, "max_steps": 1000}, 100),
        ("4.57.6", {"max_steps": 1000}, 0),
        ("5.24.0", {"max_steps": 1000}, None),
        ("4.57.6", {"warmup_ratio": 0.1}, None),
    ],
)
def test_warm_up_steps_by_release(version: str, arguments: dict[str, Any], value: int | None) -> None:
    document = {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}}
    row = rows_of(document, Run(from_json(arguments), 2, 64, version))["scheduler.params.warmup_num_steps"]
    assert (row.value, row.known) == (value, value is not None)


def test_what_the_file_lacks_is_not_filled_in_from_the_trainer() -> None:
    rows = rows_of({"zero_optimization": {"stage": 2}}, Run(from_json({"gradient_accumulation_steps": 4}), 2))
    assert rows["gradient_accumulation_steps"].shown == "1"
    assert rows["train_micro_batch_size_per_gpu"].decided == "nobody: DeepSpeed stops"


def test_accelerate_fills_the_buckets_of_stage_3_below_it() -> None:
    document = {"zero_optimization": {"stage": 2, "stage3_prefetch_bucket_size": "auto", "sub_group_size": "auto"}}
    rows = rows_of(document, Run(from_json({}), 2, 16, "4.57.6"))
    assert rows["zero_optimization.stage3_prefetch_bucket_size"].value == 230
    assert "stops" in rows["zero_optimization.sub_group_size"].decided


def test_an_auto_of_deepspeed_s_own_is_no_row() -> None:
    assert "data_types.keep_in_fp32_modules" not in rows_of({"data_types": {"keep_in_fp32_modules": "auto"}}, Run())


def test_transformers_5_puts_the_ratio_in_place_of_the_steps() -> None:
    flat = {"scheduler.params.warmup_num_steps": "auto"}
    trainer = from_json({"warmup_steps": 100, "warmup_ratio": 0.5, "max_steps": 10})
    for version, expected in (("4.57.6", 100), ("5.0.0", 5)):
        rows = effective(flat, Run(trainer, transformers=version), default_table())
        assert [row.value for row in rows if row.key == "scheduler.params.warmup_num_steps"] == [expected]


def test_transformers_5_leaves_an_auto_of_amp_alone() -> None:
    flat = {"amp.enabled": "auto"}
    for version, expected in (("4.57.6", True), ("5.0.0", False)):
        rows = effective(flat, Run(from_json({}), transformers=version), default_table())
        assert [row.known for row in rows if row.key == "amp.enabled"] == [expected]
