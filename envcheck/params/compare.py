"""A model's names and shapes against those of a checkpoint. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envcheck.params.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Comparison:
    """How names and shapes meet.

    Attributes:
        loaded: Model name -> checkpoint name.
        missing: Parameters and buffers that the checkpoint lacks.
        unexpected: Checkpoint names that the model has no place for.
        mismatched: (model name, its shape, the checkpoint's shape).
    """

    loaded: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def compare(model: Mapping[str, Any], checkpoint: Checkpoint) -> Comparison:
    """Compare by name, as from_pretrained does: with the base model's prefix added or taken away where that fits better.

    Args:
        model: The worker's `model` record.
        checkpoint: The headers.
    """
    shapes = {one["name"]: tuple(one["shape"]) for one in model["parameters"]}
    wanted = [*shapes, *model["buffers"]]
    renamed = _renamed(checkpoint.tensors, model["renames"])
    mapping = _best(wanted, renamed, str(model["prefix"]))
    loaded = {name: renamed[mapping[name]] for name in wanted if mapping.get(name) in renamed}
    missing = [name for name in wanted if name not in loaded and not _ignored(name, model["ignore_missing"])]
    missing = [name for name in missing if not _tied_away(name, model, loaded)]
    used = set(loaded.values())
    unexpected = [name for name in checkpoint.tensors if name not in used and not _ignored(name, model["ignore_unexpected"])]
    mismatched = []
    for name, key in loaded.items():
        shape = checkpoint.tensors[key].shape
        if name in shapes and shape is not None and shape != shapes[name]:
            mismatched.append((name, shapes[name], shape))
    return Comparison(loaded, tuple(missing), tuple(unexpected), tuple(mismatched))


def _renamed(tensors: Iterable[str], renames: Mapping[str, str]) -> dict[str, str]:
    """The checkpoint's names as the class renames them (`_checkpoint_conversion_mapping`) -> as they are."""
    found = {}
    for name in tensors:
        new = name
        for pattern, replacement in renames.items():
            try:
                new, count = re.subn(pattern, replacement.replace("$", "\\"), new)
            except (re.error, IndexError):
                continue
            if count:
                break
        found[new] = name
    return found


def _best(wanted: Sequence[str], names: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Model name -> the name to look for: as it is, with the prefix, or without it, whichever meets most names."""
    choices = [{name: name for name in wanted}]
    if prefix:
        choices.append({name: f"{prefix}.{name}" for name in wanted})
        choices.append({name: name.removeprefix(f"{prefix}.") for name in wanted})
    return max(choices, key=lambda choice: sum(looked in names for looked in choice.values()))


def _ignored(name: str, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        try:
            if re.search(pattern, name):
                return True
        except re.error:
            continue
    return False


def _tied_away(name: str, model: Mapping[str, Any], loaded: Mapping[str, str]) -> bool:
    """A tied parameter is not stored twice: it is there when the one it shares its memory with is."""
    if not model["tie"] or not any(name == key or _ignored(name, [key]) for key in model["tied"]):
        return False
    shapes = {one["name"]: one["shape"] for one in model["parameters"]}
    return any(shapes.get(other) == shapes.get(name) for other in loaded if other != name)


def groups(names: Sequence[str], depth: int = 2) -> dict[str, list[str]]:
    """Names by their first `depth` parts, in order: what a report says of hundreds of parameters."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        found.setdefault(".".join(parts[: min(depth, max(len(parts) - 1, 1))]), []).append(name)
    return found
