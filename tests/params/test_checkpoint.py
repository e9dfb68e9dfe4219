"""Headers and indexes: what they say, and what is wrong with them."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.errors import InputError
from envcheck.params.checkpoint import BrokenFileError, header, read
from tests.params.files import Shapes, header_of, sharded, weights, write

if TYPE_CHECKING:
    from pathlib import Path

TWO: dict[str, Shapes] = {"a.safetensors": {"x.weight": (2, 3)}, "b.safetensors": {"y.weight": (4,), "y.bias": (4,)}}

NAMES = st.text(min_size=1, max_size=8).filter(lambda text: text != "__metadata__")


def test_a_sharded_checkpoint(tmp_path: Path) -> None:
    sharded(tmp_path, TWO)
    found = read(tmp_path)
    assert {name: one.shape for name, one in found.tensors.items()} == {"x.weight": (2, 3), "y.weight": (4,), "y.bias": (4,)}
    assert not found.problems
    assert found.size == 2 * (6 + 4 + 4)


def test_components_have_their_folder_before_their_names(tmp_path: Path) -> None:
    sharded(tmp_path / "llm", TWO)
    (tmp_path / "mm_projector").mkdir()
    weights(tmp_path / "mm_projector" / "model.safetensors", {"first.weight": (2, 2)})
    found = read(tmp_path)
    assert found.components == ["llm", "mm_projector"]
    assert set(found.tensors) == {"llm.x.weight", "llm.y.weight", "llm.y.bias", "mm_projector.first.weight"}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (struct.pack("<Q", 1 << 60) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 100) + b"{}", "truncated inside its header"),
        (struct.pack("<Q", 2) + b"[]", "not an object"),
        (struct.pack("<Q", 5) + b"{nope", "not JSON"),
        (struct.pack("<Q", 60000) + b"[" * 60000, "not JSON"),
    ],
)
def test_a_broken_shard_is_named(broken: bytes, words: str, tmp_path: Path) -> None:
    sharded(tmp_path, TWO)
    (tmp_path / "b.safetensors").write_bytes(broken)
    found = read(tmp_path)
    assert any("b.safetensors" in problem and words in problem for problem in found.problems), found.problems
    assert set(found.tensors) == {"x.weight"}


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF16", "shape": [2, -3], "data_offsets": [0, 12]},
        {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12, 0]},
        {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 13]},
        {"dtype": "BF16", "shape": "23", "data_offsets": [0, 12]},
        {"dtype": 16, "shape": [2, 3], "data_offsets": [0, 12]},
        {"shape": [2, 3], "data_offsets": [0, 12]},
        [],
    ],
)
def test_a_wrong_description_is_refused(entry: object, tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"x": entry}, 12)
    with pytest.raises(BrokenFileError, match="`x`"):
        header(tmp_path / "x.safetensors")


def test_a_truncated_file_is_seen_by_its_size(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", header_of({"x": (100,)}), 199)
    with pytest.raises(BrokenFileError, match="truncated"):
        header(tmp_path / "x.safetensors")


def test_index_and_files_must_agree(tmp_path: Path) -> None:
    sharded(tmp_path, TWO, {"z.weight": "a.safetensors", "q.weight": "c.safetensors"})
    weights(tmp_path / "b.safetensors", {"y.weight": (4,), "y.bias": (4,), "stranger": (1,)})
    problems = " ".join(read(tmp_path).problems)
    assert "`z.weight` (`a.safetensors`)" in problems
    assert "`c.safetensors`: the file is missing" in problems
    assert "`stranger`" in problems


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "sub/x.safetensors", ""])
def test_an_index_cannot_point_elsewhere(name: str, tmp_path: Path) -> None:
    sharded(tmp_path / "model", TWO, {"z": name})
    found = read(tmp_path / "model")
    assert any("not the name of a file beside it" in problem for problem in found.problems)
    assert "z" not in found.tensors


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100000])
def test_a_broken_index_is_a_problem(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    found = read(tmp_path)
    assert "model.safetensors.index.json" in found.problems[0]
    assert not found.tensors


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert "pickle" in read(tmp_path).problems[0]
    index = {"weight_map": {"a": "x.bin", "b": "absent.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "x.bin").write_bytes(b"")
    found = read(tmp_path)
    assert found.tensors["a"].shape is None
    assert "absent.bin" in found.problems[0]


def test_no_weights_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such checkpoint"):
        read(tmp_path / "absent")


@settings(max_examples=100, deadline=None)
@given(shapes=st.dictionaries(NAMES, st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=6), cut=st.integers(0, 400))
def test_a_file_reads_whole_or_is_called_broken(
    shapes: dict[str, tuple[int, ...]], cut: int, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("law") / "x.safetensors"
    weights(path, shapes)
    content = path.read_bytes()
    assert {name: one.shape for name, one in header(path).items()} == shapes
    path.write_bytes(content[: max(len(content) - 1 - cut, 0)])
    with pytest.raises(BrokenFileError):
        header(path)
