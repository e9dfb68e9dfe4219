"""Time `envcheck log` on a large log and measure its peak memory, beside `grep -c` and a plain Python reader of the same file.

Run from the root of a checkout: `python benchmarks/log.py [MEGABYTES]`. The logs are made: lines as transformers writes them,
with a decaying loss and a warm-up schedule, alone or between what usually stands there. Nothing is to be found in them. Seconds
are the processor's, so that other work on the machine counts little.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

#: What many a script does.
READER = """
import ast, sys
count = 0
for line in open(sys.argv[1], encoding="utf-8", newline="\\n"):
    start = line.find("{'loss'")
    if start >= 0:
        count += ast.literal_eval(line[start:]).get("grad_norm", 0) > 1e6
print(count)
"""


def line(number: int, draw: random.Random) -> str:
    """A line of a Trainer's log."""
    loss = 0.8 + 2.5 * math.exp(-number / 2e5) + draw.gauss(0, 0.05)
    norm = abs(draw.gauss(0.8, 0.1)) + 0.05
    rate = 1e-3 * min(1, (number + 1) / 1000) * (1 - number / 3e6)
    return f"{{'loss': {loss:.4f}, 'grad_norm': {norm}, 'learning_rate': {rate}, 'epoch': {number / 5000:.2f}}}\n"


def dense(number: int, text: str) -> str:
    """Nothing between the lines."""
    del number
    return text


def usual(number: int, text: str) -> str:
    """Progress bars, an evaluation now and then, a warning."""
    bars = "".join(f"\r {share}%|▍         | {number}/2000000 [1:00:00<20:00:00, 26.86it/s]" for share in range(3))
    if number % 500 == 499:
        text += (
            f"{{'eval_loss': 1.{number}, 'eval_runtime': 12.5, 'eval_samples_per_second': 80.1, 'epoch': {number / 5000:.2f}}}\n"
        )
        text += "/site-packages/torch/utils/checkpoint.py:87: UserWarning: None of the inputs have requires_grad=True.\n"
    return f"{bars}{' ' * 40}\r{text}"


def deepspeed(number: int, text: str) -> str:
    """DeepSpeed's own line after every tenth."""
    if number % 10 == 9:
        text += (
            f"[2026-11-24 12:00:00,000] [INFO] [logging.py:128:log_dist] [Rank 0] step={number}, skipped=0, lr=[0.001], mom=[]\n"
        )
    return text


KINDS = {"Trainer lines alone": dense, "with progress bars": usual, "with DeepSpeed's lines": deepspeed}


def make(path: Path, kind: str, size: int) -> int:
    """Write a log of that kind until it has `size` bytes; returns how many lines with a loss it holds."""
    count = written = 0
    with path.open("wb") as file:
        for block in blocks(kind):
            count += 1000
            written += file.write(block)
            if written >= size:
                return count
    return count


def blocks(kind: str) -> Iterator[bytes]:
    """A thousand lines at a time, for ever."""
    draw = random.Random(1)  # noqa: S311 - a log
    number = 0
    while True:
        yield "".join(KINDS[kind](one, line(one, draw)) for one in range(number, number + 1000)).encode()
        number += 1000


def timed(*argv: str) -> tuple[float, str]:
    """Processor seconds and output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, check=False, cwd=ROOT, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def measure(path: Path) -> tuple[float, float, dict[str, object]]:
    """Processor seconds, peak MiB of the largest child so far, and what the report says of the log."""
    seconds, output = timed(sys.executable, "-m", "envcheck", "log", str(path), "--format", "json")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    report = json.loads(output)
    return seconds, peak, {"findings": len(report["findings"]), **report["log"]}


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 200) << 20
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            path = Path(scratch) / "big.log"
            for part in (size // 20, size):
                lines = make(path, kind, part)
                seconds, peak, said = measure(path)
                assert said["lines"] == lines, said  # noqa: S101 - a benchmark of the wrong thing is none
                rate = path.stat().st_size / seconds / (1 << 20)
                print(f"{kind}: {part >> 20} MiB, {lines} lines: {seconds:.1f} s ({rate:.0f} MiB/s), peak {peak:.0f} MiB")
            grep, _ = timed("grep", "-c", "'loss'", str(path))
            python, _ = timed(sys.executable, "-c", READER, str(path))
            print(f"  grep -c {grep:.1f} s; a loop with ast.literal_eval {python:.1f} s; {said['findings']} findings")


if __name__ == "__main__":
    main()
