"""One probe from start to end: a scratch folder, the ranks, their outcome."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.checks.deep.caches import extensions_root
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.probe import launch
from envcheck.probe.outcome import Outcome, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from envcheck.probe.spec import Scenario

#: A lock file older than this belongs to no build that still runs, in all likelihood: builds take minutes.
STALE_SECONDS = 1800


def probe(
    python: str,
    scenarios: Sequence[Scenario],
    *,
    world_size: int,
    device: str,
    timeout: float,
    environ: Mapping[str, str] | None = None,
    stall: float = launch.STALL,
    progress: Callable[[str, dict[str, Any]], None] | None = None,
) -> Outcome:
    """Run the scenarios with the interpreter `python` and judge them.

    Raises:
        ToolError: The interpreter cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="envcheck-probe-", ignore_cleanup_errors=True) as folder:
        plan = launch.Plan(
            python,
            scenarios,
            world_size,
            device,
            timeout,
            Path(folder),
            os.environ if environ is None else environ,
            stall,
        )
        return outcome(scenarios, world_size, launch.run(plan, progress))


def stale_locks(environ: Mapping[str, str], now: float | None = None) -> tuple[Finding, ...]:
    """Lock files left in the JIT extension cache by builds that were killed: a training start waits for them for ever."""
    home = extensions_root(environ)
    if home is None:
        return ()
    when = time.time() if now is None else now
    found = []
    for place in sorted([*Path(home).glob("*/lock"), *Path(home).glob("*/*/lock")]):
        try:
            age = when - place.stat().st_mtime
        except OSError:
            continue
        if age > STALE_SECONDS:
            found.append(_lock_finding(place, age))
    return tuple(found)


def _lock_finding(place: Path, age: float) -> Finding:
    return Finding(
        id="extension-cache-lock",
        severity=Severity.WARNING,
        title=f"a lock file stands in the JIT extension cache for `{place.parent.name}`",
        subjects=("torch", "deepspeed"),
        observed={"lock": str(place), "age": f"{age / 3600:.1f} h"},
        because=("a build that was killed left it; the next start of that extension waits for it for ever",),
        certain=False,
        fixes=(Fix("do", f"if no build is running, delete {place}"),),
        evidence=(Evidence("code", "pytorch/pytorch:torch/utils/_cpp_extension_versioner.py and file_baton.py"),),
        symptom="training hangs at its start, without a message",
    )
