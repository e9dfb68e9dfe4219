"""Ask the target interpreter about a model: start the worker, read what it wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from envcheck.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER = Path(__file__).parent / "target" / "run.py"

#: glibc fills fresh memory with the complement of this byte: what nobody initialised then holds 0xFE in every byte.
PERTURB = "1"

Record = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """What the worker found.

    Attributes:
        versions: Of torch and the packages beside it; empty where torch could not be imported.
        model: The `model` record, or None.
        values: By parameter: statistics.
        gradients: By trainable parameter: `fine`, `zero`, `none`, `not-finite`.
        forward: The `forward` record, or None.
        reached: Frozen parameters that a gradient would reach.
        tied: Whether input and output embeddings are one; None where that was not looked at.
        failures: Stage and message of what raised.
        ended: How the child ended, where it did not finish.
        last: The stage it was in.
        output: The end of what it printed.
    """

    versions: dict[str, str] = field(default_factory=dict)
    model: Record | None = None
    values: dict[str, Record] = field(default_factory=dict)
    gradients: dict[str, str] = field(default_factory=dict)
    forward: Record | None = None
    reached: tuple[str, ...] = ()
    tied: bool | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    ended: str = ""
    last: str = "start the interpreter"
    output: str = ""


def ask(python: str, request: Mapping[str, Any], timeout: float) -> Answer:
    """Run the worker once.

    Raises:
        ToolError: The interpreter cannot be started.
    """
    with TemporaryDirectory(prefix="envcheck-params-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        (folder / "request.json").write_text(json.dumps(dict(request)), encoding="utf-8")
        place = folder / "answer.jsonl"
        done = run([python, str(WORKER), str(folder / "request.json"), str(place)], timeout=timeout, env=environment(folder))
        answer = read(place.read_text(encoding="utf-8", errors="replace") if place.is_file() else "")
        if answer.last != "done":
            answer.ended = done.outcome
            answer.output = (done.stderr or done.stdout)[-600:].strip()
        return answer


def environment(scratch: Path) -> dict[str, str]:
    """The child's environment: no network, no GPU, fresh memory marked."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"}
    env.update(
        MALLOC_PERTURB_=PERTURB, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
        CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1",
        TORCH_EXTENSIONS_DIR=str(scratch / "extensions"),
    )  # fmt: skip
    return env


def read(text: str) -> Answer:
    """The worker's file as an answer; a last line that a crash cut off is left out."""
    answer = Answer()
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        _take(answer, record)
    return answer


def _take(answer: Answer, record: Record) -> None:  # noqa: C901 - one line a kind of record
    match record.pop("event", ""):
        case "doing":
            answer.last = str(record["stage"])
        case "versions":
            answer.versions = record
        case "model":
            answer.model = record
        case "value":
            answer.values[record["name"]] = record
        case "gradient":
            answer.gradients[record["name"]] = record["kind"]
        case "forward":
            answer.forward = record
        case "frozen":
            answer.reached = tuple(record["reached"])
        case "tie":
            answer.tied = bool(record["same"])
        case "failed":
            answer.failures.append((str(record["stage"]), f"{record['type']}: {record['message']}"))
        case "done":
            answer.last = "done"
        case _:
            pass
