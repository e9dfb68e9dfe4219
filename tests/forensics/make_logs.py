"""Make real training logs: two gloo ranks, a tiny Llama, the real Trainer with DeepSpeed, and one planted fault a run.

Run by hand: `python tests/forensics/make_logs.py OUT --python /path/to/env/bin/python [--only NAME,NAME]`. What it writes for
each run of `runs.toml`: `NAME.log` (both ranks' output, as a terminal or a file would hold it), `NAME.state.json`
(trainer_state.json where the run saved one) and a line of `manifest.jsonl` with the versions. The same file is what the ranks
run (with a request as their only argument), so it is Python 3.8 and imports torch only there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Seconds for all the runs of one environment.
DEADLINE = 3000.0

VOCABULARY = 32


def main(argv: list[str]) -> int:
    """Drive, or be a rank."""
    if len(argv) == 1 and argv[0].endswith(".request.json"):
        return rank_main(json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    import argparse

    import tomli

    parser = argparse.ArgumentParser(description="make real training logs")
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--nodes", action="store_true", help="let every rank think it is the first of its own node")
    args = parser.parse_args(argv)
    runs = tomli.loads((Path(__file__).parent / "runs.toml").read_text(encoding="utf-8"))["run"]
    wanted = set(args.only.split(",")) if args.only else {run["name"] for run in runs if bool(run.get("nodes")) is args.nodes}
    args.out.mkdir(parents=True, exist_ok=True)
    return drive(args.out.resolve(), args.python, [run for run in runs if run["name"] in wanted], nodes=args.nodes)


def drive(out: Path, python: str, runs: list[dict[str, Any]], *, nodes: bool) -> int:
    """Start the two ranks and wait for them."""
    rendezvous = out / f".rendezvous.{os.getpid()}"
    children = []
    for rank in range(2):
        request = {"out": str(out), "runs": runs, "rank": rank, "rendezvous": str(rendezvous), "lead": nodes or rank == 0}
        path = out / f".rank{rank}.request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0" if nodes else str(rank), "LOCAL_SIZE": "2",
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
               "TORCH_EXTENSIONS_DIR": str(out / ".extensions"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
               "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_DISABLED": "true", "PYTHONUNBUFFERED": "1",
               "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
        children.append(subprocess.Popen([python, __file__, str(path)], env=env, start_new_session=True))
    begin = time.monotonic()
    while any(child.poll() is None for child in children):
        dead = any(child.poll() not in (None, 0) for child in children)
        if dead or time.monotonic() - begin > DEADLINE:
            for child in children:
                child.kill()
            break
        time.sleep(0.2)
    return max(abs(child.wait()) for child in children)


def rank_main(request: dict[str, Any]) -> int:
    """One rank: every run in turn, its output in the run's file."""
    import torch
    import torch.distributed as dist
    from deepspeed.accelerator import get_accelerator

    torch.set_num_threads(1)
    accelerator = get_accelerator()
    build = accelerator.create_op_builder
    accelerator.create_op_builder = lambda name: None if name == "ShareMemCommBuilder" else build(name)
    accelerator.is_fp16_supported = lambda: True  # torch computes it on a CPU; DeepSpeed says no
    store = dist.FileStore(request["rendezvous"], 2)
    dist.init_process_group("gloo", store=store, rank=request["rank"], world_size=2)
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    for run in request["runs"]:
        one_run(request, run)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # destructors of process groups may block, and have nothing left to say


def one_run(request: dict[str, Any], run: dict[str, Any]) -> None:
    """One run with standard output and error in its file; a crash is part of the log."""
    import traceback

    import torch.distributed as dist

    out = Path(request["out"])
    log = out / f"{run['name']}.log"
    if request["rank"] == 0:
        log.write_bytes(b"")
    dist.barrier()
    keep = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        (engine_run if run.get("engine") else trainer_run)(request, run)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(keep[0], 1)
        os.dup2(keep[1], 2)
        for number in (*keep, file):
            os.close(number)
    dist.barrier()
    if request["rank"] == 0:
        text = log.read_bytes().decode()
        log.write_bytes(text.replace(sys.prefix, ".venv").replace(str(Path(__file__).parent), ".").encode())
        with (out / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
            manifest.write(json.dumps({"run": run["name"], "versions": versions()}) + "\n")
        print("made", run["name"], flush=True)


def versions() -> dict[str, str]:
    """Versions of the packages that decide how a log looks."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "deepspeed", "transformers", "accelerate")}


def config_of(run: dict[str, Any]) -> dict[str, Any]:
    """The run's DeepSpeed configuration."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "train_batch_size": "auto",
        "bf16": {"enabled": run.get("dtype", "bf16") == "bf16"},
        "zero_optimization": {"stage": run.get("stage", 2)},
    }  # fmt: skip
    if run.get("dtype") == "fp16":
        config["fp16"] = {"enabled": True, "loss_scale": 0, "initial_scale_power": 16, "hysteresis": 2, "loss_scale_window": 1000,
                          "min_loss_scale": 1}  # fmt: skip
    for key, value in run.get("config", {}).items():
        place = config
        *path, last = key.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return config


