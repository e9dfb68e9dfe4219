"""A stand-in for a target interpreter: it plays a rank as its scenario file says, so that no test needs DeepSpeed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRELUDE = """#!{python}
import json, os, signal, sys, time
request = json.load(open(sys.argv[2])); rank = int(sys.argv[3]); journal = open(sys.argv[4], "a")
first = sys.argv[2].endswith("set0/request.json")
def write(event, scenario="", **more):
    journal.write(json.dumps(dict(event=event, scenario=scenario, time=time.time(), **more)) + "\\n"); journal.flush()
def doing(stage, scenario=""): write("doing", scenario, stage=stage)
def start():
    doing("import torch"); write("imported", name="torch", seconds=0.1)
    write("versions", packages={{"torch": "2.13.0", "deepspeed": "0.19.8"}}, python="3.11.7"); write("device", device="cpu, gloo")
def step(scenario, number, update=1.0):
    grads = [[3.0, 0.0], [0.0, 4.0]] * 8
    count = request["world_size"] * scenario["accumulation"]
    rows = grads[:count]
    gram = [[a[0] * b[0] + a[1] * b[1] for b in rows] for a in rows]
    mean = [sum(row[k] for row in rows) / count for k in (0, 1)]
    seen = [update * value for value in mean]
    dots = [seen[0] * row[0] + seen[1] * row[1] for row in rows]
    observation = dict(state="ok", dots=dots, square=seen[0] ** 2 + seen[1] ** 2, others={{}})
    fields = dict(step=number, losses=[1.0] * scenario["accumulation"], lr=1.0, norm=None, clip=0.0, moved_between=0.0, rough=[])
    if rank == 0:
        fields.update(reference_losses=[1.0] * count, params=[dict(name="w", numel=2, size=1.0, noise=0.0, gram=gram)])
        fields["params"][0]["update"] = observation
    write("step", scenario["id"], **fields)
def play(scenario, update=1.0):
    write("begin", scenario["id"]); doing("step 1: optimizer step", scenario["id"])
    if scenario["path"] == "trainer": write("note", scenario["id"], note="played")
    for number in range(2): step(scenario, number, update)
    write("end", scenario["id"], ok=True)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], str]:
    """Makes an interpreter that runs the given body with the prelude's functions at hand; returns its path."""

    def make(body: str) -> str:
        path = tmp_path / "python"
        path.write_text(PRELUDE.format(python=sys.executable) + body, encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return make
