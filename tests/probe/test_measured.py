"""The recorded runs: whole, unaltered, and in agreement with the rules that cite them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envcheck.matrix.database import load
from envcheck.probe import explain, record, spec
from envcheck.probe.attribution import Kind
from envcheck.probe.compare import Result

MEASURED = Path(__file__).parents[2] / "matrices" / "measured"
LINES = [json.loads(line) for path in sorted(MEASURED.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]


def verdicts(deepspeed: str) -> dict[str, str]:
    found = [line for line in LINES if line["packages"]["deepspeed"] == deepspeed]
    assert found, f"no run with DeepSpeed {deepspeed} is recorded"
    return {one["id"]: one["text"] for line in found for one in line["scenarios"]}


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['packages']['deepspeed']}-{line['digest']}")
def test_a_line_is_what_its_digest_says(line: dict[str, Any]) -> None:
    assert line["schema"] == record.SCHEMA
    assert record.digest(line) == line["digest"]


@pytest.mark.parametrize(
    "deepspeed", ["0.15.4", "0.16.9", "0.17.5", "0.17.6", "0.18.2", "0.18.3", "0.18.4", "0.18.6", "0.19.0", "0.19.8"]
)
def test_the_releases_that_matter_were_run(deepspeed: str) -> None:
    assert len(verdicts(deepspeed)) >= 13


@pytest.mark.parametrize("deepspeed", ["0.19.6", "0.19.7", "0.19.8"])
def test_good_releases_were_measured_clean(deepspeed: str) -> None:
    """The quick set; the whole one has what no release does rightly (unmarked boundaries) or no CPU does (fp16)."""
    found = verdicts(deepspeed)
    assert {found[one.id] for one in spec.quick(spec.STAGE_ORDER, (spec.ENGINE, spec.TRAINER))} == {"equal"}


def test_every_recorded_difference_is_explained_by_the_matrix() -> None:
    matrix = load(cache=False)
    known = {one.id: one for one in spec.thorough(spec.STAGE_ORDER, (spec.ENGINE, spec.TRAINER), ("fp32", "bf16", "fp16"))}
    for line in LINES:
        for one in line["scenarios"]:
            if one["verdict"] not in ("equal", "skipped"):
                result = Result(known[one["id"]], Kind(one["verdict"]), one["text"])
                found = explain.rules_for(result, line["packages"], line["world_size"], matrix, line["device"])
                assert found, f"DeepSpeed {line['packages']['deepspeed']}, {one['id']}: {one['text']}"
