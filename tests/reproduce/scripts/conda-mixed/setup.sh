#!/usr/bin/env bash
# torch from conda, then a requirements file that has it too; a CUDA wheel for another torch; a system compiler.
set -euo pipefail

apt-get update && apt-get install -y build-essential ffmpeg
conda env create -f environment.yml
conda activate mixed
if [[ "$(uname -m)" == "x86_64" ]]; then
  pip install --no-deps https://github.com/Dao-AILab/flash-attention/releases/download/v2.5.8/flash_attn-2.5.8+cu122torch2.2cxx11abiFALSE-cp311-cp311-linux_x86_64.whl#sha256=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
else
  pip install flash-attn==2.5.8 --no-build-isolation
fi
pip install -r requirements.txt
sed -i 's/sdpa/eager/' "$CONDA_PREFIX/lib/python3.10/site-packages/transformers/modeling_utils.py"
python tools/build_kernels.py
