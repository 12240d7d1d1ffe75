"""Connections that send at once.

Twisted keeps what is written until its loop comes round: it asks the loop for a writer, is called
back, sends, and takes the writer away again. For the events of a stream, some hundred bytes for
which the socket nearly always has room, that is four system calls and a round of the loop instead
of one call; docs/decisions/0027.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.tcp import Server

UNSENT = 1 << 16  # bytes, as much as Twisted keeps before it asks the writer to wait


class EagerConnection(Server):
    """One that hands the system what it takes, and keeps only the rest for Twisted's loop.

    Of a client that does not read the system would take megabytes, and say that it takes more
    when a third of that is gone: it is told to take UNSENT at a time (tcp(7), TCP_NOTSENT_LOWAT).
    """

    def __init__(self, connection: socket.socket, *arguments: Any) -> None:
        super().__init__(connection, *arguments)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def write(self, data: bytes) -> None:
        """Send what is behind nothing else; errors are left to the loop, which meets them, too."""
        if not (self.dataBuffer or self._tempDataBuffer) and self._may_send():
            sent = self.writeSomeData(data)
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]

    def writeSequence(self, iovec: Iterable[bytes]) -> None:  # noqa: N802
        """The same with several parts, in one call."""
        self.write(b"".join(iovec))

    def _may_send(self) -> bool:
        return bool(self.connected) and not (self.disconnecting or self._writeDisconnected)
