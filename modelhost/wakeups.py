"""Calls into an event loop from other threads, any number of them for one wake-up.

A step of the engine has news for every stream. Each `call_soon_threadsafe` writes to the loop's
socket and releases the interpreter's lock, which a busy engine then takes; docs/decisions/0027.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary, ref


class Wakeups:
    """What one loop is to call, from any thread, in the order in which it was told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # weak, so that it is forgotten with its loop
        self._due: deque[Callable[[], object]] = deque()
        self._woken = False

    def call(self, callback: Callable[[], object]) -> None:
        """Have it called soon; never, if the loop is closed. It must not raise."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        self._due.append(callback)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._woken = False  # before looking: what comes after the last look wakes the loop again
        while self._due:
            self._due.popleft()()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Wakeups] = WeakKeyDictionary()


def wakeups() -> Wakeups:
    """The Wakeups of the running loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Wakeups(loop)
    return found
