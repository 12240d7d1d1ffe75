"""A response while it is being generated: one writer, any number of readers, one cursor.

The cursor is the number of characters of the text. A reader says how many it has
and gets the rest, then what comes, then the outcome. Readers may live on any event
loop or thread; a reader that leaves changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
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


class LiveResponse:
    """Text that grows until its outcome is known. `close` comes after the row was written."""

    def __init__(self, response_id: UUID) -> None:
        self.id = response_id
        self.outcome: Outcome | None = None
        self._deltas: list[Delta] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self._deltas)

    @property
    def readers(self) -> int:
        """How many follow it now."""
        return len(self._readers)

    def append(self, text: str) -> None:
        """Add to the text and wake the readers; nothing is added after the end."""
        if self.outcome is not None:
            return
        cursor = (self._deltas[-1].cursor if self._deltas else 0) + len(text)
        self._deltas.append(Delta(text, cursor))
        self._wake()

    def close(self, outcome: Outcome) -> None:
        """The end: nothing is appended after it."""
        self.outcome = outcome
        self._closed.set()
        self._wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block a thread until the outcome is known; whether it is."""
        return self._closed.wait(timeout)

    async def follow(self, after: int = 0) -> AsyncGenerator[Delta, None]:
        """The text behind the cursor, piece by piece as it was made; ends with the outcome."""
        at = 0
        with self._listening() as wake:
            while True:
                wake.clear()  # before looking, so that nothing appended after the look is missed
                ended = self.outcome is not None
                while at < len(self._deltas):
                    delta = self._deltas[at]
                    at += 1
                    if delta.cursor > after:
                        yield Delta(delta.text[-(delta.cursor - after) :], delta.cursor)
                        after = delta.cursor
                if ended:
                    return
                await wake.wait()

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
