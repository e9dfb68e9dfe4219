"""Time `envcheck log` on a large log and measure its peak memory.

Run from the root of a checkout: `python benchmarks/log.py [MEGABYTES]`. The log is a real one of tests/data/logs, repeated; each
repetition is another epoch of the same training, so that nothing is to be found in it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"plain lines": "*/healthy-linear-zero2.log", "progress bars": "*/healthy-log5-tqdm.log"}


def make(path: Path, text: bytes, size: int) -> int:
    """Write `text` again and again until the file has `size` bytes; returns how many lines with a loss it holds."""
    block = text * max((1 << 20) // len(text), 1)
    written = 0
    with path.open("wb") as file:
        while written < size:
            written += file.write(block)
    return text.count(b"'loss'") * (written // len(text))


def measure(path: Path) -> tuple[float, float, dict[str, object]]:
    """Wall seconds, peak MiB of the child, and what the report says of the log."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "envcheck", "log", str(path), "--format", "json"],
        capture_output=True, check=False, cwd=ROOT, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return seconds, peak, {"exit": done.returncode, **json.loads(done.stdout)["log"]}


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 200) << 20
    folder = ROOT / "tests" / "data" / "logs"
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in SOURCES.items():
            path = Path(scratch) / "big.log"
            for part in (size // 20, size):
                lines = make(path, min(folder.glob(source)).read_bytes(), part)
                seconds, peak, said = measure(path)
                rate = path.stat().st_size / seconds / (1 << 20)
                print(f"{name}: {part >> 20} MiB, {lines} lines: {seconds:.1f} s ({rate:.0f} MiB/s), peak {peak:.0f} MiB, {said}")


if __name__ == "__main__":
    main()
