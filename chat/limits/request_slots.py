"""Requests take turns: a few are worked on at a time, the others sleep until one is done.

Python runs one thread at a time, and an engine in the same process needs it, too. Of thirty
requests that are worked on together each one is ready when nearly all of them are; one after the
other the first is ready at once, and the work is the same. Two, because one may wait for the
database while the other computes. docs/decisions/0025.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections

AT_ONCE = 2
# Whoever has a slot for longer is waiting for something: the slot is given to the next one.
LONGEST = 0.05  # seconds
SETTLED = 0.2  # seconds that an idle engine waits at most; thirty requests need half of that


class RequestSlots:
    """The slots of one process. One belongs to the thread that took it."""

    def __init__(
        self, *, longest: float = LONGEST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.longest = longest
        self._clock = clock
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._calm = threading.Condition(lock)
        self._waiting = 0  # for a slot
        self._until: dict[int, float] = {}  # thread → when its slot counts no more

    @contextmanager
    def acquired(self) -> Iterator[None]:
        """Wait for a slot and have it, until the end of the block or `release`."""
        with self._changed:
            self._waiting += 1
            try:
                while (wait := self._wait()) > 0:
                    self._changed.wait(wait)
            finally:
                self._waiting -= 1
            self._until[threading.get_ident()] = self._clock() + self.longest
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let somebody else work: call it before a wait. Without a slot it does nothing."""
        with self._changed:
            if self._until.pop(threading.get_ident(), None) is not None:
                self._changed.notify()
                self._calm.notify_all()

    def settle(self, at_most: float = SETTLED) -> None:
        """Wait until nobody waits for a slot or works in one, at most so many seconds.

        For an engine that has nothing to do: a first step with one of thirty prompts takes the
        processors from those who read the others. docs/decisions/0034.
        """
        end = self._clock() + at_most
        with self._changed:
            while (left := end - self._clock()) > 0 and (self._waiting or self._left()):
                self._calm.wait(min([left, *self._left()]))

    def _wait(self) -> float:
        """Seconds after which a slot is free in any case."""
        left = self._left()
        return min(left) if len(left) >= AT_ONCE else 0.0

    def _left(self) -> list[float]:
        """Of each slot that counts the seconds until it does not."""
        now = self._clock()
        return [until - now for until in self._until.values() if until > now]


request_slots = RequestSlots()


def hold_nothing() -> None:
    """Call it before a wait: others need this thread's slot and its database connection."""
    request_slots.release()
    connections.close_all()


@contextmanager
def alone(turn: threading.Lock) -> Iterator[None]:
    """Have this lock; whoever has to wait for it holds nothing meanwhile that others need."""
    if not turn.acquire(blocking=False):
        hold_nothing()
        turn.acquire()
    try:
        yield
    finally:
        turn.release()
