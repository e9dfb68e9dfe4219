"""What to run: scenarios, and the request that the ranks read. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

#: Stages in the order of the mission: ZeRO-2 first.
STAGE_ORDER = (2, 1, 3, 0)

#: Samples in a micro-batch of the tiny models.
MICRO_BATCH = 4

#: Optimizer steps of a scenario: two show what survives a step, the third that it keeps doing so.
STEPS = 3

#: Steps of a Trainer scenario in the quick set: they cost most.
QUICK_TRAINER_STEPS = 2

ENGINE, TRAINER = "engine", "trainer"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One training run of a few steps.

    Attributes:
        path: `engine` (bare `deepspeed.initialize`) or `trainer` (transformers.Trainer).
        model: What `probe_worker.models.build` knows, `module:function`, or a folder.
        stage: ZeRO stage.
        dtype: fp32, bf16 or fp16.
        accumulation: Micro-batches per optimizer step and rank.
        label: What is special about it, a few words, or an empty string.
        config: The DeepSpeed configuration.
        training_args: TrainingArguments (Trainer path only).
        backward_calls: `engine` (the engine counts), `boundary` (several backward calls with accumulation 1 in the
            configuration, boundaries marked) or `unmarked` (likewise, not marked).
        changes: What was changed of the user's configuration, one sentence each.
    """

    path: str
    model: str
    stage: int
    dtype: str
    accumulation: int
    label: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    training_args: dict[str, Any] = field(default_factory=dict)
    backward_calls: str = "engine"
    seed: int = 1
    steps: int = STEPS
    micro_batch: int = MICRO_BATCH
    lr: float = 1.0
    changes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`engine-zero2-bf16-accumulation3-mlp-small-buckets`."""
        parts = [
            self.path,
            f"zero{self.stage}",
            self.dtype,
            f"accumulation{self.accumulation}",
            self.model.rsplit("/", 1)[-1],
            self.label,
        ]
        words = "-".join(part for part in parts if part) + (f"-seed{self.seed}" if self.seed != 1 else "")
        return "".join(char if char.isalnum() or char in "-._" else "-" for char in words)

    @property
    def own_model(self) -> bool:
        """The user's: `module:function`, or a folder (an absolute path)."""
        return ":" in self.model or "/" in self.model

    def as_request(self) -> dict[str, Any]:
        """The plain form that the worker reads."""
        names = (
            "id",
            "path",
            "model",
            "stage",
            "dtype",
            "accumulation",
            "config",
            "training_args",
            "backward_calls",
            "seed",
            "steps",
            "micro_batch",
            "lr",
        )
        return {name: getattr(self, name) for name in names}


def scenario(path: str, model: str, stage: int, dtype: str, accumulation: int, label: str = "", **zero: Any) -> Scenario:  # noqa: ANN401 - DeepSpeed settings
    """A scenario of our own; `zero` are keys of `zero_optimization`."""
    made = Scenario(path, model, stage, dtype, accumulation, label)
    config = base_config(made, {"stage": stage, **zero})
    if path == TRAINER:
        return replace(made, config=config, training_args={"max_grad_norm": 1.0, "lr_scheduler_type": "constant"})
    return replace(made, config=config)


def base_config(made: Scenario, zero: dict[str, Any]) -> dict[str, Any]:
    """The DeepSpeed configuration of a scenario; clipping is said outright, since releases differ in the default."""
    auto = made.path == TRAINER
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto" if auto else made.micro_batch,
        "gradient_accumulation_steps": "auto" if auto else made.accumulation,
        "gradient_clipping": "auto" if auto else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    if made.dtype == "bf16":
        config["bf16"] = {"enabled": "auto" if auto else True}
    if made.dtype == "fp16":
        config["fp16"] = {"enabled": "auto" if auto else True, "initial_scale_power": 8}
    return config


def with_config(made: Scenario, **keys: Any) -> Scenario:  # noqa: ANN401 - DeepSpeed settings
    """The scenario with top-level DeepSpeed keys set."""
    return replace(made, config={**made.config, **keys})


def quick(stages: tuple[int, ...], paths: tuple[str, ...]) -> list[Scenario]:
    """The default set: the settings under which the known faults show, in the order of the mission."""
    chosen: list[Scenario] = []
    for stage in stages:
        if ENGINE in paths:
            chosen += _quick_engine(stage)
        if TRAINER in paths:
            chosen += _quick_trainer(stage)
    return chosen


