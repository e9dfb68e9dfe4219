"""Which parameters the checkpoint of a model holds: names only, from the headers and index files, without loading anything."""

from __future__ import annotations

import json
import struct
from pathlib import Path

#: A header that claims to be longer is none (the format's own limit, safetensors).
LONGEST_HEADER = 100_000_000

#: Index files, and the single file that stands in their place.
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = "model.safetensors"

#: The share of a model's names that a checkpoint must hold before an absent one means anything: others are named differently.
KNOWN_SHARE = 0.5


def names(folder: str) -> set[str] | None:
    """The parameter names in a checkpoint folder; None where there is none, or it cannot be read by its headers alone."""
    home = Path(folder)
    try:
        for index in INDEXES:
            if (home / index).is_file():
                return set(json.loads((home / index).read_text(encoding="utf-8"))["weight_map"])
        return header(home / SINGLE) if (home / SINGLE).is_file() else None
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def header(path: Path) -> set[str]:
    """The tensor names of one safetensors file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not one.
        struct.error: It is too short to be one.
    """
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > LONGEST_HEADER:
            raise ValueError(f"{path}: a header of {length} bytes")
        return set(json.loads(stream.read(length))) - {"__metadata__"}


def absent(model: list[str], held: set[str], prefix: str = "") -> tuple[set[str], set[str]] | None:
    """The model's names that the checkpoint lacks, and of these the ones whose siblings it holds.

    A checkpoint of the bare model lacks the head's prefix, and the reverse: both spellings count. None where the two name most
    parameters differently.

    Args:
        model: Parameter names of the model.
        held: Names in the checkpoint.
        prefix: `base_model_prefix` of the model.
    """
    dotted = f"{prefix}." if prefix else ""
    known = held | {dotted + name for name in held} | {name[len(dotted) :] for name in held if dotted and name.startswith(dotted)}
    missing = {name for name in model if name not in known}
    if len(missing) > len(model) * (1 - KNOWN_SHARE):
        return None
    loaded = set(model) - missing
    return missing, {name for name in missing if _beside(name, loaded)}


def _beside(name: str, loaded: set[str]) -> bool:
    """Does another layer of the same numbered list, or another parameter of the same module, come from the checkpoint?"""
    parts = name.split(".")
    parent = ".".join(parts[:-1]) + "."
    if len(parts) > 1 and any(one.startswith(parent) for one in loaded):
        return True
    for index, part in enumerate(parts[:-1]):
        home = ".".join(parts[:index]) + "." if index else ""
        if part.isdigit() and home:
            own = f"{home}{part}."
            return any(one.startswith(home) and not one.startswith(own) for one in loaded) and not any(
                one.startswith(own) for one in loaded
            )
    return False
