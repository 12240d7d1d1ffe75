"""How much is taken in at once, by everybody and by one caller, and when to come again.

Decided before anything is stored: what is refused costs the caller a wait and us nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

WINDOW = 60.0  # seconds over which the rate is measured
LONGEST_WAIT = 120  # seconds; the official OpenAI clients give up on more
UNKNOWN_WAIT = 10  # seconds, while nothing has finished yet


class Overloaded(Exception):
    """As much as is taken in at once is running or waiting. retry_after: seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Load:
    """Requests and the tokens of their prompts."""

    requests: int = 0
    tokens: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.requests + other.requests, self.tokens + other.tokens)

    def __sub__(self, other: Load) -> Load:
        return Load(self.requests - other.requests, self.tokens - other.tokens)

    def exceeds(self, limit: Load) -> bool:
        """A single request always fits: its prompt was compared with the context."""
        return self.requests > limit.requests or (self.tokens > limit.tokens and self.requests > 1)


class Admission:
    """The places of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._total = Load()
        self._of: dict[str, Load] = {}
        self._left: deque[tuple[float, Load]] = deque()

    @property
    def total(self) -> Load:
        """What is inside now."""
        return self._total

    def check(self, caller: str) -> None:
        """Refuse early what would be refused anyway. Raises Overloaded."""
        with self._lock:
            self._refuse(caller, Load(1, 0))

    def enter(self, caller: str, *, tokens: int, always: bool = False) -> Callable[..., None]:
        """Take a place; what comes back gives it up again, once.

        always: it was taken in before this process began. Call the result with served=False
        when nothing came of it: that says nothing about the rate. Raises Overloaded.
        """
        load = Load(1, tokens)
        with self._lock:
            if not always:
                self._refuse(caller, load)
            self._total += load
            self._of[caller] = self._of.get(caller, Load()) + load
        given_up = threading.Lock()

        def leave(*, served: bool = True) -> None:
            if given_up.acquire(blocking=False):
                self._leave(caller, load, served=served)

        return leave

    def _leave(self, caller: str, load: Load, *, served: bool) -> None:
        with self._lock:
            self._total -= load
            rest = self._of[caller] - load
            if rest.requests:
                self._of[caller] = rest
            else:
                del self._of[caller]
            if served:
                self._left.append((self._clock(), load))

    def _refuse(self, caller: str, load: Load) -> None:
        everybody, one = limits()
        if (self._total + load).exceeds(everybody):
            raise Overloaded(
                f"The server takes {everybody.requests} requests with {everybody.tokens} prompt "
                "tokens at once, and that many are running or waiting.",
                self._wait(self._total + load - everybody),
            )
        if (self._of.get(caller, Load()) + load).exceeds(one):
            raise Overloaded(
                f"One caller may have {one.requests} requests with {one.tokens} prompt tokens "
                "running or waiting at once.",
                self._wait(self._of.get(caller, Load()) + load - one),
            )

    def _wait(self, excess: Load) -> int:
        """Seconds until so much is expected to have left."""
        now = self._clock()
        while self._left and self._left[0][0] < now - WINDOW:
            self._left.popleft()
        if not self._left:
            return UNKNOWN_WAIT
        gone = sum((load for _, load in self._left), Load())
        span = max(1.0, now - self._left[0][0])
        waits = [
            part / (whole / span)
            for part, whole in ((excess.requests, gone.requests), (excess.tokens, gone.tokens))
            if part > 0 and whole > 0
        ]
        return min(LONGEST_WAIT, max(1, math.ceil(max(waits, default=UNKNOWN_WAIT))))


def limits() -> tuple[Load, Load]:
    """For everybody together, and for one caller."""
    return (
        Load(settings.LLMSITE_MAX_REQUESTS, settings.LLMSITE_MAX_QUEUED_TOKENS),
        Load(settings.LLMSITE_MAX_REQUESTS_PER_CALLER, settings.LLMSITE_MAX_TOKENS_PER_CALLER),
    )


def caller_of(api_key_id: int | None, user_id: int) -> str:
    """Who shares one caller's places: what asks with one key, or one person's pages."""
    return f"user:{user_id}" if api_key_id is None else f"key:{api_key_id}"


admission = Admission()
