"""The real transformers.Trainer with a DeepSpeed configuration, watched through its callbacks."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Set

import torch

from . import models, observe
from .engine import Steps, _clip, _dispose, _norm
from .reference import Named, Reference

#: Keys of TrainingArguments that the probe decides itself.
OURS = {
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "logging_steps": 1,
    "logging_strategy": "steps",
    "remove_unused_columns": False,
    "dataloader_num_workers": 0,
    "optim": "sgd",
    "weight_decay": 0.0,
}


def run(context: Any, scenario: Dict[str, Any]) -> None:  # noqa: ANN401 - the worker's context
    """One scenario under the Trainer; every rank calls it."""
    import transformers

    journal = context.journal
    journal.doing("build model")
    _forget_configuration()  # else an earlier ZeRO-3 scenario would have the model built in pieces
    model = models.build(scenario["model"], scenario["seed"])
    reference = Reference(model, scenario["dtype"]) if context.rank == 0 else None
    names = observe.trainable(model)
    _plain_check(context, scenario, model)
    if not names:
        journal.write("note", note="no trainable parameters")
        return
    vocabulary = models.vocabulary_of(model)
    journal.doing("TrainingArguments")
    args = transformers.TrainingArguments(**arguments(context, scenario))
    watcher = _watcher_class()(context, scenario, Steps(context, scenario, reference, names))
    trainer = transformers.Trainer(
        model=model,
        args=args,
        train_dataset=_data(scenario, context.world_size, vocabulary),
        data_collator=_collate,
        callbacks=[watcher],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    watcher.trainer = trainer
    watcher.rates = _rates(args, scenario)
    model.register_forward_pre_hook(watcher.before_forward, with_kwargs=True)
    model.register_forward_hook(watcher.after_forward)
    journal.doing("Trainer.train: before the first step")
    try:
        trainer.train()
    finally:
        journal.write("trainer", accepts_loss_kwargs=bool(getattr(trainer, "model_accepts_loss_kwargs", False)))
        if getattr(trainer, "deepspeed", None) is not None:
            _dispose(trainer.deepspeed)
    if not watcher.stepped:
        journal.write("note", note="the Trainer took no step through DeepSpeed")


def _forget_configuration() -> None:
    """Make transformers and accelerate forget the DeepSpeed configuration and the dtype of earlier TrainingArguments.

    They leave both behind: in a global, and in environment variables that later TrainingArguments read.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    try:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config
    except ImportError:
        from transformers.deepspeed import unset_hf_deepspeed_config
    unset_hf_deepspeed_config()


def arguments(context: Any, scenario: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ANN401
    """TrainingArguments: the scenario's, with what the probe needs; names that this release lacks are left out."""
    import inspect

    import transformers

    known = inspect.signature(transformers.TrainingArguments.__init__).parameters
    wanted = dict(scenario["training_args"])
    wanted.update(OURS)
    wanted.update(
        output_dir=f"{context.scratch}/trainer",
        max_steps=scenario["steps"],
        per_device_train_batch_size=scenario["micro_batch"],
        gradient_accumulation_steps=scenario["accumulation"],
        learning_rate=scenario["lr"],
        seed=scenario["seed"],
        deepspeed=scenario["config"],
        bf16=scenario["dtype"] == "bf16",
        fp16=scenario["dtype"] == "fp16",
    )
    if context.device == "cpu":
        wanted["use_cpu" if "use_cpu" in known else "no_cuda"] = True
    return {key: value for key, value in wanted.items() if key in known}


def _data(scenario: Dict[str, Any], ranks: int, vocabulary: int) -> List[models.Batch]:
    """Samples of every micro-batch of every rank and step; the Trainer shuffles and deals them out as it does."""
    samples = []
    for step in range(scenario["steps"]):
        for rank in range(ranks):
            for micro in range(scenario["accumulation"]):
                batch = models.batch(vocabulary, scenario["seed"], step, rank, micro, scenario["micro_batch"])
                samples += [{"input_ids": i, "labels": t} for i, t in zip(batch["input_ids"], batch["labels"])]
    return samples


def _rates(args: Any, scenario: Dict[str, Any]) -> List[float]:  # noqa: ANN401
    """The learning rate of every step by the schedule that the arguments ask for, on a plain optimizer."""
    import transformers

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=args.learning_rate)
    schedule = transformers.get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(scenario["steps"]),
        num_training_steps=scenario["steps"],
    )
    rates = []
    for _ in range(scenario["steps"]):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def _collate(samples: List[models.Batch]) -> models.Batch:
    return {key: torch.stack([sample[key] for sample in samples]) for key in ("input_ids", "labels")}


