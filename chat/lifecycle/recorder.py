"""Writing live responses into their rows: one group commit for all of them.

With a durable disk a commit can cost 6 ms or more, so text is never committed
token by token: everything new since the last time goes into one transaction.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)
from django.utils import timezone

from chat.lifecycle.live import Outcome
from chat.lifecycle.record import RELEASED, SETTLED, WORKER, Hold, Record
from chat.lifecycle.updates import update_active
from chat.models import Response
from modelhost.types import Finish, FinishReason, Usage

logger = logging.getLogger(__name__)

# What a driver raises for a value that its column cannot take; not all of them wrap it. And what
# `json` raises for a value that is no JSON.
UNSTORABLE = (DatabaseError, TypeError, ValueError, OverflowError)


def commit(records: Sequence[Record]) -> Exception | None:
    """Write the records' news in one transaction; a record that cannot be written fails alone.

    Returns the error if the database took nothing; everything new then waits for the next time.
    """
    try:
        with transaction.atomic():
            said = [_news(record) for record in records]
            changes = {
                record.live.id: news for record, (news, *_) in zip(records, said, strict=True)
            }
            gone = update_active(WORKER, changes)
    except (OperationalError, InterfaceError) as error:
        _keep_for_later(records)
        connection.close()  # the next tick tries again, on a new connection
        return error
    except UNSTORABLE as error:
        _keep_for_later(records)
        if len(records) > 1:
            errors = [commit([record]) for record in records]
            return next((one for one in errors if one), None)
        return _give_up(records[0], error)
    else:
        for record, (news, outcome, hold) in zip(records, said, strict=True):
            record.written(news, outcome, Hold.LOST if record.live.id in gone else hold)
    return None


def _news(record: Record) -> tuple[dict[str, Any], Outcome | None, Hold]:
    """What one row does not say yet, the outcome that it says then, if any, and whose it is."""
    record.dirty = False  # before reading: what comes meanwhile makes it dirty again
    finish, outcome = record.finish, record.outcome
    released = outcome is None and record.goes_on_elsewhere(finish)
    hold = Hold.RELEASED if released else Hold.OURS
    return record.news(outcome, hold), outcome, hold


def _keep_for_later(records: Sequence[Record]) -> None:
    for record in records:
        record.dirty = True


def _give_up(record: Record, error: Exception) -> Exception | None:
    """This row refuses its values: say so in it, without them.

    Where the database does not take that either it was not the values, and nothing is given up: it
    is read only, or lacks a column, or is damaged. What it said then.
    """
    sentence = "The response could not be stored."
    try:
        settle(record.live.id, Response.Status.FAILED, error=sentence)
    except (DatabaseError, InterfaceError) as refusal:
        return refusal
    logger.error("response %s cannot be stored: %s", record.live.id, error)
    usage = record.finish.usage if record.finish else Usage(0, len(record.token_ids))
    record.settle(Finish(FinishReason.ERROR, usage, sentence))
    record.stored = record.outcome
    return None


def release(response_id: uuid.UUID, **more: Any) -> None:
    """Leave a response of this process to whoever looks next."""
    rows = Response.objects.active().filter(pk=response_id, worker=WORKER)
    rows.update(**{**RELEASED, **more}, lease_until=timezone.now())


def settle(response_id: uuid.UUID, status: str, *, error: str = "", **more: Any) -> bool:
    """End a response of this process that is not, or not any more, generated; whether it was."""
    rows = Response.objects.active().filter(pk=response_id, worker=WORKER)
    ended = rows.update(
        status=status,
        finish_reason=FinishReason.ERROR if error else FinishReason.CANCELLED,
        error=error,
        finished_at=timezone.now(),
        **more,
        **SETTLED,
    )
    return bool(ended)
