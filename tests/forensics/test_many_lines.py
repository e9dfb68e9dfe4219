"""Many lines that are alike are taken in at once: what comes out is what one by one gives, however the log is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.forensics import entries
from envcheck.forensics.entries import Lines, read
from envcheck.forensics.history import History, healthy

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE, FEWEST = 2000, 12


def usual(number: int, quote: str = "") -> str:
    loss, norm, rate = 2 + number % 97 / 1000, 0.5 + number % 89 / 777, 1e-3 / (1 + number)
    q = quote
    line = f"{{'loss': {q}{loss:.4f}{q}, 'grad_norm': {q}{norm}{q}, 'learning_rate': {q}{rate}{q}, 'epoch': {q}{number / 99}{q}}}"
    return f"{line}\n"


#: What stands between usual lines now and then; a number in braces is the line's.
ODD = (
    "  5%|5         | 3/60 [00:00<00:02, 26.86it/s]\r",
    "{{'eval_loss': 2.5, 'eval_runtime': 1.0, 'epoch': 1.0}}\n",
    "{{'hidden_size': 64}}\n",
    "OVERFLOW! Rank 0 Skipping step.\n",
    "[INFO] [Rank 0] step={n}, skipped=0, lr=[0.001], mom=[(0.9, 0.999)]\n",
    "[INFO] [Rank 0] step={n}, skipped={n}, lr=[0.001], mom=[(0.9, 0.999)]\n",
    "{{'loss': 0.0, 'grad_norm': 1.4142135381698608, 'learning_rate': 0.0, 'epoch': 0.1}}\n",
    "{{'loss': 2.25, 'grad_norm': 0.5, 'learning_rate': 0.001, 'epoch': 0.1}}\n",
    "{{'loss': 2.25, 'grad_norm': 99999.5, 'learning_rate': 0.001, 'epoch': 0.1}}\n",
    "{{'loss': 2.5, 'grad_norm': 'nan', 'learning_rate': 0, 'epoch': 0.1}}\n",
    "{{'loss': 2.5, 'learning_rate': 0.001, 'epoch': 0.1}}\n",
    "[default1]: {{'loss': 2.5, 'grad_norm': 0.7, 'learning_rate': 0.001, 'epoch': 0.1}}\n",
    "epoch 3 loss: 2.5\n",
    "Total optimization steps = 1,000\n",
    "Current loss scale already at minimum - cannot decrease scale anymore.\n",
    "{{'loss': 1.2.3, 'grad_norm': 0.5, 'learning_rate': 0.001, 'epoch': 0.1}}\n",
    "text without an end {{ ",
)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    parts = []
    number = 0
    quote = draw(st.sampled_from(("", "'")))
    for run, odd in draw(st.lists(st.tuples(st.integers(0, 150), st.sampled_from(ODD)), min_size=1, max_size=8)):
        parts += [usual(number + one, quote) for one in range(run)]
        number += run + 1
        parts.append(odd.format(n=number) * draw(st.sampled_from((1, 1, 5))))
    start = draw(st.sampled_from((0, 250, 400)))
    return "".join([*(usual(-number - 2, quote) for number in range(start)), *parts]).encode()


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[start : start + size] for start in range(0, len(text), size))


def state(history: History) -> dict[str, str]:
    """Everything that a report is made from, as text: NaN equals NaN."""
    side = history.side
    found: dict[str, Any] = {
        "seen": history.observations(), "extra": history.extra(), "summary": history.summary(), "healthy": healthy(history),
        "points": side.curve.points, "head": side.head, "quoted": side.quoted, "words": side.bad_norms, "norms": side.norm_seen,
        "first": side.first_lr_zero,
    }  # fmt: skip
    return {name: repr(value) for name, value in found.items()}


def both(text: bytes, size: int) -> tuple[dict[str, str], dict[str, str], int]:
    """What is seen with and without taking lines together, and how many were taken together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "PIECE", PIECE)
        patch.setattr(entries, "FEWEST_ALIKE", FEWEST)
        together = History()
        items = list(read(cut(text, size)))
        together.see(items)
        patch.setattr(entries, "FEWEST_ALIKE", 10**9)
        alone = History()
        alone.see(read(cut(text, size)))
    return state(together), state(alone), sum(len(one.losses) for one in items if isinstance(one, Lines))


@settings(max_examples=150)
@given(logs(), st.sampled_from((5000, 9001, 1 << 20)))
def test_together_and_one_by_one_are_the_same(text: bytes, size: int) -> None:
    together, alone, _ = both(text, size)
    assert together == alone


@pytest.mark.parametrize("odd", ODD)
def test_each_odd_line_among_many(odd: str) -> None:
    lines = [usual(number) for number in range(900)]
    for place in (0, 3, 300, 301, 650, 899):
        text = "".join([*lines[:place], odd.format(n=place), *lines[place:]]).encode()
        together, alone, count = both(text, 20_000)
        assert together == alone
        assert count > 300


def test_steps_that_deepspeed_counts_as_skipped_are_seen() -> None:
    report = "[INFO] [Rank 0] step={}, skipped={}, lr=[0.0], mom=[(0.9, 0.999)]\n"
    stuck = "".join(report.format(step, step) + f"loss: {2 + step / 99}\n" for step in range(10, 60, 10))
    history = History()
    history.see(read([stuck.encode()]))
    ((sighting, text),) = history.extra()
    assert (sighting.kind, sighting.until_end, sighting.count) == ("steps-skipped", True, 50)
    assert text == "DeepSpeed counts 50 skipped steps of 50"
    now_and_then = "".join(report.format(step, step // 100) + f"loss: {2 + step / 99}\n" for step in range(100, 1000, 100))
    history = History()
    history.see(read([now_and_then.encode()]))
    assert history.extra() == []
