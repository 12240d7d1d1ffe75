"""What is removed from the log for good: one person's conversations, or old ones."""

from __future__ import annotations

from collections.abc import Iterator

import django_filters as filters
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet

from chat import responses
from chat.models import Conversation, Response
from chat.wire.filters import USERNAME, MomentFilter

BATCH = 100  # conversations that are looked for at once


class RetentionFilter(filters.FilterSet):
    """`user`, `conversation`, `unused_since` (ISO 8601): nothing was asked in it since then."""

    user = filters.CharFilter(field_name=f"user__{USERNAME}")
    conversation = filters.UUIDFilter(field_name="pk")
    unused_since = MomentFilter(method="without_newer")

    class Meta:
        model = Conversation
        fields: list[str] = []

    def without_newer(
        self, rows: QuerySet[Conversation], name: str, moment: object
    ) -> QuerySet[Conversation]:
        """Those that were begun before and have no newer response."""
        newer = Response.objects.filter(prompt__conversation=OuterRef("pk"), created_at__gte=moment)
        return rows.filter(~Exists(newer), created_at__lt=moment)


def forget(rows: QuerySet[Conversation]) -> Iterator[Conversation]:
    """Remove each of them with everything in it, the oldest first, and tell which it was.

    A transaction for each, so that the service goes on meanwhile. One in which somebody asks just
    then, so that it is none of these any more, stays.
    """
    while found := list(rows.order_by("created_at", "pk")[:BATCH]):
        for conversation in found:
            if responses.remove(conversation, among=rows):
                yield conversation


def leave_no_trace() -> bool:
    """Whether what was removed is in no file of SQLite either. PostgreSQL's files are its own.

    The database has lost it (secure_delete), the write-ahead log still has what was written before;
    while another session reads, that cannot be emptied.
    """
    if connection.vendor != "sqlite":
        return True
    with connection.cursor() as cursor:
        busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
