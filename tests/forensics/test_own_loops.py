"""Lines that other trainers and own loops print: read with learning rate and norm, healthy ones without a finding.

The forms are those of the writers' format strings; no run of theirs was recorded.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING

import pytest

from envcheck.cli import log
from envcheck.findings import Severity
from envcheck.forensics.entries import Entry, Source, read
from envcheck.forensics.history import History

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.findings import Report

#: Writer -> its line; `n` is the step, the numbers are texts.
FORMS = {
    "loop": "step {n} loss {loss} lr {lr} grad_norm {norm}",
    "tensor": "step {n} loss: tensor({loss}, device='cuda:0') grad norm: tensor({norm}) lr: [{lr}]",
    "megatron": " [2026-01-02 10:00:01] iteration {n:8d}/  10000 | consumed samples:  64 | learning rate: {lr} | global batch "
    "size:  64 | lm loss: {loss} | loss scale: 1.0 | grad norm: {norm} | number of skipped iterations:   0 |",
    "torchtitan": "[rank0]:\x1b[31mstep: {n:2d}  \x1b[32mloss:  {loss}  \x1b[38;2;1;2;3mgrad_norm: {norm}  \x1b[34mmemory: "
    "22.1GiB(27.9%)  lr: {lr}\x1b[39m",
    "mmengine": "01/02 10:00:01 - mmengine - INFO - Iter(train) [{n:6d}/649000]  lr: {lr}  eta: 1 day, 2:02:02  memory: 12345  "
    "loss: {loss}  loss_aux: 0.0000  grad_norm: {norm}",
    "verl": "(TaskRunner pid=123) step:{n} - actor/entropy:0.5 - actor/pg_loss:{loss} - actor/grad_norm:{norm} - actor/lr:{lr}",
    "accelerate": "Steps:   1%|x  | {n}/100 [00:10<01:22,  1.20it/s, lr={lr}, step_loss={loss}, grad_norm={norm}]",
    "openrlhf": "Train step of epoch 0:   1%|x  | {n}/100 [00:10<01:22, 1.20it/s, gpt_loss={loss}, loss_mean=0, lr={lr}, "
    "grad_norm={norm}]",
    "lightning": "Epoch 0:   1%|x  | {n}/100 [00:10<01:22,  1.20it/s, v_num=1, train_loss={loss}, lr={lr}, grad_norm={norm}]",
}

#: Endings of a line; progress bars go back to its beginning.
BARS = {"accelerate", "openrlhf", "lightning"}


def lines(form: str, loss: list[str], norm: list[str], lr: list[str], *, redraw: bool = False) -> bytes:
    end = "\r" if form in BARS else "\n"
    steps = list(enumerate(zip(loss, norm, lr, strict=True), 1))
    drawn = [FORMS[form].format(n=n, loss=a, norm=b, lr=c) for n, (a, b, c) in steps]
    if redraw:  # a bar moves on before the numbers beside it do, and is drawn again after some time
        moved = [FORMS[form].format(n=n + 1, loss=a, norm=b, lr=c) for n, (a, b, c) in steps]
        drawn = [text for triple in zip(drawn, drawn, moved, strict=True) for text in triple]
    return (end.join(drawn) + end).encode()


def healthy(form: str, digits: int, *, redraw: bool = False) -> bytes:
    chance = random.Random(form)  # noqa: S311 - numbers of a toy
    loss = [f"{3 - n / 60 + chance.random() / 10:.{digits}f}" for n in range(60)]
    norm = [f"{0.5 + chance.random() / 2:.{digits}f}" for _ in range(60)]
    return lines(form, loss, norm, [f"{1e-4 * (1 - n / 80):.3e}" for n in range(60)], redraw=redraw)


def judged(path: Path, text: bytes) -> Report:
    path.write_bytes(text)
    parser = argparse.ArgumentParser()
    log.configure(parser)
    return log.build_report(parser.parse_args([str(path)]))


@pytest.mark.parametrize("form", FORMS)
def test_each_line_gives_loss_rate_and_norm(form: str) -> None:
    (entry,) = read([lines(form, ["2.5E+00"], ["0.75123"], ["1e-05"])])
    assert isinstance(entry, Entry)
    assert (entry.source, entry.numbers) == (Source.OWN, {"loss": 2.5, "lr": 1e-05, "grad_norm": 0.75123})
    assert entry.bar == (1 if form in BARS else None)


@pytest.mark.parametrize("digits", [1, 2, 6])
@pytest.mark.parametrize("form", FORMS)
def test_a_healthy_one_gives_no_finding(form: str, digits: int, tmp_path: Path) -> None:
    report = judged(tmp_path / "log", healthy(form, digits))
    assert report.findings == ()
    assert "healthy: 60 lines" in report.notes[0]


@pytest.mark.parametrize("form", sorted(BARS))
def test_a_bar_that_is_drawn_again_counts_once(form: str, tmp_path: Path) -> None:
    report = judged(tmp_path / "log", healthy(form, 6, redraw=True))
    assert report.findings == ()
    assert "healthy: 60 lines" in report.notes[0]
    stuck = judged(tmp_path / "stuck", lines(form, ["nan"] * 30, ["nan"] * 30, ["1e-5"] * 30, redraw=True))
    assert stuck.extra["log"]["lines"] in (30, 31)


@pytest.mark.parametrize(
    ("loss", "norm", "lr", "says"),
    [
        (["nan"] * 30, ["nan"] * 30, ["1e-5"] * 30, "run-not-finite-from-start"),
        (["NaN"] * 30, ["inf"] * 30, ["1e-5"] * 30, "run-not-finite-from-start"),
        (["0.0000"] * 30, ["nan"] * 30, ["1e-5"] * 30, "run-not-finite-from-start"),
        (["2.5"] * 9 + ["nan"] * 21, ["0.75"] * 9 + ["nan"] * 21, ["1e-5"] * 30, "run-not-finite-after-steps"),
        ([f"{2 + n / 9:.3f}" for n in range(30)], ["0.0"] * 30, ["1e-5"] * 30, "run-gradient-norm-zero"),
        ([f"{2 + n / 9:.3f}" for n in range(30)], [f"{1 + n / 9:.3f}" for n in range(30)], ["0"] * 30, "run-learning-rate-zero"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_fault_is_told(form: str, loss: list[str], norm: list[str], lr: list[str], says: str, tmp_path: Path) -> None:
    report = judged(tmp_path / "log", lines(form, loss, norm, lr))
    assert [one.id for one in report.findings] == [says]


def test_what_is_rounded_is_not_taken_for_zero_or_constant(tmp_path: Path) -> None:
    """A clipped norm printed as 1.0, a small learning rate as 0.0000, a policy's loss as 0.000 beside a norm that lives."""
    loss = [f"{3 - n / 60:.3f}" for n in range(40)]
    assert judged(tmp_path / "a", lines("loop", loss, ["1.0"] * 40, ["0.0000"] * 40)).findings == ()
    assert judged(tmp_path / "b", lines("verl", ["0.000"] * 40, ["0.2"] * 40, ["1e-06"] * 40)).findings == ()


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        (b"step 1 loss 2.31 (2.45) aux loss 0.0 total_loss: 3", 2.31),
        (b"step 1 aux loss 0.0 loss 2.31", 2.31),
        (b"moe_loss=0.0, train_loss=2.31", 2.31),
        (b"loss 2.31.", 2.31),
    ],
)
def test_one_entry_a_line(text: bytes, loss: float) -> None:
    (entry,) = read([text + b"\n"])
    assert isinstance(entry, Entry)
    assert entry.numbers["loss"] == loss


