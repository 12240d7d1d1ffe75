"""Generations belong to the process: one thread that carries all of them to their end.

Requests only hand a ticket over and follow; when a client leaves, nothing here
changes. The thread has its own event loop, so it is the same under any ASGI
server, in a management command and in a test, and it never borrows a request's
context or database handle.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

from django.db import Error, close_old_connections, connections
from django.utils import timezone

from chat.live import LiveResponse, Outcome, stored_outcome
from chat.models import Response
from chat.recorder import LEASE, Record, commit
from modelhost.ticket import Ticket
from modelhost.types import Usage

logger = logging.getLogger(__name__)

COMMIT_EVERY = 0.25  # seconds: at most so much text is lost by a crash
REAP_EVERY = 2.0  # seconds between looks for responses whose process is gone


class Supervisor:
    """Pumps tickets into live responses and live responses into rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._running: dict[UUID, tuple[Record, Ticket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self) -> None:
        """Begin; does nothing when it has begun."""
        with self._lock:
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(
                    target=self._loop.run_until_complete,
                    args=(self._run(),),
                    name="chat-supervisor",
                    daemon=True,
                )
                self._thread.start()

    def stop(self, *, timeout: float = 10.0) -> None:
        """Cancel what runs, write everything, end the thread. It can be started again."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._stopping = True
            for record, ticket in list(self._running.values()):
                record.interrupted = True
                ticket.cancel()
            self._loop.call_soon_threadsafe(self._wake.set)
        thread.join(timeout)

    def adopt(self, record: Record, ticket: Ticket) -> None:
        """Carry a generation to its end. Its row exists."""
        self._running[record.live.id] = (record, ticket)
        self.start()
        # An empty context: a task that inherits the request's keeps its database handle alive.
        self._loop.call_soon_threadsafe(self._spawn, record, ticket, context=contextvars.Context())

    def live(self, response_id: UUID) -> LiveResponse | None:
        """The live response with this id, if this process is generating it."""
        entry = self._running.get(response_id)
        return entry[0].live if entry else None

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

    def _spawn(self, record: Record, ticket: Ticket) -> None:
        task = asyncio.get_running_loop().create_task(self._pump(record, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(self, record: Record, ticket: Ticket) -> None:
        record.started_at = timezone.now()
        async for piece in ticket:
            record.take(piece)
        if ticket.finish is None:
            raise RuntimeError("a ticket ended without a finish")
        if record.stored is None:  # else it was given up, and its row says so
            record.settle(ticket.finish)
        self._wake.set()  # an end is written at once, with everything else that is new

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="chat-recorder") as database:
            reap_at = time.monotonic()
            while self._running or not self._stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), COMMIT_EVERY)
                self._wake.clear()
                await loop.run_in_executor(database, self._write)
                if time.monotonic() >= reap_at:
                    reap_at = time.monotonic() + REAP_EVERY
                    await loop.run_in_executor(database, self._reap)
            await loop.run_in_executor(database, connections.close_all)

    # On the recorder's thread.

    def _write(self) -> None:
        due = [record for record, _ in list(self._running.values()) if self._due(record)]
        if not due:
            return
        close_old_connections()
        try:
            commit(due)
            for record in due:
                if record.lost:
                    self._drop(record)
                elif record.stored:
                    self._end(record, record.stored)
        except Exception:  # this thread carries everybody's answers: it must go on
            logger.exception("%d responses could not be written; trying again", len(due))
            for record in due:
                record.dirty = True

    def _due(self, record: Record) -> bool:
        renew_at = record.renewed_at + LEASE.total_seconds() / 3
        return record.dirty or renew_at < time.monotonic()

    def _drop(self, record: Record) -> None:
        """The row was deleted, or settled elsewhere, and then what it says holds."""
        row = Response.objects.filter(pk=record.live.id).first()
        usage = Usage(0, len(record.token_ids))
        gone = Outcome(Response.Status.STOPPED, "cancelled", usage, "The response was removed.")
        self._end(record, (row and stored_outcome(row)) or gone)

    def _end(self, record: Record, outcome: Outcome) -> None:
        """Let go of a generation, which may still run if its row cannot take it."""
        entry = self._running.pop(record.live.id, None)
        if entry is not None:
            entry[1].cancel()
        record.live.close(outcome)

    def _reap(self) -> None:
        close_old_connections()
        try:
            # Not our own: while the database is locked, their leases cannot be renewed.
            others = Response.objects.exclude(pk__in=list(self._running))
            settled = others.settle_abandoned(now=timezone.now())
        except Error:  # the next look is soon
            logger.exception("could not look for abandoned responses")
            return
        if settled:
            logger.warning("%d responses of a process that is gone are interrupted", settled)


supervisor = Supervisor()
