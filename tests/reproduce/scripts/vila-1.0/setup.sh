#!/bin/bash
# The steps of VILA 1.0's set-up, in our own words.
env_name=${1:-""}

if [ -n "$env_name" ]; then
  eval "$(conda shell.bash hook)"
  conda create -n "$env_name" python=3.10 -y
  conda activate "$env_name"
fi

pip install --upgrade pip
wget https://github.com/Dao-AILab/flash-attention/releases/download/v2.4.2/flash_attn-2.4.2+cu118torch2.0cxx11abiFALSE-cp310-cp310-linux_x86_64.whl
pip install flash_attn-2.4.2+cu118torch2.0cxx11abiFALSE-cp310-cp310-linux_x86_64.whl
pip install -e .
pip install -e ".[train]"
pip install git+https://github.com/huggingface/transformers@v4.36.2
cp -r llava/train/transformers_replace/* ~/anaconda3/envs/vila/lib/python3.10/site-packages/transformers/models/
