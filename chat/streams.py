"""Server-sent events over HTTP: the one place that makes a stream (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from django.db import connections
from django.http import StreamingHttpResponse

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold the answer back
    "Content-Encoding": "identity",  # GZipMiddleware would make each chunk a gzip member
}


def sse_response(events: AsyncGenerator[str, None]) -> StreamingHttpResponse:
    """An event stream from ready-made events. Call it last: no row can be read after it."""
    # An open stream would keep its thread's database handle for as long as it lasts.
    connections.close_all()
    return StreamingHttpResponse(
        events,
        content_type="text/event-stream; charset=utf-8",
        charset="utf-8",  # else Django reads it from the header's text, for every event
        headers=HEADERS,
    )
