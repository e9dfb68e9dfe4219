"""Import modules one after the other: run as `python import_worker.py ANSWER MODULE...` by the target interpreter.

Standard library only, Python 3.8 syntax. ANSWER gets a JSON line before each import (`{"start": "deepspeed"}`), so that a
crash has a name, and one after it: `{"done": "deepspeed"}`, or with `error`, `message`, `place`. Standard output is not used.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback


def attempt(name: str) -> dict[str, str]:
    """Import one module; the outcome as plain data."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the answer, SystemExit too
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return {"done": name, "error": type(error).__name__, "message": str(error)[:2000], "place": place}
    return {"done": name}


def main() -> None:
    """Import every module named on the command line."""
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.path.dirname(os.path.abspath(__file__)))]  # noqa: PTH100, PTH120
    with open(sys.argv[1], "w", encoding="utf-8") as answer:  # noqa: PTH123 - pathlib is slow to import
        for name in sys.argv[2:]:
            answer.write(json.dumps({"start": name}) + "\n")
            answer.flush()
            answer.write(json.dumps(attempt(name)) + "\n")
            answer.flush()


if __name__ == "__main__":
    main()
