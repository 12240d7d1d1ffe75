"""Wakes one reader of a live response, from any thread, except while it wants to rest."""

from __future__ import annotations

import asyncio

from modelhost.wakeups import wakeups


class Listener:
    """Made on the reader's loop, and waited on there by one task.

    This runs for every piece of every stream, so one timer serves many waits: when it is due it
    looks whether the wait that it was set for is still the last one.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wakeups = wakeups()
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._told = False
        self._ended = False
        self._resting = False

    # The reader's side.

    def clear(self) -> None:
        """Forget what was told. Before looking, so that nothing told after the look is missed."""
        self._told = self._ended

    async def woken(self, seconds: float) -> bool:
        """Wait for news, at most so many seconds; whether there was any."""
        if not self._told:
            await self._wait(seconds)
        return self._told

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until the end. News wakes nobody meanwhile: look afterwards."""
        self._resting = True
        try:
            if not self._ended:
                await self._wait(seconds)
        finally:
            self._resting = False

    def leave(self) -> None:
        """Nobody listens any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self, seconds: float) -> None:
        self._until = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer()
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _set_timer(self) -> None:
        self.leave()
        self._timer = self._loop.call_at(self._until, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._until:
            self._set_timer()
        else:
            self._go_on()

    def _hear(self) -> None:
        if self._ended or (self._told and not self._resting):
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # The writer's side.

    def tell(self) -> None:
        """There is news. Who was told of some and has not looked yet need not be woken again."""
        if not self._resting and not self._told:
            self._told = True
            self._wakeups.call(self._hear)

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = self._told = True
        self._wakeups.call(self._hear)
