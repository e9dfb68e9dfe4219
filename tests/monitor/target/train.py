"""One rank of real training runs with the monitor, one after another; it runs in the target interpreter.

Usage: train.py SCENARIOS (a JSON list: name, way, stage, dtype, accumulation, steps, fault, ...) FOLDER
Writes FOLDER/NAME.RANK.json with the findings of each; what it prints is preceded by a line `scenario: NAME`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Dict, List

SCENARIO = {}  # type: Dict[str, Any]
RANK = int(os.environ["RANK"])
SCENARIO_LINE = "scenario: "  # before what each prints
WIDTH, VOCABULARY, TOKENS, MICRO = 16, 64, 8, 4


def main() -> None:
    import torch

    shims()
    whole_gathers()
    import deepspeed

    torch.set_num_threads(1)
    without_compilation()
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    for scenario in json.loads(sys.argv[1]):
        SCENARIO.clear()
        SCENARIO.update(scenario)
        SCENARIO["folder"] = os.path.join(sys.argv[2], scenario["name"])
        SCENARIO["output"] = os.path.join(sys.argv[2], scenario["name"] + ".jsonl")
        print(SCENARIO_LINE + scenario["name"], file=sys.stderr, flush=True)
        one()
    sys.stdout.flush()
    os._exit(0)


def one() -> None:
    import torch

    torch.manual_seed(SCENARIO.get("seed", 1))
    begin = time.time()
    way = {"trainer": trainer, "engine": engine, "loop": loop}[SCENARIO.get("way", "trainer")]
    found = way()
    name = os.path.join(sys.argv[2], f"{SCENARIO['name']}.{RANK}.json")
    plain = [{"id": item.id, "because": list(item.because), "title": item.title} for item in found]
    with open(name, "w", encoding="utf-8") as file:
        json.dump({"findings": plain, "seconds": time.time() - begin}, file)


def shims() -> None:
    """What releases of DeepSpeed for old torch or for Intel's packages want on a CPU."""
    import importlib.util
    import types
    from importlib import metadata

    from torch.distributed.elastic.agent.server import api

    old = tuple(int(part) for part in metadata.version("deepspeed").split(".")[:2]) < (0, 14)
    for name in ("log", "_get_socket_with_port"):
        if not hasattr(api, name):
            setattr(api, name, __import__("logging").getLogger(name))
    if old:
        for name in ("intel_extension_for_pytorch", "oneccl_bindings_for_pytorch"):
            if importlib.util.find_spec(name) is None:
                module = types.ModuleType(name)
                module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
                module._C = types.SimpleNamespace()  # type: ignore[attr-defined]
                sys.modules[name] = module


def whole_gathers() -> None:
    """`all_gather_into_tensor` for gloo, which torch has only since 2.2; no views, which torch 2.13 refuses to fill."""
    import torch
    import torch.distributed as dist

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 2):
        own = dist.all_gather_into_tensor

        def detached(output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False) -> Any:
            return own(output_tensor.detach(), input_tensor.detach(), group=group, async_op=async_op)

        dist.all_gather_into_tensor = detached
        return

    def gather(output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False) -> Any:
        parts = list(output_tensor.detach().view(-1).chunk(dist.get_world_size(group)))
        return dist.all_gather(parts, input_tensor.reshape(-1).contiguous(), group=group, async_op=async_op)

    def scatter(output: Any, input: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, **_: Any) -> Any:  # noqa: A002
        summed = input.clone()
        dist.all_reduce(summed, op=op, group=group)
        output.copy_(summed.view(-1).chunk(dist.get_world_size(group))[dist.get_rank(group)].view_as(output))

    dist.all_gather_into_tensor = gather
    dist._all_gather_base = gather
    dist.reduce_scatter_tensor = scatter
    dist._reduce_scatter_base = scatter


