"""What is known of the training settings: DeepSpeed keys, TrainingArguments, world size, model type, usage words."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.matrix.deepspeed_names import TOP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

#: DeepSpeed's keys that, written without a dot, are the Trainer's arguments of that name.
TRAINER_WORDS = frozenset({"bf16", "fp16", "log_level"})

#: Where the Trainer keeps what a DeepSpeed key given as `auto` becomes.
TRAINER_NAMES = {
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_clipping": "max_grad_norm",
    "bf16.enabled": "bf16",
    "fp16.enabled": "fp16",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "scheduler.params.warmup_num_steps": "warmup_steps",
}

#: Keys that the Trainer (through accelerate) fills in also where the DeepSpeed file lacks them.
FILLED = frozenset({
    "gradient_accumulation_steps", "train_micro_batch_size_per_gpu", "bf16.enabled", "fp16.enabled",
})  # fmt: skip


#: TrainingArguments that say what the user's code does: argument -> usage words of the rules.
IMPLIED = {
    "torch_compile": ("torch-compile",),
    "resume_from_checkpoint": ("resume-from-checkpoint",),
}


class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


#: A key that is known not to be set.
UNSET = Unset()


class Unsaid:
    """The type of `UNSAID`."""

    def __repr__(self) -> str:
        return "UNSAID"


#: A key of which nothing is known.
UNSAID = Unsaid()

AUTO = "auto"

#: Prefix under which `Settings.values` keeps a TrainingArguments value that a DeepSpeed key of the same name hides.
TRAINER = "trainer:"


class Settings(NamedTuple):
    """The settings that were given.

    Attributes:
        values: Flat: dotted DeepSpeed keys, TrainingArguments names, `world_size`, `model_type`. `UNSET` is allowed.
        deepspeed_complete: True when a whole DeepSpeed file was given: a key it lacks is not set.
        trainer_complete: True when TrainingArguments were given: an argument they lack has its default.
        uses: Usage words the user said apply.
    """

    values: Mapping[str, Any] = MappingProxyType({})
    deepspeed_complete: bool = False
    trainer_complete: bool = False
    uses: frozenset[str] = frozenset()

    def get(self, key: str) -> Any:  # noqa: ANN401 - settings are JSON values
        """The value of `key`, `UNSET`, or `UNSAID`; `auto` is looked up on the Trainer's side and is else `UNSAID`."""
        value = self.values.get(key, UNSAID)
        if key in TRAINER_WORDS and isinstance(value, dict):  # DeepSpeed's section of the same name
            value = self.values.get(f"{TRAINER}{key}", UNSAID)
        if value == AUTO:
            return self._from_trainer(key)
        if value is not UNSAID:
            return value
        if key in FILLED and (filled := self._from_trainer(key)) is not UNSAID:
            return filled
        if key in ("world_size", "model_type"):
            return UNSAID
        known = self.deepspeed_complete if is_deepspeed_key(key) else self.trainer_complete
        return UNSET if known else UNSAID

    def _from_trainer(self, key: str) -> Any:  # noqa: ANN401 - settings are JSON values
        name = TRAINER_NAMES.get(key)
        value = self.values.get(f"{TRAINER}{name}", UNSAID) if name else UNSAID
        return UNSAID if value == AUTO else value


def is_deepspeed_key(key: str) -> bool:
    """True for a dotted key or a top-level key of DeepSpeed's; every other name is an argument of the Trainer."""
    return "." in key or (key in TOP_LEVEL and key not in TRAINER_WORDS)


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested JSON object as dotted keys; lists and empty objects stay values.

    A section also keeps its own name as a key holding the object, so that `set` conditions can ask for it.
    """
    flat: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        flat[name] = value
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
    return flat


def combine(
    deepspeed: dict[str, Any] | None, trainer: dict[str, Any] | None, told: dict[str, Any], uses: frozenset[str],
) -> Settings:  # fmt: skip
    """Settings from a DeepSpeed document, TrainingArguments, and single settings told on the command line.

    A told value wins over both files; a DeepSpeed value over the Trainer's of the same name.
    A `deepspeed` object inside the TrainingArguments serves where no document is given.
    """
    if deepspeed is None and trainer is not None and isinstance(trainer.get("deepspeed"), dict):
        deepspeed = trainer["deepspeed"]
    values: dict[str, Any] = {}
    if trainer is not None:
        values.update({f"{TRAINER}{name}": value for name, value in trainer.items()})
        values.update({name: value for name, value in trainer.items() if name != "deepspeed"})
    if deepspeed is not None:
        values.update(flatten(deepspeed))
    values.update(told)
    return Settings(values, deepspeed is not None, trainer is not None, uses | implied(values, deepspeed, trainer))


def implied(values: Mapping[str, Any], deepspeed: object, trainer: object) -> frozenset[str]:
    """The usage words that the settings themselves say: a Trainer, a resumed run, a compiled model."""
    words = {"hf-trainer"} if trainer is not None else set()
    for argument, said in IMPLIED.items():
        if values.get(argument) not in (None, False, "", "False", AUTO, UNSET):
            words.update(said)
    if "resume-from-checkpoint" in words and deepspeed is not None:
        words.add("deepspeed-load-checkpoint")
    return frozenset(words)
