"""A name for each request: on its answer, and in the log's lines about it.

Who debugs through a proxy, or reports an error of OpenAI's client (which shows `x-request-id`),
names one request so, and whoever reads the log finds it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from contextvars import ContextVar
from secrets import token_hex
from typing import Any

HEADER = "X-Request-ID"
SANE = re.compile(rb"[\w.:=@/+~-]{1,128}", re.ASCII)

_current: ContextVar[str] = ContextVar("request_id", default="")


def named(given: bytes | None) -> str:
    """The caller's or proxy's own name, if it is a short token; else a new one."""
    return given.decode() if given and SANE.fullmatch(given) else token_hex(16)


class RequestIds:
    """ASGI, in front of everything: every answer tells its request's name."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application for `http` scopes."""
        name = named(dict(scope["headers"]).get(b"x-request-id"))
        _current.set(name)  # a request has a task of its own, and Django's thread sees it too

        def telling(message: Any) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                told = (b"x-request-id", name.encode())
                message = {**message, "headers": [*message.get("headers", ()), told]}
            sent: Awaitable[None] = send(message)
            return sent

        await self._application(scope, receive, telling)


class OfRequest(logging.Filter):
    """Gives a line of the log `of_request`: the name in brackets, where it is about a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every line passes."""
        name = _current.get()
        record.of_request = f" [{name}]" if name else ""
        return True
