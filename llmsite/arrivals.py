"""Connections whose next request has not come yet: for how long, and how many.

A head may come byte by byte, and each byte sets Twisted's clock for silent clients back. Whoever
holds many such connections, without a key, takes the descriptors from those who ask.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from chat.readers import reserved

HEAD_WITHIN = 60.0  # seconds, as long as Twisted keeps a connection on which nothing comes

clock: Any = reactor


class Arrivals:
    """The channels that wait for a request's head, the longest waiting first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[HTTPChannel, Any] = OrderedDict()

    def begin(self, channel: HTTPChannel) -> None:
        """It waits from now on. Where too many do, the one that has waited longest is cut."""
        self._waiting[channel] = clock.callLater(HEAD_WITHIN, self._cut, channel)
        if len(self._waiting) > most():
            self._cut(next(iter(self._waiting)))

    def end(self, channel: HTTPChannel) -> None:
        """Its head is here, or it is gone."""
        timer = self._waiting.pop(channel, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _cut(self, channel: HTTPChannel) -> None:
        self.end(channel)
        channel.transport.abortConnection()  # type: ignore[union-attr]


def most() -> int:
    """Half of the descriptors that streams leave to everybody else."""
    return reserved() // 2


arrivals = Arrivals()


class ArrivingChannel(HTTPChannel):
    """A connection that is counted while it has not asked."""

    def connectionMade(self) -> None:  # noqa: N802
        """A client is there."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        arrivals.begin(self)

    def allHeadersReceived(self) -> None:  # noqa: N802
        """It has asked."""
        arrivals.end(self)
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:  # noqa: N802
        """It was answered, and may ask again; perhaps it has done so already."""
        arrivals.begin(self)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """It is gone."""
        arrivals.end(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
