"""Writing live responses into their rows: one group commit for all of them.

With a durable disk a commit can cost 6 ms or more, so text is never committed
token by token: everything new since the last time goes into one transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
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

from chat.history import extend_fingerprint
from chat.live import LiveResponse, Outcome
from chat.models import INTERRUPTION, Response
from modelhost.types import Finish, FinishReason, Piece, Role, Turn, Usage

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=8)

# What a driver raises for a value that its column cannot take; not all of them wrap it.
UNSTORABLE = (DatabaseError, ValueError, OverflowError)

STATUS_OF = {
    FinishReason.STOP: Response.Status.DONE,
    FinishReason.LENGTH: Response.Status.DONE,
    FinishReason.TOOL_CALLS: Response.Status.DONE,
    FinishReason.CANCELLED: Response.Status.STOPPED,
    FinishReason.ERROR: Response.Status.FAILED,
}


@dataclass(slots=True, eq=False)
class Record:
    """What a live response's row shall say, and how much of that it says already.

    history: the fingerprint before this prompt. said: the prompt's own turns.
    interrupted: the process is ending, which is not the caller's wish to stop.
    lost: the row is gone or was settled by somebody else.
    stored: the outcome that the row says. renewed_at: monotonic time of the last write.
    """

    live: LiveResponse
    history: str
    said: Sequence[Turn]
    token_ids: list[int] = field(default_factory=list)
    started_at: datetime | None = None
    first_token_at: datetime | None = None
    finish: Finish | None = None
    finished_at: datetime | None = None
    interrupted: bool = False
    dirty: bool = True
    lost: bool = False
    stored: Outcome | None = None
    renewed_at: float = 0.0

    def take(self, piece: Piece) -> None:
        """Note a piece and show it to the readers."""
        self.first_token_at = self.first_token_at or timezone.now()
        self.token_ids += piece.token_ids
        self.dirty = True
        if piece.text:
            self.live.append(piece.text)

    def settle(self, finish: Finish) -> None:
        """Note the end; the readers hear of it when the row says so."""
        self.finish = finish
        self.finished_at = timezone.now()
        self.dirty = True

    @property
    def outcome(self) -> Outcome | None:
        if self.finish is None:
            return None
        finish, status, error = self.finish, STATUS_OF[self.finish.reason], self.finish.error
        if self.interrupted and finish.reason is FinishReason.CANCELLED:
            status, error = Response.Status.INTERRUPTED, INTERRUPTION
        return Outcome(status, finish.reason, finish.usage, error, finish.tool_calls)

    def columns(self, outcome: Outcome | None) -> dict[str, Any]:
        """The row's new values."""
        text = self.live.text
        values: dict[str, Any] = {
            "status": Response.Status.STREAMING,
            "text": text,
            "token_ids": list(self.token_ids),
            "started_at": self.started_at,
            "first_token_at": self.first_token_at,
            "lease_until": timezone.now() + LEASE,
        }
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
                "lease_until": None,
            }
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
    outcome = record.outcome
    rows = Response.objects.filter(pk=record.live.id, status__in=Response.ACTIVE)
    record.lost = not rows.update(**record.columns(outcome))
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
    Response.objects.filter(pk=record.live.id, status__in=Response.ACTIVE).update(
        status=Response.Status.FAILED,
        finish_reason=FinishReason.ERROR,
        error=sentence,
        finished_at=record.finished_at,
        lease_until=None,
    )
    record.stored = record.outcome
