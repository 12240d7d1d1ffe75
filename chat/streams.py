"""Server-sent events over HTTP: the one place that makes a stream (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from django.db import connections
from django.http import StreamingHttpResponse

HEARTBEAT = 15.0  # seconds of silence after which proxies must be shown that the stream lives

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold the answer back
    "Content-Encoding": "identity",  # GZipMiddleware would make each chunk a gzip member
}


def sse_response(
    events: AsyncGenerator[str, None], *, ping: str = ": ping\n\n", every: float = HEARTBEAT
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
    events: AsyncGenerator[str, None], *, ping: str, every: float
) -> AsyncGenerator[str, None]:
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
            await asyncio.wait({upcoming})
        await events.aclose()  # now, and not when the garbage collector finds it


async def _next(events: AsyncGenerator[str, None]) -> str:
    return await anext(events)
