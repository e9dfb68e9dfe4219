#!/usr/bin/env bash
# A careful recipe: uv, a hashed lock, one wheel with its digest, a commit. Nearly nothing to say.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

command -v uv >/dev/null || { echo "uv is missing" >&2; exit 1; }
uv venv --python 3.11 .venv
source .venv/bin/activate
uv pip sync --require-hashes requirements.txt
uv pip install --no-deps "deepspeed @ git+https://github.com/deepspeedai/DeepSpeed@0123456789abcdef0123456789abcdef01234567"
python -m pip --version
