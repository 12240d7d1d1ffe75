"""From a ticket into its record, piece by piece, to the end."""

from __future__ import annotations

import logging

from django.utils import timezone

from chat.lifecycle.record import Record
from chat.monitoring import metrics
from modelhost.ticket import Ticket
from modelhost.types import Finish, FinishReason, Usage

logger = logging.getLogger(__name__)


async def pump(record: Record, ticket: Ticket) -> None:
    """Note and show what the engine makes. Whatever goes wrong, the record has its end then."""
    record.started_at = record.started_at or timezone.now()
    try:
        finish = await _take(record, ticket)
    except Exception:  # without an end its row would be renewed, and waited for, for ever
        logger.exception("response %s cannot be carried on", record.live.id)
        ticket.cancel()
        usage = ticket.finish.usage if ticket.finish else Usage(0, len(record.token_ids))
        finish = Finish(FinishReason.ERROR, usage, "The response could not be carried on.")
    if record.stored is None:  # else it was given up, and its row says so
        record.settle(finish)


def suspend(record: Record, ticket: Ticket) -> None:
    """Cut a generation for the next process; one that has its end already keeps that.

    Done twice it is still cut, although the ticket has its end by then.
    """
    record.suspended = record.suspended or ticket.finish is None
    ticket.cancel()


def stop(record: Record, ticket: Ticket) -> None:
    """End a generation because somebody asked for it."""
    record.stopped = True
    ticket.cancel()


async def _take(record: Record, ticket: Ticket) -> Finish:
    async for piece in ticket:
        # What was held back stays so until more is known, which the next process makes.
        if piece.token_ids or not record.goes_on_elsewhere(ticket.finish):
            record.take(piece)
            metrics.made(len(piece.token_ids))
    if ticket.finish is None:
        raise RuntimeError("a ticket ended without a finish")
    return ticket.finish
