"""Time the reading of `envcheck check --deep` (every file that a RECORD names) against `sha256sum`, same files, same run.

Usage: python benchmarks/deep.py PYTHON_OR_VENV [REPEATS]

Prints seconds and MB/s of each round, and the ratio of the best rounds; the aim is at least 0.8 of `xargs -P CORES sha256sum`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from envcheck.checks.context import Context
from envcheck.checks.deep.inventory import Inventory, take_inventory
from envcheck.checks.deep.target import Target
from envcheck.facts.interpreter import other
from envcheck.facts.model import Environment
from envcheck.matrix.database import load

AIM = 0.8
CORES = len(os.sched_getaffinity(0))


def ours(target: Target) -> tuple[float, Inventory]:
    """Seconds for everything from listing the metadata folders to the last comparison."""
    begin = time.perf_counter()
    found = take_inventory(Target(target.interpreter, target.context))
    return time.perf_counter() - begin, found


def theirs(files: list[str]) -> float:
    """Seconds of sha256sum, on as many cores."""
    with tempfile.NamedTemporaryFile() as names:
        names.write(b"\0".join(name.encode() for name in files))
        names.flush()
        begin = time.perf_counter()
        subprocess.run(
            ["xargs", "-0", "-n", "200", "-P", str(CORES), "-a", names.name, "sha256sum"], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - begin


def main() -> int:
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    target = Target(other(sys.argv[1]), Context(Environment(), load()))
    _, found = ours(target)  # fills the disk cache for both
    recorded = [path for path, claims in found.claims.items() if any(claim.entry.algorithm for claim in claims)]
    files = [path for path in recorded if Path(path).is_file()]
    size = found.bytes_read / 1e6
    mine, other_times = [], []
    for number in range(repeats):
        mine.append(ours(target)[0])
        other_times.append(theirs(files))
        print(f"round {number + 1}: deep {mine[-1]:.2f} s, sha256sum {other_times[-1]:.2f} s")
    speeds = f"deep {size / min(mine):.0f} MB/s, sha256sum {size / min(other_times):.0f} MB/s"
    print(f"{len(files)} files, {size:.0f} MB, {CORES} cores: {speeds}")
    print(f"ratio {min(other_times) / min(mine):.2f} (aim: at least {AIM})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
