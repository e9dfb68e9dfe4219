"""Time the quick set of `envcheck probe` against the bare imports it cannot avoid, over the same number of ranks, in one run.

Usage: python benchmarks/probe.py PYTHON_WITH_DEEPSPEED [REPEATS]

Prints seconds of each round and the ratio of the medians; the aim is at most 1.5.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from envcheck.probe import session, spec

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


def main() -> int:
    python, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    bare(python)  # fills the disk cache for both
    imports, probes = [], []
    for number in range(repeats):
        imports.append(bare(python))
        probes.append(quick(python))
        print(f"round {number + 1}: imports {imports[-1]:.2f} s, quick set {probes[-1]:.2f} s")
    ratio = statistics.median(probes) / statistics.median(imports)
    print(f"medians: imports {statistics.median(imports):.2f} s, quick set {statistics.median(probes):.2f} s")
    print(f"ratio {ratio:.2f} (aim: at most {AIM})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
