"""The key table against DeepSpeed's own configuration: which values of which key it refuses, and its defaults at each stage.

`ENVCHECK_DEEPSPEEDS` names interpreters (separated as in PATH) that can import deepspeed (0.15.0 or later) and torch.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from envcheck.dsconfig.lint import default_table, lint_document
from envcheck.findings import Severity

DEEPSPEEDS = os.environ.get("ENVCHECK_DEEPSPEEDS", "")
TABLE = default_table()
VALUES: list[Any] = [True, 0, -1, 5, 1.5, 2e9, "true", "5", "abc", None, [], {}]
BASE: dict[str, Any] = {
    "train_batch_size": 1,
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "zero_optimization": {"stage": 2},
}
#: What DeepSpeed takes as it reads the file and stumbles over later, or takes for something else: errors all the same.
LATER = ("ds-config-boolean-as-text", "ds-config-number-as-text", "ds-config-fraction-for-integer", "ds-config-unknown-type")
#: Refused for what stands beside them: the rules' business. GDS needs CUDA.
BESIDE = (
    "zero_optimization.offload_optimizer.ratio",
    "bf16.bf16_optimizer_states",
    "aio.use_gds",
)
#: A number is taken for `fp16`'s booleans and words for gradients' dtypes until they are used.
USED_LATER = ("data_types.grad_accum_dtype", "data_types.param_dtype", "data_types.buffer_dtype")

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.skipif(not DEEPSPEEDS, reason="ENVCHECK_DEEPSPEEDS names none")]


@pytest.fixture(scope="module", params=[item for item in DEEPSPEEDS.split(os.pathsep) if item])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("deepspeed")
    done = subprocess.run(
        [request.param, str(Path(__file__).parent / "target" / "keys.py"), str(folder / "answer.json")],
        input=json.dumps({"keys": list(TABLE.raw), "values": VALUES, "base": BASE}),
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return answer


def errors(key: str, value: Any, version: str) -> list[str]:
    document = copy.deepcopy(BASE)
    inner, *_ = [document]
    *sections, last = key.split(".")
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[last] = value
    found = lint_document(json.dumps(document), "ds.json", version, table=TABLE, trainer=False, world_size=1)
    return [item.id for item in found if item.severity is Severity.ERROR]


def test_whatever_deepspeed_refuses_is_an_error(real: dict[str, Any]) -> None:
    version = real["version"].partition("+")[0]
    missed = [
        f"{key} = {value!r}: {reason}"
        for key, reasons in real["refused"].items()
        for value, reason in zip(VALUES, reasons, strict=True)
        if reason and key not in BESIDE and not errors(key, value, version)
    ]
    assert missed == []


def test_what_deepspeed_takes_in_its_classes_is_no_error(real: dict[str, Any]) -> None:
    version = real["version"].partition("+")[0]
    false = [
        f"{key} = {value!r}: {found}"
        for key, reasons in real["refused"].items()
        if key not in USED_LATER and TABLE.refuses(key.rpartition(".")[0], Version(version))
        for value, reason in zip(VALUES, reasons, strict=True)
        if not reason
        and (found := [item for item in errors(key, value, version) if item not in LATER])
        and not (isinstance(value, bool) and key.startswith("fp16."))
    ]
    assert false == []


def test_defaults_of_zero_are_those_of_the_table(real: dict[str, Any]) -> None:
    version = Version(real["version"].partition("+")[0])
    wrong = []
    for stage, values in real["zero"].items():
        for name, value in values.items():
            key = TABLE.get(f"zero_optimization.{name}")
            if name in ("stage", "leaf_module") or key is None:
                continue
            said = json.loads(key.default_at(version))
            if key.computed:
                assert key.computed == "true under stage 3, else false"
                said = stage == "3"
            if said != value:
                wrong.append((stage, name, said, value))
    assert wrong == []
