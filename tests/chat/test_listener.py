"""One reader's ear: it misses nothing, and while it rests nothing wakes it but the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chat.listener import Listener

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
    reader.clear()
    reader.tell()
    assert len(calls) == 2


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
