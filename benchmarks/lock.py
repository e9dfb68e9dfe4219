"""Times `envcheck lock` against plain `uv pip compile` on the same requirements, in turn, with the same warm cache.

Usage: PYTHONPATH=. python benchmarks/lock.py [ROUNDS]

Needs an index. The aims: 1.3 times plain uv where no rule fires, and one more call of uv for each conflict.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from envcheck.resolve.install import find_uv
from envcheck.resolve.request import PLATFORMS

STACK = ["deepspeed", "transformers", "torch", "accelerate"]
TARGET = ["--python-version", "3.11"]
CASES = {
    "no rule fires": (STACK, []),
    "a range excluded beforehand": (
        ["deepspeed<0.18.3", *STACK[1:]], ["--set", "zero_optimization.stage=2", "--set", "gradient_accumulation_steps=4"],
    ),
    "one conflict between two packages": (["deepspeed<0.14.4", "torch<2.4"], []),
}  # fmt: skip


def timed(argv: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    if ended.returncode != 0:
        sys.exit(f"{' '.join(argv)}\n{ended.stdout}{ended.stderr}")
    return time.perf_counter() - started, ended.stdout


def plain(folder: Path, requirements: list[str]) -> list[str]:
    source = folder / "requirements.in"
    source.write_text("".join(f"{line}\n" for line in requirements))
    platform = PLATFORMS["Linux", os.uname().machine]
    return [
        find_uv() or "uv", "pip", "compile", "-q", str(source), "--format", "pylock.toml", *TARGET,
        "--python-platform", platform, "--output-file", str(folder / "pylock.plain.toml"),
    ]  # fmt: skip


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, (requirements, settings) in CASES.items():
            uv = plain(folder, requirements)
            own = [
                sys.executable, "-m", "envcheck", "lock", *requirements, *settings, *TARGET, "-o", str(folder / "pylock.toml"),
                "--format", "json",
            ]  # fmt: skip
            report = json.loads(timed(own)[1])
            timed(uv)
            pairs = []
            for _ in range(rounds):
                (folder / "pylock.plain.toml").unlink()  # uv would keep what stands there
                pairs.append((timed(uv)[0], timed(own)[0]))
            best_uv, best_own = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
            calls = report["lock"]["uv_calls"]
            times = f"uv {best_uv:6.2f} s   envcheck lock {best_own:6.2f} s   ratio {best_own / best_uv:.2f}"
            print(f"{case:36} {times}   uv calls {calls}")


if __name__ == "__main__":
    main()
