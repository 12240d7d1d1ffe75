"""Writing live responses into their rows: one group commit for all of them.

With a durable disk a commit can cost 6 ms or more, so text is never committed
token by token: everything new since the last time goes into one transaction.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)
from django.utils import timezone

from chat.exchanges import extend_fingerprint
from chat.live import LiveResponse, Outcome
from chat.models import Response
from chat.updates import update_active
from modelhost.types import Finish, FinishReason, Piece, Role, Turn, Usage

logger = logging.getLogger(__name__)

# So long after a crash another process may go on. It must cover a database that is locked
# for a while, or a healthy process loses its work.
LEASE = timedelta(seconds=5)

# The name of this process in the rows that it carries.
WORKER = f"{socket.gethostname()[:30]}:{uuid.uuid4().hex[:16]}"

# What a driver raises for a value that its column cannot take; not all of them wrap it.
UNSTORABLE = (DatabaseError, ValueError, OverflowError)

STATUS_OF = {
    FinishReason.STOP: Response.Status.DONE,
    FinishReason.LENGTH: Response.Status.DONE,
    FinishReason.TOOL_CALLS: Response.Status.DONE,
    FinishReason.CANCELLED: Response.Status.STOPPED,
    FinishReason.ERROR: Response.Status.FAILED,
}


# What a row keeps only while it is active.
SETTLED: dict[str, Any] = {"lease_until": None, "worker": "", "continuation": None}

# What it says when the process that carried it stops: nobody's, and that is nobody's fault.
RELEASED: dict[str, Any] = {"worker": "", "attempts": 0}


@dataclass(slots=True, eq=False)
class Record:
    """What a live response's row shall say, and how much of that it says already.

    history: the fingerprint before this prompt. said: the prompt's own turns.
    text: what the ids say; readers may know more of it already, from a process before.
    stopped: somebody wished its end. suspended: this process stops, and the row stays open
    for the next one. released: the row says that it waits for that.
    lost: the row is gone, was settled or is carried by somebody else.
    stored: the outcome that the row says. renewed_at: monotonic time of the last write.
    on_end: gives back the place among the requests that are served at once.
    resumed: how many ids the row had when this process took it over.
    """

    live: LiveResponse
    history: str
    said: Sequence[Turn]
    stop_on_leave: bool = False
    on_end: Callable[[], None] = lambda: None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    resumed: int = 0
    started_at: datetime | None = None
    first_token_at: datetime | None = None
    finish: Finish | None = None
    finished_at: datetime | None = None
    stopped: bool = False
    suspended: bool = False
    released: bool = False
    dirty: bool = True
    lost: bool = False
    stored: Outcome | None = None
    renewed_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, piece: Piece) -> None:
        """Note a piece and show it to the readers."""
        self.first_token_at = self.first_token_at or timezone.now()
        with self._lock:
            self.token_ids += piece.token_ids
            self.text += piece.text
            self.live.catch_up(self.text)
        self.dirty = True

    def settle(self, finish: Finish) -> None:
        """Note the end; the readers hear of it when the row says so."""
        self.finished_at = timezone.now()
        self.finish = finish
        self.dirty = True

    def goes_on_elsewhere(self, finish: Finish | None) -> bool:
        """Whether this end is nobody's wish: the process had to stop."""
        cancelled = finish is not None and finish.reason is FinishReason.CANCELLED
        return cancelled and self.suspended and not self.stopped

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on, here or in the next process."""
        finish = self.finish
        if finish is None or self.goes_on_elsewhere(finish):
            return None
        status = STATUS_OF[finish.reason]
        return Outcome(status, finish.reason, finish.usage, finish.error, finish.tool_calls)

    def columns(self, outcome: Outcome | None, *, released: bool = False) -> dict[str, Any]:
        """The row's new values."""
        with self._lock:  # text and ids must be of one moment: a crash leaves just these
            text, token_ids = self.text, list(self.token_ids)
        values: dict[str, Any] = {
            "status": Response.Status.STREAMING if token_ids else Response.Status.QUEUED,
            "text": text,
            "token_ids": token_ids,
            "started_at": self.started_at,
            "first_token_at": self.first_token_at,
            "lease_until": timezone.now() + LEASE,
        }
        if len(token_ids) > self.resumed:
            values["attempts"] = 0  # it is not what makes processes die
        if outcome:
            answer = Turn(Role.ASSISTANT, text, tool_calls=outcome.tool_calls)
            values |= {
                "status": outcome.status,
                "finish_reason": outcome.finish_reason,
                "error": outcome.error,
                "tool_calls": [asdict(call) for call in outcome.tool_calls],
                "prompt_tokens": outcome.usage.prompt_tokens,
                "completion_tokens": outcome.usage.completion_tokens,
                "finished_at": self.finished_at,
                "fingerprint": extend_fingerprint(self.history, [*self.said, answer]),
                **SETTLED,
            }
        elif released:
            values |= {**RELEASED, "lease_until": timezone.now()}
        return values


def commit(records: Sequence[Record]) -> None:
    """Write the records' news in one transaction; a record that cannot be written fails alone."""
    try:
        with transaction.atomic():
            written = [_write(record) for record in records]
    except (OperationalError, InterfaceError) as error:
        logger.warning("the database did not take %d responses: %s", len(records), error)
        _keep_for_later(records)
        connection.close()  # the next tick tries again, on a new connection
    except UNSTORABLE as error:
        _keep_for_later(records)
        if len(records) > 1:
            for record in records:
                commit([record])
        else:
            _give_up(records[0], error)
    else:
        for record, outcome in zip(records, written, strict=True):
            record.stored = outcome
            record.renewed_at = time.monotonic()


def _write(record: Record) -> Outcome | None:
    """Update one row; the outcome that it says now, if any."""
    record.dirty = False  # before reading: what comes meanwhile makes it dirty again
    finish, outcome = record.finish, record.outcome
    released = outcome is None and record.goes_on_elsewhere(finish)
    columns = record.columns(outcome, released=released)
    record.lost = not update_active(record.live.id, WORKER, columns)
    record.released = released
    return outcome


def _keep_for_later(records: Sequence[Record]) -> None:
    for record in records:
        record.dirty = True


def _give_up(record: Record, error: Exception) -> None:
    """This row refuses its values: say so in it, without them."""
    logger.error("response %s cannot be stored: %s", record.live.id, error)
    usage = record.finish.usage if record.finish else Usage(0, len(record.token_ids))
    sentence = "The response could not be stored."
    record.settle(Finish(FinishReason.ERROR, usage, sentence))
    settle(record.live.id, Response.Status.FAILED, error=sentence)
    record.stored = record.outcome


def release(response_id: uuid.UUID, **more: Any) -> None:
    """Leave a response of this process to whoever looks next."""
    rows = Response.objects.active().filter(pk=response_id, worker=WORKER)
    rows.update(**{**RELEASED, **more}, lease_until=timezone.now())


def settle(response_id: uuid.UUID, status: str, *, error: str = "", **more: Any) -> None:
    """End a response of this process that is not, or not any more, generated."""
    Response.objects.active().filter(pk=response_id, worker=WORKER).update(
        status=status,
        finish_reason=FinishReason.ERROR if error else FinishReason.CANCELLED,
        error=error,
        finished_at=timezone.now(),
        **more,
        **SETTLED,
    )
