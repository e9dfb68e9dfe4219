"""Names of a checkpoint, read from headers; what a model has that it lacks."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.monitor import checkpoint


def safetensors(path: Path, names: list[str]) -> None:
    head = json.dumps({"__metadata__": {}, **{name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}})
    path.write_bytes(struct.pack("<Q", len(head)) + head.encode())


def test_names_come_from_the_header_or_the_index(tmp_path: Path) -> None:
    assert checkpoint.names(str(tmp_path)) is None
    safetensors(tmp_path / "model.safetensors", ["a", "b"])
    assert checkpoint.names(str(tmp_path)) == {"a", "b"}
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"c": "x"}}', encoding="utf-8")
    assert checkpoint.names(str(tmp_path)) == {"c"}


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 16, struct.pack("<Q", 4) + b"{}}}", struct.pack("<Q", 2) + b"[]"])
def test_a_damaged_file_gives_no_names(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert not checkpoint.names(str(tmp_path))


@given(st.binary(max_size=64))
def test_no_content_raises(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").write_bytes(content)
        checkpoint.names(folder)


LAYERS = [f"model.layers.{layer}.mlp.weight" for layer in range(4)]


@pytest.mark.parametrize(
    ("model", "held", "prefix", "missing", "beside"),
    [
        (["p.0.weight", "p.1.weight", "e.weight"], {"p.0.weight", "e.weight"}, "", {"p.1.weight"}, {"p.1.weight"}),
        ([*LAYERS, "head.weight"], set(LAYERS), "", {"head.weight"}, set()),
        (LAYERS, set(LAYERS[:3]), "", {LAYERS[3]}, {LAYERS[3]}),
        (LAYERS, {name.removeprefix("model.") for name in LAYERS}, "model", set(), set()),
        ([*LAYERS, "p.0.weight", "p.2.weight"], set(LAYERS), "", {"p.0.weight", "p.2.weight"}, set()),
        (["a.weight", "a.bias"], {"a.weight"}, "", {"a.bias"}, {"a.bias"}),
    ],
)
def test_what_is_absent(model: list[str], held: set[str], prefix: str, missing: set[str], beside: set[str]) -> None:
    assert checkpoint.absent(model, held, prefix) == (missing, beside)


def test_a_checkpoint_with_other_names_says_nothing() -> None:
    assert checkpoint.absent(LAYERS, {f"base.{name}" for name in LAYERS}) is None
