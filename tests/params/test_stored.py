"""Tied weights that a checkpoint stores twice, and the dtype it is stored in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envcheck.findings import Severity
from envcheck.params import judge, stored
from envcheck.params.ask import Answer
from envcheck.params.checkpoint import Checkpoint, Tensor, read
from envcheck.params.compare import compare
from tests.params.files import header_of, write

SHAPE = (600_000, 2)  # 2.4 MB of BF16: three pieces
NAMES = ("model.embed.weight", "lm_head.weight")


def save(folder: Path, one: bytes, other: bytes, *, shards: bool) -> Checkpoint:
    """The two tensors with these bytes, in one file or in two with an index."""
    folder.mkdir(parents=True)
    if shards:
        for name, data in zip(NAMES, (one, other), strict=True):
            write(folder / f"{name}.safetensors", header_of({name: SHAPE}), 0)
            with (folder / f"{name}.safetensors").open("ab") as file:
                file.write(data)
        document = {"weight_map": {name: f"{name}.safetensors" for name in NAMES}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(document), encoding="utf-8")
    else:
        write(folder / "model.safetensors", header_of(dict.fromkeys(NAMES, SHAPE)), 0)
        with (folder / "model.safetensors").open("ab") as file:
            file.write(one + other)
    return read(folder.parent if folder.name == "llm" else folder)


def apart(checkpoint: Checkpoint, *, tied: bool = True) -> list[stored.Apart]:
    prefix = "llm." if checkpoint.components else ""
    names = [prefix + name for name in NAMES]
    model: dict[str, Any] = {
        "parameters": [{"name": name, "shape": list(SHAPE)} for name in names], "buffers": [], "prefix": "", "tied": [],
        "tie": tied, "ignore_missing": [], "ignore_unexpected": [], "renames": {}, "shared": [names] if tied else [],
    }  # fmt: skip
    return list(stored.apart(model, compare(model, checkpoint), checkpoint))


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("component", ["", "llm"])
def test_the_first_row_that_differs_is_found_and_equal_ones_are_not(tmp_path: Path, shards: bool, component: str) -> None:
    data = bytes(range(256)) * 9375
    for row in (0, 1, 262_143, 262_144, 599_999):
        changed = data[: 4 * row + 3] + bytes([data[4 * row + 3] ^ 1]) + data[4 * row + 4 :]
        found = apart(save(tmp_path / str(row) / component, data, changed, shards=shards))
        assert [one.row for one in found] == [row]
        assert {one.removeprefix("llm.") for one in (found[0].name, found[0].other)} == set(NAMES)
    assert apart(save(tmp_path / "same" / component, data, data, shards=shards)) == []


def test_an_untied_model_may_store_two(tmp_path: Path) -> None:
    size = 4 * SHAPE[0]
    assert apart(save(tmp_path / "m", b"\0" * size, b"\1" * size, shards=False), tied=False) == []


def test_another_dtype_and_a_file_that_went_away_are_left_out(tmp_path: Path) -> None:
    size = 4 * SHAPE[0]
    checkpoint = save(tmp_path / "m", b"\0" * size, b"\1" * size, shards=True)
    assert len(apart(checkpoint)) == 1
    other = checkpoint.tensors[NAMES[1]]
    checkpoint.tensors[NAMES[1]] = Tensor(other.name, other.file, "F16", SHAPE, other.begin, other.end)
    assert apart(checkpoint) == []
    checkpoint.tensors[NAMES[1]] = other
    (checkpoint.folder / other.file).unlink()
    assert apart(checkpoint) == []


def test_what_the_finding_says() -> None:
    pair = stored.Apart("lm_head.weight", "model.embed.weight", 7)
    (found,) = judge.stored_apart([pair], Answer(tied=True))
    assert (found.id, found.severity) == ("params-tied-differ", Severity.WARNING)
    assert "row 7" in found.because[0]
    assert "drops the other" in found.because[1]
    (found,) = judge.stored_apart([pair], Answer(tied=False))
    assert "two embeddings" in found.because[1]
    assert not list(judge.stored_apart([], Answer()))


@pytest.mark.parametrize(
    ("dtypes", "said", "finds"),
    [
        ({"F32": 100}, "bfloat16", True),
        ({"BF16": 100}, "float32", True),
        ({"F16": 100}, "bfloat16", True),
        ({"F32": 100}, "float32", False),
        ({"BF16": 100}, "bfloat16", False),
        ({"BF16": 95, "F32": 5}, "bfloat16", False),  # norms in float32
        ({"BF16": 50, "F32": 50}, "bfloat16", False),
        ({"U8": 95, "F32": 5}, "bfloat16", False),  # quantised
        ({"F8_E4M3": 100}, "bfloat16", False),
        ({"F32": 100}, "", False),
        ({"": 100}, "bfloat16", False),  # pickled
        ({}, "bfloat16", False),
    ],
)
def test_stored_dtype(dtypes: dict[str, int], said: str, finds: bool) -> None:
    tensors = {dtype: Tensor(dtype, "f", dtype, (count,)) for dtype, count in dtypes.items()}
    answer = Answer(model={"dtype": said}, versions={"transformers": "4.57.6"})
    found = list(judge.stored_dtype(Checkpoint(Path(), tensors), answer))
    assert [one.severity for one in found] == [Severity.INFO] * finds


def test_stored_dtype_tells_what_was_loaded() -> None:
    checkpoint = Checkpoint(Path(), {"a": Tensor("a", "f", "F32", (100,))})
    answer = Answer(model={"dtype": "bfloat16"}, versions={"transformers": "5.24.0"}, values={"a": {"dtype": "bfloat16"}})
    (found,) = judge.stored_dtype(checkpoint, answer)
    assert found.because[0] == "transformers 5.24.0: from_pretrained without dtype made bfloat16 of them here"
