#!/usr/bin/env bash
# The steps of NVILA's set-up, in our own words.
set -e

CONDA_ENV=${1:-""}
if [ -n "$CONDA_ENV" ]; then
  eval "$(conda shell.bash hook)"
  conda create -n $CONDA_ENV python=3.10.14 -y
  conda activate $CONDA_ENV
  conda install -c nvidia cuda-toolkit -y
else
  echo "installing into the environment that is active"
fi

pip install --upgrade pip setuptools
pip install https://github.com/Dao-AILab/flash-attention/releases/download/v2.5.8/flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl
pip install -e ".[train,eval]"
pip install triton==3.1.0  # for the quantized kernels

site_pkg_path=$(python -c 'import site; print(site.getsitepackages()[0])')
cp -rv ./llava/train/deepspeed_replace/* $site_pkg_path/deepspeed/

pip install protobuf==3.20.*
