"""A few requests are worked on at a time; whoever waits for something holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from chat.lifecycle.supervisor import supervisor
from chat.limits.request_slots import AT_ONCE, RequestSlots, request_slots
from tests.fakes import ScriptedEngine
from tests.web import eventually

WITHIN = 10.0  # seconds for what shall happen at once
NEVER = 3600.0  # seconds


class Worker:
    """Someone who takes a turn and keeps it until told otherwise."""

    def __init__(self, slots: RequestSlots, doing: Callable[[], None] = lambda: None) -> None:
        self._slots, self._doing = slots, doing
        self.begun, self.may_end = threading.Event(), threading.Event()

    def work(self) -> None:
        with self._slots.acquired():
            self.begun.set()
            self._doing()
            assert self.may_end.wait(WITHIN)


class Crowd:
    """Workers in threads of their own."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self._pool = ThreadPoolExecutor(32)
        self._jobs: list[Future[None]] = []

    def send(self, *workers: Worker) -> None:
        for worker in workers:
            self.workers.append(worker)
            self._jobs.append(self._pool.submit(worker.work))

    def go_home(self) -> None:
        for worker in self.workers:
            worker.may_end.set()
        for job in self._jobs:
            job.result(WITHIN)


@pytest.fixture
def crowd():
    several = Crowd()
    yield several
    several.go_home()


def begun(workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.begun.is_set()]


def waiting(slots: RequestSlots) -> int:
    """How many sleep until it is their turn."""
    return len(slots._changed._waiters)  # type: ignore[attr-defined]


def test_a_few_are_worked_on_at_a_time_and_each_end_lets_one_more_in(crowd):
    slow = RequestSlots(longest=NEVER)
    crowd.send(*[Worker(slow) for _ in range(8)])
    eventually(lambda: waiting(slow) == 8 - AT_ONCE)
    for more in range(1, 7):
        done = begun(crowd.workers)
        assert len(done) == AT_ONCE + more - 1
        next(worker for worker in done if not worker.may_end.is_set()).may_end.set()
        eventually(lambda more=more: len(begun(crowd.workers)) == AT_ONCE + more)


def test_they_come_in_the_order_in_which_they_asked(crowd):
    slow, order = RequestSlots(longest=NEVER), []
    first = [Worker(slow) for _ in range(AT_ONCE)]
    crowd.send(*first)
    eventually(lambda: begun(first) == first)
    for number in range(5):
        crowd.send(Worker(slow, lambda number=number: order.append(number)))
        eventually(lambda number=number: waiting(slow) == number + 1)
        crowd.workers[-1].may_end.set()
    first[0].may_end.set()
    eventually(lambda: len(order) == 5)
    assert order == sorted(order)


def test_who_gives_its_turn_back_lets_another_in_once(crowd):
    slow = RequestSlots(longest=NEVER)

    def giving() -> None:
        slow.release()
        slow.release()

    crowd.send(Worker(slow))
    eventually(lambda: begun(crowd.workers))
    crowd.send(Worker(slow, giving))
    crowd.send(Worker(slow))
    eventually(lambda: len(begun(crowd.workers)) == 3)
    crowd.send(Worker(slow))
    eventually(lambda: waiting(slow) == 1)
    assert not crowd.workers[-1].begun.is_set()


def test_who_has_one_for_long_holds_nobody_up(crowd):
    quick = RequestSlots(longest=0.01)
    crowd.send(*[Worker(quick) for _ in range(16)])
    eventually(lambda: len(begun(crowd.workers)) == 16)


def test_a_turn_that_counted_no_more_is_no_place_for_two_when_it_ends(crowd):
    now = [0.0]
    slow = RequestSlots(longest=NEVER, clock=lambda: now[0])
    crowd.send(*[Worker(slow) for _ in range(AT_ONCE)])
    eventually(lambda: len(begun(crowd.workers)) == AT_ONCE)
    now[0] += NEVER
    crowd.send(*[Worker(slow) for _ in range(AT_ONCE)])
    eventually(lambda: len(begun(crowd.workers)) == 2 * AT_ONCE)
    crowd.send(Worker(slow))
    eventually(lambda: waiting(slow) == 1)
    for worker in crowd.workers[:AT_ONCE]:
        worker.may_end.set()
    eventually(lambda: len(slow._until) == AT_ONCE)
    eventually(lambda: waiting(slow) == 1)
    assert not crowd.workers[-1].begun.is_set()


def test_a_mistake_gives_the_turn_back():
    strict = RequestSlots(longest=NEVER)
    for _ in range(AT_ONCE + 1):
        with pytest.raises(RuntimeError), strict.acquired():
            raise RuntimeError("no")
    assert not strict._until


def test_giving_back_what_one_has_not_changes_nothing():
    request_slots.release()
    with request_slots.acquired():
        pass


@pytest.fixture
def idle():
    """An engine with nothing to do: whoever submits this waits until all is calm."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_without_anybody_there_is_nothing_to_wait_for():
    slow = RequestSlots(longest=NEVER)
    slow.settle(NEVER)
    with slow.acquired():
        pass
    slow.settle(NEVER)


def test_an_engine_waits_for_all_that_are_read(crowd, idle):
    slow = RequestSlots(longest=NEVER)
    crowd.send(*[Worker(slow) for _ in range(AT_ONCE + 2)])
    eventually(lambda: waiting(slow) == 2)
    settled = idle.submit(slow.settle, NEVER)
    for worker in crowd.workers:
        assert not settled.done()
        eventually(worker.begun.is_set)
        worker.may_end.set()
    settled.result(WITHIN)


def test_and_not_for_one_that_waits_for_its_answer(crowd, idle):
    slow = RequestSlots(longest=NEVER)
    crowd.send(Worker(slow, slow.release))
    eventually(lambda: begun(crowd.workers))
    idle.submit(slow.settle, NEVER).result(WITHIN)


def test_nor_for_one_that_waits_for_something_else(crowd, idle):
    quick = RequestSlots(longest=0.01)
    crowd.send(Worker(quick))
    eventually(lambda: begun(crowd.workers))
    idle.submit(quick.settle, NEVER).result(WITHIN)


def test_nor_for_longer_than_it_wants_to(crowd, idle):
    slow = RequestSlots(longest=NEVER)
    crowd.send(Worker(slow))
    eventually(lambda: begun(crowd.workers))
    idle.submit(slow.settle, 0.01).result(WITHIN)


def test_callers_that_wait_for_their_answers_keep_nobody_out(api, serve, gate, monkeypatch):
    monkeypatch.setattr(request_slots, "longest", NEVER)
    serve(ScriptedEngine(gate=gate))
    with ThreadPoolExecutor(2 * AT_ONCE) as callers:
        answers = [
            callers.submit(api.post, "/chat/new/message/", json={"prompt": "Say it"})
            for _ in range(2 * AT_ONCE)
        ]
        try:
            eventually(lambda: supervisor.active == 2 * AT_ONCE)
            assert api.get("/chat/get/messages/").status_code == 200
        finally:
            gate.set()
    assert [answer.result().status_code for answer in answers] == [200] * 2 * AT_ONCE
