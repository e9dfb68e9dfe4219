"""Time reading the headers of a large sharded checkpoint: names, shapes, dtypes, no tensor.

Run from the root of a checkout: `python benchmarks/params.py [GIGABYTES] [SHARDS]`. The shards are sparse files with the headers
of a Llama of that size in bf16: they take no room on disk.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

HIDDEN, FEED, VOCABULARY, HEADS = 8192, 28672, 128256, 1024


def shapes(size: float) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama with so many bytes in bf16."""
    layer = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HEADS, HIDDEN), "self_attn.v_proj": (HEADS, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (FEED, HIDDEN), "mlp.up_proj": (FEED, HIDDEN),
        "mlp.down_proj": (HIDDEN, FEED), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
    }  # fmt: skip
    one = 2 * sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in layer.values())
    named: dict[str, tuple[int, ...]] = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (VOCABULARY, HIDDEN))
    for number in range(round(size / one)):
        named.update({f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()})
    return named


def write(folder: Path, size: float, shards: int) -> int:
    """Write the index and the sparse shards; returns the bytes that they claim."""
    names = list(shapes(size).items())
    weights, total = {}, 0
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        header, end = {}, 0
        for name, shape in names[number::shards]:
            begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
            weights[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + end)
        total += end
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def main() -> None:
    size = float(sys.argv[1] if len(sys.argv) > 1 else 70) * 1e9
    shards = int(sys.argv[2] if len(sys.argv) > 2 else 30)
    from envcheck.params.checkpoint import read  # noqa: PLC0415 - found from here

    with tempfile.TemporaryDirectory() as scratch:
        total = write(Path(scratch), size, shards)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            found = read(Path(scratch))
            times.append(time.perf_counter() - begin)
    problems = ", ".join(found.problems) or "no problems"
    print(f"{total / 1e9:.0f} GB, {len(found.tensors)} tensors in {shards} shards: best {min(times) * 1e3:.0f} ms, {problems}")


if __name__ == "__main__":
    main()
