"""Back-pressure for daphne: a writer waits while its client does not read.

daphne hands everything to Twisted, which keeps it all for a client that never reads. The
transport tells a push producer when its buffer (64 KiB) is full and when it is empty again;
between the two, `send` waits here, and with it the generator that would have made more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor

# Seconds in which a full buffer must be read, or the client is taken for dead: it holds a thread
# and a socket. Reading 2 KB/s is enough; a cursor resumes what was cut.
STALLED = 60.0

clock: Any = reactor


class Flow:
    """Open while the client takes what is written to it; `cut` is called when it stalls.

    A push producer in Twisted's sense, registered with the request that it belongs to.
    is_over: nothing more reaches the client.
    """

    is_over = False

    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self._open = asyncio.Event()
        self._open.set()
        self._deadline: Any = None

    @property
    def is_open(self) -> bool:
        """Whether more may be written now."""
        return self._open.is_set()

    async def open(self) -> None:
        """Wait until more may be written, or until there is nobody to write to."""
        await self._open.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        """The buffer is full. Said again by each write while it is."""
        if self._deadline is None:
            self._open.clear()
            self._deadline = clock.callLater(STALLED, self._stalled)

    def resumeProducing(self) -> None:  # noqa: N802
        """The buffer is empty."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._open.set()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is gone, or the response is complete."""
        self.is_over = True
        self.resumeProducing()

    def _stalled(self) -> None:
        self._deadline = None
        self.is_over = True
        self._open.set()
        self._cut()
