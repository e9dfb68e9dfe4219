#!/bin/bash
# VILA's alignment step: two values come from the scheduler of the cluster.
n_node=$SLURM_JOB_NUM_NODES
bs=$((256 / n_node))

torchrun --nnodes=$n_node --nproc_per_node=8 --master_port=25001 \
    --master_addr $MASTER_ADDR --node_rank=$CURRENT_RANK \
    llava/train/train_mem.py \
    --deepspeed ./scripts/zero2.json \
    --tune_vision_tower False \
    --tune_mm_projector True \
    --tune_language_model False \
    --bf16 True \
    --output_dir ./checkpoints/$OUTPUT \
    --per_device_train_batch_size $bs \
    --gradient_accumulation_steps 1 \
    --learning_rate 1e-3 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type "cosine" \
    --logging_steps 1 \
    --gradient_checkpointing True
