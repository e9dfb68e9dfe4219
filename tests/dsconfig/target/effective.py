"""Run in a Trainer's interpreter: what transformers and accelerate really make of DeepSpeed files.

Arguments: the answer's file, and a file of cases (`file`, `arguments` with `world_size` and `max_steps`, `hidden_size`).
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def handed_over(case: dict[str, Any]) -> dict[str, Any]:
    from accelerate.utils import DeepSpeedPlugin
    from transformers import TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    given = dict(case["arguments"])
    world_size = given.pop("world_size")
    if "warmup_ratio" not in inspect.signature(TrainingArguments).parameters:
        given["warmup_steps"] = given.pop("warmup_ratio", 0)
    args = TrainingArguments(output_dir="unused", report_to=[], use_cpu=True, **given)
    told = SimpleNamespace(**{**vars(args), "world_size": world_size, "get_warmup_steps": args.get_warmup_steps})
    config = HfTrainerDeepSpeedConfig(case["file"])
    config.trainer_config_process(told)
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    plugin.set_mixed_precision("bf16" if args.bf16 else "fp16" if args.fp16 else "no")
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=case["hidden_size"]))
    config.trainer_config_finalize(told, model, given["max_steps"])
    return dict(config.config)


def main() -> None:
    import transformers

    cases = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    answer = {"transformers": transformers.__version__, "configs": [handed_over(case) for case in cases]}
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


main()
