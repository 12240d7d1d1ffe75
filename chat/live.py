"""A response while it is being generated: one writer, any number of readers, one cursor.

The cursor is the number of characters of the text. A reader says how many it has
and gets the rest, then what comes, then the outcome. Readers may live on any event
loop or thread; a reader that leaves changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from chat.models import Response
from modelhost.types import FinishReason, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text and the cursor behind it."""

    text: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a response ended, exactly as its row says it."""

    status: Response.Status
    finish_reason: str
    usage: Usage
    error: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def failed(self) -> bool:
        return self.status in (Response.Status.FAILED, Response.Status.INTERRUPTED)


LOOK_AT_QUEUE = 1.0  # seconds between looks at the place in the queue
HEARTBEAT = 15.0  # seconds of silence after which a reader's proxies must see that it is served


class LiveResponse:
    """Text that grows until its outcome is known. `close` comes after the row was written.

    outcome: None at the end means that the process stops; the response goes on in the next one.
    position: how many are ahead of it in the queue; None where that is not known, as in a
    process that does not carry it.
    """

    def __init__(self, response_id: UUID) -> None:
        self.id = response_id
        self.outcome: Outcome | None = None
        self.position: Callable[[], int | None] = lambda: None
        self._ended = False
        self._attached = 0
        self._deltas: list[Delta] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self._deltas)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes here: it has its outcome, or the process stops."""
        return self._ended

    @property
    def cursor(self) -> int:
        """The length of the text."""
        return self._deltas[-1].cursor if self._deltas else 0

    @property
    def readers(self) -> int:
        """How many follow it now."""
        return len(self._readers)

    @property
    def attached(self) -> int:
        """How many clients wait for it, in whatever way."""
        return self._attached

    def attach(self) -> None:
        """One more client waits for it."""
        with self._lock:
            self._attached += 1

    def detach(self) -> bool:
        """A client left before the end; whether it was the last one."""
        with self._lock:
            self._attached -= 1
            return self._attached <= 0

    def append(self, text: str) -> None:
        """Add to the text and wake the readers; nothing is added after the end."""
        with self._lock:
            self._add(text)
        self._wake()

    def catch_up(self, text: str) -> None:
        """Append what a longer version of the same text has more."""
        with self._lock:
            self._add(text[self.cursor :])
        self._wake()

    def _add(self, text: str) -> None:
        if text and not self._ended:
            self._deltas.append(Delta(text, self.cursor + len(text)))

    def close(self, outcome: Outcome) -> None:
        """The end: nothing is appended after it, and there is no other."""
        if not self._ended:
            self.outcome = outcome
            self.suspend()

    def suspend(self) -> None:
        """No more comes from this process."""
        self._ended = True
        self._closed.set()
        self._wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block a thread until nothing more comes; whether that is so."""
        return self._closed.wait(timeout)

    async def follow(self, after: int = 0) -> AsyncGenerator[Delta, None]:
        """The text behind the cursor, piece by piece as it was made; ends with the outcome.

        An empty piece says that nothing came for HEARTBEAT seconds.
        """
        at = 0
        with self._listening() as wake:
            while True:
                wake.clear()  # before looking, so that nothing appended after the look is missed
                ended = self._ended
                while at < len(self._deltas):
                    delta = self._deltas[at]
                    at += 1
                    if delta.cursor > after:
                        yield Delta(delta.text[-(delta.cursor - after) :], delta.cursor)
                        after = delta.cursor
                        if at < len(self._deltas):  # a long replay never waits for anything
                            await asyncio.sleep(0)
                if ended:
                    return
                if not await _woken(wake, HEARTBEAT):
                    yield Delta("", after)

    async def queue(self, every: float = LOOK_AT_QUEUE) -> AsyncGenerator[int | None, None]:
        """How many are ahead, None when nobody knows; ends with the first piece of text.

        Whenever that changed, and once more after HEARTBEAT seconds in which it did not. Who is
        next, with nobody ahead, hears of it only when that lasts: most begin at once.
        """
        told: int | None = None
        told_at, lasts = time.monotonic(), False
        with self._listening() as wake:
            while True:
                wake.clear()
                if self._deltas or self._ended:
                    return
                position = self.position()
                news = position != told and (position != 0 or told is not None or lasts)
                if news or time.monotonic() >= told_at + HEARTBEAT:
                    told, told_at = position, time.monotonic()
                    yield position
                lasts = not await _woken(wake, min(every, HEARTBEAT)) or lasts

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Event]:
        reader = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._readers.add(reader)
        try:
            yield reader[1]
        finally:
            with self._lock:
                self._readers.discard(reader)

    def _wake(self) -> None:
        with self._lock:
            readers = list(self._readers)
        for loop, event in readers:
            with suppress(RuntimeError):  # that reader's loop is closed
                loop.call_soon_threadsafe(event.set)


async def _woken(wake: asyncio.Event, seconds: float) -> bool:
    """Whether it was, within so long. Without a task of its own: this runs for every piece."""
    try:
        async with asyncio.timeout(seconds):
            return await wake.wait()
    except TimeoutError:
        return False


def usage_of(response: Response) -> Usage:
    """A row's token counts."""
    return Usage(response.prompt_tokens or 0, response.completion_tokens or 0)


def stored_outcome(response: Response) -> Outcome | None:
    """The outcome of a row that has one."""
    if response.active:
        return None
    return Outcome(
        Response.Status(response.status),
        response.finish_reason or FinishReason.STOP,
        usage_of(response),
        response.error,
        response.turn().tool_calls,
    )
