#!/usr/bin/env bash
# The steps of VILA 1.5's set-up, in our own words.
set -e

CONDA_ENV=${1:-""}
if [ -n "$CONDA_ENV" ]; then
  eval "$(conda shell.bash hook)"
  conda create -n $CONDA_ENV python=3.10 -y
  conda activate $CONDA_ENV
  # for nvcc; leave out where the system has it
  conda install -c nvidia cuda-toolkit -y
else
  echo "installing into the environment that is active"
fi

pip install --upgrade pip  # editable installs from pyproject.toml alone
pip install https://github.com/Dao-AILab/flash-attention/releases/download/v2.4.2/flash_attn-2.4.2+cu118torch2.0cxx11abiFALSE-cp310-cp310-linux_x86_64.whl
pip install -e .
pip install -e ".[train]"

pip install git+https://github.com/huggingface/transformers@v4.36.2
site_pkg_path=$(python -c 'import site; print(site.getsitepackages()[0])')
cp -rv ./llava/train/transformers_replace/* $site_pkg_path/transformers/
