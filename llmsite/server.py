"""daphne, with a limit on bodies where they arrive.

Twisted takes a whole body, into memory or a file, before daphne calls the application:
the gate in `limits` is too late to save the disk or to end a slow sender.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import daphne.server
from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from chat.errors import Failure
from llmsite.limits import too_large, too_slow

LAST_WORDS = 0.5  # seconds for what was settled at the end to reach its readers

logger = logging.getLogger(__name__)


class CountedRequest(WebRequest):
    """Refuses a body as soon as it is known to be too large, or comes too slowly.

    What a refused client still sends is dropped until it ends or its time is over: closing at
    once would throw the answer away together with the unread bytes (RFC 9112, section 9.6).
    """

    def __repr__(self) -> str:
        """Without the query, which may hold a prompt: daphne logs this."""
        return f"<{type(self).__name__} {self.method!r}>"

    _deadline: Any = None
    _refused = False
    _received = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """The headers are here; `length` is None for a body in chunks."""
        self._deadline = self.channel.callLater(settings.LLMSITE_BODY_SECONDS, self._too_late)
        if (length or 0) > settings.LLMSITE_MAX_BODY:
            self._refuse(too_large(settings.LLMSITE_MAX_BODY))
            length = 0  # so that no file is opened for it
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Some of the body."""
        self._received += len(data)
        if self._received > settings.LLMSITE_MAX_BODY:
            self._refuse(too_large(settings.LLMSITE_MAX_BODY))
        if not self._refused:
            super().handleContentChunk(data)

    def process(self) -> Any:
        """The whole request is here."""
        self._stop_waiting()
        if self._refused:
            self.channel.loseConnection()
            return None
        return super().process()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """The client left."""
        self._stop_waiting()
        super().connectionLost(reason)

    def _too_late(self) -> None:
        self._deadline = None
        self._refuse(too_slow(settings.LLMSITE_BODY_SECONDS))
        self.channel.loseConnection()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, failure: Failure) -> None:
        if self._refused:
            return
        self._refused = True
        path = self.channel._path.decode("latin-1")  # the request learns its path with its end
        body = json.dumps(failure.body(path)).encode()
        head = (
            f"HTTP/1.1 {failure.status} {HTTPStatus(failure.status).phrase}\r\n"
            f"Content-Type: {failure.content_type(path)}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.channel.transport.write(head.encode() + body)


class CountingFactory(HTTPFactory):
    """daphne's factory names its own request class; this one names ours."""

    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802
        """The protocol of one connection."""
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = CountedRequest
        return protocol


class Server(daphne.server.Server):
    """The server of `manage.py serve`.

    at_shutdown runs in a thread while connections are still served, so that what it settles
    reaches the readers: a stream gets its terminal event, a waiting request its answer.
    """

    def __init__(self, *args: Any, at_shutdown: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._at_shutdown = at_shutdown

    def kill_all_applications(self) -> Deferred[Any]:
        """Twisted waits for this before it stops; daphne alone would cancel at once."""
        settled = deferToThread(self._at_shutdown)
        settled.addErrback(lambda failure: logger.error("%s", failure.getTraceback()))
        settled.addCallback(lambda _: deferLater(reactor, LAST_WORDS, lambda: None))
        return settled.addCallback(lambda _: super(Server, self).kill_all_applications())

    def listen_success(self, port: IListeningPort) -> None:
        """daphne listens: connections are ours from the first."""
        port.factory = CountingFactory(self)
        super().listen_success(port)
