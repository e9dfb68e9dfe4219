"""What torch loads at the end of its own import, where envcheck is installed (entry point group `torch.backends`).

It stands beside the package: an import of torch must neither pay for envcheck nor fail with it, whatever became of the package.
"""

from __future__ import annotations

import os
import sys


def activate() -> None:
    """Switch the monitor on where `ENVCHECK_MONITOR` asks for it. Never raises: torch would not be imported."""
    if os.environ.get("ENVCHECK_MONITOR", "") in ("", "0"):
        return
    try:
        from envcheck.monitor import activation  # noqa: PLC0415 - only where it is asked for

        activation.activate()
    except Exception as error:  # noqa: BLE001 - see above
        sys.stderr.write(f"envcheck monitor: could not start: {type(error).__name__}: {error}\n")
