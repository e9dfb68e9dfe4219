"""Collect logs that make_logs.py made into tests/data/logs: `python tests/forensics/collect_logs.py OUT...`; run by hand.

Each folder of the data is named for its releases. What says nothing of training is cut: DeepSpeed's description of its
configuration, memory tables, and repeated warnings.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data" / "logs"
NOISE = re.compile(
    rb"\[config\.py:|see_memory_usage|FutureWarning|UserWarning|return func\(\*args|Gloo|^ {2}warnings\.warn|\[timer\.py:"
)
WIDEST = 400

#: Healthy runs are kept from every third release only, in turn, so that each is there with several.
EVERY = 3


def main(folders: list[str]) -> None:
    """Copy, trim, and write one line of the manifest for each log."""
    for number, folder in enumerate(map(Path, folders)):
        versions = {}
        for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            versions[record["run"]] = record["versions"]
        some = next(iter(versions.values()))
        name = f"deepspeed-{some['deepspeed']}-transformers-{some['transformers']}"
        (DATA / name).mkdir(parents=True, exist_ok=True)
        kept = 0
        for index, run in enumerate(sorted(versions)):
            healthy = run.startswith(("healthy", "fp16-healthy", "engine-fp16-healthy"))
            if healthy and (index + number) % EVERY:
                continue
            text = trimmed((folder / f"{run}.log").read_bytes())
            if b"Traceback" in text and b"loss" not in text.split(b"Traceback")[0]:
                continue  # this pair of releases cannot run it
            (DATA / name / f"{run}.log").write_bytes(text)
            kept += 1
            state = folder / f"{run}.state.json"
            if state.is_file() and number < EVERY:
                (DATA / name / f"{run}.state.json").write_bytes(state.read_bytes())
        (DATA / name / "versions.json").write_text(json.dumps(some, indent=1) + "\n", encoding="utf-8")
        print(name, kept, "logs")


def trimmed(text: bytes) -> bytes:
    """The log without lines that say nothing of training."""
    lines = [line for line in text.splitlines(keepends=True) if not NOISE.search(line)]
    return b"".join(line if len(line) <= WIDEST else line[:WIDEST] + b"\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
