#!/usr/bin/env bash
# All checks and tests, with the tools that are first on PATH: what `environment_setup.sh --test` runs.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'tests: %s\n' "$*" >&2; }

say "ruff, mypy, import contracts, matrix lint"
ruff check envcheck envcheck_startup.py tests benchmarks
mypy
lint-imports
envcheck matrix lint
say "tests"
python -m pytest -m "not gpu" "${ENVCHECK_PYTEST_ARGS:---durations=5}"
