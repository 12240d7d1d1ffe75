"""daphne's WebSockets, with limits where messages arrive and where they leave.

As for HTTP (`llmsite.server`): what a client sends is bounded before anybody keeps it, and who
writes to it waits while it does not read.
"""

from __future__ import annotations

from typing import Any

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from django.conf import settings
from twisted.internet import reactor

from llmsite.flow import Flow

# What one socket may have sent that its application has not taken; its bytes in largest messages.
MOST_MESSAGES = 256
MOST_BODIES = 4
TOO_MUCH = 4429  # as in `chat.websocket.consumers`
# Of one socket so many steps are done at once, two for a frame; then it rests for some seconds, and
# its client waits: 64 KiB may be ten thousand frames. So many rests soon after each other, without
# a message between them, are its end.
STEPS = 512
REST = 0.02
SOON = 10.0  # seconds
MOST_RESTS = 40
PROTOCOLS = "sec-websocket-protocol"

clock: Any = reactor


class CountedSocket(WebSocketProtocol):
    """Ends a client that sends much faster than it is listened to, and keeps none from the loop.

    flow: whether the client takes what it is told.
    """

    muted: bool
    _asked = False
    _unheard = 0  # bytes, since its application last had nothing to do
    _rest: Any = None  # the timer that ends it
    _rested_at = 0.0
    _rests = 0  # soon after each other, since its last whole message
    _steps = 0

    def __repr__(self) -> str:
        """Without the query: daphne logs this."""
        return f"<{type(self).__name__}>"

    def connectionMade(self) -> None:  # noqa: N802
        """The connection is a WebSocket's from now on; until now HTTP's channel wrote to it."""
        self.flow = Flow(lambda: self.transport.abortConnection())
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.flow, True)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """The handshake, which daphne hands over whole; after its answer, frames.

        In between a client has nothing to say (RFC 6455, section 4.1), and all of it would be kept.
        """
        if self._asked and self.state == self.STATE_CONNECTING:
            self.transport.abortConnection()
            return
        self._asked = True
        super().dataReceived(data)

    def onConnect(self, request: ConnectionRequest) -> Any:  # noqa: N802
        """A handshake. Raises ConnectionDeny for names that daphne stumbles over."""
        if not request.headers.get(PROTOCOLS, "").isascii():
            odd = f"{PROTOCOLS} is not ASCII"
            raise ConnectionDeny(ConnectionDeny.BAD_REQUEST, odd)  # type: ignore[no-untyped-call]
        return super().onConnect(request)

    def consumeData(self) -> None:  # noqa: N802
        """What has come of frames, in turn with everybody else."""
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
            return
        if self._rest is not None:
            return  # it is looked at behind that
        while self.processData() and self.state != self.STATE_CLOSED:
            self._steps += 1
            if self._steps % STEPS == 0:
                self._take_a_rest()
                return

    def _take_a_rest(self) -> None:
        last, self._rested_at = self._rested_at, clock.seconds()
        self._rests = self._rests + 1 if self._rested_at - last < SOON else 0
        if self._rests > MOST_RESTS:
            self._end()
            self.transport.loseConnection()
            return
        self.transport.pauseProducing()
        self._rest = clock.callLater(REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self.transport.resumeProducing()
        self.consumeData()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        """A whole message."""
        if self.muted:
            return
        self._rests = 0
        waiting = self.application_queue.qsize()
        self._unheard = len(payload) + (self._unheard if waiting else 0)
        if waiting < MOST_MESSAGES and self._unheard <= MOST_BODIES * settings.LLMSITE_MAX_BODY:
            super().onMessage(payload, isBinary)
            return
        self._end()

    def _end(self) -> None:
        self.muted = True
        while not self.application_queue.empty():
            self.application_queue.get_nowait()
        self.application_queue.put_nowait({"type": "websocket.disconnect", "code": TOO_MUCH})
        self.sendClose(TOO_MUCH)

    def onPing(self, payload: bytes) -> None:  # noqa: N802
        """Answered while the client reads: what it does not read would pile up."""
        if self.flow.is_open:
            super().onPing(payload)

    def _sendAutoPing(self) -> None:  # noqa: N802
        """Not behind what is still unread: its answer would come too late to count."""
        if self.flow.is_open:
            super()._sendAutoPing()

    def handle_reply(self, message: dict[str, Any]) -> None:
        """A message of the application; after the end of the socket it is nobody's."""
        if self.state in (self.STATE_CONNECTING, self.STATE_OPEN):
            super().handle_reply(message)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """The client is gone."""
        if self._rest is not None:
            self._rest.cancel()
        self.flow.stopProducing()
        super().connectionLost(reason)


def limit(factory: WebSocketFactory) -> None:
    """Make a factory's sockets such ones. What is larger than a body may be closes it (1009)."""
    factory.protocol = CountedSocket
    factory.setProtocolOptions(
        maxMessagePayloadSize=settings.LLMSITE_MAX_BODY,
        maxFramePayloadSize=settings.LLMSITE_MAX_BODY,
        failByDrop=False,  # say why, instead of cutting the connection
        openHandshakeTimeout=0,  # it is here whole: only our own work is still waited for
    )