def _plain_check(context: Any, scenario: Dict[str, Any], model: torch.nn.Module) -> None:  # noqa: ANN401
    """Before DeepSpeed: parameters finite? one forward finite? does every trainable parameter get a gradient?

    Gradient checkpointing is switched on as the TrainingArguments say, since it can cut the graph.
    """
    if context.rank != 0:
        return
    import copy

    journal = context.journal
    journal.doing("one forward and backward without DeepSpeed")
    for name, count in observe.scan(model):
        journal.write("note", note=f"parameter `{name}` holds {count} non-finite values before any training")
    plain = copy.deepcopy(model)
    if scenario["training_args"].get("gradient_checkpointing"):
        options = scenario["training_args"].get("gradient_checkpointing_kwargs") or {}
        plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        plain.train()
    batch = models.batch(models.vocabulary_of(model), scenario["seed"], 0, 0, 0, scenario["micro_batch"])
    loss = models.loss_of(plain(**batch))
    cut: List[str] = []
    if loss.requires_grad:
        loss.backward()
        cut = [name for name, parameter in plain.named_parameters() if parameter.requires_grad and parameter.grad is None]
    else:
        cut = observe.trainable(plain)
    journal.write("plain", loss=float(loss.detach()), without_gradient=cut[:10], count=len(cut))


class _Watch:
    """What the callbacks share: parameters before and after a step, the batches that were really fed, the log."""

    def __init__(self, context: Any, scenario: Dict[str, Any], steps: Steps) -> None:  # noqa: ANN401
        self.context = context
        self.scenario = scenario
        self.steps = steps
        self.trainer: Any = None
        self.batches: List[models.Batch] = []
        self.losses: List[float] = []
        self.before: Optional[Named] = None
        self.rough: Set[str] = set()
        self.lr = 0.0
        self.stepped = 0
        self.rates: List[float] = []

    def before_forward(self, _module: Any, _args: Any, kwargs: Dict[str, Any]) -> None:  # noqa: ANN401
        """Keep what the model is really given; read the parameters before the first micro-batch of a step."""
        self.batches.append({key: kwargs[key].detach().cpu() for key in ("input_ids", "labels")})
        self.context.journal.doing(f"step {self.stepped + 1}: micro-batch {len(self.batches)}")

    def after_forward(self, _module: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
        """Keep the raw loss, before the Trainer filters it."""
        self.losses.append(float(models.loss_of(output).detach()))

    def begin(self) -> None:
        """A step begins."""
        engine = self.trainer.deepspeed
        self.batches, self.losses = [], []
        self.context.journal.doing(f"step {self.stepped + 1}: read parameters")
        self.rough = set()
        self.before = observe.parameters(engine, self.steps.names, self.scenario["stage"], self.rough)
        self.lr = float(engine.optimizer.param_groups[0]["lr"])

    def end(self) -> None:
        """A step ended: read, share the batches, compare."""
        engine = self.trainer.deepspeed
        self.context.journal.doing(f"step {self.stepped + 1}: read parameters after it")
        after = observe.parameters(engine, self.steps.names, self.scenario["stage"])
        seen = {
            "losses": self.losses,
            "lr": self.lr,
            "expected_lr": self._expected_rate(),
            "norm": _norm(engine),
            "clip": _clip(engine),
            "rough": sorted(self.rough),
            "skipped_steps": int(getattr(engine, "skipped_steps", 0)),
            "overflow": bool(getattr(engine.optimizer, "overflow", False)),
            "loss_scale": float(getattr(engine.optimizer, "loss_scale", 1.0) or 1.0),
        }
        if self.scenario["stage"] != observe.PARTITIONED:
            seen["digest"] = observe.digest(engine.module)
        everything = self._everything()
        assert self.before is not None  # noqa: S101 - begin() came first
        self.steps.record(self.stepped, self.before, after, seen, everything)
        self.stepped += 1

    def _expected_rate(self) -> Optional[float]:
        return self.rates[self.stepped] if self.stepped < len(self.rates) else None

    def _everything(self) -> List[models.Batch]:
        """The batches of all ranks, rank-major. A collective."""
        import torch.distributed as dist

        mine = torch.stack([torch.stack([one["input_ids"], one["labels"]]) for one in self.batches]).to(self.trainer.args.device)
        gathered = [torch.empty_like(mine) for _ in range(self.context.world_size)]
        dist.all_gather(gathered, mine)
        return [{"input_ids": one[0], "labels": one[1]} for rank in gathered for one in rank.cpu()]


def _watcher_class() -> Any:  # noqa: ANN401 - a class, made here since transformers is imported late
    import transformers

    class Watcher(_Watch, transformers.TrainerCallback):
        """Hands the Trainer's events on."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ANN401, ARG002
            self.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ANN401, ARG002
            self.end()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:  # noqa: ANN401, ARG002
            plain = {key: value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
            types = {key: type(value).__name__ for key, value in plain.items()}
            self.context.journal.write("log", step=int(state.global_step) - 1, logs=plain, types=types)

    return Watcher
