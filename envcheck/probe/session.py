"""One probe from start to end: a scratch folder, the ranks, their outcome."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.probe import launch
from envcheck.probe.outcome import Outcome, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from envcheck.probe.spec import Scenario


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