def without_compilation() -> None:
    """Keep DeepSpeed from compiling its shared-memory collective, which takes minutes."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if getattr(accelerator, "_communication_backend_name", "") == "ccl":
        accelerator._communication_backend_name = "gloo"  # oneCCL is not there
    build = accelerator.create_op_builder
    accelerator.create_op_builder = lambda name: None if name == "ShareMemCommBuilder" else build(name)


def config() -> Dict[str, Any]:
    dtype = SCENARIO.get("dtype", "fp32")
    made = {
        "train_micro_batch_size_per_gpu": MICRO,
        "gradient_accumulation_steps": SCENARIO.get("accumulation", 1),
        # buckets of the default size take gigabytes and, on old releases, a minute
        "zero_optimization": {"stage": SCENARIO.get("stage", 2), "reduce_bucket_size": 100000, "allgather_bucket_size": 100000},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1000000,
        "bf16": {"enabled": dtype == "bf16"},
    }  # type: Dict[str, Any]
    made.update(SCENARIO.get("config", {}))
    return made


def llama(**options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    configuration = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, use_cache=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        **options,
    )  # fmt: skip
    configuration._attn_implementation = "eager"
    return LlamaForCausalLM(configuration)


def with_projector(depth: int = 2) -> Any:
    """A frozen language model with a trained projector before it."""
    import torch
    from torch import nn

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.language_model = llama()
            self.config = self.language_model.config
            self.mm_projector = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(depth)))
            for parameter in self.language_model.parameters():
                parameter.requires_grad_(False)

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            hidden = self.mm_projector(self.language_model.get_input_embeddings()(input_ids))
            return self.language_model(inputs_embeds=hidden, labels=labels)

    return Vision()


def model() -> Any:
    import torch

    fault = SCENARIO.get("fault", "")
    if fault in ("projector-left-out", "late-projector") or SCENARIO.get("model") == "projector":
        return with_projector()
    if fault == "short-checkpoint":
        return short_checkpoint()
    made = llama()
    if fault == "nan-weight":
        with torch.no_grad():
            made.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    if fault == "frozen":
        for parameter in made.parameters():
            parameter.requires_grad_(False)
    if fault == "unused":
        made.extra = torch.nn.Linear(WIDTH, WIDTH)
    return made


def short_checkpoint() -> Any:
    """A model that is loaded from a checkpoint saved before its projector was made longer; fresh memory holds NaN."""
    import torch
    from torch import nn
    from transformers import LlamaConfig, PreTrainedModel

    class Extended(PreTrainedModel):
        config_class = LlamaConfig
        base_model_prefix = ""
        _supports_sdpa = False

        def __init__(self, config: Any, depth: int = 1) -> None:
            super().__init__(config)
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.mm_projector = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
            self.head = nn.Linear(WIDTH, VOCABULARY)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            """None of its own, as many a projector."""

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            hidden = self.embedding(input_ids)
            for layer in self.mm_projector:
                hidden = torch.tanh(layer(hidden))
            logits = self.head(hidden)
            return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}

    folder = SCENARIO["folder"]
    configuration = LlamaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_attention_heads=2, num_key_value_heads=2)
    if RANK == 0:
        Extended(configuration).save_pretrained(folder, safe_serialization=True)
    torch.distributed.barrier()
    torch.use_deterministic_algorithms(True, warn_only=True)  # has torch.empty fill with NaN, which memory may hold by chance
    try:
        return Extended.from_pretrained(folder, depth=3)
    finally:
        torch.use_deterministic_algorithms(False)


def batches(count: int) -> List[Dict[str, Any]]:
    """`count` micro-batches of this rank, or single samples for the Trainer, that cannot be learnt by heart at once."""
    import torch

    generator = torch.Generator().manual_seed(SCENARIO.get("seed", 1) * 1009 + RANK)
    made = []
    for number in range(count):
        ids = torch.randint(3, VOCABULARY, (MICRO, TOKENS), generator=generator)
        ids[:, 1::2] = ids[:, :-1:2]  # something to learn
        labels = ids.clone()
        if SCENARIO.get("fault") == "labels-ignored":
            labels[:] = -100
        made.append({"input_ids": ids, "labels": labels})
        del number
    return made


def trainer() -> Any:
    import torch
    import transformers

    from envcheck.monitor import TrainerMonitor

    fault = SCENARIO.get("fault", "")
    steps, accumulation = SCENARIO.get("steps", 12), SCENARIO.get("accumulation", 1)
    dtype = SCENARIO.get("dtype", "fp32")
    forget()
    made = model()
    known = transformers.TrainingArguments.__init__.__code__.co_varnames
    wanted = {
        "output_dir": SCENARIO["folder"],
        "max_steps": steps,
        "per_device_train_batch_size": MICRO,
        "learning_rate": 1e-3,
        "gradient_accumulation_steps": accumulation,
        "deepspeed": config(),
        "bf16": dtype == "bf16",
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu" if "use_cpu" in known else "no_cuda": True,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
    }  # type: Dict[str, Any]
    wanted.update(SCENARIO.get("arguments", {}))
    arguments = transformers.TrainingArguments(**wanted)
    samples = [
        {key: value[row] for key, value in batch.items()} for batch in batches(2 * steps * accumulation) for row in range(MICRO)
    ]
    monitor = TrainerMonitor(action=SCENARIO.get("action", "warn"), output=SCENARIO["output"])
    callbacks = [monitor]  # type: List[Any]
    if fault == "late-projector":
        callbacks.append(late(transformers))
    kind = leaving_out(transformers) if fault == "projector-left-out" else transformers.Trainer
    run = kind(
        model=made, args=arguments, train_dataset=samples, callbacks=callbacks,
        data_collator=lambda rows: {key: torch.stack([row[key] for row in rows]) for key in ("input_ids", "labels")},
    )  # fmt: skip
    begin = time.time()
    try:
        run.train()
    except Exception as error:  # noqa: BLE001 - some faults end the run
        print(f"the run raised {type(error).__name__}: {error}", file=sys.stderr)
        import atexit

        atexit._run_exitfuncs()
    finally:
        if getattr(run, "deepspeed", None) is not None and hasattr(run.deepspeed, "destroy"):
            run.deepspeed.destroy()
    print(f"{run.state.global_step} steps in {time.time() - begin:.1f} s", file=sys.stderr)
    return monitor.findings


def forget() -> None:
    """Make transformers and accelerate forget the configuration of the scenario before."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    try:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config
    except ImportError:
        from transformers.deepspeed import unset_hf_deepspeed_config
    unset_hf_deepspeed_config()


