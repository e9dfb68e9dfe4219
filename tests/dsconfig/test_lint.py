"""The lint: laws over any text, the key table's history, and its speed."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.dsconfig.document import parse
from envcheck.dsconfig.explain import facts, lines
from envcheck.dsconfig.keys import KeyTable, version_of
from envcheck.dsconfig.lint import default_table, lint_document
from envcheck.findings import Severity

TABLE = default_table()
NAMES = st.sampled_from([*TABLE.raw, "zero_optimization.nothing", "nothing", "_comment"])
SCALARS = st.sampled_from(
    ["auto", "", "true", "1e9", "nan", True, False, None, 0, -1, 3, 10**30, 1e9, 0.5, 1e308, [], [1], {}, {"a": 1}]
)
VERSIONS = st.sampled_from([None, "0.9.5", "0.12.6", "0.17.1", "0.19.8", "0.18.0+abc", "1.0rc1", "not a version", ""])


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested objects; a key below a scalar replaces the scalar."""
    document: dict[str, Any] = {}
    for name, value in flat.items():
        place = document
        *sections, last = name.split(".")
        for section in sections:
            inner = place.get(section)
            place[section] = inner if isinstance(inner, dict) else {}
            place = place[section]
        place[last] = copy.deepcopy(value)  # the sampled objects are shared
    return document


@settings(deadline=None)
@given(st.dictionaries(NAMES, SCALARS, max_size=8), VERSIONS, st.sampled_from([None, True, False]), st.sampled_from([None, 1, 8]))
def test_no_document_makes_it_fail_and_every_finding_has_a_place(
    flat: dict[str, Any], version: str | None, trainer: bool | None, world: int | None
) -> None:
    text = json.dumps(nested(flat), indent=1)
    lines = text.count("\n") + 1
    for finding in lint_document(text, "ds.json", version, table=TABLE, trainer=trainer, world_size=world):
        name, line, column = finding.place.rsplit(":", 2)
        assert name == "ds.json"
        assert 1 <= int(line) <= lines
        assert int(column) >= 1
        assert finding.evidence


@settings(deadline=None)
@given(st.text(max_size=80) | st.text(st.sampled_from(list("{}[]:,\"' ae1.\n")), max_size=80), VERSIONS)
def test_no_text_makes_it_fail(text: str, version: str | None) -> None:
    findings = lint_document(text, "ds.json", version, table=TABLE)
    usable = parse(text).usable
    assert usable or any(item.id == "ds-config-not-json" and item.severity is Severity.ERROR for item in findings)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(name for name in TABLE.raw if "." in name)))
def test_every_default_of_the_table_is_accepted(name: str) -> None:
    key = TABLE.get(name)
    assert key is not None
    if key.removed or key.deprecated or not key.default or key.type == "object":
        return
    document = nested({"train_batch_size": 1, name: json.loads(key.default)})
    found = lint_document(json.dumps(document), "ds.json", TABLE.releases[-1], table=TABLE)
    assert not [item for item in found if item.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("name", "version", "default"),
    [
        ("gradient_clipping", "0.19.2", "0.0"),
        ("gradient_clipping", "0.19.3", "1.0"),
        ("bf16.check_grad_overflow", "0.19.2", "false"),
        ("bf16.check_grad_overflow", "0.19.3", "true"),
        ("steps_per_print", "0.15.1", "10"),
        ("zero_optimization.offload_optimizer.pin_memory", "0.19.4", "false"),
        ("zero_optimization.reduce_bucket_size", "0.9.5", "500000000"),
    ],
)
def test_defaults_by_release(name: str, version: str, default: str) -> None:
    key = TABLE.get(name)
    assert key is not None
    assert key.default_at(version_of(version)) == default


@pytest.mark.parametrize(
    ("name", "since", "removed"),
    [
        ("zero_optimization.zero_hpz_partition_size", "0.10.0", ""),
        ("zero_optimization.use_multi_rank_bucket_allreduce", "0.12.4", ""),
        ("bf16.check_grad_overflow", "0.17.1", ""),
        ("zero_optimization.mics_shard_size", "0.9.2", "0.19.7"),
        ("elasticity", "", "0.19.8"),
    ],
)
def test_history_by_release(name: str, since: str, removed: str) -> None:
    key = TABLE.get(name)
    assert key is not None
    assert (key.since, key.removed) == (since, removed)


def test_the_old_name_of_bf16_is_read() -> None:
    findings = lint_document('{"train_batch_size": 1, "bfloat16": {"enabled": true, "enable": 1}}', "x", "0.19.8", table=TABLE)
    assert [item.subjects[0] for item in findings] == ["bfloat16.enable"]


def test_unknown_keys_stop_only_where_deepspeed_refuses_them() -> None:
    text = '{"bf16": {"enabled": true, "loss_scale": 1}}'
    severities = {
        version: [item.severity for item in lint_document(text, "x", version, table=TABLE)] for version in ("0.17.0", "0.17.1")
    }
    assert severities == {"0.17.0": [Severity.WARNING], "0.17.1": [Severity.ERROR]}


