"""A response while it is being generated: one writer, any number of readers, one cursor.

The cursor is the number of characters of the text. A reader says how many it has
and gets the rest, then what comes, then the outcome. Readers may live on any event
loop or thread; a reader that leaves changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from chat.lifecycle.listener import Listener
from chat.lifecycle.pace import pace
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
        self._readers: set[Listener] = set()

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
        self._tell()

    def catch_up(self, text: str) -> None:
        """Append what a longer version of the same text has more."""
        with self._lock:
            self._add(text[self.cursor :])
        self._tell()

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
        for reader in self._listeners():
            reader.end()

    def wait(self, timeout: float | None = None) -> bool:
        """Block a thread until nothing more comes; whether that is so."""
        return self._closed.wait(timeout)

    async def follow(self, after: int = 0) -> AsyncGenerator[Delta, None]:
        """The text behind the cursor, piece by piece as it was made; ends with the outcome.

        Where all streams together would send more pieces than `pace` allows, those that came
        until it is this reader's turn are one. An empty piece says that nothing came for
        HEARTBEAT seconds.
        """
        deltas, begun = self._deltas, after  # the first piece waits for nobody
        with self._listening() as reader:
            while True:
                reader.clear()
                ended = self._ended
                # A reader may have more already than this process, which takes a response over.
                while (at := bisect_right(deltas, after, key=_cursor)) < len(deltas):
                    wait = pace.turn(self.id) if after > begun else 0.0
                    if wait and not self._ended:
                        await reader.rest(wait)
                    delta = _joined(deltas[at:] if wait else deltas[at : at + 1], after)
                    yield delta
                    after = delta.cursor
                    if not wait:  # a long replay never waits for anything
                        await asyncio.sleep(0)
                if ended:
                    return
                if not await reader.woken(HEARTBEAT):
                    yield Delta("", after)

    async def until_end(self) -> AsyncGenerator[None, None]:
        """Nothing of the text: a beat after each HEARTBEAT seconds, until nothing more comes."""
        with self._listening() as reader:
            beat_at = time.monotonic() + HEARTBEAT
            while True:
                reader.clear()
                if self._ended:
                    return
                await reader.woken(max(0.0, beat_at - time.monotonic()))
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT
                    yield

    async def queue(self, every: float = LOOK_AT_QUEUE) -> AsyncGenerator[int | None, None]:
        """How many are ahead, None when nobody knows; ends with the first piece of text.

        Told whenever that changes, and after HEARTBEAT seconds in which it did not. With nobody
        ahead it is told only when that lasts: most begin at once.
        """
        told: int | None = None
        told_at, lasts = time.monotonic(), False
        with self._listening() as reader:
            while True:
                reader.clear()
                if self._deltas or self._ended:
                    return
                position = self.position()
                news = position != told and (position != 0 or told is not None or lasts)
                if news or time.monotonic() >= told_at + HEARTBEAT:
                    told, told_at = position, time.monotonic()
                    yield position
                lasts = not await reader.woken(min(every, HEARTBEAT)) or lasts

    @contextmanager
    def _listening(self) -> Iterator[Listener]:
        reader = Listener()
        with self._lock:
            self._readers.add(reader)
        try:
            yield reader
        finally:
            reader.leave()
            with self._lock:
                self._readers.discard(reader)

    def _listeners(self) -> list[Listener]:
        with self._lock:
            return list(self._readers)

    def _tell(self) -> None:
        for reader in self._listeners():
            reader.tell()


def _cursor(delta: Delta) -> int:
    return delta.cursor


def _joined(deltas: Sequence[Delta], after: int) -> Delta:
    """What they say behind the cursor, in one."""
    cursor = deltas[-1].cursor
    text = "".join(delta.text for delta in deltas)
    return Delta(text[len(text) - (cursor - after) :], cursor)


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
