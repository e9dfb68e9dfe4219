#!/bin/bash
# An engine and a trainer for reinforcement learning: wheels by wget, a repository built in place, a version from a variable.
export MAX_JOBS=32
VLLM=0.11.0
USE_MEGATRON=${USE_MEGATRON:-1}

pip install --no-cache-dir "vllm==$VLLM"
pip install "transformers>=4.55.4" accelerate "numpy<2.0.0" "ray[default]" \
  hydra-core peft
for tool in pytest pre-commit; do
  pip install $tool
done
wget -nv https://github.com/Dao-AILab/flash-attention/releases/download/v2.8.1/flash_attn-2.8.1+cu12torch2.8cxx11abiFALSE-cp312-cp312-linux_x86_64.whl
pip install --no-cache-dir flash_attn-2.8.1+cu12torch2.8cxx11abiFALSE-cp312-cp312-linux_x86_64.whl
curl -L -o nvshmem.deb https://example.invalid/nvshmem.deb
echo "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  nvshmem.deb" | sha256sum -c -
if [ $USE_MEGATRON -eq 1 ]; then
  git clone https://github.com/NVIDIA/apex
  cd apex
  git checkout 0123456789abcdef0123456789abcdef01234567
  python setup.py install --cpp_ext --cuda_ext
  cd ..
  pip install --no-deps git+https://github.com/NVIDIA/Megatron-LM.git@core_v0.13.1
fi
pip install opencv-python==$OPENCV
curl -sSL https://example.invalid/fix.sh | bash
pip install "numpy==2.1.3"