def test_an_empty_table_says_nothing_of_values() -> None:
    assert not [item for item in lint_document('{"a": 1}', "x", None, table=KeyTable()) if item.severity is Severity.ERROR]


def test_a_lint_takes_less_than_a_tenth_of_a_second() -> None:
    text = (Path(__file__).parent / "good" / "llava-zero3-offload.json").read_text(encoding="utf-8")
    times = []
    for _ in range(5):
        start = time.process_time()
        lint_document(text, "ds.json", "0.16.9", table=TABLE)
        times.append(time.process_time() - start)
    assert min(times) < 0.1


def errors_of(text: str, version: str, *, trainer: bool | None = None) -> list[str]:
    return [item.id for item in lint_document(text, "ds.json", version, trainer=trainer) if item.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        ('{"zero_optimization": {"stage": 2, "offload_optimizer": null, "offload_param": null}}', "0.19.8", []),
        ('{"zero_optimization": null}', "0.19.8", ["ds-config-wrong-type"]),
        ('{"fp16": null}', "0.15.4", ["ds-config-wrong-type"]),
        ('{"wall_clock_breakdown": null}', "0.16.9", ["ds-config-wrong-type"]),
        ('{"checkpoint": {"tag_validation": true}}', "0.16.9", ["ds-config-wrong-type"]),
        ('{"checkpoint": {"tag_validation": "warn"}}', "0.16.9", []),
        ('{"zero_optimization": {"reduce_bucket_size": -1}}', "0.16.9", ["ds-config-out-of-bounds"]),
        ('{"zero_optimization": {"reduce_bucket_size": 0}}', "0.16.9", []),
        ('{"zero_optimization": {"reduce_bucket_size": 0}}', "0.19.8", ["ds-config-out-of-bounds"]),
        ('{"zero_optimization": {"zenflow": {"topk_ratio": 1.0}}}', "0.19.8", ["ds-config-out-of-bounds"]),
        ('{"zero_optimization": {"stage": "5"}}', "0.19.8", ["ds-config-value-not-allowed"]),
        ('{"zero_optimization": {"overlap_comm": "true"}}', "0.19.8", []),
        ('{"bf16": {"enabled": "true"}}', "0.19.8", ["ds-config-boolean-as-text"]),
        ('{"compile": {"deepcompile": true}}', "0.15.4", []),
        ('{"compile": {"deepcompile": true}}', "0.18.6", []),
        ('{"compile": {"deepkompile": true}}', "0.18.6", ["ds-config-unknown-key"]),
        ('{"amp": {}}', "0.15.4", ["ds-config-no-enabled"]),
        ('{"amp": {"opt_level": "O1"}}', "0.19.0", ["ds-config-no-enabled"]),
        ('{"amp": {"enabled": false}}', "0.19.0", []),
        ('{"curriculum_learning": {}, "progressive_layer_drop": {}}', "0.15.4", ["ds-config-no-enabled"] * 2),
        ('{"progressive_layer_drop": {}}', "0.19.8", ["ds-config-key-removed"]),
    ],
)
def test_values_are_judged_as_deepspeed_judges_them(text: str, version: str, expected: list[str]) -> None:
    assert errors_of(text, version) == expected


@pytest.mark.parametrize("key", ["zero_optimization.zenflow.update_interval", "data_types.keep_in_fp32_modules"])
def test_an_auto_of_deepspeeds_own_does_not_pass_the_trainer(key: str) -> None:
    *sections, last = key.split(".")
    inner = "".join(f'"{name}": {{' for name in sections) + f'"{last}": "auto"' + "}" * len(sections)
    text = f'{{"train_batch_size": 8, {inner}}}'
    assert errors_of(text, "0.19.8", trainer=True) == ["ds-config-auto-not-filled"]
    assert errors_of(text, "0.19.8", trainer=False) == []
    assert errors_of(text, "0.19.8") == []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"gradient_allreduce_op": "auto"}', "0.18.0"),  # too new
        ('{"torch_autocast": {"enabled": "auto"}}', "0.16.9"),
        ('{"nothing_of_the_kind": "auto"}', "0.18.0"),
    ],
)
def test_an_auto_that_deepspeed_would_ignore_stops_the_trainer(text: str, version: str) -> None:
    text = f'{{"train_batch_size": 8, {text[1:]}'
    assert errors_of(text, version, trainer=True) == ["ds-config-auto-not-filled"]
    assert errors_of(text, version, trainer=False) == errors_of(text, version) == []


def test_a_default_that_deepspeed_works_out_is_said_so() -> None:
    key = default_table().get("zero_optimization.overlap_comm")
    assert key is not None
    assert "  default    computed: true under stage 3, else false" in list(lines(facts(key, default_table(), ())))
