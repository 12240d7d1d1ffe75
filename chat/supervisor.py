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
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

from django.db import close_old_connections, connections
from django.utils import timezone

from chat import idempotency, recovery, remote
from chat.live import LiveResponse, Outcome
from chat.models import Response
from chat.recorder import LEASE, Record, commit
from modelhost.errors import LoadFailed, NotReady
from modelhost.host import host
from modelhost.ticket import Ticket

logger = logging.getLogger(__name__)

COMMIT_EVERY = 0.25  # seconds: at most so much text is lost by a crash
LOOK_EVERY = 1.0  # seconds between looks for responses whose process is gone
LAST_COMMIT = 3.0  # seconds for the last write when the process ends
DRAIN_LOOK = 0.05  # seconds between looks at what is still running


class Supervisor:
    """Pumps tickets into live responses and live responses into rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._running: dict[UUID, tuple[Record, Ticket]] = {}
        self._lives: weakref.WeakValueDictionary[UUID, LiveResponse] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = threading.Event()
        self._recover = False
        self._stopping = False
        self.draining = False

    # Its life.

    def start(self, *, recover: bool = False) -> None:
        """Begin; does nothing when it has begun.

        recover: go on with responses whose process is gone, as soon as the model is there.
        """
        with self._lock:
            self._recover = self._recover or recover
            if self._thread is None and not self.draining:
                self._stopping = False
                self._hurry.clear()
                self._thread = threading.Thread(
                    target=self._loop.run_until_complete,
                    args=(self._run(),),
                    name="chat-supervisor",
                    daemon=True,
                )
                self._thread.start()

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
            if thread is None:
                return
            self._stopping, self._recover = True, False
            for record, ticket in list(self._running.values()):
                _suspend(record, ticket)
            self._loop.call_soon_threadsafe(self._wake.set)
        thread.join(timeout)
        with self._lock:
            if self._thread is thread:
                self._thread = None
        for live in self._all_lives():
            live.suspend()

    # What requests do with it.

    def live(self, response_id: UUID) -> LiveResponse:
        """The one live response with this id in this process, made when there is none.

        Whether it is generated here or elsewhere: someone who holds it sees it grow and end.
        """
        with self._lock:
            live = self._lives.get(response_id)
            if live is None or (live.ended and live.outcome is None):  # it was suspended
                live = self._lives[response_id] = LiveResponse(response_id)
            return live

    def _all_lives(self) -> list[LiveResponse]:
        with self._lock:  # others add to it
            return list(self._lives.values())

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
            _suspend(record, ticket)
            record.live.suspend()

    def cancel(self, response_id: UUID) -> bool:
        """End a generation; its text so far stays. False when this process does not carry it."""
        entry = self._running.get(response_id)
        if entry is not None:
            _stop(*entry)
        return entry is not None

    def left(self, live: LiveResponse) -> None:
        """A client that waited for it is gone: the last one may take the generation along."""
        entry = self._running.get(live.id)
        if live.detach() and entry is not None and entry[0].stop_on_leave:
            _stop(*entry)

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

    # On its own loop.

    def _spawn(self, record: Record, ticket: Ticket) -> None:
        task = asyncio.get_running_loop().create_task(self._pump(record, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(self, record: Record, ticket: Ticket) -> None:
        record.started_at = record.started_at or timezone.now()
        async for piece in ticket:
            # What was held back stays so until more is known, which the next process makes.
            if piece.token_ids or not record.goes_on_elsewhere(ticket.finish):
                record.take(piece)
        if ticket.finish is None:
            raise RuntimeError("a ticket ended without a finish")
        if record.stored is None:  # else it was given up, and its row says so
            record.settle(ticket.finish)
        self._wake.set()  # an end is written at once, with everything else that is new

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="chat-recorder") as database:
            look_at = 0.0
            while self._running or not self._stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), COMMIT_EVERY)
                self._wake.clear()
                await loop.run_in_executor(database, self._write)
                await loop.run_in_executor(database, self._watch)
                if time.monotonic() >= look_at and not self._stopping:
                    look_at = time.monotonic() + LOOK_EVERY
                    await loop.run_in_executor(database, self._look)
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
                elif record.stored or record.released:
                    self._end(record, record.stored)
        except Exception:  # this thread carries everybody's answers: it must go on
            logger.exception("%d responses could not be written; trying again", len(due))
            for record in due:
                record.dirty = True

    def _due(self, record: Record) -> bool:
        renew_at = record.renewed_at + LEASE.total_seconds() / 3
        return record.dirty or renew_at < time.monotonic()

    def _drop(self, record: Record) -> None:
        """The row is not ours any more: what it says holds, whoever goes on with it."""
        self._let_go(record)
        remote.show(record.live, Response.objects.filter(pk=record.live.id).first())

    def _end(self, record: Record, outcome: Outcome | None) -> None:
        self._let_go(record)
        if outcome is None:
            record.live.suspend()
        else:
            record.live.close(outcome)

    def _let_go(self, record: Record) -> None:
        """Of a generation that may still run, if its row cannot take it."""
        entry = self._running.pop(record.live.id, None)
        if entry is not None:
            record.on_end()
            entry[1].cancel()

    def _watch(self) -> None:
        """What other processes did: to responses that are followed here, and to ours."""
        elsewhere = {
            live.id: live
            for live in self._all_lives()
            if live.id not in self._running and not live.ended
        }
        if not elsewhere and not self._running:
            return
        close_old_connections()
        try:
            remote.refresh(elsewhere)
            for response_id in remote.stop_requests() if self._running else ():
                self.cancel(response_id)
        except Exception:  # as above; the next look is soon
            logger.exception("could not look at responses of other processes")

    def _look(self) -> None:
        """Go on with what nobody carries any more."""
        if not self._recover or self.draining:
            return
        close_old_connections()
        try:
            engine = host.engine()
            for row in recovery.claim(ours=list(self._running)):
                carried = recovery.recover(row, engine, self.live(row.pk))
                if carried is not None:
                    logger.info("going on with response %s", row.pk)
                    self.adopt(*carried)
            idempotency.forget_old()
        except (NotReady, LoadFailed):
            return  # they wait, and so do their readers
        except Exception:  # the next look is soon; a row that nobody foresaw ends nothing else
            logger.exception("could not look for abandoned responses")


def _stop(record: Record, ticket: Ticket) -> None:
    """End a generation because somebody wished it."""
    record.stopped = True
    ticket.cancel()


def _suspend(record: Record, ticket: Ticket) -> None:
    """Cut a generation for the next process; one that has its end already keeps that.

    Done twice it is still cut, although the ticket has its end by then.
    """
    record.suspended = record.suspended or ticket.finish is None
    ticket.cancel()


supervisor = Supervisor()
