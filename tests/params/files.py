"""Write small and hostile checkpoints."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Shapes = dict[str, tuple[int, ...]]


def header_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    return header


def write(path: Path, header: object, data: int) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * data)


def weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    write(path, header_of(shapes), sum(2 * prod(shape) for shape in shapes.values()))


def sharded(folder: Path, shards: Mapping[str, Mapping[str, tuple[int, ...]]], more: Mapping[str, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, shapes in shards.items():
        weights(folder / file, shapes)
    named = {name: file for file, shapes in shards.items() for name in shapes}
    document = {"metadata": {}, "weight_map": {**named, **(more or {})}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document), encoding="utf-8")
