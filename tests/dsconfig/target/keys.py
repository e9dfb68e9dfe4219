"""Run with a real DeepSpeed: what its configuration makes of one odd value after another, and its defaults at each stage.

Reads {"keys": [...], "values": [...], "base": {...}} from standard input; writes its answer as JSON to the file named.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
from deepspeed.runtime.config import DeepSpeedConfig

logging.disable(logging.CRITICAL)


def put(document: dict[str, Any], key: str, value: object) -> None:
    parts = key.split(".")
    for part in parts[:-1]:
        document = document.setdefault(part, {})
    document[parts[-1]] = value


def refusal(document: dict[str, Any]) -> str:
    try:
        DeepSpeedConfig(document)
    except Exception as error:  # noqa: BLE001 - whatever it stops with
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def main() -> None:
    asked = json.load(sys.stdin)
    refused: dict[str, list[str]] = {}
    for key in asked["keys"]:
        for value in asked["values"]:
            document = copy.deepcopy(asked["base"])
            put(document, key, copy.deepcopy(value))
            refused.setdefault(key, []).append(refusal(document))
    zero = {}
    for stage in (0, 1, 2, 3):
        config = DeepSpeedConfig({**asked["base"], "zero_optimization": {"stage": stage}})
        zero[str(stage)] = json.loads(json.dumps(config.zero_config.model_dump(), default=str))
    answer = {"version": deepspeed.__version__, "refused": refused, "zero": zero}
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


main()
