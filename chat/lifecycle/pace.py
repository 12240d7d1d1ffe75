"""How many pieces of text a second are sent, over all streams together.

An event costs the server's loop a third to half a millisecond however little text is in it, and
Python runs one thread at a time: where a fast engine brings thousands of tokens a second, an event
for each would slow down the engine itself. Below the rate every token is its own event. Beyond it
each stream waits its turn and then gets all that came meanwhile; docs/decisions/0019.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from django.conf import settings

BURST = 0.1  # seconds: the streams of one step are woken together, and need not queue for that


class Pace:
    """Gives out turns, at most so many a second, the same share to each response that takes some.

    So two thousand followers of one response wait for one another and delay nobody else. Each
    share is kept by the generic cell rate algorithm (ITU-T I.371).

    rate: turns a second, asked for anew each time.
    """

    def __init__(
        self, rate: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()  # readers live on several loops
        self._due: dict[Hashable, float] = {}  # when each response's turns are worked off
        self._tidy_at = 0.0

    def turn(self, response: Hashable) -> float:
        """Take the response's next turn: in how many seconds it is, 0 for now."""
        with self._lock:
            now = self._clock()
            self._tidy(now)
            due = max(self._due.setdefault(response, now), now) + len(self._due) / self._rate()
            self._due[response] = due
            return max(0.0, due - now - BURST)

    def _tidy(self, now: float) -> None:
        """Forget who has taken no more than its share: it is not in anybody's way."""
        if now >= self._tidy_at:
            self._due = {response: due for response, due in self._due.items() if due > now}
            self._tidy_at = now + BURST / 2


pace = Pace(lambda: settings.LLMSITE_EVENTS_PER_SECOND)
