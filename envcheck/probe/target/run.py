"""Start one rank: `python run.py REQUEST.json RANK JOURNAL.jsonl`. Only this folder is put on the module path."""

from __future__ import annotations

import sys

from probe_worker.main import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
