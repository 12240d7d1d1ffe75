"""One reader's ear: woken from any thread, unless it wishes to be left alone for a while."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Listener:
    """Made on the reader's loop, and waited on there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._told = False
        self._resting = False

    # The reader's side.

    def clear(self) -> None:
        """Forget what was told. Before looking, so that nothing told after the look is missed."""
        self._told = False
        self._news.clear()

    async def woken(self, seconds: float) -> bool:
        """Whether there was news, within so long."""
        return await _set(self._news, seconds)

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until the end. News wakes nobody meanwhile: look afterwards."""
        self._resting = True
        try:
            await _set(self._over, seconds)
        finally:
            self._resting = False

    # The writer's side.

    def tell(self) -> None:
        """There is news. Who was told of some and has not looked yet need not be woken again."""
        if not self._resting and not self._told:
            self._told = True
            self._set(self._news)

    def end(self) -> None:
        """Nothing more will come."""
        self._set(self._over)
        self._set(self._news)

    def _set(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the reader's loop is closed
            self._loop.call_soon_threadsafe(event.set)


async def _set(event: asyncio.Event, seconds: float) -> bool:
    """Whether it was set, within so long. Without a task of its own: this runs for every piece."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
