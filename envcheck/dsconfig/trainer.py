"""TrainingArguments, from JSON or from a pasted launch command, with the defaults that decide what DeepSpeed gets."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Defaults of TrainingArguments that the DeepSpeed integration reads (transformers 4.57.6, training_args.py).
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "warmup_steps": 0,
    "warmup_ratio": 0.0,
    "max_steps": -1,
    "fp16": False,
    "bf16": False,
    "lr_scheduler_type": "linear",
}

#: What stands for a value that the command leaves to a shell variable.
OPEN = "auto"

#: Launcher options that take a value and come before the script.
RANKS = ("--nproc_per_node", "--nproc-per-node", "--num_gpus", "--num_processes")
NODES = ("--nnodes", "--num_nodes", "--num_machines")

WORDS: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}


class TrainerArguments(NamedTuple):
    """What is known of the Trainer's arguments.

    Attributes:
        values: As given; `auto` for what a shell variable decides.
        world_size: Ranks that the launcher starts, or None.
        deepspeed: The DeepSpeed file the command names, or an empty string.
        unread: Words that could not be placed.
    """

    values: Mapping[str, Any] = MappingProxyType({})
    world_size: int | None = None
    deepspeed: str = ""
    unread: tuple[str, ...] = ()

    def get(self, name: str) -> Any:  # noqa: ANN401 - JSON values
        """The value, or its default; `auto` where it is not known."""
        return self.values.get(name, DEFAULTS.get(name))

    def known(self, name: str) -> bool:
        """Whether the value is known."""
        return bool(self.get(name) != OPEN)


def from_json(values: Mapping[str, Any]) -> TrainerArguments:
    """From a TrainingArguments JSON; `world_size` in it counts."""
    size = values.get("world_size")
    ranks = size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None
    rest = {name: value for name, value in values.items() if name != "world_size"}
    return TrainerArguments(rest, ranks, str(rest.get("deepspeed") or "") if isinstance(rest.get("deepspeed"), str) else "")


def from_command(command: str) -> TrainerArguments:
    """From a launch command, such as `torchrun --nproc_per_node=8 train.py --bf16 True ...`.

    Continuation lines and comments are taken; a value with a shell variable in it counts as not known.

    Raises:
        UsageError: Its quotes do not match.
    """
    import shlex  # noqa: PLC0415 - only with a command

    joined = re.sub(r"\\[ \t]*\r?\n", " ", command)
    try:
        words = shlex.split(joined, comments=True)
    except ValueError as error:
        raise UsageError(
            f"`--training-args-cmd` cannot be read: {str(error).lower()}",
            hints=("give the command as the shell would get it",),
        ) from error
    words = [word for word in words if word != "\\"]
    script = next((index for index, word in enumerate(words) if word.endswith(".py")), -1)
    launcher, rest = words[: script + 1], words[script + 1 :]
    values: dict[str, Any] = {}
    unread: list[str] = []
    for name, given in pairs(rest):
        if not name:
            unread += given
        else:
            values[name] = plain(given)
    named = values.pop("deepspeed", "")
    return TrainerArguments(values, ranks(launcher or words), named if isinstance(named, str) else "", tuple(unread))


def pairs(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Option names (with underscores) and their words; words before the first option come under an empty name."""
    name, given = "", list[str]()
    for word in words:
        if word.startswith("--") and len(word) > 2:  # noqa: PLR2004 - more than the dashes
            if name or given:
                yield name, given
            head, equals, value = word[2:].partition("=")
            name, given = head.replace("-", "_"), [value] if equals else []
        elif word in ("|", ">", ">>", "2>&1", "&&", ";", "&"):
            break
        else:
            given.append(word)
    if name or given:
        yield name, given


def plain(given: list[str]) -> Any:  # noqa: ANN401 - JSON values
    """The value of an option: true without one, a list of several."""
    if not given:
        return True
    values = [scalar(word) for word in given]
    return values[0] if len(values) == 1 else values


def scalar(word: str) -> Any:  # noqa: ANN401 - JSON values
    """A word as boolean, number or text; `auto` where a shell variable decides."""
    if "$" in word or "`" in word:
        return OPEN
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    for read in (int, float):
        try:
            return read(word)
        except ValueError:
            continue
    return word


def ranks(words: list[str]) -> int | None:
    """How many ranks a launcher starts; None where it does not say, or a variable does."""
    found: dict[str, Any] = {}
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in RANKS or name in NODES:
            found[name] = scalar(value if equals else words[index + 1] if index + 1 < len(words) else "")
        elif name in ("--include", "-i") and index + 1 < len(words):
            found["--num_gpus"] = _included(value if equals else words[index + 1])
    per_node = next((found[name] for name in RANKS if name in found), None)
    nodes = next((found[name] for name in NODES if name in found), 1)
    if "--num_processes" in found:
        nodes = 1  # accelerate counts over all machines
    whole = all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in (per_node, nodes))
    return per_node * nodes if whole and per_node is not None else None


def _included(text: str) -> int | None:
    """GPUs in DeepSpeed's `--include localhost:0,1@worker:2`."""
    if "$" in text or not all(":" in part for part in text.split("@")):
        return None
    return sum(len(part.split(":", 1)[1].split(",")) for part in text.split("@"))
