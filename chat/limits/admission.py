"""How much is taken in at once, by everybody and by one caller, and when to come again.

Decided before anything is stored: a refusal costs the caller a wait and the server nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

WINDOW = 60.0  # seconds over which a rate is measured; after as long a rest it is forgotten
LONGEST_WAIT = 120  # seconds; the official OpenAI clients give up on more
UNKNOWN_WAIT = 10  # seconds, while nothing has left in the last WINDOW of work


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

    def __str__(self) -> str:
        requests = "request" if self.requests == 1 else "requests"
        tokens = "token" if self.tokens == 1 else "tokens"
        return f"{self.requests} {requests} with {self.tokens} prompt {tokens}"

    def exceeds(self, limit: Load) -> bool:
        """A single request always fits: its prompt was compared with the context."""
        return self.requests > limit.requests or (self.tokens > limit.tokens and self.requests > 1)


class Meter:
    """What is inside, of everybody or of one caller, and how fast it was worked off lately.

    Its clock runs while something is inside: a rest is neither slow work nor fast.
    """

    def __init__(self, now: float) -> None:
        self.load = Load()
        self._at = now
        self._worked = 0.0
        self._left: deque[tuple[float, Load]] = deque()

    def rests(self, now: float) -> bool:
        """Whether nothing is inside, and what left did so too long ago to say anything."""
        return not self.load.requests and now - self._at > WINDOW

    def enter(self, load: Load, now: float) -> None:
        """Something comes."""
        if self.rests(now):
            self._worked = 0.0
            self._left.clear()
        self._work(now)
        self.load += load

    def leave(self, load: Load, now: float, *, served: bool) -> None:
        """Something goes; unless it was served, that says nothing about the rate."""
        self._work(now)
        self.load -= load
        if served:
            self._left.append((self._worked, load))
        self._forget()

    def wait(self, excess: Load, now: float) -> int:
        """Whole seconds until so much is expected to have left, 1 to LONGEST_WAIT."""
        self._work(now)
        self._forget()
        gone = sum((load for _, load in self._left), Load())
        span = min(WINDOW, self._worked)
        waits = [
            part * span / whole
            for part, whole in ((excess.requests, gone.requests), (excess.tokens, gone.tokens))
            if part > 0 and whole > 0
        ]
        return min(LONGEST_WAIT, max(1, math.ceil(max(waits, default=UNKNOWN_WAIT))))

    def _forget(self) -> None:
        """What left so long ago that it says nothing about now."""
        while self._left and self._left[0][0] < self._worked - WINDOW:
            self._left.popleft()

    def _work(self, now: float) -> None:
        if self.load.requests:
            self._worked += now - self._at
        self._at = now


class Admission:
    """The places of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = Meter(clock())
        self._of: dict[str, Meter] = {}
        self._tidied_at = clock()

    @property
    def total(self) -> Load:
        """What is inside now."""
        return self._all.load

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
            now = self._clock()
            self._tidy(now)
            for meter in (self._all, self._of.setdefault(caller, Meter(now))):
                meter.enter(load, now)
        given_up = threading.Lock()

        def leave(*, served: bool = True) -> None:
            if given_up.acquire(blocking=False):
                self._leave(caller, load, served=served)

        return leave

    def _leave(self, caller: str, load: Load, *, served: bool) -> None:
        with self._lock:
            now = self._clock()
            for meter in (self._all, self._of[caller]):
                meter.leave(load, now, served=served)

    def _tidy(self, now: float) -> None:
        """Forget callers whose meters say nothing any more."""
        if now - self._tidied_at > WINDOW:
            self._tidied_at = now
            self._of = {caller: meter for caller, meter in self._of.items() if not meter.rests(now)}

    def _refuse(self, caller: str, load: Load) -> None:
        everybody, one = limits()
        now = self._clock()
        together = self._all.load + load
        if together.exceeds(everybody):
            raise Overloaded(
                f"The server takes {everybody} at once, and that many are running or waiting.",
                self._all.wait(together - everybody, now),
            )
        own = self._of.get(caller) or Meter(now)
        if (own.load + load).exceeds(one):
            raise Overloaded(
                f"One caller may have {one} running or waiting at once.",
                own.wait(own.load + load - one, now),
            )


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
