"""Server-sent events over HTTP: the one place that makes a stream (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from django.db import connections
from django.http import StreamingHttpResponse

HEARTBEAT = 15.0  # seconds of silence after which proxies must be shown that the stream lives

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold the answer back
    "Content-Encoding": "identity",  # GZipMiddleware would make each chunk a gzip member
}


def sse_response(
    events: AsyncIterator[str], *, ping: str = ": ping\n\n", every: float = HEARTBEAT
) -> StreamingHttpResponse:
    """An event stream from ready-made events. Call it last: no row can be read after it."""
    # An open stream would keep its thread's database handle for as long as it lasts.
    connections.close_all()
    return StreamingHttpResponse(
        with_heartbeat(events, ping=ping, every=every),
        content_type="text/event-stream; charset=utf-8",
        headers=HEADERS,
    )


async def with_heartbeat(
    events: AsyncIterator[str], *, ping: str, every: float
) -> AsyncIterator[str]:
    """The events, and a comment whenever nothing came for `every` seconds."""
    upcoming: asyncio.Task[str] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait({upcoming}, timeout=every)
            if not done:
                yield ping
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield event
            # A long replay never waits for anything; others must get their turn.
            await asyncio.sleep(0)
    finally:
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()


async def _next(events: AsyncIterator[str]) -> str:
    return await anext(events)