def leaving_out(transformers: Any) -> Any:
    class Left(transformers.Trainer):
        """Makes its own parameter groups, as vision models' trainers do, and knows only the first layer of the projector."""

        def create_optimizer(self, *_: Any) -> Any:
            import torch

            kept = [parameter for name, parameter in self.model.named_parameters() if name.startswith("mm_projector.0")]
            self.optimizer = torch.optim.AdamW(kept, lr=1e-3)
            return self.optimizer

    return Left


def late(transformers: Any) -> Any:
    class Late(transformers.TrainerCallback):
        """Puts another layer into the projector after the engine was built."""

        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
            import torch

            if state.global_step == 0 and len(model.mm_projector) == 2:
                model.mm_projector.append(torch.nn.Linear(WIDTH, WIDTH))

    return Late()


def engine() -> Any:
    """The bare engine, watched through its hook."""
    import deepspeed
    import torch

    from envcheck import monitor

    made = model()
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    built = deepspeed.initialize(
        model=made, optimizer=torch.optim.AdamW(trained, lr=1e-3), config=config(), model_parameters=trained
    )[0]
    watch = monitor.watch(built, action=SCENARIO.get("action", "warn"), output=SCENARIO["output"])
    for batch in batches(SCENARIO.get("steps", 12) * SCENARIO.get("accumulation", 1)):
        output = built(**batch)
        built.backward(output.loss if hasattr(output, "loss") else output["loss"])
        built.step()
    return watch.end() if watch else ()


def loop() -> Any:
    """An own loop in plain torch."""
    import torch

    from envcheck import monitor

    made = model()
    optimizer = torch.optim.AdamW([one for one in made.parameters() if one.requires_grad], lr=1e-3)
    watch = monitor.Monitor(action="warn", output=SCENARIO["output"])
    for batch in batches(SCENARIO.get("steps", 12)):
        watch.model(made, optimizer)
        optimizer.zero_grad()
        loss = made(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        watch.step(loss=loss, lr=optimizer.param_groups[0]["lr"], grad_norm=norm, model=made)
    return watch.end()


if __name__ == "__main__":
    main()
