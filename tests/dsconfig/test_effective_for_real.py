"""The table of effective values against what real releases of transformers and accelerate make of the same files.

`ENVCHECK_TRAINERS` names interpreters (separated as in PATH) that can import transformers, accelerate, deepspeed and torch.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from envcheck.dsconfig.auto import Run, effective
from envcheck.dsconfig.lint import default_table
from envcheck.dsconfig.trainer import from_command, from_json
from envcheck.matrix.settings import flatten

HERE = Path(__file__).parent
TRAINERS = os.environ.get("ENVCHECK_TRAINERS", "")
WORLD, HIDDEN, STEPS = 8, 257, 1000
#: What the two launch scripts leave to the cluster, and what this machine cannot do.
TOLD: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": STEPS}
ASKED = ("bf16", "learning_rate", "weight_decay", "warmup_ratio", "lr_scheduler_type")
#: The Trainer leaves these below ZeRO-3 to accelerate, which fills them in while it prepares the model.
LATER = ("zero_optimization.stage3_prefetch_bucket_size", "zero_optimization.stage3_param_persistence_threshold")
#: An inference file without a batch size.
FILES = sorted(path for path in (HERE / "good").glob("*.json") if path.stem != "vila-zero3-offload-inference")


def cases() -> list[dict[str, Any]]:
    made = []
    for script in ("llava-finetune.sh", "vila-align.sh"):
        values = from_command((HERE / "launch" / script).read_text(encoding="utf-8")).values
        arguments = {**{name: values[name] for name in ASKED}, **TOLD}
        for path in FILES:
            flat = flatten(json.loads(path.read_text(encoding="utf-8")))
            fixed = {name: flat[name] for name in ("gradient_accumulation_steps",) if isinstance(flat.get(name), int)}
            fixed["max_grad_norm"] = flat_number(flat, "gradient_clipping", 1.0)
            made.append({"file": str(path), "hidden_size": HIDDEN, "arguments": {**arguments, **fixed, "world_size": WORLD}})
    return made


def flat_number(flat: dict[str, Any], name: str, default: float) -> float:
    value = flat.get(name)
    return float(value) if isinstance(value, (int, float)) else default


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(not TRAINERS, reason="ENVCHECK_TRAINERS names no interpreter")
@pytest.mark.parametrize("python", [path for path in TRAINERS.split(os.pathsep) if path])
def test_every_auto_becomes_what_the_table_says(python: str, tmp_path: Path) -> None:
    asked = cases()
    (tmp_path / "cases.json").write_text(json.dumps(asked), encoding="utf-8")
    script = str(HERE / "target" / "effective.py")
    subprocess.run([python, script, str(tmp_path / "answer.json"), str(tmp_path / "cases.json")], check=True, timeout=600)
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    compared = 0
    for case, config in zip(asked, answer["configs"], strict=True):
        arguments = dict(case["arguments"])
        run = Run(from_json(arguments), WORLD, HIDDEN, answer["transformers"], "0.19.8")
        real = flatten(config)
        for row in effective(flatten(json.loads(Path(case["file"]).read_text(encoding="utf-8"))), run, default_table()):
            if row.file != '"auto"' and row.key != "gradient_accumulation_steps":
                continue
            where = (case["file"], answer["transformers"], row)
            if row.key in LATER and real.get("zero_optimization.stage") != 3:
                assert real[row.key] == "auto", where
            elif row.known:
                assert real[row.key] == row.value, where
                compared += 1
            elif row.file == '"auto"':
                assert row.key.endswith("warmup_num_steps") or real[row.key] == "auto", where
    assert compared > 100
