"""The ranks of a run: do all of them have a monitor, and what did each see? Collectives only after all have agreed on them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Seconds that ranks wait for one another's monitor, once, when it is attached.
AGREE_SECONDS = 20.0

#: Seconds that ranks wait for one another at the end of a run in which something was found.
LAST_WORDS = 2.0

PREFIX = "envcheck-monitor"

#: Words of whoever decides.
YES, NO = 1, 2


class Ranks:
    """This process among the ranks.

    Attributes:
        rank: This rank.
        size: World size.
        together: Every rank has a monitor, so that collectives are safe.
    """

    def __init__(self) -> None:
        import torch.distributed as dist  # noqa: PLC0415 - torch is there already

        self.live = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.live else 0
        self.size = dist.get_world_size() if self.live else 1
        self.together = self.size == 1
        self._store: Any = None

    def agree(self, what: str, seconds: float = AGREE_SECONDS) -> bool:
        """Find out whether all ranks come to this place; every rank gets the same answer, and none waits for ever.

        Each rank counts itself in the store of the process group. Whoever decides first (rank 0 when all are counted, or any rank
        whose patience ends) takes the turn; its word holds for all. Only `add` is used, which stores of every torch have.
        """
        if self.size == 1:
            return True
        store = self._join()
        if store is None:
            return False
        store.add(f"{what}/here", 1)
        end = time.monotonic() + seconds
        while not (word := store.add(f"{what}/word", 0)):
            complete = self.rank == 0 and store.add(f"{what}/here", 0) == self.size
            if (complete or time.monotonic() > end) and store.add(f"{what}/turn", 1) == 1:
                word = store.add(f"{what}/word", YES if complete else NO)
                break
            time.sleep(0.002)
        self.together = bool(word == YES)
        return self.together

    def _join(self) -> Any:  # noqa: ANN401 - a torch store
        if self._store is not None:
            return self._store
        import torch.distributed as dist  # noqa: PLC0415 - torch is there already

        try:
            self._store = dist.PrefixStore(PREFIX, dist.distributed_c10d._get_default_store())  # noqa: SLF001
        except (AttributeError, RuntimeError, ValueError):
            return None
        return self._store

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all ranks, on the CPU; a collective. Shapes must be equal on all ranks."""
        import torch  # noqa: PLC0415 - torch is there already
        import torch.distributed as dist  # noqa: PLC0415 - likewise

        if self.size == 1:
            return [values.detach().cpu()]
        nccl = dist.get_backend() == "nccl"
        mine = values.detach().to(torch.cuda.current_device() if nccl else "cpu")
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(gathered, mine.contiguous())
        return [one.cpu() for one in gathered]

    def propose(self, step: int) -> None:
        """Ask all ranks to stop after `step`; the first proposal for a step stands."""
        store = self._join()
        if store is not None:
            store.add(f"stop/{step}", 1)

    def proposed(self, step: int) -> bool:
        """Did a rank ask for a stop after `step`? Every rank that asks in that step gets the same answer."""
        store = self._join()
        return store is not None and store.add(f"stop/{step}", 0) > 0

    def words(self, run: int) -> Words | None:
        """What keeps the ranks from saying the same thing each, in run number `run`; None with one rank, or no store."""
        store = self._join() if self.size > 1 else None
        return None if store is None else Words(store, f"said/{run}", self.size, wait=self.together)


class Words:
    """Which findings were said, in the store of the process group. A store that is gone with rank 0 keeps nobody silent.

    Args:
        store: A torch store.
        prefix: Of its keys.
        size: World size.
        wait: Rank 0 has a monitor, so that its last words can be waited for.
    """

    def __init__(self, store: Any, prefix: str, size: int, *, wait: bool) -> None:  # noqa: ANN401
        self._store = store
        self._size = size
        self._prefix = prefix
        self._wait = wait

    def _add(self, key: str, amount: int) -> int | None:
        try:
            return int(self._store.add(f"{self._prefix}/{key}", amount))
        except (RuntimeError, OSError):
            return None

    def claim(self, name: str) -> bool:
        """True for the first rank that asks."""
        return self._add(f"finding/{name}", 1) in (1, None)

    def await_first(self) -> None:
        """Wait until rank 0 has said all, at most `LAST_WORDS` seconds."""
        end = time.monotonic() + LAST_WORDS
        while self._wait and self._add("done", 0) == 0 and time.monotonic() < end:
            time.sleep(0.01)

    def done(self, rank: int, *, wait: bool) -> None:
        """This rank has said all; rank 0 waits for the others, since the store may end with it."""
        self._add("others" if rank else "done", 1)
        end = time.monotonic() + LAST_WORDS
        while wait and self._wait and (self._add("others", 0) or 0) < self._size - 1 and time.monotonic() < end:
            time.sleep(0.01)
