"""Connections whose next request has not come yet: for how long, and how many.

A request's head may come byte by byte, and each byte resets Twisted's timeout for silent clients.
Its body has a deadline, but until it is complete nobody has looked at a key. Whoever holds many
such connections takes the file descriptors from those who ask.
"""

from __future__ import annotations

from collections import OrderedDict
from http import HTTPStatus
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from chat.failures import Code
from chat.failures import Failure as Refused
from chat.limits.readers import reserved
from llmsite.refusals import refusal

HEAD_WITHIN = 60.0  # seconds, as long as Twisted keeps a connection on which nothing comes

clock: Any = reactor


class Arrivals:
    """The channels that wait for a whole request, the longest waiting first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[HTTPChannel, Any] = OrderedDict()  # with the head's deadline

    def begin(self, channel: HTTPChannel) -> None:
        """It waits from now on. Where too many do, the one that waited longest is closed."""
        self._waiting[channel] = clock.callLater(HEAD_WITHIN, self._close, channel)
        if len(self._waiting) > most():
            idle = (one for one in self._waiting if _has_sent(one))
            self._close(next(idle, channel))

    def begun(self, channel: HTTPChannel) -> None:
        """Its head is here. The body has a deadline of its own; who asks is still unknown."""
        if channel in self._waiting:
            _cancel(self._waiting[channel])

    def end(self, channel: HTTPChannel) -> None:
        """Its request is here, or it is gone."""
        _cancel(self._waiting.pop(channel, None))

    def _close(self, channel: HTTPChannel) -> None:
        self.end(channel)
        # What it was told before still reaches it.
        channel.loseConnection()  # type: ignore[no-untyped-call]


def _cancel(timer: Any) -> None:
    if timer is not None and timer.active():
        timer.cancel()


def _has_sent(channel: HTTPChannel) -> bool:
    """Whether nothing of an earlier answer waits for its client."""
    transport: Any = channel.transport
    return not (transport.dataBuffer or transport._tempDataBuffer)


def most() -> int:
    """Half of the descriptors that streams leave to everybody else."""
    return reserved() // 2


arrivals = Arrivals()


def too_long(status: int, limit: int) -> Refused:
    """A head above so many bytes, by its address alone (414) or with its headers (431)."""
    alone = status == HTTPStatus.REQUEST_URI_TOO_LONG
    what = "The address is" if alone else "Address and headers together are"
    sentence = f"{what} longer than {limit} bytes. Send a long prompt in the body of a POST."
    return Refused(status, Code.INVALID_REQUEST, sentence)


def _target(line: bytes) -> bytes:
    """The address in the first line of a request, however that line ends."""
    return line.partition(b" ")[2]


NOT_ASCII = "The address has characters that are not ASCII: percent-encode them as UTF-8."
NOT_HTTP = "The request is malformed: its first line, a header or a chunk is not as in HTTP/1.1."


def malformed(sentence: str) -> Refused:
    """Bytes that are no request."""
    return Refused(HTTPStatus.BAD_REQUEST, Code.INVALID_REQUEST, sentence)


class ArrivingChannel(HTTPChannel):
    """A connection that is counted until it has asked."""

    def connectionMade(self) -> None:  # noqa: N802
        """A client is there."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        arrivals.begin(self)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        """A line of its head."""
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.lineLengthExceeded(line)
        elif not self._receivedHeaderSize and not line.isascii():
            self._refuse(malformed(NOT_ASCII), _target(line))
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        """Its head is too long; Twisted would close without a word."""
        target: Any = self._path if self._receivedHeaderSize else _target(line)
        status = 431 if self._receivedHeaderSize else 414
        self._refuse(too_long(status, self.MAX_LENGTH), target)

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        """A header. Python refuses to read a length of thousands of digits; Twisted tries."""
        try:
            return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        """What it sends is not HTTP; Twisted would answer without a word."""
        arriving: Any = self.requests[-1]
        if arriving.is_refused:  # nothing comes behind an answer
            self.loseConnection()  # type: ignore[no-untyped-call]
        else:
            self._refuse(malformed(NOT_HTTP), getattr(self, "_path", b""))

    def _refuse(self, failure: Refused, target: bytes) -> None:
        """Answer, and hear no more.

        What it still sends is dropped until it has read why, at the latest until its head's
        deadline: closing at once would throw the answer away with it (RFC 9112, section 9.6).
        """
        path = target.partition(b"?")[0].decode("latin-1")
        transport: Any = self.transport
        self._buffer = b""
        self.dataReceived = lambda data: None  # type: ignore[method-assign]
        transport.write(refusal(failure, path))
        transport.loseWriteConnection()

    def allHeadersReceived(self) -> None:  # noqa: N802
        """It has begun to ask."""
        arrivals.begun(self)
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def _send100Continue(self) -> None:  # noqa: N802
        """Ask for the body, unless it was refused already: nothing comes behind an answer."""
        request: Any = self.requests[-1]
        if not request.is_refused:
            super()._send100Continue()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:  # noqa: N802
        """It has asked."""
        arrivals.end(self)
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:  # noqa: N802
        """It was answered, and may ask again; perhaps it has done so already."""
        if self.persistent:
            arrivals.begin(self)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """It is gone."""
        arrivals.end(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
