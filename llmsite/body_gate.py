"""A gate in front of Django: a body is counted before anybody reads or keeps it."""

from __future__ import annotations

import asyncio
import json
import sys

from chat.access.callers import Scope
from chat.connections import Application, Message, Receive, Send
from chat.failures import Code, Failure
from chat.monitoring import metrics
from llmsite import cross_origin


class BodyGate:
    """ASGI middleware: 413 for a body above `limit` bytes, 408 for one that takes too long.

    The body is held here, within the limit, and passed on whole, so that neither
    authentication nor a view ever waits for a slow sender.
    """

    def __init__(self, application: Application, *, limit: int, seconds: float) -> None:
        self._application = application
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if _declared_length(scope) > self._limit:
            await _refuse(scope, send, too_large(self._limit))
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            await _refuse(scope, send, too_slow(self._seconds))
            return
        if body is None:
            return  # the client left
        if len(body) > self._limit:
            await _refuse(scope, send, too_large(self._limit))
            return
        await self._application(_with_length(scope, len(body)), _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body, or as much of it as shows that it is too large."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._limit or not message.get("more_body", False):
                return b"".join(chunks)


def too_large(limit: int) -> Failure:
    """A body above so many bytes."""
    return Failure(413, Code.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")


def too_slow(seconds: float) -> Failure:
    """A body that took longer."""
    sentence = f"The body did not arrive within {seconds:g} seconds."
    return Failure(408, Code.BODY_TIMEOUT, sentence)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            # Python refuses to read very long numbers; any of so many digits is above the limit.
            return int(value) if len(value) < 19 else sys.maxsize
    return 0


def _with_length(scope: Scope, length: int) -> Scope:
    """The scope with the length that is now known: Django takes a body without one for none."""
    others = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
    if length:
        others.append((b"content-length", str(length).encode()))
    return {**scope, "headers": others}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once and then whatever comes, which is the disconnect."""
    pending = True

    async def replay() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _refuse(scope: Scope, send: Send, failure: Failure) -> None:
    metrics.refused(failure.code)
    path = scope["path"]
    body = json.dumps(failure.body(path)).encode()
    headers = [
        (b"content-type", failure.content_type(path).encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    shown = cross_origin.shown(path, dict(scope["headers"]).get(b"origin"))
    headers += [(name.encode(), value.encode("latin-1")) for name, value in shown.items()]
    await send({"type": "http.response.start", "status": failure.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
