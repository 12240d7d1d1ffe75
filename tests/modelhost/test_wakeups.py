"""What other threads have a loop call: all of it, in order, at the price of one wake-up."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from modelhost.wakeups import Wakeups, wakeups


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the loop was woken for."""
    calls: list[object] = []
    call = asyncio.BaseEventLoop.call_soon_threadsafe

    def noted(loop, callback, *arguments, **options):
        calls.append(callback)
        return call(loop, callback, *arguments, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", noted)
    return calls


async def test_what_comes_before_the_loop_gets_to_it_wakes_it_once(told):
    heard: list[int] = []
    for number in range(100):
        wakeups().call(lambda number=number: heard.append(number))
    await asyncio.sleep(0)

    assert heard == list(range(100))
    assert len(told) == 1


async def test_what_comes_behind_that_wakes_it_anew(told):
    heard: list[int] = []
    for number in range(3):
        wakeups().call(lambda number=number: heard.append(number))
        await asyncio.sleep(0)

    assert heard == [0, 1, 2]
    assert len(told) == 3


async def test_what_a_call_brings_about_is_called_as_well():
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        wakeups().call(lambda: heard.append("second"))

    wakeups().call(first)
    await asyncio.sleep(0)

    assert heard == ["first", "second"]


async def test_nothing_is_lost_between_threads():
    count, each = 8, 2000
    mine, done = wakeups(), asyncio.Event()
    heard: list[tuple[int, int]] = []

    def hear(thread: int, number: int) -> None:
        heard.append((thread, number))
        if len(heard) == count * each:
            done.set()

    def tell(thread: int) -> None:
        for number in range(each):
            mine.call(lambda number=number: hear(thread, number))

    threads = [threading.Thread(target=tell, args=(one,)) for one in range(count)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(20):
        await done.wait()
    for thread in threads:
        thread.join()

    for one in range(count):
        assert [number for thread, number in heard if thread == one] == list(range(each))


def test_a_closed_loop_calls_nothing_and_raises_nothing():
    loop = asyncio.new_event_loop()
    mine = Wakeups(loop)
    loop.close()
    for _ in range(3):
        mine.call(lambda: pytest.fail("called"))
    assert not mine._due, "nothing is kept for it"


def test_those_of_a_loop_are_forgotten_with_it():
    async def own() -> weakref.ref[Wakeups]:
        assert wakeups() is wakeups()
        return weakref.ref(wakeups())

    mine = asyncio.run(own())
    gc.collect()
    assert mine() is None
