"""Django's ASGI handler with one thread for one request, entered once.

Django runs middleware that can be asynchronous on the event loop, and whatever cannot in the
request's thread: with the usual eight and a synchronous view, a request goes there and comes back
sixteen times. Each time it waits for the interpreter's lock, and for long while an engine works in
the same process. All views and all middleware here are synchronous, so the whole chain is one call,
and with the signals before and after it three; docs/decisions/0019. Requests take turns at it
(0025).
"""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.limits.request_slots import request_slots


class Handler(ASGIHandler):
    """The middleware chain as under WSGI; what comes before and after it as under ASGI."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Whatever is asked for, the synchronous chain."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """The response, made in the request's thread."""
        response: HttpResponseBase = await sync_to_async(self._in_turn)(request)
        response._resource_closers.append(request._stream.close)  # type: ignore[attr-defined]
        return response

    async def send_response(self, response: Any, send: Any) -> None:
        """Send it; one that breaks is closed as any other, with the body that was asked with."""
        try:
            await super().send_response(response, send)
        except Exception:
            await sync_to_async(response.close)()
            raise

    def _in_turn(self, request: HttpRequest) -> HttpResponseBase:
        """The response. What Django does at a request's end to give its connection back is never
        done where the server gave up on it before this thread was through: a pool would lose it."""
        with request_slots.acquired():
            try:
                response: HttpResponseBase = self.get_response(request)
            finally:
                connections.close_all()
            return response


def get_application() -> Handler:
    """Like `django.core.asgi.get_asgi_application`."""
    django.setup(set_prefix=False)
    return Handler()
