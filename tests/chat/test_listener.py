"""One reader's ear: it misses nothing, and while it rests nothing wakes it but the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chat.lifecycle.listener import Listener

LONG = 60.0  # seconds that no test waits for


async def test_each_news_is_heard_after_a_look():
    reader = Listener()
    for _ in range(3):
        reader.clear()
        reader.tell()
        assert await reader.woken(LONG)


async def test_without_news_the_wait_ends():
    assert not await Listener().woken(0.001)


async def test_who_has_not_looked_yet_is_woken_once(monkeypatch):
    reader = Listener()
    calls = noting(monkeypatch)
    for _ in range(5):
        reader.tell()
    assert len(calls) == 1
    await asyncio.sleep(0)
    reader.clear()
    reader.tell()
    assert len(calls) == 2


async def test_news_that_was_looked_at_meanwhile_is_none():
    reader = Listener()
    reader.tell()
    reader.clear()  # before the loop gets to what was told
    assert not await reader.woken(0.01)


async def test_news_from_before_a_rest_does_not_end_it():
    reader = Listener()
    reader.tell()
    begun = asyncio.get_running_loop().time()
    await reader.rest(0.02)
    assert asyncio.get_running_loop().time() - begun >= 0.02


async def test_a_timer_serves_many_waits(monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args: timers.append(call_at(*args)) or timers[-1])
    reader = Listener()
    for _ in range(5):
        reader.clear()
        loop.call_soon(reader.tell)
        assert await reader.woken(LONG)
    assert len(timers) == 1

    await reader.rest(0.001)
    assert not await woken_after_clear(reader, 0.001)
    reader.leave()
    assert all(timer.cancelled() or timer.when() < loop.time() for timer in timers)


async def test_the_last_wait_decides_how_long_it_is():
    reader, loop = Listener(), asyncio.get_running_loop()
    loop.call_soon(reader.tell)
    assert await reader.woken(0.02)
    begun = loop.time()
    assert not await woken_after_clear(reader, 0.04)  # the first one's timer comes in between
    assert loop.time() - begun >= 0.04


async def woken_after_clear(reader: Listener, seconds: float) -> bool:
    reader.clear()
    return await reader.woken(seconds)


async def test_a_wait_that_is_given_up_leaves_nothing():
    reader = Listener()
    for _ in range(2):
        waiting = asyncio.ensure_future(reader.woken(LONG))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    reader.tell()
    assert await reader.woken(LONG)
    reader.leave()


async def test_news_wakes_nobody_who_rests(monkeypatch):
    reader = Listener()
    resting = asyncio.ensure_future(reader.rest(LONG))
    await asyncio.sleep(0)
    calls = noting(monkeypatch)
    reader.tell()
    assert calls == []
    reader.end()
    await resting

    reader.clear()
    reader.tell()
    assert await reader.woken(LONG), "after the rest news is heard again"


async def test_the_end_is_heard_by_whoever_waits():
    reader = Listener()
    waiting = asyncio.ensure_future(reader.woken(LONG))
    await asyncio.sleep(0)
    reader.end()

    assert await waiting
    await reader.rest(LONG)  # over already


def noting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What this loop is called back for from now on, as from other threads."""
    loop, calls = asyncio.get_running_loop(), []
    call = loop.call_soon_threadsafe

    def noted(callback: Callable[[], object]) -> asyncio.Handle:
        calls.append(callback)
        return call(callback)

    monkeypatch.setattr(loop, "call_soon_threadsafe", noted)
    return calls
