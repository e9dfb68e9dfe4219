"""pip's own view of an environment, asked through pip-api: a second opinion on what is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

from envcheck.errors import ToolError
from envcheck.facts.metadata import normalised
from envcheck.process import run

#: Seconds; pip-api starts pip twice, each start takes about half a second.
DEADLINE = 120.0

SCRIPT = """
import json, sys
import pip_api
found = pip_api.installed_distributions()
with open(sys.argv[1], "w", encoding="utf-8") as stream:
    json.dump({item.name: str(item.version) for item in found.values()}, stream)
"""


def pip_versions(python: str) -> dict[str, str] | str:
    """Name -> version as the pip of that interpreter lists them, or the reason why it cannot be asked.

    pip-api runs in a child process of ours, because its import starts pip; the pip it starts is the environment's.
    """
    if importlib.util.find_spec("pip_api") is None:
        return "pip-api is not installed beside envcheck (`envcheck-ml[lock]` brings it)"
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
        answer = Path(folder, "answer.json")
        try:
            ended = run(
                [sys.executable, "-c", SCRIPT, str(answer)], timeout=DEADLINE,
                env={**os.environ, "PIPAPI_PYTHON_LOCATION": python},
            )  # fmt: skip
            found = json.loads(answer.read_text(encoding="utf-8"))
        except ToolError as error:
            return error.message
        except (OSError, ValueError):
            lines = ended.stderr.strip().splitlines() or [""]
            said = next((line for line in lines if "No module named pip" in line), lines[-1])
            if "No module named pip" in said:
                return "this environment has no pip"
            return f"pip failed ({ended.outcome}): {said[:200]}"
    return {normalised(str(name)): str(version) for name, version in found.items()}
