"""A training script that knows nothing of envcheck: `plain.py [--local_rank=N] trainer|engine`, one rank of a launcher.

EXIT is the exit code that it ends with.
"""

from __future__ import annotations

import os
import sys
from typing import Any

ACCUMULATION, STEPS, MICRO = 3, 6, 2
CONFIG = {
    "train_micro_batch_size_per_gpu": MICRO,
    "gradient_accumulation_steps": ACCUMULATION,
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 100000, "allgather_bucket_size": 100000},  # gigabytes by default
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


def llama() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def sample(number: int) -> Any:
    import torch

    ids = torch.randint(3, 64, (16,), generator=torch.Generator().manual_seed(number))
    return {"input_ids": ids, "labels": ids.clone()}


def trainer() -> None:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir="out", max_steps=STEPS, per_device_train_batch_size=MICRO, gradient_accumulation_steps=ACCUMULATION,
        use_cpu=True, deepspeed=CONFIG, logging_steps=1, report_to=[], save_strategy="no", learning_rate=1e-3, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=llama(), args=arguments, train_dataset=[sample(number) for number in range(256)]).train()


def engine() -> None:
    import deepspeed
    import torch

    model = llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    built = deepspeed.initialize(model=model, optimizer=optimizer, config=CONFIG)[0]
    rank = int(os.environ["RANK"])
    for number in range(STEPS * ACCUMULATION):
        rows = [sample(1000 * rank + MICRO * number + row) for row in range(MICRO)]
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        built.backward(built(**batch).loss)
        built.step()


def without_compilation() -> None:
    """Keep DeepSpeed from compiling its shared-memory collective, which takes minutes."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    build = accelerator.create_op_builder
    accelerator.create_op_builder = lambda name: None if name == "ShareMemCommBuilder" else build(name)


if __name__ == "__main__":
    if sys.argv[-1] == "trainer":  # each of the two is what imports torch
        from transformers import Trainer  # noqa: F401
    import deepspeed
    import torch

    torch.set_num_threads(1)
    without_compilation()
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    {"trainer": trainer, "engine": engine}[sys.argv[-1]]()
    print("trained", os.environ["RANK"])
    torch.distributed.barrier()
    sys.exit(int(os.environ.get("EXIT", "0")))
