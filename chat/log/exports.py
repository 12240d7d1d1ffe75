"""The log as JSON lines, of any length: a batch of rows at a time, no query that stays open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import connections
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

from chat.access.rights import rights
from chat.conversations.trails import Tree
from chat.limits.threads import in_thread
from chat.log.datasets import Format, line
from chat.models import Response

BATCH = 100  # responses, with all that was said before them where a format has that
# Characters that are sent together. All lines of one batch of a long conversation can be a hundred
# megabytes, which would stay in memory for each client that reads slowly.
PIECE = 1 << 18
CONTENT_TYPE = "application/jsonl; charset=utf-8"

At = tuple[datetime, UUID]  # where a batch ended


def answers(rows: QuerySet[Response]) -> QuerySet[Response]:
    """Those that say something and were generated here: what can be learned from."""
    made_here = rows.filter(status__in=Response.READABLE, imported=False)
    return made_here.exclude(text="", tool_calls=[])


def path_ends(rows: QuerySet[Response]) -> QuerySet[Response]:
    """Those at the end of a path: no further answer follows."""
    behind = answers(Response.objects.filter(prompt__follows=OuterRef("pk")))
    return rows.filter(~Exists(behind))


class Export:
    """The chosen responses as lines, oldest first. What comes after its beginning is not in it.

    layout: but for `records`, only answers are lines.
    """

    def __init__(self, rows: QuerySet[Response], layout: Format, *, verdicts: bool = False) -> None:
        if layout is not Format.RECORDS:
            rows = answers(rows)
        related = ("prompt__conversation", "user", "api_key")
        # Whatever a list leaves out is in an export: asked for row by row, a batch has 200 queries.
        rows = rows.prefetch_related(None).defer(None)
        rows = rows.select_related(None).select_related(*related)
        if verdicts:
            rows = rows.prefetch_related("verdicts__reviewer")
        self._rows = rows.order_by("created_at", "pk")
        self._layout = layout
        self._verdicts = verdicts
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        """The lines in pieces, each within one batch."""
        at: At | None = None
        self._rows = self._rows.filter(created_at__lte=_latest())
        while found := self._found(at):
            yield from _pieces(self._lines(found))
            at = found[-1].created_at, found[-1].pk

    async def stream(self, may_read: Callable[[], Awaitable[bool]]) -> AsyncGenerator[str, None]:
        """The same for an event loop, as long as the reader may read.

        Raises PermissionDenied in the middle: what is cut off must not look whole.
        """
        pieces = iter(self)
        while piece := await in_thread(next, pieces, ""):
            if not await may_read():
                raise PermissionDenied
            yield piece

    def _found(self, at: At | None) -> list[Response]:
        """The next batch of rows."""
        rows = self._rows if at is None else self._rows.filter(_behind(*at))
        return list(rows[:BATCH])

    def _lines(self, found: list[Response]) -> Iterator[str]:
        """A line for each, one at a time: together they may be far longer than their rows."""
        tree = Tree()
        if self._layout is not Format.RECORDS:
            tree = Tree.leading_to([row.pk for row in found])
        for row in found:
            # Else it was deleted in between.
            if self._layout is Format.RECORDS or row.pk in tree.responses:
                self.count += 1
                yield line(row, tree, self._layout, verdicts=self._verdicts)


def download(
    request: Any, export: Export, name: str, *, permission: str = ""
) -> StreamingHttpResponse:
    """An export as a file that a browser saves, made while it is read. Call it last.

    permission: what staff must have to read it, to its end.
    """
    scope = getattr(request, "scope", None)
    lines: Iterator[str] | AsyncGenerator[str, None] = iter(export)
    if scope is not None:
        lines = export.stream(partial(rights.hold, scope, permission))
    connections.close_all()  # each batch has its own thread, and that one its own handle
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}.jsonl"',
        "X-Accel-Buffering": "no",
    }
    return StreamingHttpResponse(lines, content_type=CONTENT_TYPE, headers=headers)


def _latest() -> datetime:
    """Now, or later where there are rows from before a clock was set back."""
    moments = Response.objects.order_by("-created_at").values_list("created_at", flat=True)
    return max([timezone.now(), *moments[:1]])


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Short lines joined, a long one by itself."""
    held = ""
    for text in lines:
        held += text
        if len(held) >= PIECE:
            yield held
            held = ""
    if held:
        yield held


def _behind(moment: datetime, pk: UUID) -> Q:
    """The first condition is the index's, the second is for rows of the same moment."""
    return Q(created_at__gte=moment) & (Q(created_at__gt=moment) | Q(pk__gt=pk))
