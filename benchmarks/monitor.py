"""Time what the monitor adds to a step of a tiny Llama, in a plain loop, on the CPU or the GPU that is there.

Usage: PYTHONPATH=. PYTHON_WITH_TORCH_AND_TRANSFORMERS benchmarks/monitor.py [STEPS]

Prints the thread time inside the monitor for each step, next to the step's own: of the first steps, in which gradients are
watched, and of the steady state. The aim is at most 1 % of a step in the steady state.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.monitor.adapter.watch import WINDOW

if TYPE_CHECKING:
    from envcheck.monitor.adapter.parameters import Watched

AIM = 0.01


class Clock:
    """Adds up the thread time spent in wrapped functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Any) -> Any:  # noqa: ANN401
        """The function, with its time added up."""

        def timed(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            begin = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.thread_time() - begin

        return timed


def build() -> tuple[Any, Any, Any]:
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    ids = torch.randint(3, 256, (8, 32), device=model.device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4), ids


def main() -> int:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    import torch  # noqa: PLC0415

    from envcheck import monitor  # noqa: PLC0415

    clock = Clock()
    model, optimizer, ids = build()
    watch = monitor.Monitor(action="warn", output=str(Path(tempfile.mkdtemp()) / "monitor.jsonl"), quiet=True)
    begin = time.thread_time()
    watch.model(model, optimizer)
    start = time.thread_time() - begin
    for one in watch._watch.parameters.watched:  # type: ignore[union-attr]  # noqa: SLF001
        rehook(one, clock)
    own, added = [], []
    for _ in range(steps):
        before, clock.seconds = time.thread_time(), 0.0
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        clock.wrap(watch.step)(loss=loss, lr=1e-4, grad_norm=norm)
        own.append(time.thread_time() - before - clock.seconds)
        added.append(clock.seconds)
    watch.end()
    return report(start, own, added)


def rehook(one: Watched, clock: Clock) -> None:
    """Time the gradient hook of a parameter too."""
    from envcheck.monitor.adapter.parameters import _listener  # noqa: PLC0415

    if one.handle is not None:
        one.handle.remove()
        one.handle = one.parameter.register_hook(clock.wrap(_listener(one)))


def report(start: float, own: list[float], added: list[float]) -> int:
    step = statistics.median(own)
    steady = sum(added[2 * WINDOW :]) / len(added[2 * WINDOW :])
    first = sum(added[:WINDOW]) / WINDOW
    print(f"a step without the monitor: {step * 1e3:.2f} ms (median of {len(own)})")
    print(f"the monitor: {start * 1e3:.1f} ms at the start, {first * 1e3:.3f} ms in each of the first {WINDOW} steps")
    print(f"then {steady * 1e6:.0f} us a step on average: {steady / step:.2%} of a step (aim: at most {AIM:.0%})")
    print(f"over all {len(own)} steps, start included: {(start + sum(added)) / sum(own):.2%}")
    return 0 if steady / step <= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
