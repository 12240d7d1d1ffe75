"""How many pieces of text a second are sent, over all streams together.

An event costs the server's loop a third to half a millisecond however little text is in it, and
Python runs one thread at a time: where a fast engine brings thousands of tokens a second, an event
for each would slow down the engine itself. Below the rate every token is its own event. Beyond it
each stream waits its turn and then gets all that came meanwhile; docs/decisions/0019.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.conf import settings

BURST = 0.1  # seconds: the streams of one step are woken together, and need not queue for that


class Pace:
    """Gives out turns, at most so many a second (the generic cell rate algorithm).

    rate: turns a second, asked for anew each time.
    """

    def __init__(
        self, rate: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()  # readers live on several loops
        self._due = 0.0

    def turn(self) -> float:
        """Take the next turn: in how many seconds it is, 0 for now."""
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now) + 1 / self._rate()
            return max(0.0, self._due - now - BURST)


pace = Pace(lambda: settings.LLMSITE_EVENTS_PER_SECOND)