def _quick_engine(stage: int) -> list[Scenario]:
    outputs = scenario(ENGINE, "mlp-outputs", stage, "bf16", 3)
    if stage == STAGE_ORDER[0]:
        return [
            scenario(ENGINE, "mlp", stage, "fp32", 3, "small-buckets", reduce_bucket_size=300, allgather_bucket_size=300),
            outputs,
            with_config(scenario(ENGINE, "mlp-tied", stage, "fp32", 1, "clipped"), gradient_clipping=0.5),
            scenario(ENGINE, "mlp-frozen", stage, "bf16", 3, "offload", offload_optimizer={"device": "cpu"}),
        ]
    if stage == 1:
        return [outputs, scenario(ENGINE, "mlp", stage, "fp32", 3)]
    return [scenario(ENGINE, "mlp", stage, "bf16", 3) if stage == 0 else outputs]


def _quick_trainer(stage: int) -> list[Scenario]:
    models = ("llama-tied", "llama-projector") if stage == STAGE_ORDER[0] else ("llama-tied",)
    return [replace(scenario(TRAINER, model, stage, "bf16", 3), steps=QUICK_TRAINER_STEPS) for model in models]


def thorough(stages: tuple[int, ...], paths: tuple[str, ...], dtypes: tuple[str, ...]) -> list[Scenario]:
    """Everything: stages x dtypes x accumulation x options."""
    chosen: list[Scenario] = []
    for stage in stages:
        if ENGINE in paths:
            for dtype in dtypes:
                chosen += _thorough_engine(stage, dtype)
        if TRAINER in paths:
            for dtype in dtypes:
                chosen += _thorough_trainer(stage, dtype)
    return list({item.id: item for item in [*quick(stages, paths), *chosen]}.values())


def _thorough_engine(stage: int, dtype: str) -> list[Scenario]:
    made = [scenario(ENGINE, "mlp", stage, dtype, accumulation) for accumulation in (1, 2, 4)]
    made += [
        scenario(ENGINE, model, stage, dtype, 3)
        for model in ("mlp-outputs", "mlp-tied", "mlp-frozen", "llama-tied", "llama-projector")
    ]
    made.append(with_config(scenario(ENGINE, "mlp", stage, dtype, 3, "clipped"), gradient_clipping=0.5))
    if stage:
        made += [scenario(ENGINE, "mlp", stage, dtype, 3, label, **keys) for label, keys in _options(stage)]
    if stage == 1 and dtype == "bf16":
        made.append(
            with_config(scenario(ENGINE, "mlp", stage, dtype, 3, "fp32-accumulation"), data_types={"grad_accum_dtype": "fp32"})
        )
    if stage and dtype != "fp16":
        for label, calls in (("marked-boundaries", "boundary"), ("unmarked-boundaries", "unmarked")):
            one = scenario(ENGINE, "mlp", stage, dtype, 3, label)
            made.append(replace(with_config(one, gradient_accumulation_steps=1), backward_calls=calls))
    return made


def _options(stage: int) -> list[tuple[str, dict[str, Any]]]:
    common: list[tuple[str, dict[str, Any]]] = [
        ("small-buckets", {"reduce_bucket_size": 300, "allgather_bucket_size": 300}),
        ("large-buckets", {"reduce_bucket_size": 1_000_000, "allgather_bucket_size": 1_000_000}),
        ("overlap", {"overlap_comm": True}),
        ("not-contiguous", {"contiguous_gradients": False}),
        ("offload", {"offload_optimizer": {"device": "cpu"}}),
    ]
    if stage in (1, 2):
        common.append(("round-robin", {"round_robin_gradients": True}))
    return common


def _thorough_trainer(stage: int, dtype: str) -> list[Scenario]:
    made = [
        scenario(TRAINER, model, stage, dtype, accumulation)
        for model in ("llama-tied", "llama-frozen", "llama-projector")
        for accumulation in (1, 3)
    ]
    return [*made, scenario(TRAINER, "llama-head", stage, dtype, 3)]


def request(scenarios: list[Scenario], world_size: int, device: str, scratch: str, rendezvous: str) -> dict[str, Any]:
    """What the ranks read: scenarios, world size, device, a scratch folder and the rendezvous file."""
    return {
        "world_size": world_size,
        "device": device,
        "scratch": scratch,
        "rendezvous": rendezvous,
        "scenarios": [item.as_request() for item in scenarios],
    }
