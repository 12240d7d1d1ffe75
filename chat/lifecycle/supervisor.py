"""Generations belong to the process: one thread that carries all of them to their end.

Requests only hand a ticket over and follow; when a client leaves, nothing here
changes. The thread has its own event loop, so it is the same under any ASGI
server, in a management command and in a test, and it never borrows a request's
context or database handle.

Nothing that a round raises ends the thread. When it ends nevertheless, nobody would be
answered any more while the server looks healthy: `well` is false, and `on_lost` is called so
that the process is replaced, which is the way that is tried at every deployment: the rows are
open, the next process goes on with them. To begin again in place would trust what is left of
a loop that just broke in a way nobody foresaw; where nobody replaces the process (a command,
a test), the next `start` does that all the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from uuid import UUID

from django.db import connections

from chat.lifecycle.live import LiveResponse
from chat.lifecycle.lives import Lives
from chat.lifecycle.pump import pump, stop, suspend
from chat.lifecycle.record import Record
from chat.lifecycle.recording_thread import recording_thread
from chat.lifecycle.upkeep import Running, Upkeep
from modelhost.ticket import Ticket

logger = logging.getLogger(__name__)

# Seconds from the beginning of a round to that of the next. A crash loses what came since the
# last round and while that was written; together that shall stay below 250 ms.
COMMIT_EVERY = 0.2
# Seconds without a round, or a write that succeeds: leases may be over by then.
SILENT = 5.0
LOOK_EVERY = 1.0  # seconds between looks for responses whose process is gone
LAST_COMMIT = 3.0  # seconds for the last write when the process ends
DRAIN_LOOK = 0.05  # seconds between looks at what is still running


class Supervisor:
    """Pumps tickets into live responses and live responses into rows.

    on_lost: called once, from a thread of its own, when the supervisor's thread died.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._running: Running = {}
        self._lives = Lives()
        self._tasks: set[asyncio.Task[None]] = set()
        self._upkeep = Upkeep(
            self._running, lives=self._lives.all, live=self.live, adopt=self.adopt
        )
        self._hurry = threading.Event()
        self._round_at = 0.0
        self._recover = False
        self._stopping = False
        self.draining = False
        self.on_lost: Callable[[], None] | None = None

    # Its life.

    def start(self, *, recover: bool = False) -> None:
        """Begin; does nothing while it runs.

        recover: go on with responses whose process is gone, as soon as the model is there.
        """
        with self._lock:
            self._recover = self._recover or recover
            runs = self._thread is not None and self._thread.is_alive()
            if not runs and not self.draining:
                self._stopping = False
                self._hurry.clear()
                self._round_at = time.monotonic()
                self._thread = threading.Thread(
                    target=self._carry, name="chat-supervisor", daemon=True
                )
                self._thread.start()

    @property
    def well(self) -> bool:
        """Whether it does its work, as far as it has begun: it lives, gets round and writes."""
        thread = self._thread
        if thread is None:
            return True
        since = min(self._round_at, self._upkeep.failing_since or self._round_at)
        return thread.is_alive() and time.monotonic() - since < SILENT

    @property
    def missing(self) -> list[str]:
        """Migrations that the database lacks, as far as it was asked."""
        return self._upkeep.missing or []

    def drain(self, seconds: float) -> None:
        """Let nothing new in, wait for what runs, leave the rest to the next process.

        Blocks for at most `seconds` and a last write. A second call with 0 hurries the first.
        """
        self.draining = True
        if seconds <= 0:
            self._hurry.set()
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            if self._hurry.wait(DRAIN_LOOK):
                break
        self.stop()

    def stop(self, *, timeout: float = LAST_COMMIT) -> None:
        """Leave what runs to the next process, write everything, end the thread."""
        with self._lock:
            thread = self._thread
            self._stopping, self._recover = True, False
            for record, ticket in list(self._running.values()):
                suspend(record, ticket)
            self._loop.call_soon_threadsafe(self._wake.set)
        if thread is not None:
            thread.join(timeout)
        with self._lock:
            if self._thread is thread:
                self._thread = None
        for live in self._lives.all():
            live.suspend()

    # What requests do with it.

    def live(self, response_id: UUID) -> LiveResponse:
        """The one live response with this id in this process, made when there is none.

        Whether it is generated here or elsewhere: someone who holds it sees it grow and end.
        """
        return self._lives.of(response_id)

    def watch(self, live: LiveResponse) -> None:
        """Keep it up to its row while somebody holds it."""
        self.start()
        if self.draining and self._thread is None:
            live.suspend()

    def carries(self, response_id: UUID) -> bool:
        """Whether this process generates it."""
        return response_id in self._running

    def adopt(self, record: Record, ticket: Ticket) -> None:
        """Carry a generation to its end. Its row exists; one that is carried already stays."""
        entry = self._running.setdefault(record.live.id, (record, ticket))
        if entry[0] is not record:
            record.on_end()
            ticket.cancel()
            return
        self.start()
        # An empty context: a task that inherits the request's keeps its database handle alive.
        self._loop.call_soon_threadsafe(self._spawn, record, ticket, context=contextvars.Context())
        if self._stopping:  # the process began to end in between
            suspend(record, ticket)
            record.live.suspend()

    def cancel(self, response_id: UUID) -> bool:
        """End a generation; its text so far stays. False when this process does not carry it."""
        entry = self._running.get(response_id)
        if entry is not None:
            stop(*entry)
        return entry is not None

    def is_stopping(self, response_id: UUID) -> bool:
        """Whether somebody asked for the end of a generation that this process carries."""
        entry = self._running.get(response_id)
        return entry is not None and entry[0].stopped

    def left(self, live: LiveResponse) -> None:
        """A client that waited for it is gone: the last one may take the generation along."""
        entry = self._running.get(live.id)
        if live.detach() and entry is not None and entry[0].stop_on_leave:
            stop(*entry)

    def recheck(self, response_id: UUID) -> None:
        """Look at this response's row now: it may be gone, and then its generation ends."""
        entry = self._running.get(response_id)
        if entry is not None:
            entry[0].dirty = True
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def active(self) -> int:
        """Generations not yet at their end."""
        return len(self._running)

    def queued_and_streaming(self) -> tuple[int, int]:
        """How many of these wait for their first token, and how many have it."""
        records = [record for record, _ in list(self._running.values())]
        streaming = sum(record.first_token_at is not None for record in records)
        return len(records) - streaming, streaming

    # On its own thread and loop.

    def _carry(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
        except BaseException:
            logger.critical("the supervisor's thread died", exc_info=True)
            if self.on_lost is not None:  # which joins this thread, among others
                threading.Thread(target=self.on_lost, name="supervisor-lost", daemon=True).start()

    def _spawn(self, record: Record, ticket: Ticket) -> None:
        task = asyncio.get_running_loop().create_task(self._pump(record, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(self, record: Record, ticket: Ticket) -> None:
        await pump(record, ticket)
        self._wake.set()  # an end is written at once, with everything else that is new

    async def _run(self) -> None:
        with recording_thread() as database:
            look_at, begun = 0.0, time.monotonic()
            while (self._running or not self._stopping) and threading.main_thread().is_alive():
                # From beginning to beginning: what a round took is no time to wait as well.
                await self._woken(begun + COMMIT_EVERY)
                self._round_at = begun = time.monotonic()
                await self._do(database, self._upkeep.write)
                await self._do(database, self._upkeep.watch)
                if begun >= look_at and not self._stopping:
                    look_at = begun + LOOK_EVERY
                    await self._do(database, self._look)

    async def _woken(self, latest: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(latest - time.monotonic()):
                await self._wake.wait()
        self._wake.clear()

    async def _do(self, database: Executor, work: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(database, _with_a_connection, work)
        except Exception:  # the next round is soon, and nobody else carries the answers
            logger.exception("a round of the supervisor failed")

    # On the recorder's thread.

    def _look(self) -> None:
        if self._recover and not self.draining:
            self._upkeep.take_over()


def _with_a_connection(work: Callable[[], None]) -> None:
    """Held for one piece of work only: a pool has few, and one that waits may die meanwhile."""
    try:
        work()
    finally:
        connections.close_all()


supervisor = Supervisor()
