"""What is done with the rows several times a second, on the recorder's thread.

Written: what is new in the responses that this process carries. Seen: what other processes did.
Taken over: what nobody carries any more. Whatever goes wrong in one round is logged, and the
next one tries again: everybody's answers depend on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from django.db import Error

from chat import idempotency
from chat.database import missing_migrations
from chat.lifecycle import recovery, remote
from chat.lifecycle.live import LiveResponse, Outcome
from chat.lifecycle.pump import stop
from chat.lifecycle.record import Hold, Record
from chat.lifecycle.recorder import commit
from chat.models import Response
from chat.monitoring import metrics
from modelhost.errors import Busy, LoadFailed, NotReady
from modelhost.host import host
from modelhost.ticket import Ticket

logger = logging.getLogger(__name__)

Running = dict[UUID, tuple[Record, Ticket]]


class Upkeep:
    """Keeps rows and live responses in step; blocks, and belongs to one thread.

    It leaves a database connection behind; whoever calls it closes that.

    running: what this process carries; what has ended is removed from it here.
    failing_since: since when (`time.monotonic`) nothing could be written; None when it can.
    missing: migrations that the database lacks; None while that is not known.
    lives: all live responses that somebody holds. live, adopt: the supervisor's.
    """

    def __init__(
        self,
        running: Running,
        *,
        lives: Callable[[], list[LiveResponse]],
        live: Callable[[UUID], LiveResponse],
        adopt: Callable[[Record, Ticket], None],
    ) -> None:
        self._running = running
        self._lives = lives
        self._live = live
        self._adopt = adopt
        self.failing_since: float | None = None
        self.missing: list[str] | None = None
        self._refused: set[str] = set()

    def write(self) -> None:
        """Everything new and every lease that grows old, in one transaction."""
        due = [record for record, _ in list(self._running.values()) if record.due]
        if not due:
            self.failing_since = None  # what failed has gone
            return
        try:
            self._write(due)
        except Exception as error:  # this thread carries everybody's answers: it must go on
            logger.exception("%d responses could not be written; trying again", len(due))
            for record in due:
                record.dirty = True
            if not isinstance(error, Error):  # no trouble of the database, so one of them is why
                self._write_each(due)

    def _write_each(self, due: list[Record]) -> None:
        """Each by itself: the others must not wait for what one of them raises every time."""
        for record in due:
            with suppress(Exception):  # it is logged already
                self._write([record])

    def _write(self, due: list[Record]) -> None:
        self._note(commit(due))
        for record in due:
            if record.hold is Hold.LOST:
                self._drop(record)
            elif record.stored or record.hold is Hold.RELEASED:
                self._end(record, record.stored)

    def _note(self, error: Exception | None) -> None:
        """Said once, however often it is tried."""
        if error is None and self.failing_since is not None:
            logger.info("the database takes responses again")
            self.failing_since = None
        elif error is not None and self.failing_since is None:
            logger.error("the database does not take responses, tried again until then: %s", error)
            self.failing_since = time.monotonic()

    def watch(self) -> None:
        """What other processes did: to responses that are followed here, and to ours."""
        elsewhere = {
            live.id: live
            for live in self._lives()
            if live.id not in self._running and not live.ended
        }
        if not elsewhere and not self._running:
            return
        with self._trying("look at responses of other processes"):
            remote.refresh(elsewhere)
            for response_id in remote.stop_requests() if self._running else ():
                if entry := self._running.get(response_id):
                    stop(*entry)

    def take_over(self) -> None:
        """Go on with what nobody carries any more."""
        # What the engine does not take waits, and so do its readers. One refusal is enough to know:
        # to claim the others, and give each of them back, would keep the recorder from writing.
        waiting = suppress(NotReady, LoadFailed, Busy)
        with self._trying("look for abandoned responses"), waiting:
            if not self._is_prepared():
                return
            idempotency.forget_old()
            engine = host.engine()
            for row in recovery.claim(ours=list(self._running)):
                carried = recovery.recover(row, engine, self._live(row.pk))
                if carried is not None:
                    logger.info("going on with response %s", row.pk)
                    self._adopt(*carried)

    def _is_prepared(self) -> bool:
        """Whether the database has what this version needs: asked until it has."""
        if self.missing != []:
            before, self.missing = self.missing, missing_migrations()
            if self.missing and before is None:
                names = ", ".join(self.missing)
                logger.critical("the database lacks %s: run manage.py migrate", names)
        return not self.missing

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """Whatever goes wrong is logged; what the database refuses once, however often it does."""
        try:
            yield
            self._refused.discard(what)
        except Error as error:
            if what not in self._refused:
                logger.error("could not %s, tried again until then: %s", what, error)
            self._refused.add(what)
        except Exception:  # the next look is soon; a row that nobody foresaw ends nothing else
            logger.exception("could not %s", what)

    def _drop(self, record: Record) -> None:
        """The row is not ours any more: what it says holds, whoever goes on with it."""
        self._let_go(record)
        remote.show(record.live, Response.objects.filter(pk=record.live.id).first())

    def _end(self, record: Record, outcome: Outcome | None) -> None:
        self._let_go(record)
        if outcome is None:
            record.live.suspend()
        else:
            metrics.ended(
                outcome.status,
                outcome.usage,
                started_at=record.started_at,
                first_token_at=record.first_token_at,
                finished_at=record.finished_at,
            )
            record.live.close(outcome)

    def _let_go(self, record: Record) -> None:
        """Of a generation that may still run, if its row cannot take it."""
        entry = self._running.pop(record.live.id, None)
        if entry is not None:
            record.on_end()
            entry[1].cancel()
