#!/usr/bin/env bash
# All checks and tests, with the tools that are first on PATH: what `environment_setup.sh --test` runs.
# The tests of what runs in real environments (the probe, the monitor, params) stand beside the rest: two processes for two cores.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'tests: %s\n' "$*" >&2; }
unset PYTHONDONTWRITEBYTECODE # without its bytecode every start of torch and DeepSpeed compiles them: ten seconds each
pytest=(python -m pytest -m "not gpu" "${ENVCHECK_PYTEST_ARGS:---durations=5}")
# A shell has what it starts in the background ignore an interrupt.
heeding='import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])'

real=(tests/probe tests/monitor tests/params)
output=$(mktemp)
say "${real[*]} have begun; what they say comes at the end"
python -c "$heeding" "${pytest[@]}" "${real[@]}" >"$output" 2>&1 &
job=$!
trap 'kill -INT "$job" 2>/dev/null && wait "$job" || true; rm -f "$output"' EXIT

say "ruff, mypy, import contracts, matrix lint"
ruff check envcheck envcheck_startup.py tests benchmarks
mypy
lint-imports
envcheck matrix lint
say "the other tests"
failed=0
"${pytest[@]}" -p no:cacheprovider "${real[@]/#/--ignore=}" || failed=$?
wait "$job" || failed=$?
say "${real[*]}"
cat "$output"
exit "$failed"
