"""The ranks' agreement, over a store that has nothing but `add`: one answer for all, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.monitor.adapter.ranks import Ranks, Words
from envcheck.monitor.adapter.watch import next_poll, polled


class Store:
    """A process group's store, as every torch has it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def add(self, key: str, amount: int) -> int:
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + amount
            return self.counts[key]


def rank_of(store: Store, rank: int, size: int) -> Ranks:
    made = object.__new__(Ranks)
    made.live, made.rank, made.size, made.together, made._store = True, rank, size, False, store
    return made


def meet(delays: dict[int, float], size: int, patience: float) -> list[bool]:
    store = Store()
    answers: list[bool] = []

    def one(rank: int, delay: float) -> None:
        time.sleep(delay)
        answers.append(rank_of(store, rank, size).agree("here", patience))

    threads = [threading.Thread(target=one, args=item) for item in delays.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return answers


def test_when_all_come_all_agree() -> None:
    assert meet({0: 0.0, 1: 0.05, 2: 0.02}, 3, 5.0) == [True] * 3


@pytest.mark.parametrize("absent", [0, 2])
def test_when_one_never_comes_the_others_give_up_together(absent: int) -> None:
    assert meet({rank: 0.0 for rank in range(3) if rank != absent}, 3, 0.1) == [False] * 2


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 0.12), min_size=2, max_size=4))
def test_whoever_comes_when_all_get_the_same_answer(delays: list[float]) -> None:
    answers = meet(dict(enumerate(delays)), len(delays), 0.06)
    assert len(answers) == len(delays)
    assert len(set(answers)) == 1


@given(st.integers(0, 2000))
def test_a_stop_is_proposed_for_a_later_step_in_which_all_ask(step: int) -> None:
    assert next_poll(step) > step
    assert polled(next_poll(step))
    assert not any(polled(between) for between in range(step + 1, next_poll(step)))


def test_a_proposal_is_seen_by_every_rank() -> None:
    store = Store()
    one, two = rank_of(store, 0, 2), rank_of(store, 1, 2)
    assert not two.proposed(7)
    one.propose(7)
    assert (one.proposed(7), two.proposed(7), two.proposed(8)) == (True, True, False)


def test_a_process_alone_needs_no_agreement() -> None:
    alone = rank_of(Store(), 0, 1)
    assert alone.agree("here")


def test_a_finding_is_claimed_once_and_a_lost_store_silences_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.monitor.adapter.ranks.LAST_WORDS", 60.0)  # nobody waits that long: they are told
    store = Store()
    zero, one = (Words(store, "said/1", 2, wait=True) for _ in range(2))
    assert [zero.claim("a"), one.claim("a"), one.claim("b"), zero.claim("b")] == [True, False, True, False]
    assert Words(store, "said/2", 2, wait=True).claim("a")
    threads = [threading.Thread(target=zero.done, args=(0,), kwargs={"wait": True}), threading.Thread(target=one.await_first)]
    for thread in threads:
        thread.start()
    threads[1].join(20)
    assert not threads[1].is_alive()
    assert threads[0].is_alive()  # another rank may still ask
    one.done(1, wait=False)
    threads[0].join(20)
    assert not threads[0].is_alive()
    gone = Gone()
    lost = Words(gone, "said/1", 2, wait=True)
    lost.await_first()
    assert gone.asked == 1  # it does not ask again and again
    assert lost.claim("a")


class Gone:
    """A store whose host has ended."""

    asked = 0

    def add(self, key: str, amount: int) -> int:
        self.asked += 1
        raise RuntimeError("connection closed by peer", key, amount)
