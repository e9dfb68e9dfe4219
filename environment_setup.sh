#!/usr/bin/env bash
# Makes .venv with everything envcheck needs, from the hash-pinned locks in requirements/, and checks it.
#
#   bash environment_setup.sh          make the environment and show `envcheck check` on it
#   bash environment_setup.sh --test   the same with the test tools, then run all checks and tests
#
# Needs Python 3.10 or newer (PYTHON=/path/to/python chooses one); no root. Run it again at any time: what is there is kept,
# and a run that was killed half-way is completed.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

venv=${ENVCHECK_VENV:-.venv}
lock=requirements/runtime.txt
mode=check

say() { printf 'environment_setup: %s\n' "$*" >&2; }

die() {
  say "error: $1"
  shift
  for hint in "$@"; do say "hint: $hint"; done
  exit 4
}

case "${1:-}" in
  "") ;;
  --test) mode=test lock=requirements/dev.txt ;;
  *)
    say "usage: bash environment_setup.sh [--test]"
    exit 2
    ;;
esac

# The first interpreter that is new enough: $PYTHON, then what is on PATH.
suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.10 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$name" >/dev/null 2>&1 && suits "$name"; then
      command -v "$name"
      return
    fi
  done
  die "no Python 3.10 or newer on PATH" "set PYTHON to one: PYTHON=/path/to/python3.11 bash environment_setup.sh"
}

make_venv() {
  if [ -x "$venv/bin/python" ] && suits "$venv/bin/python"; then
    return
  fi
  local python
  python=$(find_python)
  say "making $venv with $("$python" --version)"
  rm -rf -- "$venv"
  if command -v uv >/dev/null 2>&1; then
    UV_PYTHON_DOWNLOADS=never uv venv --quiet --python "$python" -- "$venv"
  else
    "$python" -m venv -- "$venv" || die "could not make a venv" "on Debian and Ubuntu install python3-venv, or put uv on PATH"
  fi
}

# uv from PATH, else from the venv, else installed there (hash-pinned) by pip.
find_uv() {
  if command -v uv >/dev/null 2>&1; then
    command -v uv
  elif [ -x "$venv/bin/uv" ] && "$venv/bin/uv" --version >/dev/null 2>&1; then
    printf '%s\n' "$venv/bin/uv"
  else
    say "installing uv into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
      -r requirements/uv.txt >&2 || die "could not install uv" "is the package index reachable? (pip config, proxy)"
    printf '%s\n' "$venv/bin/uv"
  fi
}

# What the environment was made from: its digest is written last, so a half-made environment has none.
digest() {
  local python=$venv/bin/python
  "$python" - "$lock" pyproject.toml <<'PY'
import hashlib, sys
print(hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[1:])).hexdigest())
PY
}

install() {
  local stamp=$venv/.envcheck-setup wanted uv
  wanted=$(digest)
  if [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$wanted" ]; then
    say "$venv is up to date with $lock"
    return
  fi
  rm -f -- "$stamp"
  uv=$(find_uv)
  say "installing $lock"
  # Not a sync: it would remove the very uv that runs it.
  UV_PYTHON_DOWNLOADS=never "$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes \
    -r "$lock" ||
    die "the installation failed" "is the package index reachable? (UV_INDEX_URL, proxy)"
  UV_PYTHON_DOWNLOADS=never "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable . ||
    die "envcheck itself could not be installed"
  printf '%s\n' "$wanted" >"$stamp"
}

run_tests() {
  local bin=$venv/bin
  say "ruff, mypy, import contracts, matrix lint"
  "$bin/ruff" check envcheck tests benchmarks
  "$bin/mypy"
  "$bin/lint-imports"
  "$bin/envcheck" matrix lint
  say "tests"
  "$bin/python" -m pytest -m "not gpu" "${ENVCHECK_PYTEST_ARGS:---durations=5}"
}

make_venv
install
if [ "$mode" = test ]; then
  run_tests
else
  say "envcheck check"
  "$venv/bin/envcheck" check
fi
