"""What a checkpoint holds: names, shapes and dtypes from safetensors headers and index files; no tensor is read.

Formats: huggingface/safetensors (8 bytes of header length, a JSON header, the data), and the index files of transformers
(`model.safetensors.index.json`, `pytorch_model.bin.index.json`: `weight_map` from name to file).
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from envcheck.errors import InputError

#: The format's own limit on a header (safetensors: MAX_HEADER_SIZE).
LONGEST_HEADER = 100_000_000

#: An index larger than this is none.
LONGEST_INDEX = 256 << 20

#: Bits of one element, by the format's dtype names.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")

#: Subfolders are components of a composed model (VILA: `llm`, `mm_projector`, `vision_tower`); this many are looked at.
MOST_COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a checkpoint.

    Attributes:
        name: Its key, with the component's name before it where it comes from a subfolder.
        file: Where it lies.
        dtype: The format's name, `BF16`; empty where the file was not opened (pickled checkpoints).
        shape: Its shape, or None likewise.
        begin: First byte in the file.
        end: Byte after the last.
        component: The subfolder that the file lies in, or an empty string.
    """

    name: str
    file: str
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    begin: int = 0
    end: int = 0
    component: str = ""


@dataclass(slots=True)
class Checkpoint:
    """Everything that a checkpoint's headers say.

    Attributes:
        folder: Where it is.
        tensors: By name.
        problems: What is broken, one sentence each with the file.
        files: Names of the weight files.
        components: Subfolders with weights of their own.
    """

    folder: Path
    tensors: dict[str, Tensor] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all tensors whose place is known."""
        return sum(one.end - one.begin for one in self.tensors.values())


class BrokenFileError(Exception):
    """A file is not what it should be; the message says how."""


def read(folder: Path) -> Checkpoint:
    """What the headers of a checkpoint folder (or of one `.safetensors` file) say.

    Raises:
        InputError: There is no such folder, or no weights in it.
    """
    if not folder.exists():
        raise InputError("no such checkpoint", where=str(folder))
    found = Checkpoint(folder)
    if folder.is_file():
        found.folder = folder.parent
        _single(found, folder.parent, folder.name, "")
        return found
    _component(found, folder, "")
    try:
        below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the checkpoint: {error.strerror}", where=str(folder)) from error
    for name in below[:MOST_COMPONENTS]:
        if not name.startswith(("checkpoint-", "global_step")) and _component(found, folder / name, f"{name}."):
            found.components.append(name)
    if not found.tensors and not found.problems and not found.files:
        looked = ", ".join((*INDEXES, *SINGLES))
        raise InputError("no weights in the checkpoint", where=str(folder), hints=(f"looked for {looked}",))
    return found


def _component(found: Checkpoint, folder: Path, prefix: str) -> bool:
    """The weights of one folder: its index, else a single file; True where there are any."""
    for name in INDEXES:
        if (folder / name).is_file():
            _index(found, folder, name, prefix)
            return True
    for name in SINGLES:
        if (folder / name).is_file():
            _single(found, folder, name, prefix)
            return True
    return False


def _index(found: Checkpoint, folder: Path, name: str, prefix: str) -> None:
    """The tensors that an index names, and whether its files hold them."""
    try:
        weights = _weight_map(folder / name)
    except BrokenFileError as error:
        found.problems.append(f"`{prefix}{name}`: {error}")
        return
    headers: dict[str, dict[str, Tensor]] = {}
    for file in sorted(set(weights.values())):
        if Path(file).name != file or not file.strip("."):
            found.problems.append(f"`{prefix}{name}`: `{file}` is not the name of a file beside it")
            continue
        found.files.append(file)
        try:
            headers[file] = header(folder / file, prefix) if file.endswith(".safetensors") else _pickled(folder / file)
        except BrokenFileError as error:
            found.problems.append(f"`{file}`: {error}")
    _join(found, weights, headers, prefix)


def _join(found: Checkpoint, weights: dict[str, str], headers: dict[str, dict[str, Tensor]], prefix: str) -> None:
    """Compare an index with the headers of its files."""
    absent = []
    for key, file in weights.items():
        if file not in headers:
            continue
        full = prefix + key
        if not file.endswith(".safetensors"):
            found.tensors[full] = Tensor(full, file)
        elif full in headers[file]:
            found.tensors[full] = headers[file][full]
        else:
            absent.append(f"`{full}` (`{file}`)")
    if absent:
        found.problems.append(f"the index names {len(absent)} tensors that their files lack: {', '.join(absent[:3])}")
    extra = [name for file in headers for name in headers[file] if name.removeprefix(prefix) not in weights]
    if extra:
        found.problems.append(f"{len(extra)} tensors are in the files and not in the index: `{'`, `'.join(extra[:3])}`")


def _single(found: Checkpoint, folder: Path, name: str, prefix: str) -> None:
    found.files.append(name)
    if not name.endswith(".safetensors"):
        found.problems.append(f"`{prefix}{name}` is a pickle without an index: its names cannot be read without loading it")
        return
    try:
        found.tensors.update(header(folder / name, prefix))
    except BrokenFileError as error:
        found.problems.append(f"`{prefix}{name}`: {error}")


def _pickled(path: Path) -> dict[str, Tensor]:
    """A pickled file is only looked for: unpickling runs code."""
    if not path.is_file():
        raise BrokenFileError("the file is missing")
    return {}


def _weight_map(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > LONGEST_INDEX:
            raise BrokenFileError(f"larger than {LONGEST_INDEX >> 20} MiB")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BrokenFileError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(f"not JSON: {error}") from error
    weights = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, str) for value in weights.values()):
        raise BrokenFileError("no `weight_map` from names to files")
    return weights


def header(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of one safetensors file, by name with `prefix` before it.

    Raises:
        BrokenFileError: It is missing, truncated, or not such a file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # noqa: PLR2004 - the format's
            if not 2 <= length <= LONGEST_HEADER:  # noqa: PLR2004 - `{}`
                raise BrokenFileError("not a safetensors file (a Git LFS pointer, or a truncated download?)")
            text = file.read(length)
    except FileNotFoundError as error:
        raise BrokenFileError("the file is missing") from error
    except OSError as error:
        raise BrokenFileError(f"cannot be read: {error.strerror}") from error
    if len(text) < length:
        raise BrokenFileError(f"truncated inside its header ({size} bytes)")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenFileError("its header is not JSON") from error
    if not isinstance(document, dict):
        raise BrokenFileError("its header is not an object")
    data = 8 + length
    document.pop("__metadata__", None)
    tensors = {prefix + name: _tensor(name, entry, path.name, data, prefix) for name, entry in document.items()}
    last = max((one.end for one in tensors.values()), default=data)
    if last > size:
        raise BrokenFileError(f"truncated: {size} bytes, and its header tells of {last}")
    return tensors


def _tensor(name: str, entry: Any, file: str, data: int, prefix: str) -> Tensor:  # noqa: ANN401 - JSON values
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenFileError(f"its header describes `{name}` wrongly") from error
    numbers = (*shape, begin, end)
    if not isinstance(dtype, str) or not all(isinstance(one, int) and one >= 0 for one in numbers) or begin > end:
        raise BrokenFileError(f"its header describes `{name}` wrongly")
    bits = BITS.get(dtype)
    if bits is not None and prod(shape) * bits != (end - begin) * 8:
        raise BrokenFileError(f"its header gives `{name}` {end - begin} bytes, which is not {list(shape)} of {dtype}")
    return Tensor(prefix + name, file, dtype, shape, data + begin, data + end, prefix.removesuffix("."))
