"""How many clients may wait at once: for a response, in whatever way, or for what a scan finds.

Generations are limited where they are taken in (`chat.limits.admission`), but any number of clients
may follow one. Each holds a descriptor and a thread for as long as it stays, and a process without
descriptors accepts nobody any more. A scan, an export or a search, may read a whole log, and
keeps the database and Python busy meanwhile.
"""

from __future__ import annotations

import resource
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from django.conf import settings

from chat.access.callers import caller_of_request
from chat.connections import connection_of

RETRY_AFTER = 10  # seconds; nobody knows when a reader leaves


class TooManyStreams(Exception):
    """As many clients as may wait do so already."""


class Readers:
    """The clients of one process that wait.

    limits: for everybody together, and for one caller. what: what they have open, for refusals.
    """

    def __init__(self, limits: Callable[[], tuple[int, int]], what: str) -> None:
        self._limits = limits
        self._what = what
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many there are."""
        return self._of.total()

    def enter(self, caller: str) -> Callable[[], None]:
        """One more; what comes back is to be called when it leaves. Raises TooManyStreams."""
        everybody, one = self._limits()
        with self._lock:
            if self._of.total() >= everybody:
                raise TooManyStreams(
                    f"The server holds {everybody} open {self._what}, and that many are open."
                )
            if self._of[caller] >= one:
                raise TooManyStreams(f"One caller may have {one} {self._what} open at once.")
            self._of[caller] += 1
        return lambda: self._leave(caller)

    def _leave(self, caller: str) -> None:
        with self._lock:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]


def streams() -> tuple[int, int]:
    """How many streams for everybody together, and for one caller."""
    most = min(settings.LLMSITE_MAX_STREAMS, descriptors())
    return most, settings.LLMSITE_MAX_STREAMS_PER_CALLER


def scans() -> tuple[int, int]:
    """The same of exports and searches."""
    return streams()[0], settings.LLMSITE_MAX_SCANS_PER_CALLER


def descriptors() -> int:
    """How many of the process's descriptors streams may take."""
    return max(1, _allowed() - reserved())


def reserved() -> int:
    """A quarter, but at least 64: for whoever is answered at once, the database and the logs."""
    return max(64, _allowed() // 4)


def _allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def take_place(request: Any, *kinds: Readers) -> None:
    """Count whoever sent this request among those that wait, until its exchange ends.

    Raises TooManyStreams.
    """
    caller, connection = caller_of_request(request).name, connection_of(request)
    for kind in kinds:
        connection.on_end(kind.enter(caller))


readers = Readers(streams, "streams")
scanners = Readers(scans, "exports and searches")