@pytest.mark.parametrize(
    "text", [b"kl_loss=0.0", b"eval/loss: 0.0", b"val_loss=0.1", b"loss 2.3.1", b"best loss: 0.0", b"train.loss/0"]
)
def test_what_is_not_the_loss_that_is_trained_on(text: bytes) -> None:
    assert list(read([text + b"\n"])) == []


def test_ranks_of_a_loop_may_print_their_own_norms() -> None:
    text = "".join(
        f"[rank{rank}]: step {n} loss {2 + n / 9 + rank} grad_norm {1 + n / 7 + rank}\n" for n in range(9) for rank in (0, 1)
    )
    history = History()
    history.see(read([text.encode()]))
    assert history.observations() == ()


def overflow(attempted: int, left: int) -> str:
    words = f"[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: {attempted}, reducing to {left}"
    return f"[2026-01-02 10:00:00,123] [INFO] [loss_scaler.py:263:update_scale] {words}\n"


def test_overflows_alone_are_told_where_the_scale_is_used_up(tmp_path: Path) -> None:
    halvings = [(2**n, 2 ** (n - 1)) for n in range(16, 0, -1)]
    (found,) = judged(tmp_path / "all", "".join(overflow(*one) for one in halvings).encode()).findings
    assert (found.id, found.severity) == ("run-steps-skipped-again-and-again", Severity.WARNING)
    assert found.because[0] == "DeepSpeed skipped 16 steps on overflow and lowered the loss scale to 1"
    some = judged(tmp_path / "some", "".join(overflow(*one) for one in halvings[:9]).encode())
    assert some.findings == ()
    assert some.skipped[0].reason == "no line with a training loss was found; 9 overflows lowered the loss scale to 128"
