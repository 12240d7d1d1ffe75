"""daphne, with limits where bytes arrive and where they leave.

Twisted takes a whole body, into memory or a file, before daphne calls the application:
`body_gate` is too late to save the disk or to end a slow sender. And it keeps all
that a client does not read: see `flow`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import daphne.server
from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.web.http import _GenericHTTPChannelProtocol

from chat.failures import Failure
from llmsite import request_ids, sockets
from llmsite.arrivals import ArrivingChannel
from llmsite.body_gate import too_large, too_slow
from llmsite.eager import EagerConnection
from llmsite.flow import Flow
from llmsite.refusals import refusal
from llmsite.sockets import CountedSocket


class CountedRequest(WebRequest):
    """Refuses a body as soon as it is known to be too large, or comes too slowly.

    flow: whether the client takes its answer.
    What a refused client still sends is dropped until it ends or its time is over: closing at
    once would throw the answer away together with the unread bytes (RFC 9112, section 9.6).
    """

    def __repr__(self) -> str:
        """Without the query, which may hold a prompt: daphne logs this."""
        return f"<{type(self).__name__} {self.method!r}>"

    _deadline: Any = None
    _refused = False
    _received = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        # Twisted would parse a form on the event loop, before anybody is asked for a key, and a
        # megabyte of some of them takes it minutes. Django parses what its views want.
        super().__init__(*args, **{**options, "parsePOSTFormSubmission": False})
        self.flow = Flow(lambda: self.transport.abortConnection())

    @property
    def is_refused(self) -> bool:
        """Whether it has its answer before its body."""
        return self._refused

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        """The request is here. Its target may be a whole address (RFC 9112, section 3.2.2)."""
        if path.lower().startswith((b"http://", b"https://")):
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        super().requestReceived(command, path, version)

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
        # daphne believes it, whoever says it; nothing here is served below another path.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        return super().process()

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:  # noqa: N802
        """The status, with its name: Twisted does not know all of them, as 429."""
        super().setResponseCode(code, message or HTTPStatus(code).phrase.encode())

    def handle_reply(self, message: dict[str, Any]) -> None:
        """A message of the application."""
        if self.producer is None and self.channel is not None and not self.finished:
            self.registerProducer(self.flow, True)
        super().handle_reply(message)

    def handle_exception(self, exception: Exception) -> None:
        """The application raised. An answer that has begun is cut, as there can be no other.

        daphne would raise here, and that is the end of what looks after all its connections.
        """
        if self._response_started:
            self.channel.loseConnection()
        else:
            super().handle_exception(exception)

    def finish(self) -> None:
        """The answer is complete."""
        self.unregisterProducer()
        self.flow.stopProducing()
        super().finish()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """The client left."""
        self._stop_waiting()
        self.flow.stopProducing()
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
        name, origin = self.getHeader(request_ids.HEADER.encode()), self.getHeader(b"origin")
        self.channel.transport.write(refusal(failure, path, name=name, origin=origin))


class CountingFactory(HTTPFactory):
    """daphne's factory names its own request class; this one names ours, and our channel."""

    @staticmethod
    def protocol() -> _GenericHTTPChannelProtocol:
        """What Twisted's `HTTPFactory.protocol` makes of its own channel."""
        return _GenericHTTPChannelProtocol(ArrivingChannel())  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802
        """The protocol of one connection."""
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = CountedRequest
        return protocol


class Server(daphne.server.Server):
    """The server of `manage.py serve`: counts what comes, waits for who reads slowly."""

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """The application's `send`; daphne's own never waits.

        Raises ConnectionResetError where a socket is gone (ASGI's WebSocket specification 2.4):
        its application would otherwise learn that behind all that it still has to say. A request's
        is cancelled by Django.
        """
        await super().handle_reply(protocol, message)
        if isinstance(protocol, CountedRequest | CountedSocket):
            await protocol.flow.open()
        if isinstance(protocol, CountedSocket) and protocol.flow.is_over:
            raise ConnectionResetError("the client is gone")

    def listen_success(self, port: IListeningPort) -> None:
        """daphne listens: connections are ours from the first."""
        port.factory = CountingFactory(self)
        port.transport = EagerConnection
        sockets.limit(self.ws_factory)
        super().listen_success(port)
