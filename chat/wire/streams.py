"""Server-sent events over HTTP: the one place that makes a stream (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from django.db import connections
from django.http import StreamingHttpResponse
from rest_framework.request import Request

from chat.access.callers import Scope
from chat.access.rights import rights
from chat.connections import connection_of

logger = logging.getLogger(__name__)

# Seconds between looks whether the reader still may read. They are made when there is something to
# send, at the latest with a heartbeat: so what is open ends 30 s after a key.
LOOK_AGAIN = 10.0

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold the answer back
    "Content-Encoding": "identity",  # GZipMiddleware would make each chunk a gzip member
}


def sse_response(
    request: Request, events: AsyncGenerator[str, None], *, broken: str
) -> StreamingHttpResponse:
    """An event stream from ready-made events, for as long as the caller may read it.

    broken: the last event where making them raises what nobody foresaw: every stream has an end.
    Call it last: no row can be read after it.
    """
    scope = getattr(request, "scope", None)
    if scope is not None:  # else nothing here is asynchronous, and no stream lasts
        events = _while_allowed(events, scope, connection_of(request).close, broken)
    # An open stream would keep its thread's database handle for as long as it lasts.
    connections.close_all()
    return StreamingHttpResponse(
        events,
        content_type="text/event-stream; charset=utf-8",
        charset="utf-8",  # else Django reads it from the header's text, for every event
        headers=HEADERS,
    )


async def _while_allowed(
    events: AsyncGenerator[str, None], scope: Scope, leave: Callable[[], None], broken: str
) -> AsyncGenerator[str, None]:
    """The events. Cut off where the caller's rights ended: coming back for the rest is refused."""
    look_at = time.monotonic() + LOOK_AGAIN
    try:
        async with aclosing(events):
            async for event in events:
                if time.monotonic() >= look_at:
                    if not await rights.hold(scope):
                        leave()
                        return
                    look_at = time.monotonic() + LOOK_AGAIN
                yield event
    except Exception:  # without an end its reader would wait, or come back for the same
        logger.exception("a stream broke")
        leave()
        yield broken