def model_of(run: dict[str, Any], seed: int = 3) -> Any:
    """A tiny Llama with the run's fault built in."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=64, tie_word_embeddings=False,
    ))  # fmt: skip
    plant(model, run.get("fault", ""), run.get("at", 0))
    return model


def plant(model: Any, fault: str, at: int) -> None:
    """Plant a fault: `at` is the forward call (counted from 0) from or at which it shows."""
    import torch

    calls = {"forward": -1}

    def count(_module: Any, _args: Any, _kwargs: Any = None) -> None:
        calls["forward"] += bool(torch.is_grad_enabled())

    model.register_forward_pre_hook(count)
    if fault == "nan-weight":
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    elif fault == "inf-gradient":

        def infinite(gradient: Any) -> Any:
            if calls["forward"] != at:
                return gradient
            changed = gradient.clone()
            changed.view(-1)[0] = math.inf
            return changed

        model.model.layers[0].mlp.down_proj.weight.register_hook(infinite)
    elif fault in ("nan-batch", "zeroed-loss", "masked-loss"):

        def spoil(_module: Any, _args: Any, output: Any) -> Any:
            if fault == "zeroed-loss":
                output["loss"] = torch.nan_to_num(output["loss"] * math.nan)
            elif fault == "masked-loss":
                output["loss"] = output["loss"] * 0.0
            elif calls["forward"] == at:
                output["loss"] = output["loss"] * math.nan
            return output

        model.register_forward_hook(spoil)


def samples(run: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Counting sequences, so that there is something to learn; labels ignored where the fault says so."""
    import torch

    fault = run.get("fault", "")
    made = []
    for number in range(count):
        tokens = torch.tensor([(number * 7 + place * (1 + number % 3)) % VOCABULARY for place in range(12)])
        ignored = fault == "ignored-labels" or (fault == "some-ignored" and number % 16 < 8)
        made.append({"input_ids": tokens, "labels": torch.full_like(tokens, -100) if ignored else tokens.clone()})
    return made


def collate(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples to a batch."""
    import torch

    return {key: torch.stack([sample[key] for sample in group]) for key in ("input_ids", "labels")}


def trainer_run(request: dict[str, Any], run: dict[str, Any]) -> None:
    """Train with the Trainer."""
    import inspect

    import transformers

    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    known = inspect.signature(transformers.TrainingArguments.__init__).parameters
    steps = run.get("steps", 24)
    dtype = run.get("dtype", "bf16")
    output = Path(request["out"]) / f".out.{run['name']}"
    wanted = {"output_dir": str(output), "max_steps": steps, "per_device_train_batch_size": 2, "learning_rate": 1e-3,
              "logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True, "lr_scheduler_type": "linear",
              "warmup_steps": 4, "bf16": dtype == "bf16", "fp16": dtype == "fp16", "seed": 1, "use_cpu": True,
              "log_level": "warning", "dataloader_num_workers": 0, "deepspeed": config_of(run),
              **run.get("args", {})}  # fmt: skip
    if run.get("plain"):
        del wanted["deepspeed"]
    model = model_of(run)
    data = samples(run, 2 * 2 * steps * wanted.get("gradient_accumulation_steps", 1))
    args = transformers.TrainingArguments(**{key: value for key, value in wanted.items() if key in known})
    trainer = transformers.Trainer(model=model, args=args, train_dataset=data, eval_dataset=data[:4], data_collator=collate)
    trainer.train()
    if run.get("state") and request["rank"] == 0:
        trainer.state.save_to_json(str(Path(request["out"]) / f"{run['name']}.state.json"))


def engine_run(request: dict[str, Any], run: dict[str, Any]) -> None:
    """Train with the bare engine and DeepSpeed's own lines."""
    import deepspeed
    import torch

    deepspeed.utils.logger.setLevel("INFO")  # the Trainer of an earlier run may have turned it down
    config = config_of(run)
    config.update(train_micro_batch_size_per_gpu=2, gradient_accumulation_steps=1, steps_per_print=1)
    config.pop("train_batch_size")
    config.setdefault("optimizer", {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}})
    engine, *_ = deepspeed.initialize(model=model_of(run), config=config)
    data = samples(run, 4 * run.get("steps", 24))
    for step in range(run.get("steps", 24)):
        first = (step * 2 + request["rank"]) * 2
        batch = collate(data[first : first + 2])
        loss = engine(**batch).loss
        engine.backward(loss)
        engine.step()
        if request["rank"] == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    torch.distributed.barrier()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
