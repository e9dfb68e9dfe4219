"""Time the quick set of `envcheck probe` against the bare imports it cannot avoid, over the same number of ranks, in one run.

Usage: python benchmarks/probe.py PYTHON_WITH_DEEPSPEED [REPEATS]

Prints seconds of each round, on the clock and of processor time, and the ratios of the medians; the aim is at most 1.5. On a
machine that does other work too, only the ratio of processor time says anything.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from envcheck.probe import session, spec

if TYPE_CHECKING:
    from collections.abc import Callable

RANKS = 2
BARE = "import torch, deepspeed; from transformers import Trainer"
AIM = 1.5


def bare(python: str) -> float:
    """Seconds until every rank has imported torch, DeepSpeed and the Trainer."""
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    ranks = [
        subprocess.Popen([python, "-c", BARE], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(RANKS)
    ]
    codes = [rank.wait(300) for rank in ranks]
    if any(codes):
        sys.exit(f"the bare import failed: exit {codes}")
    return time.perf_counter() - begin


def quick(python: str) -> float:
    """Seconds of the whole quick set, imports and start of the ranks included."""
    begin = time.perf_counter()
    found = session.probe(
        python,
        spec.quick(spec.STAGE_ORDER, (spec.ENGINE, spec.TRAINER)),
        world_size=RANKS,
        device="cpu",
        timeout=300,
    )
    if found.failure:
        sys.exit(found.failure)
    return time.perf_counter() - begin


def timed(run: Callable[[str], float], python: str) -> tuple[float, float]:
    """Seconds on the clock, and of processor time of all children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = run(python)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    python, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    bare(python)  # fills the disk cache for both
    rounds = []
    for number in range(repeats):
        imports, probe = timed(bare, python), timed(quick, python)
        rounds.append((imports, probe))
        print(f"round {number + 1}: imports {imports[0]:.2f} s ({imports[1]:.2f} of processor time), ", end="")
        print(f"quick set {probe[0]:.2f} s ({probe[1]:.2f})", flush=True)
    for which, words in enumerate(("on the clock", "of processor time")):
        least, whole = (statistics.median(one[side][which] for one in rounds) for side in (0, 1))
        print(f"{words}: medians {least:.2f} s and {whole:.2f} s, ratio {whole / least:.2f} (aim: at most {AIM})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
