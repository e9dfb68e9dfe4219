"""Parsing: whatever stands around a line, and wherever the stream is cut, the entries are the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.forensics import entries
from envcheck.forensics.entries import BF16_SKIPPED, LONGEST, OVERFLOW, Entry, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent.parent / "data" / "logs"
LINE = b"{'loss': 2.5, 'grad_norm': 0.75, 'learning_rate': 0.001, 'epoch': 0.1}"


def read(chunks: Iterable[bytes]) -> list[Entry]:
    """Every entry by itself."""
    found = (item if isinstance(item, Entry) else item.entries() for item in entries.read(chunks))
    return [entry for item in found for entry in ([item] if isinstance(item, Entry) else item)]


def one(text: bytes) -> Entry:
    (entry,) = read([text])
    return entry


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (LINE, {"loss": 2.5, "grad_norm": 0.75, "lr": 0.001}),
        (b"{'loss': 0.0, 'learning_rate': 0, 'epoch': 0.0}", {"loss": 0.0, "lr": 0.0}),
        (b"{'loss': nan, 'grad_norm': inf, 'learning_rate': 1e-05}", {"loss": math.nan, "grad_norm": math.inf, "lr": 1e-05}),
        (b"{'loss': '3.193', 'grad_norm': '0.8292', 'learning_rate': '0'}", {"loss": 3.193, "grad_norm": 0.8292, "lr": 0.0}),
        (b'{"loss": 1.5, "lr": 0.5, "global_step": 7}', {"loss": 1.5, "lr": 0.5, "step": 7.0}),
        (b'{\n "epoch": 0.1,\n "grad_norm": null,\n "loss": 1.5,\n "step": 3\n}', {"loss": 1.5, "grad_norm": None, "step": 3.0}),
        (b'{"step": 4, "logged_loss": "nan", "lr": 0.0, "lr_integer": true}', {"logged_loss": math.nan, "lr": 0.0, "step": 4.0}),
        (b"step 3 loss 2.25", {"loss": 2.25}),
        (b"[epoch 1] Loss: 1.5e-3, time 3 s", {"loss": 0.0015}),
        (b"100%|x| 3/3 [00:01<00:00, loss=nan]", {"loss": math.nan}),
    ],
)
def test_numbers_of_a_line(text: bytes, numbers: dict[str, float]) -> None:
    found = {name: value for name, value in one(text).numbers.items() if name in numbers}
    assert repr(found) == repr(dict(sorted(numbers.items(), key=lambda item: list(found).index(item[0]))))


@pytest.mark.parametrize(
    "text",
    [
        b"{'eval_loss': 0.0, 'eval_runtime': 1.0, 'epoch': 1.0}",
        b"{'train_runtime': 0.4, 'train_loss': 0.0, 'epoch': 1.0}",
        b"eval_loss 0.0", b"val loss: 0.0", b"test loss = 0.0", b"glossary 0", b"loss function", b"loss_scale 0", b"losses 3",
        b"{'lossy': 1}", b"loss 3 of 4 shards".replace(b"loss 3", b"loss3"), b"",
    ],
)  # fmt: skip
def test_what_is_no_training_line(text: bytes) -> None:
    assert not [entry for entry in read([text]) if entry.source is not Source.FACT]


def test_an_integer_learning_rate_is_not_a_float_one() -> None:
    assert one(b"{'loss': 1.0, 'learning_rate': 0, 'epoch': 0.1}").lr_integer
    assert not one(b"{'loss': 1.0, 'learning_rate': 0.0, 'epoch': 0.1}").lr_integer
    assert not one(b"{'loss': '1', 'learning_rate': '0', 'epoch': '0.1'}").lr_integer


def test_overflow_lines_of_both_kinds() -> None:
    fp16 = b"[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768\n"
    bf16 = b"[deepspeed] OVERFLOW! Skipping step. Gradients are non-finite, weights were not updated.\n"
    assert [entry.message for entry in read([fp16 + bf16])] == [OVERFLOW, BF16_SKIPPED]


def test_deepspeed_step_lines() -> None:
    text = b"[INFO] [logging.py:128:log_dist] [Rank 0] step=10, skipped=2, lr=[0.001], mom=[(0.9, 0.999)]"
    assert one(text).numbers == {"step": 10.0, "skipped": 2.0, "lr": 0.001}


@pytest.mark.parametrize(
    ("before", "prefix"),
    [
        (b"[default0]: ", "[default0]:"), (b"[rank1]: ", "[rank1]:"), (b"0: ", "0:"), (b"[1,0]<stdout>: ", "[1,0]<stdout>:"),
        (b"(RayTrainWorker pid=77) ", "(RayTrainWorker pid=77)"), (b"node-3: ", "node-3:"), (b"", ""),
        (b"  8%|x  | 2/24 [00:00<00:01]\r              \r", ""), (b"\x1b[A", ""),
    ],
)  # fmt: skip
def test_prefixes_of_launchers(before: bytes, prefix: str) -> None:
    entry = one(b"first line\n" + before + LINE + b"\n")
    assert (entry.prefix, entry.line, entry.numbers["loss"]) == (prefix, 2, 2.5)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 20_000), max_size=12), data=st.sampled_from(sorted(DATA.glob("*/*.log"))[::7]))
def test_where_the_stream_is_cut_does_not_matter(cuts: list[int], data: Path) -> None:
    text = data.read_bytes()
    pieces = [text[begin:end] for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True)]
    assert repr(list(read(pieces))) == repr(list(read([text])))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log(noise: bytes) -> None:
    found = [entry.numbers.get("loss") for entry in read([noise + b"\n" + LINE + b"\n"]) if entry.source is Source.TRAINER]
    assert 2.5 in found or b"{" in noise


def test_an_endless_brace_does_not_hold_the_stream() -> None:
    text = b"{" + b"x" * (3 * LONGEST) + b"\n" + LINE
    assert [entry.numbers["loss"] for entry in read([text[i : i + 1000] for i in range(0, len(text), 1000)])] == [2.5]
