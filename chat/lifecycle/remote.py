"""Responses that another process carries: seen through their rows, which are the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet
from django.utils import timezone

from chat.lifecycle.live import LiveResponse, Outcome, stored_outcome, usage_of
from chat.lifecycle.record import LEASE, SETTLED, WORKER
from chat.lifecycle.recovery import fingerprint_of
from chat.models import Response
from chat.models.response import ResponseQuerySet
from chat.monitoring import metrics
from modelhost.types import FinishReason, Usage

logger = logging.getLogger(__name__)

REMOVED = Outcome(
    Response.Status.STOPPED, FinishReason.CANCELLED, Usage(0, 0), "The response was removed."
)


def refresh(lives: Mapping[UUID, LiveResponse]) -> None:
    """Show the readers what the rows say by now; one query for all.

    Readers of a row that cannot be read are let go: asking again tells them more, and nobody else
    waits for it.
    """
    if not lives:
        return
    rows = Response.objects.defer("token_ids", "continuation").in_bulk(list(lives))
    for response_id, live in lives.items():
        try:
            show(live, rows.get(response_id))
        except Exception:  # rows are as old, or as new, as their makers
            logger.exception("response %s cannot be shown", response_id)
            live.suspend()


def show(live: LiveResponse, row: Response | None) -> None:
    """Bring one up to its row; a row that is gone ends it."""
    if row is None:
        live.close(REMOVED)
        return
    live.catch_up(row.text)
    if outcome := stored_outcome(row):
        live.close(outcome)


def stop_requests() -> list[UUID]:
    """Responses of this process that were stopped through another one."""
    database = connections[DEFAULT_DB_ALIAS]
    with database.cursor() as cursor:
        cursor.execute(*_stopped_elsewhere(database.vendor))
        return [Response._meta.pk.to_python(key) for (key,) in cursor.fetchall()]


@lru_cache
def _stopped_elsewhere(vendor: str) -> tuple[str, tuple[Any, ...]]:  # each has its own quotes
    sql, parameters = stopped_elsewhere().values_list("pk").query.sql_with_params()
    return sql, tuple(parameters)


def stopped_elsewhere() -> QuerySet[Response]:
    """Those rows. Asked five times a second: it must not read the others."""
    return Response.objects.active().filter(worker=WORKER, stop_requested=True).order_by()


def request_stop(row: Response) -> bool:
    """Stop a response that another process carries, or none does at the moment.

    Whether it had no end yet.
    """
    active = Response.objects.active().filter(pk=row.pk)
    if not active.update(stop_requested=True):
        return False
    _stop_if_abandoned(active)
    return True


def _stop_if_abandoned(active: ResponseQuerySet) -> None:
    """Nobody is there to hear it, unless somebody takes it over just now: that renews the lease."""
    lost = active.abandoned(now=timezone.now(), lease=LEASE)
    left = lost.select_related("prompt").first()
    if left is None:
        return
    if active.filter(lease_until=left.lease_until).update(
        status=Response.Status.STOPPED,
        finish_reason=FinishReason.CANCELLED,
        completion_tokens=usage_of(left).completion_tokens or len(left.token_ids),
        fingerprint=fingerprint_of(left),
        finished_at=timezone.now(),
        **SETTLED,
    ):
        metrics.given_up(Response.Status.STOPPED)
