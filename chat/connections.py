"""Whether the client of a request is still there.

A view that waits in a thread cannot see its client leave, and a stream's generator must
not be where anything is decided. So the disconnect is caught where it passes: Django
listens on `receive` for the whole exchange, also while a response is being streamed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from enum import StrEnum
from typing import Any

Message = MutableMapping[str, Any]
Callback = Callable[[], None]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

KEY = "llmsite.connection"  # in the ASGI scope

logger = logging.getLogger(__name__)


class ExchangeState(StrEnum):
    """How far an exchange is. FINISHED: the whole answer was sent. CLOSED: the client left before
    that, or was failed."""

    OPEN = "open"
    FINISHED = "finished"
    CLOSED = "closed"


class Connection:
    """One HTTP exchange, which ends once.

    Nothing is called back after it finished, also when its TCP connection, which may carry other
    exchanges, ends later.
    """

    def __init__(self) -> None:
        self._state = ExchangeState.OPEN
        self._callbacks: list[Callback] = []
        self._at_end: list[Callback] = []
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether the client left before its answer was complete."""
        return self._state is ExchangeState.CLOSED

    @property
    def finished(self) -> bool:
        """Whether its answer was sent to the end."""
        return self._state is ExchangeState.FINISHED

    def on_close(self, callback: Callback) -> None:
        """Call back once when the client leaves; at once when it has left already.

        It is called on the event loop's thread (or here), so it must be quick. What it
        raises is logged and reaches nobody.
        """
        with self._lock:
            if self._state is ExchangeState.OPEN:
                self._callbacks.append(callback)
            if self._state is not ExchangeState.CLOSED:
                return
        _call(callback)

    def on_end(self, callback: Callback) -> None:
        """Call back once when the exchange ends, however; at once when it has ended already.

        As above: quick, and what it raises is logged.
        """
        with self._lock:
            if self._state is ExchangeState.OPEN:
                self._at_end.append(callback)
                return
        _call(callback)

    def close(self) -> None:
        """The client left."""
        with self._lock:
            left, ended = self._end(ExchangeState.CLOSED)
        for callback in [*left, *ended]:
            _call(callback)

    def finish(self) -> None:
        """The answer is complete: what happens to the connection now concerns nobody."""
        with self._lock:
            _, ended = self._end(ExchangeState.FINISHED)
        for callback in ended:
            _call(callback)

    def _end(self, state: ExchangeState) -> tuple[list[Callback], list[Callback]]:
        """Who is to hear that the client left, and who that it ended; nobody a second time."""
        if self._state is not ExchangeState.OPEN:
            return [], []
        self._state = state
        callbacks, self._callbacks, self._at_end = (self._callbacks, self._at_end), [], []
        return callbacks


class ConnectionWatch:
    """ASGI middleware: each HTTP exchange gets its `Connection` into its scope."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        connection = Connection()

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                connection.close()
            return message

        async def watched_send(message: Message) -> None:
            # Before sending: with the last piece, daphne reports a disconnect at every normal end.
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                connection.finish()
            await send(message)

        try:
            await self._application({**scope, KEY: connection}, watched_receive, watched_send)
        except Exception:
            connection.close()  # nobody will send the rest
            raise
        finally:
            connection.finish()  # also of what was cut off without its last piece


def connection_of(request: Any) -> Connection:
    """The connection of Django's or REST framework's request.

    Outside ASGI (the test client, WSGI) nobody can know: one that never closes, over already.
    """
    scope = getattr(request, "scope", None) or {}
    connection = scope.get(KEY)
    if isinstance(connection, Connection):
        return connection
    unknown = Connection()
    unknown.finish()
    return unknown


def _call(callback: Callback) -> None:
    try:
        callback()
    except Exception:  # one listener's mistake must not keep the others from hearing
        logger.exception("a callback of a closed connection failed")
